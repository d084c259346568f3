"""Secure GLM: logistic regression on secret shares, of which only the result is opened."""
