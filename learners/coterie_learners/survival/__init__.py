"""Time to event on rows split over sites: curves from counts on a grid of time, and Cox models."""
