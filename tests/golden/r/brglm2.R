# Firth's penalty by brglm2 (mean bias-reducing adjusted scores, for the logit the same).
source("common.R")
suppressMessages(library(brglm2))
firth <- function(formula, data = cohort) {
  glm(formula, binomial, data, method = "brglmFit", type = "AS_mean", epsilon = 1e-13,
    maxit = 5000, start = rep(0, ncol(model.matrix(formula, data))))
}
# A covariate that is 1 only among the dead is separated.
cohort$rare <- as.integer(cohort$death == 1 & cohort$cci >= 5)
of <- function(name, model) lines_of(name, coef(model), sqrt(diag(vcov(model))))
write_reference("brglm2.csv", list(
  of("firth", firth(formula_of("death"))),
  of("firth_separated", firth(death ~ age + sex + rare))
), c("stats", "brglm2"))
