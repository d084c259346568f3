# Generalised linear models by stats::glm.
source("common.R")
steep <- read.csv("data/steep.csv")
quick <- glm(y ~ x + z, binomial("cloglog"), steep) # as R stops by default
write_reference("glm.csv", list(
  fit_of("logit", settle(formula_of("death"), binomial())),
  fit_of("logit_cci_numeric", settle(formula_of("death", "+ cci"), binomial())),
  fit_of("logit_interaction", settle(death ~ age * sex + cci + I(cci^2), binomial())),
  # R's null deviance is that without any intercept here.
  subset(fit_of("logit_site_intercepts", settle(death ~ 0 + site + age + sex + diabetes + htn, binomial())),
    term != "null deviance"),
  fit_of("probit", settle(formula_of("death"), binomial("probit"))),
  fit_of("cloglog", settle(formula_of("death"), binomial("cloglog"))),
  fit_of("poisson_log_on_binary", settle(formula_of("death"), poisson())),
  fit_of("poisson", settle(formula_of("visits"), poisson())),
  fit_of("poisson_offset_log_followup", settle(formula_of("visits", "+ offset(log(followup))"), poisson())),
  fit_of("quasipoisson", settle(formula_of("visits"), quasipoisson())),
  fit_of("quasibinomial", settle(formula_of("death"), quasibinomial())),
  fit_of("gaussian", settle(formula_of("los"), gaussian())),
  fit_of("steep_logit", settle(y ~ x + z, binomial(), steep)),
  fit_of("steep_probit", settle(y ~ x + z, binomial("probit"), steep)),
  fit_of("steep_cloglog", settle(y ~ x + z, binomial("cloglog"), steep)),
  coefficients_of("steep_cloglog_default", quick)
))
