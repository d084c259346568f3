"""GLORE: generalised linear models on rows split over sites, by Newton steps over sums."""
