# Sandwich standard errors (HC0) by sandwich.
source("common.R")
suppressMessages(library(sandwich))
of <- function(name, model) lines_of(name, coef(model), sqrt(diag(vcovHC(model, type = "HC0"))))
write_reference("sandwich.csv", list(
  of("hc0_logit", settle(formula_of("death"), binomial())),
  of("hc0_probit", settle(formula_of("death"), binomial("probit"))),
  of("hc0_cloglog", settle(formula_of("death"), binomial("cloglog"))),
  of("hc0_poisson_on_binary", settle(formula_of("death"), poisson())),
  of("hc0_poisson", settle(formula_of("visits"), poisson())),
  of("hc0_linear", settle(formula_of("los"), gaussian()))
), c("stats", "sandwich"))
