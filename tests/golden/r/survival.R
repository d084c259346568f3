# Curves, log-rank tests and restricted means by survival, on a grid of time: steps of 2 months up to 36.
# The cohort is synthetic: 900 patients at five sites, times in tenths of a month, entry up to 6 months late.
source("common.R")
suppressMessages(library(survival))
simulate_survival <- function() {
  RNGkind("Mersenne-Twister", "Inversion", "Rejection")
  set.seed(21)
  n <- 900
  arm <- sample(c("a", "b", "c"), n, replace = TRUE)
  stage <- sample(c("early", "late"), n, replace = TRUE)
  age <- round(rnorm(n, 65, 9))
  rate <- 0.03 * exp(0.35 * (arm == "b") - 0.3 * (arm == "c") + 0.5 * (stage == "late") + 0.02 * (age - 65))
  exits <- pmax(round(rexp(n, rate), 1), 0.1)
  leaves <- round(runif(n, 4, 60), 1)
  months <- pmin(exits, leaves)
  entry <- pmin(round(runif(n, 0, 6), 1), round(months * 0.7, 1))
  entry <- ifelse(entry >= months, 0, entry)
  data.frame(site = sample(LETTERS[1:5], n, replace = TRUE), months, died = as.integer(exits <= leaves), entry, arm, stage, age)
}
if (!file.exists("data/survival.csv")) write.csv(simulate_survival(), "data/survival.csv", row.names = FALSE, quote = FALSE)
patients <- read.csv("data/survival.csv")
stopifnot(isTRUE(all.equal(patients, simulate_survival())))

on_grid <- function(width, horizon = 36) {
  out <- patients
  out$time <- pmin(pmax(ceiling(out$months / width - 1e-9), 1) * width, horizon)
  out$start <- floor(out$entry / width + 1e-9) * width
  out$event <- out$died * (out$months <= horizon)
  out
}
curve_of <- function(name, fit, times) {
  at <- paste0("t=", times)
  full <- summary(fit, times = times, extend = TRUE)
  rbind(
    lines_of(paste(name, "survival"), full$surv, full$std.err, at),
    lines_of(paste(name, "limits"), full$lower, full$upper, at),
    lines_of(paste(name, "hazard"), full$cumhaz, full$std.chaz, at),
    lines_of(paste(name, "counts"), full$n.risk, full$n.event, at)
  )
}
single_curves <- function(name, formula, width) {
  data <- on_grid(width)
  times <- seq(width, 36, by = width)
  do.call(rbind, lapply(c("a", "b", "c"), function(arm) {
    fit <- survfit(as.formula(formula), data[data$arm == arm, ], conf.type = "log-log")
    quantiles <- quantile(fit, c(0.25, 0.5, 0.75))
    terms <- c("q25", "q50", "q75")
    mean <- summary(fit, rmean = 36)$table[c("rmean", "se(rmean)")]
    label <- paste(name, arm)
    rbind(
      curve_of(label, fit, times),
      lines_of(paste(label, "quantiles"), quantiles$quantile, NA, terms),
      lines_of(paste(label, "quantile limits"), quantiles$lower, quantiles$upper, terms),
      lines_of(paste(label, "restricted mean"), mean[1], mean[2], "36")
    )
  }))
}
test_of <- function(name, formula, width) {
  test <- survdiff(as.formula(formula), on_grid(width))
  observed <- if (is.matrix(test$obs)) rowSums(test$obs) else test$obs
  expected <- if (is.matrix(test$exp)) rowSums(test$exp) else test$exp
  scores <- seq_along(observed) - 1
  trend <- sum(scores * (observed - expected))^2 / as.vector(t(scores) %*% test$var %*% scores)
  rbind(
    number_of(name, "chi2", test$chisq),
    number_of(name, "trend", trend),
    number_of(name, paste0("expected ", c("a", "b", "c")), expected),
    number_of(name, paste0("variance ", c("a", "b", "c")), diag(test$var))
  )
}
write_reference("survival.csv", list(
  single_curves("width 2", "Surv(time, event) ~ 1", 2),
  single_curves("width 18", "Surv(time, event) ~ 1", 18),
  single_curves("entry 2", "Surv(start, time, event) ~ 1", 2),
  test_of("log-rank 2", "Surv(time, event) ~ arm", 2),
  test_of("log-rank 18", "Surv(time, event) ~ arm", 18),
  test_of("stratified 2", "Surv(time, event) ~ arm + strata(stage)", 2)
), c("stats", "survival"))
