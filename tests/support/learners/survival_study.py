"""Studies of times to an event over the synthetic cohort of tests/golden/r, its rows, and what R's survival says."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit
from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, Data
from coterie_learners.survival.survival_curves import survival_curves

GOLDEN = Path(__file__).parents[2] / "golden" / "r"
ARMS, STAGES, CAUSES = ("a", "b", "c"), ("early", "late"), ("cancer", "other")
SITES = ("north", "south", "east", "west", "mid")
VARIABLES: dict[str, dict[str, Any]] = {
    "months": {"type": "number", "range": [0, 100], "unit": "months"},
    "entry": {"type": "number", "range": [0, 100], "unit": "months"},
    "died": {"type": "binary"},
    "arm": {"type": "category", "levels": list(ARMS)},
    "stage": {"type": "category", "levels": list(STAGES)},
    "cause": {"type": "category", "levels": ["alive", *CAUSES]},
}
Columns = dict[str, NDArray[np.float64]]


def curve_study(count: int = 3, width: float = 2, horizon: float = 36, floor: int = 0, **options: Any) -> Study:
    """A completed study of curves by arm; `options` are the learner's, `floor` the study's least cell."""
    learner: dict[str, Any] = {"name": "survival_curves", "time": "months", "event": "died", "group": "arm"}
    learner |= {"time_grid": {"width": width, "horizon": horizon, "unit": "months"}, **options}
    formula = f"{learner['event']} ~ 1"
    plain = {"name": "curves", "sites": list(SITES[:count]), "formula": formula, "variables": VARIABLES}
    return complete_study(Study.model_validate({**plain, "learner": learner, "disclosure": {"cell": floor, "rows": 1}}))


def cox_study(count: int = 3, formula: str = "died ~ age + arm + stage", **options: Any) -> Study:
    """A completed Cox study whose sums begin at once; a study for a gate has opening="counts"."""
    variables = {**VARIABLES, "age": {"type": "number", "range": [0, 120], "unit": "years"}}
    learner = {"name": "cox", "time": "months", "event": "died", "opening": "none", **options}
    plain = {"name": "hazards", "sites": list(SITES[:count]), "formula": formula, "variables": variables}
    return complete_study(Study.model_validate({**plain, "learner": learner}))


def read_cox_methods(model: str) -> dict[str, tuple[float, float]]:
    """The values of one model of cox_methods.R by term; NaN where there is none."""
    return _read_stored("cox_methods.csv")[model]


def read_cox_more(model: str) -> dict[str, tuple[float, float]]:
    """R's values of one model of cox_more.R by term; NaN where R has none."""
    return _read_stored("cox_more.csv")[model]


@cache
def _read_cohort() -> tuple[dict[str, str], ...]:
    with (GOLDEN / "data" / "survival.csv").open(encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def read_columns() -> Columns:
    """All patients' values, levels as numbers."""
    rows = _read_cohort()
    columns = {name: np.array([float(row[name]) for row in rows]) for name in ("months", "died", "entry")}
    columns["arm"] = np.array([float(ARMS.index(row["arm"])) for row in rows])
    columns["stage"] = np.array([float(STAGES.index(row["stage"])) for row in rows])
    return columns


def read_age() -> NDArray[np.float64]:
    """The patients' ages in years."""
    return np.array([float(row["age"]) for row in _read_cohort()])


def split_sites(columns: Columns, sites: tuple[str, ...]) -> dict[str, Data]:
    """The patients in turn over the sites."""
    return {name: ArrayCodes({k: v[at :: len(sites)] for k, v in columns.items()}) for at, name in enumerate(sites)}


def play_curves(study: Study, rows: dict[str, Data] | None = None) -> tuple[Fit, MemoryProtocol]:
    """The fit that all sites end with, and what was posted."""
    table = MemoryProtocol(survival_curves, study, rows or split_sites(read_columns(), study.sites))
    results = table.play()
    assert len({repr(fit.details) + repr(fit.estimates.tobytes()) for fit in results.values()}) == 1
    fit = results[study.sites[0]]
    assert isinstance(fit, Fit)
    return fit, table


def read_causes() -> Columns:
    """All patients' values with the cause of death: every third death, in the order of the rows, is of the other."""
    columns = read_columns()
    cause = np.where(np.arange(900) % 3 == 0, 2.0, 1.0)
    return {**columns, "cause": np.where(columns["died"] == 1, cause, 0.0)}


def read_competing(model: str) -> dict[str, tuple[float, float]]:
    """The values of one model of competing.R by term; NaN where there is none."""
    return _read_stored("competing.csv")[model]


@cache
def read_reference() -> dict[str, dict[str, tuple[float, float]]]:
    """R's values of the curves by model and term; NaN where R has none."""
    return _read_stored("survival.csv")


def read_cox(model: str) -> dict[str, tuple[float, float]]:
    """R's values of one Cox model by term; NaN where R has none."""
    return _read_stored("cox.csv")[model]


@cache
def _read_stored(file: str) -> dict[str, dict[str, tuple[float, float]]]:
    _, *lines = (GOLDEN / "stored" / file).read_text(encoding="utf-8").splitlines()
    out: dict[str, dict[str, tuple[float, float]]] = {}
    for row in csv.DictReader(lines):
        pair = [float("nan") if row[key] == "NA" else float(row[key]) for key in ("estimate", "std_error")]
        out.setdefault(row["model"], {})[row["term"]] = (pair[0], pair[1])
    return out
