# Contrasts, joint tests, means with errors by predict(), differences of means, and analysis of deviance by base R.
source("common.R")
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
models <- list(
  logit = settle(readmit ~ age + ward + frail, binomial, stays),
  linear = settle(stay ~ age + ward + frail, gaussian, stays),
  rate = settle(infections ~ age + ward + frail, poisson, stays)
)
small <- list(
  logit = settle(readmit ~ age + frail, binomial, stays),
  linear = settle(stay ~ age + frail, gaussian, stays),
  rate = settle(infections ~ age + frail, poisson, stays)
)
patients <- data.frame(age = c(60, 80), ward = factor(c("medical", "intensive"), levels = levels(stays$ward)), frail = c(0, 1))
contrast_of <- function(name, model, weights) {
  lines_of(name, sum(weights * coef(model)), sqrt(as.vector(t(weights) %*% vcov(model) %*% weights)), "contrast")
}
of <- function(name) {
  model <- models[[name]]
  at <- c(0, 0, 1, -1, 0)
  rows <- rbind(c(0, 0, 1, 0, 0), c(0, 0, 0, 1, 0))
  values <- as.vector(rows %*% coef(model))
  chi2 <- as.vector(t(values) %*% solve(rows %*% vcov(model) %*% t(rows)) %*% values)
  known <- name != "linear"
  joint <- if (known) c(chi2, pchisq(chi2, 2, lower.tail = FALSE)) else
    c(chi2 / 2, pf(chi2 / 2, 2, df.residual(model), lower.tail = FALSE))
  means <- predict(model, patients, type = "response", se.fit = TRUE)
  x <- model.matrix(~ age + ward + frail, patients)
  slope <- model$family$mu.eta(as.vector(x %*% coef(model)))
  gradient <- slope[2] * x[2, ] - slope[1] * x[1, ]
  table <- anova(small[[name]], model, test = if (known) "Chisq" else "F")
  rbind(
    contrast_of(name, model, at),
    lines_of(name, confint.default(model, level = 0.9)["age", ], NA, c("age low", "age high")),
    number_of(name, c("joint", "joint p"), joint),
    lines_of(name, means$fit, means$se.fit, c("mean 60", "mean 80")),
    lines_of(name, diff(means$fit), sqrt(as.vector(t(gradient) %*% vcov(model) %*% gradient)), "difference"),
    number_of(name, c("anova", "anova p"), c(if (known) table$Deviance[2] else table$F[2], table[2, ncol(table)]))
  )
}
write_reference("contrasts.csv", lapply(names(models), of))
