# Multinomial logits by nnet and proportional odds by MASS, on rows: pain of stays in hospital, disposition of the cohort.
# Both optimisers stop early, and polr has a numeric Hessian: Newton steps from their ends bring them to rest, with the
# observed information there.
source("common.R")
suppressMessages(library(nnet))
suppressMessages(library(MASS))
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
stays$pain <- factor(stays$pain, levels = c("none", "mild", "severe"))

settle_multinomial <- function(name, formula, data) {
  model <- do.call("multinom", list(formula, data, trace = FALSE, reltol = 1e-15, abstol = 1e-15, maxit = 2000))
  x <- model.matrix(model)
  y <- model.frame(model)[[1]]
  levels <- levels(y)[-1]
  beta <- as.vector(t(coef(model)))
  for (k in 1:20) {
    odds <- exp(x %*% matrix(beta, ncol(x)))
    p <- odds / (1 + rowSums(odds))
    score <- as.vector(sapply(seq_along(levels), function(j) crossprod(x, (y == levels[j]) - p[, j])))
    blocks <- lapply(seq_along(levels), function(i) do.call(cbind, lapply(seq_along(levels), function(j)
      crossprod(x, x * p[, i] * ((i == j) - p[, j])))))
    information <- do.call(rbind, blocks)
    beta <- beta + solve(information, score)
  }
  stopifnot(max(abs(beta - as.vector(t(coef(model))))) < 1e-3)
  terms <- paste0(rep(levels, each = ncol(x)), ":", colnames(x))
  all <- cbind(1 - rowSums(p), p)
  deviance <- -2 * sum(log(all[cbind(seq_along(y), as.integer(y))]))
  rbind(
    lines_of(name, beta, sqrt(diag(solve(information))), terms),
    number_of(name, "deviance", deviance),
    number_of(name, "AIC", deviance + 2 * length(beta)),
    number_of(name, "null df", (length(y) - 1) * length(levels))
  )
}
settle_odds <- function(name, formula, data) {
  model <- do.call("polr", list(formula, data, Hess = TRUE, control = list(reltol = 1e-15, maxit = 1000)))
  x <- model.matrix(model)[, -1, drop = FALSE]
  y <- as.integer(model.frame(model)[[1]])
  cuts <- length(model$zeta)
  theta <- c(coef(model), model$zeta)
  # Everything from the derivatives of log(F(a) - F(c)), a row's predictors above and below its level.
  for (k in 1:20) {
    eta <- as.vector(x %*% theta[seq_len(ncol(x))])
    ends <- c(-Inf, theta[ncol(x) + seq_len(cuts)], Inf)
    a <- ends[y + 1] - eta
    c <- ends[y] - eta
    p <- plogis(a) - plogis(c)
    fa <- dlogis(a)
    fc <- dlogis(c)
    bend <- function(e, f) ifelse(is.finite(e), f * (1 - 2 * plogis(e)), 0)
    da <- cbind(-x, outer(y, seq_len(cuts), "==") * 1)
    dc <- cbind(-x, outer(y - 1, seq_len(cuts), "==") * 1)
    score <- colSums(da * (fa / p)) - colSums(dc * (fc / p))
    mixed <- crossprod(da, dc * (fa * fc / p^2))
    information <- crossprod(da, da * ((fa / p)^2 - bend(a, fa) / p)) + crossprod(dc, dc * ((fc / p)^2 + bend(c, fc) / p)) -
      mixed - t(mixed)
    theta <- theta + solve(information, score)
  }
  stopifnot(max(abs(theta - c(coef(model), model$zeta))) < 1e-3)
  errors <- sqrt(diag(solve(information)))
  stopifnot(max(abs(errors / sqrt(diag(vcov(model))) - 1)) < 1e-2)
  rbind(
    lines_of(name, theta, errors, c(names(coef(model)), names(model$zeta))),
    number_of(name, "deviance", -2 * sum(log(p))),
    number_of(name, "AIC", -2 * sum(log(p)) + 2 * length(theta)),
    number_of(name, "null df", df.residual(polr(y ~ 1, data.frame(y = model.frame(model)[[1]]))))
  )
}
write_reference("categories.csv", list(
  settle_multinomial("multinomial_stays", pain ~ age + ward + frail, stays),
  settle_odds("ordinal_stays", pain ~ age + ward + frail, stays),
  settle_multinomial("multinomial_cohort", disposition ~ age + sex + cci, cohort),
  settle_odds("ordinal_cohort", disposition ~ age + sex + cci, cohort)
), c("stats", "nnet", "MASS"))
