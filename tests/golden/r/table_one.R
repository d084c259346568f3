# Tables of characteristics by base R: stays in hospital by ward, and the survival cohort by arm.
# Some values are missing by the row's number, and every 17th stay has no ward and is left out; quantiles of bins are those of values that lie evenly in each bin.
source("common.R")
stays <- read.csv("data/stays.csv")
stays$ward <- factor(stays$ward, levels = c("medical", "surgical", "intensive"))
stays$pain <- factor(stays$pain, levels = c("none", "mild", "severe"))
row <- seq_len(nrow(stays))
stays$age[row %% 13 == 0] <- NA
stays$pain[row %% 7 == 0] <- NA
stays$frail[row %% 9 == 0] <- NA
stays <- stays[row %% 17 != 0, ]
survival <- read.csv("data/survival.csv")
survival$arm <- factor(survival$arm, levels = c("a", "b", "c"))
survival$stage <- factor(survival$stage, levels = c("early", "late"))

columns_of <- function(data, group) {
  c(list(overall = data), lapply(split(data, data[[group]]), identity))
}
label_of <- function(group, name) if (name == "overall") name else paste0(group, "[", name, "]")
binned <- function(x, start, width, steps, p) {
  x <- x[!is.na(x)]
  ends <- c(-Inf, start + width * (0:steps), Inf)
  counts <- table(cut(x, ends))
  reached <- cumsum(counts)
  at <- which(reached >= p * length(x))[1]
  unname(ends[at] + width * (p * length(x) - (reached[at] - counts[at])) / counts[at])
}
numbers_of <- function(model, data, group, name, quantile_of) {
  columns <- columns_of(data, group)
  rows <- lapply(names(columns), function(column) {
    x <- columns[[column]][[name]]
    at <- label_of(group, column)
    rbind(
      number_of(model, paste0(name, " mean: ", at), mean(x, na.rm = TRUE)),
      number_of(model, paste0(name, " sd: ", at), sd(x, na.rm = TRUE)),
      if (anyNA(x)) number_of(model, paste0(name, " missing: ", at), sum(is.na(x))),
      do.call(rbind, lapply(c(0.25, 0.5, 0.75), function(p) {
        number_of(model, paste0(name, " quantile ", p, ": ", at), quantile_of(x, p))
      }))
    )
  })
  parts <- columns[-1]
  pairs <- combn(length(parts), 2, function(k) {
    a <- parts[[k[1]]][[name]]
    b <- parts[[k[2]]][[name]]
    abs(mean(a, na.rm = TRUE) - mean(b, na.rm = TRUE)) / sqrt((var(a, na.rm = TRUE) + var(b, na.rm = TRUE)) / 2)
  })
  rbind(do.call(rbind, rows), number_of(model, paste(name, "SMD"), mean(pairs)))
}
shares <- function(x) as.vector(prop.table(table(x)))[-1]
spread <- function(p) diag(p, length(p)) - p %o% p
levels_of <- function(model, data, group, name) {
  columns <- columns_of(data, group)
  rows <- lapply(names(columns), function(column) {
    x <- columns[[column]][[name]]
    at <- label_of(group, column)
    counts <- table(x)
    limits <- sapply(counts, function(k) binom.test(k, sum(counts))$conf.int * 100)
    rbind(
      number_of(model, paste0(name, " = ", names(counts), ": ", at), as.vector(counts)),
      number_of(paste(model, "low"), paste0(name, " = ", names(counts), ": ", at), limits[1, ]),
      number_of(paste(model, "high"), paste0(name, " = ", names(counts), ": ", at), limits[2, ]),
      if (anyNA(x)) number_of(model, paste0(name, " missing: ", at), sum(is.na(x)))
    )
  })
  parts <- columns[-1]
  pairs <- combn(length(parts), 2, function(k) {
    p <- shares(parts[[k[1]]][[name]])
    q <- shares(parts[[k[2]]][[name]])
    sqrt(as.vector(t(p - q) %*% solve((spread(p) + spread(q)) / 2) %*% (p - q)))
  })
  rbind(do.call(rbind, rows), number_of(model, paste(name, "SMD"), mean(pairs)))
}
counts_of <- function(model, data, group) {
  columns <- columns_of(data, group)
  number_of(model, paste0("n: ", sapply(names(columns), function(n) label_of(group, n))), sapply(columns, nrow))
}
rates_of <- function(model, data, group, event, time, per) {
  columns <- columns_of(data, group)
  do.call(rbind, lapply(names(columns), function(column) {
    d <- sum(columns[[column]][[event]])
    t <- sum(columns[[column]][[time]])
    at <- label_of(group, column)
    limits <- poisson.test(d, t)$conf.int * per
    shares <- binom.test(d, nrow(columns[[column]]))$conf.int * 100
    rbind(
      number_of(model, paste0("rate events: ", at), d),
      number_of(model, paste0("rate time: ", at), t),
      number_of(model, paste0("rate rate: ", at), d / t * per),
      number_of(paste(model, "low"), paste0("rate rate: ", at), limits[1]),
      number_of(paste(model, "high"), paste0("rate rate: ", at), limits[2]),
      number_of(paste(model, "low"), paste0("prevalence: ", at), shares[1]),
      number_of(paste(model, "high"), paste0("prevalence: ", at), shares[2])
    )
  }))
}
sites_of <- function(model, data) {
  do.call(rbind, lapply(sort(unique(data$site)), function(site) {
    part <- data[data$site == site, ]
    at <- function(what) paste0(what, ": ", site)
    shares <- lapply(c("frail", "pain"), function(name) {
      counts <- table(part[[name]])
      rbind(
        number_of(model, at(paste(name, "=", names(counts))), as.vector(counts)),
        number_of(model, at(paste(name, "missing")), sum(is.na(part[[name]])))
      )
    })
    numbers <- lapply(c("age", "stay"), function(name) {
      x <- part[[name]]
      rbind(
        number_of(model, at(paste(name, c("mean", "sd"))), c(mean(x, na.rm = TRUE), sd(x, na.rm = TRUE))),
        if (anyNA(x)) number_of(model, at(paste(name, "missing")), sum(is.na(x)))
      )
    })
    medians <- number_of(model, at("age quantile 0.5"), binned(part$age, 40, 5, 9, 0.5))
    rbind(number_of(model, at("n"), nrow(part)), do.call(rbind, shares), do.call(rbind, numbers), medians)
  }))
}
exact <- function(x, p) unname(quantile(x, p, type = 2, na.rm = TRUE))
fives <- function(x, p) binned(x, 40, 5, 9, p)
write_reference("table_one.csv", list(
  counts_of("stays", stays, "ward"),
  numbers_of("stays", stays, "ward", "age", fives),
  levels_of("stays", stays, "ward", "frail"),
  levels_of("stays", stays, "ward", "pain"),
  numbers_of("stays", stays, "ward", "infections", exact),
  numbers_of("stays", stays, "ward", "stay", function(x, p) binned(x, 0, 0.5, 60, p)),
  sites_of("sites", stays),
  counts_of("survival", survival, "arm"),
  numbers_of("survival", survival, "arm", "age", exact),
  levels_of("survival", survival, "arm", "stage"),
  rates_of("survival", survival, "arm", "died", "months", 100)
))
