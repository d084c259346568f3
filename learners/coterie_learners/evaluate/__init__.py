"""Evaluation of a model where the rows are: on rows that its fit has not seen, from counts on a grid of its scores."""
