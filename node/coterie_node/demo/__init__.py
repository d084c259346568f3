"""The demo: public cohorts split over sites of this machine."""
