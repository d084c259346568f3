# Cox models by survival, stratified by site, on the cohort of survival.R; they rest to the last digit before they are stored.
source("common.R")
suppressMessages(library(survival))
patients <- read.csv("data/survival.csv")
patients$arm <- factor(patients$arm)
patients$stage <- factor(patients$stage)
strict <- coxph.control(eps = 1e-12, toler.chol = 1e-14, iter.max = 100)
cox_of <- function(name, formula, ties, sites) {
  patients$place <- (seq_len(nrow(patients)) - 1) %% sites
  patients$months <- if (grepl("tied", name)) ceiling(patients$months / 12) * 12 else patients$months
  tests <- summary(coxph(as.formula(paste(formula, "+ strata(place)")), patients, ties = ties, control = strict))
  fit <- coxph(as.formula(paste(formula, "+ strata(place)")), patients, ties = ties, control = strict, init = tests$coefficients[, 1])
  rbind(
    lines_of(name, coef(fit), sqrt(diag(vcov(fit))), c("age", "arm[b]", "arm[c]", "stage[late]")[seq_along(coef(fit))]),
    number_of(name, "log-likelihood", fit$loglik[2]),
    number_of(name, "likelihood ratio", tests$logtest["test"]),
    number_of(name, "score", tests$sctest["test"]),
    number_of(name, "wald", as.vector(t(coef(fit)) %*% solve(vcov(fit)) %*% coef(fit)))
  )
}
x <- "Surv(months, died) ~ age + arm + stage"
write_reference("cox.csv", list(
  cox_of("breslow 3", x, "breslow", 3),
  cox_of("efron 3", x, "efron", 3),
  cox_of("efron 5", x, "efron", 5),
  cox_of("breslow tied 3", x, "breslow", 3),
  cox_of("efron tied 3", x, "efron", 3),
  cox_of("efron entry 3", "Surv(entry, months, died) ~ age + arm + stage", "efron", 3),
  cox_of("breslow entry 3", "Surv(entry, months, died) ~ age + arm + stage", "breslow", 3),
  cox_of("efron strata 3", "Surv(months, died) ~ age + arm + strata(stage)", "efron", 3)
), c("stats", "survival"))
