"""Tables of covariate patterns: how they are counted, coarsened and read by family."""
