# Formulas as statisticians write them: columns at some values, and fits of the stays. Knots and breaks are declared.
source("common.R")
library(splines)
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
at <- c(-3, -1.5, -0.2, 0, 0.7, 1, 2.25, 3.1, 4, 6)
coefs <- list(alpha = c(1.5, 1.25, 1.75), norm2 = c(1, 10, 22.5, 31.25, 40))
columns_of <- function(name, matrix) {
  matrix <- as.matrix(matrix)
  do.call(rbind, lapply(seq_len(ncol(matrix)), function(k)
    lines_of(name, matrix[, k], NA_real_, paste0(k, "@", seq_along(at)))))
}
parts <- list(
  columns_of("ns", ns(at, knots = c(0, 1), Boundary.knots = c(-2, 4))),
  columns_of("ns_one_knot", ns(at, knots = 0.5, Boundary.knots = c(-3, 6))),
  columns_of("ns_five_knots", ns(at, knots = c(-1, 0, 1, 2, 3), Boundary.knots = c(-3, 6))),
  columns_of("bs", bs(at, knots = c(0, 1), Boundary.knots = c(-3, 6))),
  columns_of("bs_linear", bs(at, knots = c(0, 1), degree = 1, Boundary.knots = c(-3, 6))),
  columns_of("bs_quadratic", bs(at, knots = 0.7, degree = 2, Boundary.knots = c(-4, 7))),
  columns_of("poly", predict(structure(poly(1:10, 3), coefs = coefs), at)),
  columns_of("rcs", Hmisc::rcspline.eval(at, knots = c(-2, 0, 1, 3), inclx = TRUE)),
  columns_of("rcs_three", Hmisc::rcspline.eval(at, knots = c(-1, 0.5, 4), inclx = TRUE)),
  columns_of("log1p", log1p(at + 3)),
  columns_of("log2", log2(at + 4)),
  columns_of("log10", log10(at + 4)),
  columns_of("exp", exp(-at / 2)),
  columns_of("sqrt", sqrt(at + 3)),
  columns_of("arithmetic", I((at + 4)^3 / (2 * at + 9) - at * 1.5)),
  columns_of("cut", as.integer(cut(at, c(-Inf, -0.2, 1, 3.1, Inf)))),
  columns_of("cut_left", as.integer(cut(at, c(-3, 0, 1, 6), right = FALSE, include.lowest = TRUE)))
)
labels_of <- function(name, levels) number_of(name, gsub(",", ";", levels), seq_along(levels))
parts <- c(parts, list(
  labels_of("labels", levels(cut(at, c(-Inf, -0.2, 1, 3.1, Inf)))),
  labels_of("labels_left", levels(cut(at, c(-3, 0, 1, 6), right = FALSE, include.lowest = TRUE))),
  labels_of("labels_close", levels(cut(at, c(-10, 1.23456, 1.23457, 60000), include.lowest = TRUE)))
))
fits <- list(
  fit_squared = lm(stay ~ (ward + frail + age)^2 - ward:age, stays),
  fit_nested = lm(stay ~ ward / frail, stays),
  fit_slopes = lm(stay ~ 0 + ward + age:ward, stays),
  fit_ns = lm(stay ~ ns(age, knots = c(60, 75), Boundary.knots = c(18, 100)) * frail, stays),
  fit_bs = lm(stay ~ bs(age, knots = 70, Boundary.knots = c(18, 100)) + ward, stays),
  fit_functions = lm(stay ~ log(age) + I(age > 65):frail + I((age - 50)^2 / 100), stays),
  fit_cut = lm(stay ~ cut(age, c(-Inf, 60, 75, Inf)) * frail, stays),
  fit_relevel = lm(stay ~ relevel(ward, ref = "surgical") + age, stays)
)
# Terms by their place: R's names of them have commas.
places_of <- function(name, model) {
  table <- summary(model)$coefficients
  lines_of(name, table[, 1], table[, 2], sprintf("%02d", seq_len(nrow(table))))
}
write_reference("formula.csv", c(parts, Map(places_of, names(fits), fits)), c("splines", "Hmisc"))
