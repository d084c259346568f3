# An offset with every link that the other scripts fit without one, by stats::glm on two data sets. The offset is small,
# so that means stay where the links that have an end allow them.
source("common.R")
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
stays$part <- log(stays$days) / 100
cohort$part <- log(cohort$followup) / 100
# glm's default start is outside where means must be positive or below one. It starts from the null model.
settle_from <- function(at, formula, family, data) {
  strict <- list(epsilon = 1e-15, maxit = 200)
  for (k in 1:200) {
    model <- suppressWarnings(do.call("glm", list(formula, family, data, start = at, control = strict)))
    moved <- max(abs(coef(model) - at) / sqrt(diag(vcov(model))))
    at <- coef(model)
    if (moved < 1e-14) break
  }
  suppressWarnings(do.call("glm", list(formula, family, data, start = at, control = strict)))
}
with_offset <- function(name, formula, family, data = stays) {
  null <- family$linkfun(mean(data[[all.vars(formula)[1]]])) - mean(data$part)
  fit_of(name, settle_from(c(null, rep(0, ncol(model.matrix(formula, data)) - 1)), formula, family, data))
}
# Beside a model with an offset glm() fits that with an intercept alone, from means that here lead outside. So each of
# the two is a call of glm.fit() by itself, from an intercept at which all means exist.
with_offset_apart <- function(name, formula, family, intercept, data = stays) {
  fit_at <- function(x, at) {
    for (k in 1:200) {
      control <- list(epsilon = 1e-15, maxit = 200)
      model <- suppressWarnings(
        glm.fit(x, data[[all.vars(formula)[1]]], start = at, offset = data$part, family = family, control = control)
      )
      class(model) <- c("glm", "lm")
      moved <- max(abs(coef(model) - at) / sqrt(diag(vcov(model))))
      at <- coef(model)
      if (moved < 1e-14) break
    }
    model
  }
  x <- model.matrix(formula, data)
  model <- fit_at(x, c(intercept, rep(0, ncol(x) - 1)))
  model$null.deviance <- deviance(fit_at(x[, "(Intercept)", drop = FALSE], intercept))
  fit_of(name, model)
}
of <- function(outcome) as.formula(paste(outcome, "~ age + ward + frail + offset(part)"))
cohort_of <- function(outcome) formula_of(outcome, "+ offset(part)")
write_reference("offsets.csv", list(
  with_offset("probit", of("readmit"), binomial("probit")),
  with_offset("cauchit", of("readmit"), binomial("cauchit")),
  with_offset("log_binomial", of("readmit"), binomial("log")),
  with_offset("risk_difference", of("readmit"), binomial("identity")),
  with_offset("quasi_cauchit", of("readmit"), quasibinomial("cauchit")),
  with_offset("rate_difference", of("infections"), poisson("identity")),
  with_offset("root_rate", of("infections"), poisson("sqrt")),
  with_offset("quasi_root_rate", of("infections"), quasipoisson("sqrt")),
  with_offset("gaussian_log", of("stay"), gaussian("log")),
  with_offset("gamma_inverse", of("stay"), Gamma()),
  with_offset("gamma_identity", of("stay"), Gamma("identity")),
  with_offset_apart("inverse_gaussian", of("stay"), inverse.gaussian(), 0.01),
  with_offset("inverse_gaussian_log", of("stay"), inverse.gaussian("log")),
  with_offset("inverse_gaussian_identity", of("stay"), inverse.gaussian("identity")),
  with_offset("cohort_probit", cohort_of("death"), binomial("probit"), cohort),
  with_offset("cohort_cauchit", cohort_of("death"), binomial("cauchit"), cohort),
  with_offset("cohort_log_binomial", cohort_of("death"), binomial("log"), cohort),
  with_offset("cohort_risk_difference", cohort_of("death"), binomial("identity"), cohort),
  with_offset("cohort_rate_difference", cohort_of("visits"), poisson("identity"), cohort),
  with_offset("cohort_root_rate", cohort_of("visits"), poisson("sqrt"), cohort)
), "stats")
