"""Whole analyses from Python, and proofs that a learner is right."""
