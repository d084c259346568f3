# Reference fits of synth4.csv (simulated: 1,400 patients at four sites; site D has nobody of the level ge80).
# Made with R 4.2.2, brglm2 and nnet: Rscript make.R, in this folder.
suppressMessages({library(brglm2); library(nnet)})
D <- read.csv("synth4.csv")
D$age <- factor(D$age, levels = c("lt65", "65_79", "ge80"))
D$sex <- factor(D$sex, levels = c("F", "M"))
D$disposition <- factor(D$disposition, levels = c("home", "transfer", "death"))
exact <- list(epsilon = 1e-14, maxit = 100)
table_of <- function(name, model) {
  s <- summary(model)$coef
  data.frame(model = name, term = rownames(s), est = s[, 1], se = s[, 2])
}
of <- function(y, more = "") as.formula(paste(y, "~ age + sex + diabetes + htn", more))
fit <- function(y, family, more = "") glm(of(y, more), family, D, control = exact)
quasi <- fit("visits", quasipoisson)
gaussian_fit <- fit("los", gaussian)
firth <- glm(of("death"), binomial, D, method = "brglmFit", type = "AS_mean", epsilon = 1e-13, maxit = 5000)
many <- multinom(of("disposition"), D, trace = FALSE, reltol = 1e-15, abstol = 1e-15, maxit = 2000)
s <- summary(many)
logit <- fit("death", binomial)
X <- model.matrix(logit)
B <- vcov(logit)
rows <- list(
  table_of("logit", logit),
  table_of("logit_cci_numeric", fit("death", binomial, "+ cci")),
  table_of("probit", fit("death", binomial("probit"))),
  table_of("cloglog", fit("death", binomial("cloglog"))),
  table_of("poisson_log_on_binary", fit("death", poisson)),
  table_of("poisson", fit("visits", poisson)),
  table_of("poisson_offset_log_followup", fit("visits", poisson, "+ offset(log(followup))")),
  table_of("quasipoisson", quasi),
  data.frame(model = "quasipoisson", term = "dispersion_pearson", est = summary(quasi)$dispersion, se = NA),
  table_of("gaussian", gaussian_fit),
  data.frame(model = "gaussian", term = "sigma2", est = summary(gaussian_fit)$dispersion, se = NA),
  table_of("logit_site_intercepts",
    glm(death ~ 0 + site + age + sex + diabetes + htn, binomial, D, control = exact)),
  data.frame(model = "firth_AS_mean", term = names(coef(firth)), est = coef(firth), se = sqrt(diag(vcov(firth)))),
  do.call(rbind, lapply(rownames(coef(many)), function(k) data.frame(
    model = "multinom", term = paste0(k, ":", colnames(coef(many))),
    est = coef(many)[k, ], se = s$standard.errors[k, ]))),
  data.frame(model = "logit_HC0", term = colnames(X), est = coef(logit),
    se = sqrt(diag(B %*% crossprod(X * residuals(logit, "response")) %*% B))))
all <- do.call(rbind, rows)
all$est <- formatC(all$est, digits = 15, format = "g")
all$se <- trimws(formatC(all$se, digits = 15, format = "g"))
write.csv(all, "reference_own_R.csv", row.names = FALSE, quote = FALSE)
