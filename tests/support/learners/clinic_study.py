"""Variables of the studies in which a registry and a clinic hold columns of the same patients."""

from __future__ import annotations

CLINIC_VARIABLES = """
[variables.dead]
type = "binary"
[variables.age]
type = "number"
range = [0, 100]
[variables.sex]
type = "category"
levels = ["male", "female"]
[variables.dose]
type = "number"
range = [0, 10]
"""
