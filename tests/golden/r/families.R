# Other families and links by stats::glm: on a made-up cohort of stays, and on the cohort that all scripts share.
source("common.R")
suppressMessages(library(MASS))
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
stays$logdays <- log(stays$days)
cohort$stay <- exp(cohort$los / 20)
# Counts of which the largest are written as one, so that none is rare.
stays$capped <- pmin(stays$infections, 5)
cohort$capped <- pmin(cohort$visits, 9)
# glm's default start is outside where means must be positive or below one. It starts from the null model.
family_of <- function(name, formula, family, data = stays) {
  null <- family$linkfun(weighted.mean(data[[all.vars(formula)[1]]], rep(1, nrow(data))))
  start <- c(null, rep(0, ncol(model.matrix(formula, data)) - 1))
  first <- do.call("glm", list(formula, family, data, start = start, control = list(epsilon = 1e-15, maxit = 200)))
  fit_of(name, settle_from(first, formula, family, data))
}
settle_from <- function(model, formula, family, data) {
  for (k in 1:200) {
    before <- coef(model)
    model <- suppressWarnings(do.call("glm", list(formula, family, data, start = before,
      control = list(epsilon = 1e-15, maxit = 200))))
    if (max(abs(coef(model) - before) / sqrt(diag(vcov(model)))) < 1e-14) break
  }
  model
}
# glm.nb() takes turns at coefficients and theta, and stops early: more turns bring both to rest.
negative_binomial <- function(name, formula, data = stays) {
  outcome <- data[[all.vars(formula)[1]]]
  model <- do.call("glm.nb", list(formula, data, control = glm.control(epsilon = 1e-14, maxit = 200)))
  theta <- model$theta
  for (k in 1:60) {
    model <- suppressWarnings(do.call("glm", list(formula, negative.binomial(theta), data, start = coef(model),
      control = list(epsilon = 1e-15, maxit = 200))))
    theta <- theta.ml(outcome, fitted(model), limit = 200, eps = 1e-15)
  }
  likelihood <- sum(dnbinom(outcome, size = theta, mu = fitted(model), log = TRUE))
  table <- summary(model, dispersion = 1)$coefficients
  rbind(lines_of(name, table[, 1], table[, 2], rownames(table)),
    lines_of(name, as.numeric(theta), attr(theta, "SE"), "theta"),
    number_of(name, "deviance", deviance(model)), number_of(name, "null deviance", model$null.deviance),
    number_of(name, "AIC", 2 * (length(coef(model)) + 1) - 2 * likelihood))
}
x <- "age + ward + frail"
stay <- as.formula(paste("stay ~", x))
cohort_stay <- as.formula("stay ~ age + sex + diabetes + htn")
write_reference("families.csv", list(
  family_of("gamma_inverse", stay, Gamma()),
  family_of("gamma_log", stay, Gamma("log")),
  family_of("gamma_identity", stay, Gamma("identity")),
  family_of("gamma_log_offset", as.formula(paste("stay ~", x, "+ offset(logdays)")), Gamma("log")),
  family_of("inverse_gaussian", stay, inverse.gaussian()),
  family_of("inverse_gaussian_log", stay, inverse.gaussian("log")),
  family_of("gaussian_log", stay, gaussian("log")),
  family_of("log_binomial", as.formula(paste("readmit ~", x)), binomial("log")),
  family_of("risk_difference", as.formula(paste("readmit ~", x)), binomial("identity")),
  family_of("rate_difference", as.formula(paste("infections ~", x)), poisson("identity")),
  fit_of("logit_offset", settle(as.formula(paste("readmit ~", x, "+ offset(logdays)")), binomial(), stays)),
  fit_of("cloglog_offset", settle(as.formula(paste("readmit ~", x, "+ offset(logdays)")), binomial("cloglog"), stays)),
  negative_binomial("negative_binomial", as.formula(paste("infections ~", x))),
  negative_binomial("negative_binomial_offset", as.formula(paste("infections ~", x, "+ offset(logdays)"))),
  family_of("cohort_gamma_inverse", cohort_stay, Gamma(), cohort),
  family_of("cohort_gamma_log", cohort_stay, Gamma("log"), cohort),
  family_of("cohort_gamma_identity", cohort_stay, Gamma("identity"), cohort),
  family_of("cohort_inverse_gaussian", cohort_stay, inverse.gaussian(), cohort),
  family_of("cohort_inverse_gaussian_log", cohort_stay, inverse.gaussian("log"), cohort),
  family_of("cohort_gaussian_log", cohort_stay, gaussian("log"), cohort),
  family_of("cohort_log_binomial", formula_of("death"), binomial("log"), cohort),
  family_of("cohort_rate_difference", formula_of("visits"), poisson("identity"), cohort),
  negative_binomial("cohort_negative_binomial", formula_of("visits"), cohort),
  fit_of("quasi_probit", settle(as.formula(paste("readmit ~", x)), quasibinomial("probit"), stays)),
  fit_of("quasi_cloglog", settle(as.formula(paste("readmit ~", x)), quasibinomial("cloglog"), stays)),
  family_of("quasi_log_binomial", as.formula(paste("readmit ~", x)), quasibinomial("log")),
  family_of("quasi_risk_difference", as.formula(paste("readmit ~", x)), quasibinomial("identity")),
  family_of("quasi_rate_difference", as.formula(paste("infections ~", x)), quasipoisson("identity")),
  fit_of("cohort_quasi_probit", settle(formula_of("death"), quasibinomial("probit"), cohort)),
  fit_of("cohort_quasi_cloglog", settle(formula_of("death"), quasibinomial("cloglog"), cohort)),
  family_of("cohort_quasi_log_binomial", formula_of("death"), quasibinomial("log"), cohort),
  family_of("cohort_quasi_rate_difference", formula_of("visits"), quasipoisson("identity"), cohort),
  family_of("root_rate", as.formula(paste("infections ~", x)), poisson("sqrt")),
  family_of("quasi_root_rate", as.formula(paste("infections ~", x)), quasipoisson("sqrt")),
  family_of("cauchit", as.formula(paste("readmit ~", x)), binomial("cauchit")),
  family_of("quasi_cauchit", as.formula(paste("readmit ~", x)), quasibinomial("cauchit")),
  family_of("cohort_root_rate", formula_of("visits"), poisson("sqrt"), cohort),
  family_of("cohort_quasi_root_rate", formula_of("visits"), quasipoisson("sqrt"), cohort),
  family_of("cohort_cauchit", formula_of("death"), binomial("cauchit"), cohort),
  family_of("cohort_quasi_cauchit", formula_of("death"), quasibinomial("cauchit"), cohort),
  negative_binomial("capped", as.formula(paste("capped ~", x))),
  negative_binomial("capped_offset", as.formula(paste("capped ~", x, "+ offset(logdays)"))),
  negative_binomial("cohort_capped", formula_of("capped"), cohort)
), c("stats", "MASS"))
