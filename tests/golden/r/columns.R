# Models whose columns are split over owners, by stats::glm on the joined columns of two made-up data sets, with Wald's
# joint tests of each term (chi-squared, or F where the dispersion is estimated) and Schwarz's criterion.
source("common.R")
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
stays$logdays <- log(stays$days)
cohort$stay <- exp(cohort$los / 20)
cohort$logfollowup <- log(cohort$followup)
joint_tests <- function(name, model) {
  labels <- attr(terms(model), "term.labels")
  at <- attr(model.matrix(model), "assign")
  known <- model$family$family %in% c("binomial", "poisson")
  do.call(rbind, lapply(seq_along(labels), function(k) {
    b <- coef(model)[at == k]
    chi2 <- drop(b %*% solve(vcov(model)[at == k, at == k, drop = FALSE], b))
    number_of(name, paste("test", labels[k]), if (known) chi2 else chi2 / length(b))
  }))
}
both <- function(name, outcome, family, more = "") {
  of <- function(data, x) {
    model <- settle(as.formula(paste(outcome, "~", x, more)), family, data)
    label <- paste(if (identical(data, stays)) "stays" else "cohort", name, sep = "_")
    rbind(fit_of(label, model), joint_tests(label, model),
      if (!is.na(AIC(model))) number_of(label, "BIC", BIC(model)))
  }
  list(stays = of(stays, "age + ward + frail + w + f"), cohort = of(cohort, "age + sex + diabetes + htn + cci"))
}
rename <- function(data, from, to) { data[[to]] <- data[[from]]; data }
stays <- rename(rename(stays, "readmit", "yes"), "infections", "count")
cohort <- rename(rename(cohort, "death", "yes"), "visits", "count")
stays$time <- stays$logdays
cohort$time <- cohort$logfollowup
write_reference("columns.csv", c(
  both("gaussian", "stay", gaussian()),
  both("gaussian_offset", "stay", gaussian(), "+ offset(time)"),
  both("poisson", "count", poisson()),
  both("poisson_offset", "count", poisson(), "+ offset(time)"),
  both("quasipoisson", "count", quasipoisson()),
  both("gamma_log", "stay", Gamma("log")),
  both("logit", "yes", binomial()),
  both("logit_offset", "yes", binomial(), "+ offset(time)"),
  both("probit", "yes", binomial("probit")),
  both("cloglog", "yes", binomial("cloglog")),
  both("cloglog_offset", "yes", binomial("cloglog"), "+ offset(time)"),
  both("probit_no_intercept", "yes", binomial("probit"), "- 1")
))
