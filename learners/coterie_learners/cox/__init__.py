"""Cox models on rows split over sites: a baseline hazard for each site, or one in common on a grid of time."""
