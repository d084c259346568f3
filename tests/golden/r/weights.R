# Weights by stats::glm and survey, sandwich errors of rows and of patients by sandwich: stays in hospital.
source("common.R")
suppressMessages(library(sandwich))
suppressMessages(library(survey))
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
stays$logdays <- log(stays$days)
x <- "age + ward + frail"
# glm() finds weights by their name in the data only.
weighed <- function(outcome, family, weights, data = stays, more = "") {
  formula <- as.formula(paste(outcome, "~", x, more))
  start <- NULL
  for (k in 1:40) {
    model <- suppressWarnings(do.call("glm", list(formula, family, data, weights = weights, start = start,
      control = list(epsilon = 1e-15, maxit = 200))))
    if (!is.null(start) && max(abs(coef(model) - start) / sqrt(diag(vcov(model)))) < 1e-14) break
    start <- coef(model)
  }
  model
}
expanded <- stays[rep(seq_len(nrow(stays)), stays$f), ]
one <- rep(1, nrow(stays))
robust <- function(name, model, v) lines_of(name, coef(model), sqrt(diag(v)))
sampled <- function(name, formula, family, ids) {
  design <- svydesign(ids = ids, weights = ~w, data = stays)
  start <- coef(weighed(all.vars(formula)[1], family, stays$w))
  model <- svyglm(formula, design, family = family, start = start, control = list(epsilon = 1e-15, maxit = 200))
  rbind(
    robust(name, model, vcov(model)),
    number_of(name, "deviance", model$deviance),
    number_of(name, "null deviance", model$null.deviance)
  )
}
logit <- weighed("readmit", binomial(), one)
rate <- weighed("infections", poisson(), one)
linear <- weighed("stay", gaussian(), one)
gamma <- weighed("stay", Gamma("log"), one)
prior <- weighed("readmit", binomial(), stays$w)
few <- function(outcome, family) settle(as.formula(paste(outcome, "~ age + frail")), family, stays)
by_site <- function(name, model) robust(name, model, vcovCL(model, stays$site, type = "HC0"))
write_reference("weights.csv", list(
  subset(fit_of("prior_logit", prior), term != "AIC"), # glm's AIC rounds weights of a binary outcome
  fit_of("prior_poisson", weighed("infections", poisson(), stays$w)),
  fit_of("prior_poisson_offset", weighed("infections", poisson(), stays$w, more = "+ offset(logdays)")),
  subset(fit_of("prior_logit_offset", weighed("readmit", binomial(), stays$w, more = "+ offset(logdays)")), term != "AIC"),
  fit_of("prior_linear", weighed("stay", gaussian(), stays$w)),
  fit_of("prior_gamma", weighed("stay", Gamma("log"), stays$w)),
  fit_of("prior_inverse_gaussian", weighed("stay", inverse.gaussian("log"), stays$w)),
  fit_of("prior_quasipoisson", weighed("infections", quasipoisson(), stays$w)),
  fit_of("frequency_logit", weighed("readmit", binomial(), rep(1, nrow(expanded)), expanded)),
  fit_of("frequency_linear", weighed("stay", gaussian(), rep(1, nrow(expanded)), expanded)),
  fit_of("frequency_poisson", weighed("infections", poisson(), rep(1, nrow(expanded)), expanded)),
  sampled("sampling_logit", as.formula(paste("readmit ~", x)), quasibinomial(), ~1),
  sampled("sampling_poisson", as.formula(paste("infections ~", x)), quasipoisson(), ~1),
  sampled("sampling_linear", as.formula(paste("stay ~", x)), gaussian(), ~1),
  sampled("sampling_logit_patient", as.formula(paste("readmit ~", x)), quasibinomial(), ~patient),
  robust("hc0_logit", logit, vcovHC(logit, "HC0")), robust("hc1_logit", logit, vcovHC(logit, "HC1")),
  robust("hc2_logit", logit, vcovHC(logit, "HC2")), robust("hc3_logit", logit, vcovHC(logit, "HC3")),
  robust("hc0_poisson", rate, vcovHC(rate, "HC0")), robust("hc3_poisson", rate, vcovHC(rate, "HC3")),
  robust("hc2_linear", linear, vcovHC(linear, "HC2")), robust("hc3_linear", linear, vcovHC(linear, "HC3")),
  robust("hc3_gamma", gamma, vcovHC(gamma, "HC3")),
  robust("hc0_prior_logit", prior, vcovHC(prior, "HC0")), robust("hc3_prior_logit", prior, vcovHC(prior, "HC3")),
  robust("patient_logit", logit, vcovCL(logit, stays$patient, type = "HC0")),
  robust("patient_poisson", rate, vcovCL(rate, stays$patient, type = "HC0")),
  robust("patient_linear", linear, vcovCL(linear, stays$patient, type = "HC0")),
  robust("patient_gamma", gamma, vcovCL(gamma, stays$patient, type = "HC0")),
  by_site("site_logit", few("readmit", binomial())),
  by_site("site_poisson", few("infections", poisson())),
  by_site("site_linear", few("stay", gaussian()))
), c("stats", "sandwich", "survey"))
