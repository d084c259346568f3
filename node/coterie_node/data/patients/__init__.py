"""The raw rows behind what a learner sees, which the gate judges, and the patients who object."""
