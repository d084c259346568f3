"""Secure Join and Secure Lasso: joint patients and penalised fits on secret shares."""
