"""VALORIS and VERTIGO: logistic models on columns split over sites."""
