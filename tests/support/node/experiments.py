"""Small experiments: a file of synthetic patients, and the plan that splits their rows and columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

SMALL = """
name = "small"
title = "Small & <quick>"
data = "rows.csv"
formula = "died ~ age + sex + dose"
trials = 3
seed = 7
test_share = 0.25
estimators = ["logistic"]
[rows]
sites = 3
stratify = ["sex"]
[columns]
clinic = ["died", "age"]
registry = ["sex", "dose"]
[variables.died]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
[variables.sex]
type = "category"
levels = ["male", "female"]
[variables.dose]
type = "number"
range = [-10, 10]
[variables.hospital]
type = "category"
levels = ["North", "South West"]
"""


def write_rows(folder: Path, n: int = 360, *, separated: bool = False, name: str = "rows.csv", seed: int = 1) -> Path:
    """Patients of two hospitals; with `separated` the dose tells who dies."""
    rng = np.random.default_rng(seed)
    age, dose, sex = rng.uniform(30, 90, n).round(), rng.normal(size=n).clip(-5, 5), rng.integers(0, 2, n)
    eta = (age - 60) / 15 + dose + 0.5 * sex
    died = dose > 0.3 if separated else rng.random(n) < 1 / (1 + np.exp(-eta))
    table = {
        "died": died.astype(np.int8),
        "age": age,
        "sex": np.array(["male", "female"])[sex],
        "dose": dose,
        "hospital": np.array(["North", "South West"])[rng.integers(0, 2, n)],
    }
    pc.write_csv(pa.table(table), folder / name)
    return folder / name


def write_plan(folder: Path, **changes: str) -> Path:
    """The plan's file, with some of its lines in place of others."""
    text = SMALL
    for key, value in changes.items():
        lines = [line for line in text.splitlines() if line.partition(" = ")[0] == key]
        text = text.replace(lines[0], f"{key} = {value}") if lines else f"{key} = {value}\n{text}"
    (folder / "plan.toml").write_text(text)
    return folder / "plan.toml"
