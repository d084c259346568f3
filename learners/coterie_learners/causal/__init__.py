"""Effects of a treatment on rows split over sites: propensity scores at each site, weighted contrasts from sums."""
