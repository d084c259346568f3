# One model on three completions of the data, combined by mice::pool. Ages are completed by a rule, so that everybody has
# the same completions; what is compared are Rubin's rules.
source("common.R")
suppressMessages(library(mice))
stays <- read.csv("data/stays.csv")
row <- seq_len(nrow(stays))
completed <- function(k) {
  data <- stays
  lacks <- row %% 5 == 0
  data$age[lacks] <- 30 + (row[lacks] * (k + 6)) %% 60
  data
}
pooled <- function(name, outcome, family) {
  fits <- lapply(1:3, function(k) settle(as.formula(paste(outcome, "~ age + frail")), family, completed(k)))
  all <- pool(as.mira(fits))
  shown <- summary(all, conf.int = TRUE)
  parts <- all$pooled
  number <- function(what, values) number_of(name, paste(what, parts$term), values)
  rbind(
    lines_of(name, shown$estimate, shown$std.error, as.character(parts$term)),
    number("df", parts$df), number("p", shown$p.value), number("low", shown[["2.5 %"]]), number("high", shown[["97.5 %"]]),
    number("within", parts$ubar), number("between", parts$b), number("lost", parts$lambda), number("fmi", parts$fmi)
  )
}
write_reference("imputations.csv", list(
  pooled("logit", "readmit", binomial()),
  pooled("linear", "stay", gaussian())
), c("stats", "mice"))
