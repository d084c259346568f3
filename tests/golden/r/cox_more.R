# Cox models with one baseline hazard on a grid of time, and what both forms have beside coefficients: entry, weights,
# offset, ridge, sandwiches, rows with a start and a stop, concordance, the test of proportional hazards, baselines.
source("common.R")
suppressMessages(library(survival))
patients <- read.csv("data/survival.csv")
patients$arm <- factor(patients$arm)
patients$stage <- factor(patients$stage)
n <- nrow(patients)
number <- seq_len(n) - 1
patients$place <- number %% 3
patients$id <- number
# Three patients in turn of one site are one cluster.
patients$cluster <- patients$place + 3 * ((number %/% 3) %/% 3)
patients$both <- paste(patients$place, patients$stage)
patients$weight <- 0.5 + (number %% 5) / 4
patients$dose <- (number %% 4) / 4
patients$start <- 0
patients$treated <- 0
strict <- coxph.control(eps = 1e-14, toler.chol = 1e-16, iter.max = 200)
horizon <- 36

# Half of the patients are treated from two fifths of their time on.
split_rows <- function(data) {
  later <- data$id %% 2 == 1
  first <- data[later, ]
  data$treated[later] <- 1
  data$start[later] <- data$months[later] * 0.4
  first$months <- first$months * 0.4
  first$died <- 0
  first$goes_on <- TRUE
  data$goes_on <- FALSE
  rbind(data, first)
}
# Times in steps; within the step of a change the later row counts.
on_grid <- function(data, width) {
  goes_on <- if (is.null(data$goes_on)) FALSE else data$goes_on
  data <- data[data$start < horizon, ]
  goes_on <- if (length(goes_on) > 1) data$goes_on else rep(FALSE, nrow(data))
  stop <- pmin(ceiling(pmax(data$months, 1e-9) / width), horizon / width)
  data$died <- ifelse(data$months > horizon, 0, data$died)
  data$months <- ifelse(goes_on, pmin(floor(data$months / width), stop), stop) * width
  data$start <- floor(data$start / width) * width
  data[data$months > data$start, ]
}
# `weights` and `cluster` name columns; values stand in the call, as cox.zph evaluates it again elsewhere.
call_of <- function(formula, data, weights = NULL, cluster = NULL, ...) {
  more <- list(...)
  if (!is.null(weights)) more$weights <- data[[weights]]
  if (!is.null(cluster)) more$cluster <- data[[cluster]]
  do.call("coxph", c(list(formula, data, control = strict), more))
}
fit_of <- function(formula, data, ...) call_of(formula, data, init = coef(call_of(formula, data, ...)), ...)
names_of <- function(fit) {
  names <- sub("^(arm|stage)(.*)$", "\\1[\\2]", names(coef(fit)))
  sub("^ridge\\((.*)\\)$", "\\1", names)
}
describe <- function(name, formula, data, transform = "km", within = "place", ...) {
  fit <- fit_of(formula, data, ...)
  tests <- summary(call_of(formula, data, ...))
  test <- cox.zph(fit, transform = transform)$table
  paired <- concordance(fit$y ~ fit$linear.predictors + strata(data[[within]]), reverse = TRUE)
  out <- rbind(
    lines_of(name, coef(fit), sqrt(diag(vcov(fit))), names_of(fit)),
    number_of(name, "log-likelihood", fit$loglik[2]),
    number_of(name, "BIC", BIC(fit)),
    number_of(name, "likelihood ratio", tests$logtest["test"]),
    number_of(name, "score", tests$sctest["test"]),
    number_of(name, "wald", as.vector(t(coef(fit)) %*% solve(vcov(fit), coef(fit)))),
    lines_of(name, test[, "chisq"], test[, "p"], paste("zph", rownames(test)))
  )
  if (is.null(list(...)$weights)) rbind(out, number_of(name, "concordance", paired$concordance)) else out
}
# Cumulative hazards, and survival of three patients with limits of the logarithm.
new <- data.frame(age = c(40, 61.5, 80), arm = factor(c("a", "b", "c"), levels(patients$arm)),
                  stage = factor(c("early", "late", "late"), levels(patients$stage)), treated = c(0, 1, 1),
                  dose = c(0, 0, 0), start = 0, months = 36, died = 0)
curves_of <- function(name, formula, data, errors = TRUE, ...) {
  fit <- fit_of(formula, data, ...)
  do.call(rbind, lapply(1:3, function(k) {
    curve <- survfit(fit, newdata = new[k, ], se.fit = TRUE)
    at <- which(curve$n.event > 0)
    term <- paste("survival", k, curve$time[at])
    out <- lines_of(name, curve$surv[at], if (errors) curve$std.err[at] else NA, term)
    limits <- lines_of(name, curve$lower[at], curve$upper[at], paste("limits", k, curve$time[at]))
    if (errors) rbind(out, limits) else out
  }))
}
x <- Surv(months, died) ~ age + arm + stage
late <- Surv(start, months, died) ~ age + arm + stage
monthly <- on_grid(patients, 2)
yearly <- on_grid(patients, 12)
entering <- patients
entering$start <- entering$entry
entering <- on_grid(entering, 2)
changing <- split_rows(patients)
treated <- Surv(start, months, died) ~ age + arm + treated
parts <- list()
for (ties in c("breslow", "efron")) {
  add <- function(name, formula, data, ..., curves = FALSE) {
    name <- paste(ties, name)
    parts[[length(parts) + 1]] <<- describe(name, formula, data, ..., ties = ties)
    if (curves) parts[[length(parts) + 1]] <<- curves_of(name, formula, data, ties = ties)
  }
  add("common", x, monthly, curves = TRUE)
  add("common identity", x, monthly, transform = "identity")
  add("common tied", x, yearly, curves = TRUE)
  add("common strata", Surv(months, died) ~ age + arm + strata(stage), monthly, within = "both")
  add("common entry", late, entering, curves = TRUE)
  add("common offset", Surv(months, died) ~ age + arm + stage + offset(dose), monthly, curves = TRUE)
  add("common robust", x, monthly, robust = TRUE)
  add("common cluster", x, monthly, cluster = "cluster")
  add("common weights", x, monthly, weights = "weight", robust = FALSE)
  add("common weights robust", x, monthly, weights = "weight", robust = TRUE)
  add("common changing", treated, on_grid(changing, 2), cluster = "id")
  add("site", Surv(months, died) ~ age + arm + stage + strata(place), patients, transform = "identity")
  add("site cluster", Surv(months, died) ~ age + arm + stage + strata(place), patients, transform = "log", cluster = "cluster")
  add("site weights", Surv(months, died) ~ age + arm + stage + strata(place), patients, transform = "identity", weights = "weight", robust = FALSE)
  add("site offset", Surv(months, died) ~ age + arm + stage + offset(dose) + strata(place), patients, transform = "identity")
  entry <- patients
  entry$start <- entry$entry
  add("site entry", Surv(start, months, died) ~ age + arm + stage + strata(place), entry, transform = "identity")
  add("site changing", Surv(start, months, died) ~ age + arm + treated + strata(place), changing, transform = "identity", cluster = "id")
  ridge <- fit_of(Surv(months, died) ~ ridge(age, theta = 3, scale = FALSE) + ridge(treated, theta = 3, scale = FALSE),
                  transform(monthly, treated = as.numeric(arm == "b")), ties = ties)
  parts[[length(parts) + 1]] <- lines_of(paste(ties, "common ridge"), coef(ridge), sqrt(diag(vcov(ridge))), c("age", "treated"))
}
write_reference("cox_more.csv", parts, c("stats", "survival"))
