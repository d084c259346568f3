# Marginal standardisation: predicted means with everybody at each level of a variable, averaged over all rows, with
# errors by the delta method from vcov().
source("common.R")
suppressMessages(library(sandwich))
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))

standardise <- function(name, model, data, variable, levels, v = vcov(model), weights = rep(1, nrow(data))) {
  terms <- delete.response(terms(model))
  parts <- lapply(levels, function(level) {
    with_level <- data
    with_level[[variable]] <- if (is.factor(data[[variable]])) factor(level, levels(data[[variable]])) else level
    x <- model.matrix(terms, with_level, xlev = model$xlevels)
    eta <- as.vector(x %*% coef(model))
    list(mean = weighted.mean(model$family$linkinv(eta), weights),
      slope = colSums(x * (model$family$mu.eta(eta) * weights)) / sum(weights))
  })
  lines <- function(kind, level, value, slope) {
    lines_of(name, value, sqrt(as.numeric(slope %*% v %*% slope)), paste(kind, level))
  }
  first <- parts[[1]]
  rbind(
    do.call(rbind, Map(function(part, level) lines("mean", level, part$mean, part$slope), parts, levels)),
    do.call(rbind, Map(function(part, level) lines("difference", level, part$mean - first$mean, part$slope - first$slope),
      parts[-1], levels[-1])))
}
wards <- levels(stays$ward)
logit <- settle(readmit ~ age + ward * frail, binomial(), stays)
rate <- settle(infections ~ age + ward + frail, poisson(), stays)
linear <- settle(stay ~ age * frail + ward, gaussian(), stays)
gamma <- settle(stay ~ age + ward + frail, Gamma("log"), stays)
dead <- settle(death ~ age + sex + diabetes + htn, binomial("probit"), cohort)
weighted <- stays$w
prior <- suppressWarnings(glm(readmit ~ age + ward + frail, binomial(), stays, weights = weighted,
  control = list(epsilon = 1e-15, maxit = 200)))
prior <- suppressWarnings(glm(readmit ~ age + ward + frail, binomial(), stays, weights = weighted, start = coef(prior),
  control = list(epsilon = 1e-15, maxit = 200)))
write_reference("standardise.csv", list(
  standardise("logit_frail", logit, stays, "frail", 0:1),
  standardise("logit_robust", logit, stays, "frail", 0:1, vcovHC(logit, "HC0")),
  standardise("poisson_ward", rate, stays, "ward", wards),
  standardise("linear_frail", linear, stays, "frail", 0:1),
  standardise("gamma_ward", gamma, stays, "ward", wards),
  standardise("weighted_frail", prior, stays, "frail", 0:1, weights = weighted),
  standardise("probit_diabetes", dead, cohort, "diabetes", 0:1)
), c("stats", "sandwich"))
