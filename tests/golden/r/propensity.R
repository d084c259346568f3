# Effects of a treatment by propensity scores: the score by stats::glm, the weighted outcome models by glm and survey's
# svyglm, errors with the scores taken for known by sandwich, and the stacked sandwich of both stages written out here.
source("common.R")
suppressMessages(library(sandwich))
suppressMessages(library(survey))
suppressMessages(library(survival))
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
# A time from which each patient is at risk, well after the first events.
stays$entered <- pmin(10 * stays$f, stays$days - 5)

weights_of <- function(e, a, estimand) {
  switch(estimand,
    ATE = a / e + (1 - a) / (1 - e),
    ATT = a + (1 - a) * e / (1 - e),
    overlap = a * (1 - e) + (1 - a) * e
  )
}
clip <- function(e, ends) pmin(pmax(e, ends[1]), ends[2])
# The estimating functions of the score's coefficients and of both means, a row each.
equations <- function(theta, x, a, y, estimand, ends) {
  p <- ncol(x)
  e <- plogis(as.vector(x %*% theta[1:p]))
  w <- weights_of(clip(e, ends), a, estimand)
  cbind(x * (a - e), w * (1 - a) * (y - theta[p + 1]), w * a * (y - theta[p + 2]))
}
# Their derivatives; a clipped score does not move its weight.
bread_of <- function(theta, x, a, y, estimand, ends) {
  p <- ncol(x)
  e <- plogis(as.vector(x %*% theta[1:p]))
  inside <- clip(e, ends)
  moves <- e * (1 - e) * (e == inside)
  slope <- switch(estimand,
    ATE = -a / inside^2 + (1 - a) / (1 - inside)^2,
    ATT = (1 - a) / (1 - inside)^2,
    overlap = (1 - a) - a
  )
  w <- weights_of(inside, a, estimand)
  out <- matrix(0, p + 2, p + 2)
  out[1:p, 1:p] <- -crossprod(x, x * (e * (1 - e)))
  for (k in 0:1) {
    out[p + 1 + k, 1:p] <- colSums(x * (slope * moves * (a == k) * (y - theta[p + 1 + k])))
    out[p + 1 + k, p + 1 + k] <- -sum(w[a == k])
  }
  # The same by differences, where no score is clipped.
  total <- function(at) colSums(equations(at, x, a, y, estimand, ends))
  if (all(e == inside)) {
    h <- 1e-5
    rough <- sapply(seq_along(theta), function(j) {
      unit <- replace(numeric(length(theta)), j, h)
      (total(theta + unit) - total(theta - unit)) / (2 * h)
    })
    stopifnot(max(abs(rough - out)) < 1e-5 * max(abs(out)))
  }
  out
}
effects_of <- function(name, score, outcome, data, estimand = "ATE", ends = c(0, 1)) {
  stage <- settle(score, binomial(), data)
  # The score in columns about their means, in units of their spread: means and their errors do not depend on it.
  x <- model.matrix(stage)
  x[, -1] <- scale(x[, -1])
  a <- stage$y
  y <- data[[outcome]]
  alpha <- coef(settle(a ~ x - 1, binomial(), list(a = a, x = x)))
  e <- plogis(as.vector(x %*% alpha))
  stopifnot(max(abs(e - fitted(stage))) < 1e-12)
  w <- weights_of(clip(e, ends), a, estimand)
  means <- c(weighted.mean(y[a == 0], w[a == 0]), weighted.mean(y[a == 1], w[a == 1]))
  theta <- c(alpha, means)
  psi <- equations(theta, x, a, y, estimand, ends)
  stopifnot(max(abs(colSums(psi))) < 1e-7)
  bread <- solve(bread_of(theta, x, a, y, estimand, ends))
  v <- tail(t(tail(t(bread %*% crossprod(psi) %*% t(bread)), 2)), 2)
  known <- vcovHC(lm(y ~ a, weights = w), "HC0")
  survey_fit <- svyglm(y ~ a, svydesign(ids = ~1, weights = ~w, data = data.frame(y, a, w)))
  stopifnot(max(abs(coef(survey_fit) - c(means[1], means[2] - means[1]))) < 1e-10)
  stopifnot(abs(sqrt(diag(vcov(survey_fit)) / diag(known)) / sqrt(length(y) / (length(y) - 1)) - 1) < 1e-9)
  contrast <- function(slopes) sqrt(as.numeric(c(-1, 1) * slopes) %*% v %*% (c(-1, 1) * slopes))
  before <- function(z) (mean(z[a == 1]) - mean(z[a == 0])) / spread(z)
  after <- function(z) (weighted.mean(z[a == 1], w[a == 1]) - weighted.mean(z[a == 0], w[a == 0])) / spread(z)
  spread <- function(z) if (estimand == "ATT") sd(z[a == 1]) else sqrt((var(z[a == 0]) + var(z[a == 1])) / 2)
  shown <- grep("I\\(", colnames(x), invert = TRUE, value = TRUE)[-1]
  sizes <- sapply(0:1, function(k) sum(w[a == k])^2 / sum(w[a == k]^2))
  linear <- lines_of(name, c(means, means[2] - means[1]), c(sqrt(diag(v)), contrast(c(1, 1))),
    c("mean 0", "mean 1", "difference"))
  ratio <- if (all(means > 0)) lines_of(name, log(means[2] / means[1]), contrast(1 / means), "log ratio")
  odds <- if (all(y %in% 0:1)) {
    lines_of(name, diff(qlogis(means)), contrast(1 / (means * (1 - means))), "log odds ratio")
  }
  rbind(linear, ratio, odds,
    lines_of(name, 0, sqrt(known[2, 2]), "known scores"),
    number_of(name, paste("effective", 0:1), sizes),
    number_of(name, paste("mean weight", 0:1), sapply(0:1, function(k) mean(w[a == k]))),
    number_of(name, paste("before", shown), apply(x[, shown, drop = FALSE], 2, before)),
    number_of(name, paste("after", shown), apply(x[, shown, drop = FALSE], 2, after)))
}
# Hazard ratios of weighted Cox models with a baseline hazard for each site; robust errors take the weights for known.
hazard_of <- function(name, score, time, event, data, sites, estimand = "ATE", ends = c(0, 1), stabilised = FALSE,
                      ties = "efron", entry = NULL) {
  stage <- settle(score, binomial(), data)
  a <- stage$y
  w <- weights_of(clip(fitted(stage), ends), a, estimand)
  if (stabilised) w <- w * ifelse(a == 1, mean(a), 1 - mean(a))
  start <- if (is.null(entry)) -1 else data[[entry]]
  frame <- data.frame(row = seq_len(nrow(data)), start = start, time = data[[time]], event = data[[event]], a = a, w = w,
                      site = sites)
  strict <- coxph.control(eps = 1e-14, toler.chol = 1e-16, iter.max = 200)
  surv <- if (is.null(entry)) Surv(frame$time, frame$event) else Surv(frame$start, frame$time, frame$event)
  fit <- function(start = 0) {
    coxph(surv ~ a + strata(site), frame, weights = w, robust = TRUE, id = row, ties = ties, control = strict,
          init = start)
  }
  model <- fit(coef(fit()))
  rbind(
    lines_of(name, coef(model), sqrt(diag(vcov(model))), "log hazard ratio"),
    number_of(name, paste("effective", 0:1), sapply(0:1, function(k) sum(w[a == k])^2 / sum(w[a == k]^2)))
  )
}
three <- ifelse(stays$site %in% c("A", "B"), "AB", ifelse(stays$site == "C", "C", "DE"))
frail <- frail ~ age + I(age^2) + ward
diabetic <- diabetes ~ age + sex + htn
write_reference("propensity.csv", list(
  effects_of("stay_ate", frail, "stay", stays),
  effects_of("stay_att", frail, "stay", stays, "ATT"),
  effects_of("stay_overlap", frail, "stay", stays, "overlap"),
  effects_of("stay_truncated", frail, "stay", stays, "ATE", c(0.2, 0.4)),
  effects_of("readmit_ate", frail, "readmit", stays),
  effects_of("readmit_att", frail, "readmit", stays, "ATT"),
  effects_of("infections_overlap", frail, "infections", stays, "overlap"),
  effects_of("death_ate", diabetic, "death", cohort),
  effects_of("death_att", diabetic, "death", cohort, "ATT"),
  effects_of("los_ate", diabetic, "los", cohort),
  hazard_of("hazard_ate 5", frail, "days", "readmit", stays, stays$site),
  hazard_of("hazard_ate 3", frail, "days", "readmit", stays, three),
  hazard_of("hazard_turns 3", frail, "days", "readmit", stays, (seq_len(nrow(stays)) - 1) %% 3),
  hazard_of("hazard_stabilised 5", frail, "days", "readmit", stays, stays$site, stabilised = TRUE),
  hazard_of("hazard_att 5", frail, "days", "readmit", stays, stays$site, "ATT", ties = "breslow"),
  hazard_of("hazard_overlap 5", frail, "days", "readmit", stays, stays$site, "overlap"),
  hazard_of("hazard_truncated 5", frail, "days", "readmit", stays, stays$site, "ATE", c(0.2, 0.4)),
  hazard_of("hazard_late 3", frail, "days", "readmit", stays, three, entry = "entered"),
  hazard_of("hazard_late 5", frail, "days", "readmit", stays, stays$site, entry = "entered"),
  hazard_of("hazard_late_breslow 5", frail, "days", "readmit", stays, stays$site, "ATT", ties = "breslow",
            entry = "entered"),
  hazard_of("hazard_death 4", diabetic, "followup", "death", cohort, cohort$site)
), c("stats", "sandwich", "survey", "survival"))
