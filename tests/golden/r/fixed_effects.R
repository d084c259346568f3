# An intercept for each hospital by stats::glm, with sandwich errors; Firth's penalty by brglm2: stays in hospital.
source("common.R")
suppressMessages(library(sandwich))
suppressMessages(library(brglm2))
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
stays$logdays <- log(stays$days)
# The sites of a study hold the stays of one hospital or of several.
sites <- list(two = c("n", "n", "n", "n", "s"), three = c("n", "n", "s", "w", "w"), five = LETTERS[1:5])
site_of <- function(split) factor(sites[[split]][match(stays$site, LETTERS)])
slopes_only <- function(table) subset(table, !grepl("^site|null deviance", term))
errors_of <- function(name, model, v) lines_of(name, coef(model), sqrt(diag(v)))
fixed <- function(name, outcome, family, split, more = "", weights = rep(1, nrow(stays)), v = NULL) {
  data <- cbind(stays[names(stays) != "site"], site = site_of(split))
  formula <- as.formula(paste(outcome, "~ 0 + site + age + ward + frail", more))
  environment(formula) <- environment()
  start <- NULL
  for (k in 1:60) {
    model <- suppressWarnings(do.call("glm", list(formula, family, data, weights = weights, start = start,
      control = list(epsilon = 1e-15, maxit = 200))))
    if (!is.null(start) && max(abs(coef(model) - start) / sqrt(diag(vcov(model)))) < 1e-14) break
    start <- coef(model)
  }
  slopes_only(if (is.null(v)) fit_of(name, model) else errors_of(name, model, v(model)))
}
firth <- function(name, formula) {
  model <- glm(formula, binomial, stays, method = "brglmFit", type = "AS_mean", epsilon = 1e-13,
    maxit = 5000, start = rep(0, ncol(model.matrix(formula, stays))))
  lines_of(name, coef(model), sqrt(diag(vcov(model))))
}
stays$rare <- as.integer(stays$readmit == 1 & stays$infections >= 4)
hc <- function(type) function(model) vcovHC(model, type = type)
clustered <- function(model) vcovCL(model, stays$patient, type = "HC0")
write_reference("fixed_effects.csv", list(
  fixed("logit_3", "readmit", binomial(), "three"),
  fixed("logit_2", "readmit", binomial(), "two"),
  fixed("logit_5", "readmit", binomial(), "five"),
  fixed("probit_3", "readmit", binomial("probit"), "three"),
  fixed("poisson_3", "infections", poisson(), "three"),
  fixed("poisson_offset_5", "infections", poisson(), "five", "+ offset(logdays)"),
  fixed("quasipoisson_3", "infections", quasipoisson(), "three"),
  fixed("linear_3", "stay", gaussian(), "three"),
  fixed("linear_2", "stay", gaussian(), "two"),
  fixed("gamma_log_3", "stay", Gamma("log"), "three"),
  fixed("gamma_inverse_2", "stay", Gamma(), "two"),
  fixed("poisson_prior_3", "infections", poisson(), "three", weights = stays$w),
  fixed("linear_prior_3", "stay", gaussian(), "three", weights = stays$w),
  fixed("logit_hc0_3", "readmit", binomial(), "three", v = hc("HC0")),
  fixed("logit_hc1_3", "readmit", binomial(), "three", v = hc("HC1")),
  fixed("logit_hc3_3", "readmit", binomial(), "three", v = hc("HC3")),
  fixed("linear_hc2_3", "stay", gaussian(), "three", v = hc("HC2")),
  fixed("logit_patient_3", "readmit", binomial(), "three", v = clustered),
  firth("firth", readmit ~ age + ward + frail),
  firth("firth_separated", readmit ~ age + ward + rare)
), c("stats", "sandwich", "brglm2"))
