# Predictions by stats::predict for six made-up patients, on both scales with their standard errors.
source("common.R")
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
stays$logdays <- log(stays$days)
patients <- data.frame(
  age = c(30, 45.5, 61, 70, 82, 99), frail = c(0, 1, 0, 1, 0, 1),
  ward = factor(c("medical", "surgical", "intensive", "medical", "surgical", "intensive"), levels = levels(stays$ward)),
  logdays = c(0.5, 1.25, 2, 3.5, 5, 6.5)
)
# se.fit needs the covariance at the last coefficients, which settle() has brought to rest.
predicted <- function(name, formula, family) {
  model <- settle(formula, family, stays)
  model <- update(model, start = coef(model), control = list(epsilon = 1e-15, maxit = 200))
  link <- predict(model, patients, type = "link", se.fit = TRUE)
  response <- predict(model, patients, type = "response", se.fit = TRUE)
  rows <- paste0("patient ", 1:6)
  rbind(
    lines_of(paste(name, "link"), link$fit, link$se.fit, rows),
    lines_of(paste(name, "response"), response$fit, response$se.fit, rows)
  )
}
x <- "age + ward * frail + I(age^2)"
write_reference("predict.csv", list(
  predicted("logit", as.formula(paste("readmit ~", x)), binomial()),
  predicted("probit", as.formula(paste("readmit ~", x)), binomial("probit")),
  predicted("cloglog_offset", as.formula(paste("readmit ~", x, "+ offset(logdays)")), binomial("cloglog")),
  predicted("poisson_offset", as.formula(paste("infections ~", x, "+ offset(logdays)")), poisson()),
  predicted("quasipoisson", as.formula(paste("infections ~", x)), quasipoisson()),
  predicted("gaussian", as.formula(paste("stay ~", x)), gaussian()),
  predicted("gaussian_no_intercept", stay ~ 0 + age + frail, gaussian()),
  predicted("gamma_log", as.formula(paste("stay ~", x)), Gamma("log")),
  predicted("gamma_inverse", stay ~ age + ward + frail, Gamma()),
  predicted("inverse_gaussian_log", as.formula(paste("stay ~", x)), inverse.gaussian("log"))
))
