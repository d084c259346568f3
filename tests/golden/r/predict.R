# Predictions by stats::predict for six made-up patients, on both scales with their standard errors: each family with
# each link, with factors, interactions, splines, functions and offsets. Chances of levels by MASS::polr and
# nnet::multinom, whose errors are those of the delta method.
source("common.R")
library(splines)
suppressMessages(library(MASS))
suppressMessages(library(nnet))
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
stays$pain <- factor(stays$pain, levels = c("none", "mild", "severe"))
stays$logdays <- log(stays$days)
patients <- data.frame(
  age = c(30, 45.5, 61, 70, 82, 99), frail = c(0, 1, 0, 1, 0, 1),
  ward = factor(c("medical", "surgical", "intensive", "medical", "surgical", "intensive"), levels = levels(stays$ward)),
  logdays = c(0.5, 1.25, 2, 3.5, 5, 6.5)
)
rows <- paste0("patient ", 1:6)
both_scales <- function(name, model, dispersion = NULL) {
  link <- predict(model, patients, type = "link", se.fit = TRUE, dispersion = dispersion)
  response <- predict(model, patients, type = "response", se.fit = TRUE, dispersion = dispersion)
  rbind(
    lines_of(paste(name, "link"), link$fit, link$se.fit, rows),
    lines_of(paste(name, "response"), response$fit, response$se.fit, rows)
  )
}
# se.fit needs the covariance at the last coefficients, which settle() has brought to rest.
predicted <- function(name, formula, family) {
  model <- settle(formula, family, stays)
  both_scales(name, update(model, start = coef(model), control = list(epsilon = 1e-15, maxit = 200)))
}
# glm's default start is outside where means must be positive or below one. It starts from the null model, or from the
# coefficients of another family.
null_of <- function(formula, family, data = stays) {
  c(family$linkfun(mean(data[[all.vars(formula)[1]]])), rep(0, ncol(model.matrix(formula, data)) - 1))
}
settle_from <- function(at, formula, family, data = stays) {
  strict <- list(epsilon = 1e-15, maxit = 200)
  for (k in 1:200) {
    model <- suppressWarnings(do.call("glm", list(formula, family, data, start = at, control = strict)))
    moved <- max(abs(coef(model) - at) / sqrt(diag(vcov(model))))
    at <- coef(model)
    if (moved < 1e-14) break
  }
  suppressWarnings(do.call("glm", list(formula, family, data, start = at, control = strict)))
}
predicted_from_null <- function(name, formula, family) {
  both_scales(name, settle_from(null_of(formula, family), formula, family))
}
predicted_from <- function(name, formula, family, first) {
  both_scales(name, settle_from(coef(settle(formula, first, stays)), formula, family))
}
# glm.nb() takes turns at coefficients and theta, and stops early: more turns bring both to rest. Theta is no part of
# the errors, and the dispersion is 1.
predicted_negative_binomial <- function(name, formula) {
  model <- do.call("glm.nb", list(formula, stays, control = glm.control(epsilon = 1e-14, maxit = 200)))
  theta <- model$theta
  for (k in 1:60) {
    model <- suppressWarnings(do.call("glm", list(formula, negative.binomial(theta), stays, start = coef(model),
      control = list(epsilon = 1e-15, maxit = 200))))
    theta <- theta.ml(stays[[all.vars(formula)[1]]], fitted(model), limit = 200, eps = 1e-15)
  }
  both_scales(name, model, dispersion = 1)
}
# The derivative of what a function of the coefficients gives, by Richardson's extrapolation of central differences.
slopes_of <- function(chances, theta, k) {
  step <- 1e-2 * pmax(abs(theta), 1e-3)
  sapply(seq_along(theta), function(j) {
    table <- sapply(0:5, function(i) {
      h <- replace(numeric(length(theta)), j, step[j] / 2^i)
      (chances(theta + h)[, k] - chances(theta - h)[, k]) / (2 * step[j] / 2^i)
    })
    for (order in 1:5) table <- (4^order * table[, -1, drop = FALSE] - table[, -ncol(table), drop = FALSE]) / (4^order - 1)
    table[, 1]
  })
}
chances_of <- function(name, chances, theta, covariance, levels) {
  do.call(rbind, lapply(seq_along(levels), function(k) {
    slopes <- slopes_of(chances, theta, k)
    errors <- sqrt(rowSums((slopes %*% covariance) * slopes))
    lines_of(paste(name, "probability"), chances(theta)[, k], errors, paste(rows, levels[k]))
  }))
}
predicted_nominal <- function(name, formula) {
  model <- do.call("multinom", list(formula, stays, trace = FALSE, reltol = 1e-15, abstol = 1e-15, maxit = 2000))
  x <- model.matrix(model)
  y <- model.frame(model)[[1]]
  levels <- levels(y)
  beta <- as.vector(t(coef(model)))
  for (k in 1:20) {
    odds <- exp(x %*% matrix(beta, ncol(x)))
    p <- odds / (1 + rowSums(odds))
    score <- as.vector(sapply(1:2, function(j) crossprod(x, (y == levels[j + 1]) - p[, j])))
    information <- do.call(rbind, lapply(1:2, function(i) do.call(cbind, lapply(1:2, function(j)
      crossprod(x, x * p[, i] * ((i == j) - p[, j]))))))
    beta <- beta + solve(information, score)
  }
  new <- model.matrix(delete.response(terms(model)), patients)
  chances <- function(theta) {
    odds <- cbind(1, exp(new %*% matrix(theta, ncol(new))))
    odds / rowSums(odds)
  }
  stopifnot(max(abs(chances(beta) - predict(model, patients, type = "probs"))) < 1e-4)
  chances_of(name, chances, beta, solve(information), levels)
}
predicted_ordered <- function(name, formula) {
  model <- do.call("polr", list(formula, stays, Hess = TRUE, control = list(reltol = 1e-15, maxit = 1000)))
  x <- model.matrix(model)[, -1, drop = FALSE]
  y <- as.integer(model.frame(model)[[1]])
  theta <- c(coef(model), model$zeta)
  for (k in 1:20) {
    eta <- as.vector(x %*% theta[seq_len(ncol(x))])
    ends <- c(-Inf, theta[ncol(x) + 1:2], Inf)
    a <- ends[y + 1] - eta
    c <- ends[y] - eta
    p <- plogis(a) - plogis(c)
    bend <- function(e) ifelse(is.finite(e), dlogis(e) * (1 - 2 * plogis(e)), 0)
    da <- cbind(-x, outer(y, 1:2, "==") * 1)
    dc <- cbind(-x, outer(y - 1, 1:2, "==") * 1)
    score <- colSums(da * (dlogis(a) / p)) - colSums(dc * (dlogis(c) / p))
    mixed <- crossprod(da, dc * (dlogis(a) * dlogis(c) / p^2))
    information <- crossprod(da, da * ((dlogis(a) / p)^2 - bend(a) / p)) +
      crossprod(dc, dc * ((dlogis(c) / p)^2 + bend(c) / p)) - mixed - t(mixed)
    theta <- theta + solve(information, score)
  }
  new <- model.matrix(delete.response(terms(model)), patients)[, -1, drop = FALSE]
  chances <- function(theta) {
    eta <- as.vector(new %*% theta[seq_len(ncol(new))])
    below <- cbind(plogis(theta[ncol(new) + 1] - eta), plogis(theta[ncol(new) + 2] - eta))
    cbind(below[, 1], below[, 2] - below[, 1], 1 - below[, 2])
  }
  stopifnot(max(abs(chances(theta) - predict(model, patients, type = "probs"))) < 1e-4)
  chances_of(name, chances, theta, solve(information), levels(stays$pain))
}
x <- "age + ward * frail + I(age^2)"
plain <- "age + ward * frail"
natural <- "ns(age, knots = c(60, 75), Boundary.knots = c(18, 100))"
b_spline <- "bs(age, knots = 70, Boundary.knots = c(18, 100))"
coefs <- list(alpha = c(65, 64, 66), norm2 = c(1, 1200, 3e5, 6e7, 1.2e10))
orthogonal <- function(age) predict(structure(poly(1:10, 3), coefs = coefs), age)
restricted <- function(age) Hmisc::rcspline.eval(age, knots = c(40, 60, 75, 90), inclx = TRUE)
of <- function(outcome, ...) as.formula(paste(outcome, "~", ...))
write_reference("predict.csv", list(
  predicted("logit", of("readmit", x), binomial()),
  predicted("probit", of("readmit", x), binomial("probit")),
  predicted("cloglog_offset", of("readmit", x, "+ offset(logdays)"), binomial("cloglog")),
  predicted("poisson_offset", of("infections", x, "+ offset(logdays)"), poisson()),
  predicted("quasipoisson", of("infections", x), quasipoisson()),
  predicted("gaussian", of("stay", x), gaussian()),
  predicted("gaussian_no_intercept", stay ~ 0 + age + frail, gaussian()),
  predicted("gamma_log", of("stay", x), Gamma("log")),
  predicted("gamma_inverse", stay ~ age + ward + frail, Gamma()),
  predicted("inverse_gaussian_log", of("stay", x), inverse.gaussian("log")),
  predicted("logit_ns_offset", of("readmit", natural, "* frail + ward + offset(logdays)"), binomial()),
  predicted("probit_bs", of("readmit", b_spline, "+ ward:frail + ward"), binomial("probit")),
  predicted("cloglog_rcs", readmit ~ restricted(age) * ward + frail, binomial("cloglog")),
  predicted_from_null("log_binomial", of("readmit", plain), binomial("log")),
  predicted_from_null("risk_difference", of("readmit", plain), binomial("identity")),
  predicted("quasibinomial_poly", readmit ~ orthogonal(age) + ward / frail, quasibinomial()),
  predicted("quasibinomial_probit", of("readmit", x), quasibinomial("probit")),
  predicted("quasibinomial_cloglog", of("readmit", x), quasibinomial("cloglog")),
  predicted_from_null("quasibinomial_log", of("readmit", plain), quasibinomial("log")),
  predicted_from_null("quasibinomial_identity", of("readmit", plain), quasibinomial("identity")),
  predicted("poisson_bs_offset", of("infections", b_spline, "* frail + offset(logdays)"), poisson()),
  predicted_from_null("rate_difference", of("infections", plain), poisson("identity")),
  predicted_from_null("quasi_rate_difference", of("infections", plain), quasipoisson("identity")),
  predicted("quasipoisson_ns_offset", of("infections", natural, "+ ward + offset(logdays)"), quasipoisson()),
  predicted("gaussian_rcs_offset", stay ~ restricted(age) * frail + ward + offset(logdays), gaussian()),
  predicted("gaussian_poly", stay ~ orthogonal(age) * ward, gaussian()),
  predicted("gaussian_bs", of("stay", b_spline, "* ward + frail"), gaussian()),
  predicted("gaussian_functions", stay ~ log(age) + I(age > 65):frail + I((age - 50)^2 / 100), gaussian()),
  predicted("gaussian_cut", stay ~ cut(age, c(-Inf, 60, 75, Inf)) * frail + relevel(ward, ref = "surgical"), gaussian()),
  predicted("gaussian_slopes", stay ~ 0 + ward + age:ward, gaussian()),
  predicted_from_null("gaussian_log", of("stay", plain), gaussian("log")),
  predicted("gamma_log_ns_offset", of("stay", natural, "* frail + ward + offset(logdays)"), Gamma("log")),
  predicted_from_null("gamma_identity", of("stay", plain), Gamma("identity")),
  predicted_from_null("inverse_gaussian", stay ~ age + ward + frail, inverse.gaussian()),
  predicted_from("inverse_gaussian_inverse", stay ~ age + ward + frail, inverse.gaussian("inverse"), Gamma()),
  predicted_from_null("inverse_gaussian_identity", stay ~ age + ward + frail, inverse.gaussian("identity")),
  predicted_negative_binomial("negative_binomial_offset", of("infections", "age * frail + offset(logdays)")),
  predicted_from_null("cauchit", of("readmit", plain), binomial("cauchit")),
  predicted_from_null("quasibinomial_cauchit", of("readmit", plain), quasibinomial("cauchit")),
  predicted_from_null("root_rate", of("infections", plain), poisson("sqrt")),
  predicted_from_null("quasi_root_rate", of("infections", plain), quasipoisson("sqrt")),
  predicted_nominal("multinomial", of("pain", natural, "+ ward + frail")),
  predicted_ordered("ordinal", of("pain", b_spline, "+ ward * frail"))
), c("stats", "splines", "Hmisc", "MASS", "nnet"))
