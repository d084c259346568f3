"""Tables of characteristics over the made-up data sets of tests/golden/r, their rows, and what base R says of them."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
from support.learners.r_stays import GOLDEN, SPLITS, STAYS, references
from support.learners.survival_study import SITES, read_age, read_columns
from support.learners.survival_study import VARIABLES as TIMES
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit
from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, Data
from coterie_learners.table_one.table_one import table_one

Columns = dict[str, Any]
# Which rows lack a value, as in table_one.R: every so many.
LACKING = {"age": 13, "pain": 7, "frail": 9}
# Every so many a stay has no ward.
WITHOUT_WARD = 17
QUANTILES = {
    "age": {"width": 5, "low": 40, "high": 85},
    "infections": {"width": 1},
    "stay": {"width": 0.5, "low": 0, "high": 30},
}
ARM_FORMULA, WARD_FORMULA = "arm ~ age + stage", "ward ~ age + frail + pain + infections + stay"


def table_study(count: int = 3, formula: str = WARD_FORMULA, floor: int = 0, **keys: Any) -> Study:
    """A completed study of stays by ward; `learner` are options, other keys those of the document."""
    learner = {"name": "table_one", "quantiles": QUANTILES, **keys.pop("learner", {})}
    plain = {"name": "wards", "sites": list(SPLITS[count]), "formula": formula, "variables": STAYS, "learner": learner}
    plain |= {"rows": {"missing": "keep"}, "disclosure": {"cell": floor, "rows": 1}}
    return complete_study(Study.model_validate({**plain, **keys}))


def arm_study(count: int = 3, floor: int = 0, **options: Any) -> Study:
    """A completed study of the survival cohort by arm, with the rate of death."""
    variables = {**TIMES, "age": {"type": "count", "range": [0, 120], "unit": "years"}}
    learner = {"name": "table_one", "quantiles": {"age": {"width": 1}}, "event": "died", "time": "months", "per": 100}
    plain = {"name": "arms", "sites": list(SITES[:count]), "formula": ARM_FORMULA, "variables": variables}
    plain |= {"learner": {**learner, **options}, "disclosure": {"cell": floor, "rows": 1}}
    return complete_study(Study.model_validate(plain))


def read_stays() -> tuple[list[str], Columns]:
    """Each stay's hospital, and all values: levels as numbers, missing ones as NaN."""
    with (GOLDEN / "data" / "stays.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = {}
    for name in ("age", "ward", "frail", "pain", "infections", "stay"):
        levels = STAYS[name].get("levels")
        values = np.array([float(levels.index(row[name]) if levels else row[name]) for row in rows])
        if name in LACKING:
            values[LACKING[name] - 1 :: LACKING[name]] = np.nan
        columns[name] = values
    used = np.arange(1, len(rows) + 1) % WITHOUT_WARD != 0
    return [row["site"] for row, use in zip(rows, used, strict=True) if use], {k: v[used] for k, v in columns.items()}


def split_stays(count: int = 3, columns: Columns | None = None) -> dict[str, Data]:
    """The stays of each site."""
    hospitals, read = read_stays()
    values = read if columns is None else columns
    masks = {site: np.isin(hospitals, list(members)) for site, members in SPLITS[count].items()}
    return {site: ArrayCodes({k: v[mask] for k, v in values.items()}) for site, mask in masks.items() if mask.any()}


def split_arms(count: int = 3) -> dict[str, Data]:
    """The survival cohort, in turn over the sites."""
    columns = {**read_columns(), "age": read_age()}
    return {name: ArrayCodes({k: v[at::count] for k, v in columns.items()}) for at, name in enumerate(SITES[:count])}


def play_table(study: Study, rows: dict[str, Data]) -> tuple[Fit, MemoryProtocol]:
    """The table that all sites end with, and what was posted."""
    protocol = MemoryProtocol(table_one, study, rows)
    results = protocol.play()
    assert len({repr(fit.details) for fit in results.values()}) == 1
    fit = results[study.sites[0]]
    assert isinstance(fit, Fit)
    return fit, protocol


def find_differences(fit: Fit, model: str) -> float:
    """The largest relative difference of the table's numbers from R's; both have the same terms."""
    want = {term: value for term, (value, _) in references("table_one")[model].terms.items()}
    got: dict[str, float] = dict(zip(fit.terms, fit.estimates.tolist(), strict=True))
    assert sorted(got) == sorted(want)
    return max(abs(value - want[term]) / max(abs(want[term]), 1e-3) for term, value in got.items())
