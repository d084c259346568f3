# Limits of the profile likelihood: confint() of MASS on a grid fine enough for eight digits (it reads the limits off a
# spline), and the same by a root of the deviance of fits in which one coefficient is fixed as an offset.
source("common.R")
suppressMessages(library(MASS))
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))

exact_limits <- function(model, j) {
  x <- model.matrix(model)
  family <- model$family
  rise <- qchisq(0.95, 1)
  prior <- model$prior.weights
  deviance_at <- function(value) {
    rest <- suppressWarnings(glm.fit(x[, -j, drop = FALSE], model$y, prior, offset = x[, j] * value, family = family,
      start = coef(model)[-j], control = list(epsilon = 1e-15, maxit = 100)))
    rest$deviance - deviance(model) - rise
  }
  middle <- coef(model)[j]
  error <- sqrt(diag(vcov(model)))[j]
  sapply(c(-1, 1), function(side) {
    ends <- sort(middle + side * c(0.5, 4) * error)
    uniroot(deviance_at, ends, tol = 1e-14 * max(1, abs(middle)), maxiter = 200)$root
  })
}
limits_of <- function(name, formula, family, data, weights = NULL) {
  model <- if (is.null(weights)) settle(formula, family, data) else {
    suppressWarnings(do.call("glm", list(formula, family, data, weights = weights,
      control = list(epsilon = 1e-15, maxit = 200))))
  }
  error <- sqrt(diag(vcov(model)))
  exact <- t(sapply(seq_along(coef(model)), function(j) exact_limits(model, j)))
  read_off <- suppressWarnings(suppressMessages(confint(profile(model, alpha = 0.05, maxsteps = 800,
    del = sqrt(qchisq(0.95, 1)) / 400))))
  stopifnot(max(abs(read_off - exact) / error) < 1e-6)
  rbind(
    number_of(name, paste("low", names(coef(model))), exact[, 1]),
    number_of(name, paste("high", names(coef(model))), exact[, 2]),
    number_of(name, paste("confint low", names(coef(model))), read_off[, 1]),
    number_of(name, paste("confint high", names(coef(model))), read_off[, 2]))
}
write_reference("profile.csv", list(
  limits_of("stays_logit", readmit ~ age + ward + frail, binomial(), stays),
  limits_of("stays_probit", readmit ~ age + ward + frail, binomial("probit"), stays),
  limits_of("stays_poisson", infections ~ age + ward + frail, poisson(), stays),
  limits_of("stays_weighted", readmit ~ age + ward + frail, binomial(), stays, stays$w),
  limits_of("cohort_logit", death ~ age + sex + diabetes + htn, binomial(), cohort),
  limits_of("cohort_poisson", visits ~ age + sex + diabetes + htn, poisson(), cohort)
), c("stats", "MASS"))
