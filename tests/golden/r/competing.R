# Cumulative incidence with its variance, and Gray's tests, by cmprsk; tests and Cox models of one cause by survival.
# The cohort is that of survival.R: every third death, in the order of the rows, is of another cause.
source("common.R")
suppressMessages({
  library(cmprsk)
  library(survival)
})
patients <- read.csv("data/survival.csv")
patients$arm <- factor(patients$arm)
patients$stage <- factor(patients$stage)
number <- seq_len(nrow(patients)) - 1
patients$place <- number %% 3
patients$cause <- ifelse(patients$died == 1, ifelse(number %% 3 == 0, 2, 1), 0)
horizon <- 36
causes <- c("cancer", "other")

on_grid <- function(width) {
  out <- patients
  out$time <- pmin(pmax(ceiling(out$months / width - 1e-9), 1) * width, horizon)
  out$cause <- ifelse(out$months <= horizon, out$cause, 0)
  out
}
# Limits on the scale of log(-log F).
limits_of <- function(estimate, variance) {
  z <- qnorm(0.975)
  spread <- z * sqrt(variance) / (estimate * log(estimate))
  middle <- log(-log(estimate))
  inside <- estimate > 0 & estimate < 1
  low <- exp(-exp(middle - spread))
  high <- exp(-exp(middle + spread))
  list(low = ifelse(inside, low, NA), high = ifelse(inside, high, NA))
}
curves_of <- function(name, width) {
  data <- on_grid(width)
  fit <- cuminc(data$time, data$cause, data$arm)
  times <- seq(width, horizon, by = width)
  at <- timepoints(fit, times)
  do.call(rbind, lapply(c("a", "b", "c"), function(arm) do.call(rbind, lapply(1:2, function(cause) {
    row <- paste(arm, cause)
    label <- paste(name, arm, causes[cause])
    limits <- limits_of(at$est[row, ], at$var[row, ])
    rbind(
      lines_of(paste(label, "incidence"), at$est[row, ], at$var[row, ], paste0("t=", times)),
      lines_of(paste(label, "limits"), limits$low, limits$high, paste0("t=", times))
    )
  }))))
}
gray_of <- function(name, width, strata = FALSE) {
  data <- on_grid(width)
  tests <- if (strata) cuminc(data$time, data$cause, data$arm, data$stage) else cuminc(data$time, data$cause, data$arm)
  lines_of(name, tests$Tests[, "stat"], tests$Tests[, "pv"], causes)
}
rank_of <- function(name, width) {
  data <- on_grid(width)
  chi2 <- sapply(1:2, function(number) survdiff(Surv(time, as.integer(data$cause == number)) ~ arm, data)$chisq)
  number_of(name, causes, chi2)
}
strict <- coxph.control(eps = 1e-14, toler.chol = 1e-16, iter.max = 200)
cox_of <- function(name, formula, data) {
  data$event <- as.integer(data$cause == 1)
  start <- coxph(formula, data, control = strict)
  fit <- coxph(formula, data, control = strict, init = coef(start))
  lines_of(name, coef(fit), sqrt(diag(vcov(fit))), c("age", "arm[b]", "arm[c]", "stage[late]"))
}
gridded <- on_grid(2)
gridded$months <- gridded$time
write_reference("competing.csv", list(
  curves_of("width 2", 2),
  curves_of("width 12", 12),
  gray_of("gray 2", 2),
  gray_of("gray 12", 12),
  gray_of("gray strata 2", 2, TRUE),
  rank_of("log-rank 2", 2),
  cox_of("cox site", Surv(months, event) ~ age + arm + stage + strata(place), patients),
  cox_of("cox common", Surv(months, event) ~ age + arm + stage, gridded)
), c("stats", "cmprsk", "survival"))
