"""The plainest study: three sites, an outcome of 0 and 1, and one number."""

from __future__ import annotations

SITES = ("north", "south", "west")
PLAIN_STUDY = """
name = "plain"
sites = ["north", "south", "west"]
formula = "y ~ x"
[learner]
name = "glore"
[variables.y]
type = "binary"
[variables.x]
type = "number"
range = [-5, 5]
"""
