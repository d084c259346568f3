"""What several demos share: NHEFS in groups by rows, and split by columns."""
