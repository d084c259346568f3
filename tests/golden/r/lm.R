# Linear models by stats::lm.
source("common.R")
of <- function(name, model) {
  rbind(coefficients_of(name, model), number_of(name, "dispersion", summary(model)$sigma^2),
    number_of(name, "deviance", deviance(model)), number_of(name, "AIC", AIC(model)))
}
write_reference("lm.csv", list(
  of("linear", lm(formula_of("los"), cohort)),
  of("linear_interaction", lm(los ~ age * sex + cci + I(cci^2), cohort)),
  of("linear_no_intercept", lm(los ~ 0 + sex + cci, cohort)),
  of("linear_mean", lm(los ~ 1, cohort)),
  of("linear_offset", lm(los ~ age + sex + offset(log(followup)), cohort))
))
