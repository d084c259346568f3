"""Months to death in NHEFS by sex: Kaplan-Meier curves, the log-rank test and restricted means on a monthly grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coterie_node.analysis.pooled import Reference
from coterie_node.demo.cases import nhefs
from coterie_node.demo.cases.case import Case
from coterie_node.demo.cases.nhefs import HORIZON, MONTHS

_STUDY = """\
# Months from January 1983 to death in NHEFS, by sex. All sites approve this file by its hash.
name = "nhefs-survival"
title = "NHEFS: months to death, by sex"
sites = [{sites}]
formula = "death ~ 1"

[learner]
name = "survival_curves"
time = "months"
event = "death"
group = "sex"
at = [60, 120]
time_grid = {{ width = 1, horizon = {horizon}, unit = "months" }}

[disclosure]
# These patients' records are public. With the default floor the sites would take wider steps.
cell = 0

{months}[variables.death]
type = "binary"
label = "death by 1992"

[variables.sex]
type = "category"
levels = ["male", "female"]
"""


def _study_text(sites: Sequence[str]) -> str:
    """The study file."""
    return _STUDY.format(sites=nhefs.quote_names(sites), horizon=HORIZON, months=MONTHS)


def _write_sites(folder: Path, sites: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site; returns their paths by site."""
    return nhefs.write_months(folder, sites, ("months", "death", "sex"))


def _fit_pooled() -> Reference:
    """Areas under the curves of statsmodels on all rows, the second as its difference from the first."""
    frame = nhefs.load_months()
    (first, first_variance), (second, second_variance) = (
        _measure_area(frame[frame["sex"] == sex]) for sex in nhefs.LEVEL_WORDS["sex"].values()
    )
    errors = {"(Intercept)": first_variance**0.5, "sex[female]": (first_variance + second_variance) ** 0.5}
    return Reference({"(Intercept)": first, "sex[female]": second - first}, errors)


def _measure_area(frame: Any) -> tuple[float, float]:
    """The area under the curve up to the horizon, and its variance."""
    from statsmodels.duration.survfunc import SurvfuncRight

    curve = SurvfuncRight(frame["months"].to_numpy(float), frame["death"].to_numpy(float))
    ends = np.append(curve.surv_times, HORIZON)
    areas = np.diff(ends) * curve.surv_prob
    after = np.cumsum(areas[::-1])[::-1]
    risk, events = np.asarray(curve.n_risk, float), np.asarray(curve.n_events, float)
    return float(ends[0] + areas.sum()), float(np.sum(after**2 * events / (risk * (risk - events))))


_NOTE = "NHEFS: 318 of 1,629 people died by the end of 1992; all others are censored there."
CASE = Case(nhefs.name_sites, _study_text, _write_sites, _fit_pooled, (_NOTE,))
