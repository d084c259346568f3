# glm on the pooled rows of some CSV files: pooled.R RUNS FILE.csv ...
# Prints JSON: median seconds from memory and from file, and the estimates at epsilon 1e-8, the default.
arguments <- commandArgs(TRUE)
runs <- as.integer(arguments[1])
read_rows <- function() do.call(rbind, lapply(arguments[-1], read.csv))
fit <- function(rows) glm(y ~ ., binomial(), rows, control = list(epsilon = 1e-8))
rows <- read_rows()
seconds_of <- function(run) median(replicate(runs, system.time(run())["elapsed"]))
memory <- seconds_of(function() fit(rows))
file <- seconds_of(function() fit(read_rows()))
cat(sprintf('{"memory": %g, "file": %g, "estimates": [%s]}\n', memory, file,
            paste(formatC(coef(fit(rows)), digits = 17, format = "g"), collapse = ", ")))
