"""Secure GLM: logistic regression on secret shares; only the result is opened."""
