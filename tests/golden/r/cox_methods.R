# Cox models with exact ties by survival, and with Firth's penalty by Newton steps of our own on the penalised likelihood
# of survival, whose derivatives are differences (five points). The cohort is that of survival.R, three sites as strata.
source("common.R")
suppressMessages(library(survival))
patients <- read.csv("data/survival.csv")
patients$arm <- factor(patients$arm)
patients$stage <- factor(patients$stage)
patients$place <- (seq_len(nrow(patients)) - 1) %% 3
strict <- coxph.control(eps = 1e-14, toler.chol = 1e-16, iter.max = 200)
terms <- c("age", "arm[b]", "arm[c]", "stage[late]")
in_years <- function(data) transform(data, months = ceiling(months / 12) * 12)

# With late entry `coxph` returns the bare list of its fit, without a class.
exact_of <- function(name, formula, data) {
  start <- coxph(formula, data, ties = "exact", control = strict)
  fit <- coxph(formula, data, ties = "exact", control = strict, init = start$coefficients)
  b <- fit$coefficients
  rbind(
    lines_of(name, b, sqrt(diag(fit$var)), terms),
    number_of(name, "log-likelihood", fit$loglik[2]),
    number_of(name, "likelihood ratio", 2 * (start$loglik[2] - start$loglik[1])),
    number_of(name, "score", start$score),
    number_of(name, "wald", as.vector(t(b) %*% solve(fit$var) %*% b))
  )
}

firth_of <- function(name, formula, data, ties) {
  still <- coxph.control(iter.max = 0, toler.chol = 1e-16)
  at <- function(b) suppressWarnings(coxph(formula, data, ties = ties, init = b, control = still))
  penalised <- function(b) {
    fit <- at(b)
    fit$loglik[2] - 0.5 * as.numeric(determinant(vcov(fit))$modulus)
  }
  slope <- function(b, k) {
    unit <- replace(numeric(length(b)), k, if (k == 1) 1e-4 else 1e-3)
    step <- max(unit)
    (penalised(b - 2 * unit) - 8 * penalised(b - unit) + 8 * penalised(b + unit) - penalised(b + 2 * unit)) / (12 * step)
  }
  b <- numeric(4)
  for (k in 1:60) {
    step <- as.vector(vcov(at(b)) %*% sapply(1:4, function(k) slope(b, k)))
    b <- b + step
    if (max(abs(step) / sqrt(diag(vcov(at(b))))) < 1e-11) break
  }
  rbind(
    lines_of(name, b, sqrt(diag(vcov(at(b)))), terms),
    number_of(name, "likelihood ratio", 2 * (penalised(b) - penalised(numeric(4))))
  )
}

x <- Surv(months, died) ~ age + arm + stage + strata(place)
# No event in the arm c.
separated <- patients
separated$died[separated$arm == "c"] <- 0
few <- separated
few$died <- ifelse(seq_len(nrow(few)) %% 7 == 0, few$died, 0)
write_reference("cox_methods.csv", list(
  exact_of("exact", x, patients),
  exact_of("exact tied", x, in_years(patients)),
  exact_of("exact entry", Surv(entry, months, died) ~ age + arm + stage + strata(place), patients),
  firth_of("firth breslow", x, patients, "breslow"),
  firth_of("firth efron", x, patients, "efron"),
  firth_of("firth tied efron", x, in_years(patients), "efron"),
  firth_of("firth separated breslow", x, separated, "breslow"),
  firth_of("firth few efron", x, few, "efron")
), c("stats", "survival"))
