# Published models on stays in hospital: pROC's area with DeLong's limits, Brier score, calibration by glm, net benefit.
# The model "patterns" has nine scores; "scores" has one for nearly each stay.
source("common.R")
suppressMessages(library(pROC))
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
stays$pain <- factor(stays$pain, levels = c("none", "mild", "severe"))

link <- c("(Intercept)" = -0.9, "surgical" = 0.35, "intensive" = 0.8, "mild" = -0.2, "severe" = 0.55)
patterns <- link[["(Intercept)"]] + c(0, link[["surgical"]], link[["intensive"]])[stays$ward] +
  c(0, link[["mild"]], link[["severe"]])[stays$pain]
scores <- -3.1 + 0.032 * stays$age + 0.45 * stays$frail + c(0, 0.2, 0.6)[stays$ward]

measures_of <- function(name, logit, outcome) {
  p <- plogis(logit)
  roc <- roc(outcome, p, quiet = TRUE, direction = "<")
  limits <- as.numeric(ci.auc(roc, method = "delong"))
  alone <- settle(y ~ 1 + offset(z), binomial, data.frame(y = outcome, z = logit))
  both <- settle(y ~ z, binomial, data.frame(y = outcome, z = logit))
  benefit <- function(t) mean(outcome & p >= t) - mean(!outcome & p >= t) * t / (1 - t)
  rbind(
    lines_of(name, as.numeric(auc(roc)), sqrt(var(roc, method = "delong")), "AUC"),
    number_of(name, "AUC low", limits[1]),
    number_of(name, "AUC high", limits[3]),
    number_of(name, "brier", mean((p - outcome)^2)),
    lines_of(name, coef(alone), sqrt(vcov(alone)[1, 1]), "in_the_large"),
    lines_of(name, coef(both), sqrt(diag(vcov(both))), c("intercept", "slope")),
    number_of(name, "net benefit 0.2", benefit(0.2)),
    number_of(name, "net benefit 0.3", benefit(0.3))
  )
}
wards <- lapply(levels(stays$ward), function(ward) {
  here <- stays$ward == ward
  measures_of(paste0("scores ward[", ward, "]"), scores[here], stays$readmit[here])
})
# A fit on the stays of the younger, evaluated on those of the older.
older <- stays$age >= 60
young <- settle(readmit ~ ward + pain, binomial, stays[!older, ])
others <- measures_of("other rows", predict(young, stays[older, ]), stays$readmit[older])
write_reference("validate.csv", c(list(
  measures_of("patterns", patterns, stays$readmit), measures_of("scores", scores, stays$readmit)
), wards, list(lines_of("young", coef(young), sqrt(diag(vcov(young))), names(coef(young))), others)), c("pROC", "stats"))
