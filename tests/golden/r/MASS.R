# Ridge regression by MASS: lm.ridge penalises columns divided by their standard deviation (over n), without intercept.
source("common.R")
suppressMessages(library(MASS))
spread <- function(x) sqrt(mean((x - mean(x))^2))
scaled <- data.frame(los = cohort$los, cci = cohort$cci / spread(cohort$cci), visits = cohort$visits / spread(cohort$visits))
of <- function(name, lambda) {
  model <- lm.ridge(los ~ cci + visits, scaled, lambda = lambda)
  estimates <- coef(model)
  names(estimates) <- c("(Intercept)", "cci", "visits")
  lines_of(name, estimates, NA_real_)
}
write_reference("MASS.csv", list(
  number_of("scale", "cci", spread(cohort$cci)),
  number_of("scale", "visits", spread(cohort$visits)),
  of("ridge_10", 10),
  of("ridge_1000", 1000)
), c("stats", "MASS"))
