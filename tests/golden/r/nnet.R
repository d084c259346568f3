# Multinomial models by nnet, whose optimiser stops early: Newton steps from its end bring them to rest.
source("common.R")
suppressMessages(library(nnet))
settle_many <- function(formula, data = cohort) {
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
  stopifnot(max(abs(beta - as.vector(t(coef(model))))) < 1e-3) # the polished end is nnet's
  terms <- paste0(rep(levels, each = ncol(x)), ":", colnames(x))
  lines_of("multinomial", beta, sqrt(diag(solve(information))), terms)
}
write_reference("nnet.csv", list(settle_many(formula_of("disposition"))), c("stats", "nnet"))
