"""The table of characteristics that a paper begins with: counts, means, quantiles and rates by group, from sums."""
