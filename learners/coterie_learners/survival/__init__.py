"""Time to event on rows split over sites: curves and tests from counts on a grid of time."""
