# What all scripts share: the cohort, fits that rest to the last digit, and the file that a script leaves.
# The cohort is made up: 1,400 patients at four sites; site D has nobody of the level ge80.
cohort <- read.csv("data/cohort.csv")
cohort$age <- factor(cohort$age, levels = c("lt65", "65_79", "ge80"))
cohort$sex <- factor(cohort$sex, levels = c("F", "M"))
cohort$disposition <- factor(cohort$disposition, levels = c("home", "transfer", "death"))

formula_of <- function(outcome, more = "") as.formula(paste(outcome, "~ age + sex + diabetes + htn", more))

# glm() stops at a deviance that rests, when a coefficient of a link that is not canonical may still move in its fifth
# digit, and has its standard errors from the step before. Started again from its end it comes to rest.
settle <- function(formula, family, data = cohort) {
  strict <- list(epsilon = 1e-15, maxit = 200)
  model <- do.call("glm", list(formula, family, data, control = strict))
  for (k in 1:200) {
    before <- coef(model)
    model <- do.call("glm", list(formula, family, data, start = before, control = strict))
    if (max(abs(coef(model) - before) / sqrt(diag(vcov(model)))) < 1e-14) break
  }
  model
}

lines_of <- function(name, estimates, errors, terms = names(estimates)) {
  data.frame(model = name, term = terms, estimate = unname(estimates), std_error = unname(errors))
}
number_of <- function(name, term, value) lines_of(name, value, NA_real_, term)
coefficients_of <- function(name, model) {
  table <- summary(model)$coefficients
  lines_of(name, table[, 1], table[, 2], rownames(table))
}
# Coefficients, and what is said of the whole fit.
fit_of <- function(name, model) {
  rbind(
    coefficients_of(name, model),
    number_of(name, "deviance", deviance(model)),
    number_of(name, "null deviance", model$null.deviance),
    if (!is.na(AIC(model))) number_of(name, "AIC", AIC(model)),
    number_of(name, "dispersion", summary(model)$dispersion)
  )
}

digits <- function(values) trimws(formatC(values, digits = 15, format = "g"))
versions <- function(packages) {
  paste(c("R", packages), c(as.character(getRversion()), sapply(packages, function(p) as.character(packageVersion(p)))))
}
# One file: a line with the versions of this session, then the values with 15 digits.
write_reference <- function(file, parts, packages = "stats") {
  table <- do.call(rbind, parts)
  table$estimate <- digits(table$estimate)
  table$std_error <- digits(table$std_error)
  out <- file.path(commandArgs(TRUE)[1], file)
  writeLines(paste("#", paste(versions(packages), collapse = ", ")), out)
  suppressWarnings(write.table(table, out, append = TRUE, sep = ",", row.names = FALSE, quote = FALSE))
}
