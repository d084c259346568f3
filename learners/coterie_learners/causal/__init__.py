"""Effects of a treatment on rows split over sites: propensity scores at home, weighted contrasts from sums."""
