"""A published model on NHEFS: death by 1992 by age, sex and years of smoking, evaluated by sex and by race."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coterie_node.analysis.pooled import Reference
from coterie_node.demo.cases import nhefs
from coterie_node.demo.cases.case import Case

# Coefficients of no paper: near a fit of these data, but somewhat too large.
MODEL = {"(Intercept)": -8.9, "age": 0.13, "sex[female]": -0.55, "smokeyrs": 0.015}
_COLUMNS = ("age", "sex", "race", "smokeyrs")
_STUDY = """\
# External validation of a published model of death by 1992. All sites approve this file by its hash.
name = "nhefs-validation"
title = "NHEFS: a published model of death by 1992"
sites = [{sites}]
formula = "death ~ age + sex + smokeyrs"

[learner]
name = "validate"
model = "the demo's model of death by age, sex and smoking"

[learner.coefficients]
{coefficients}

[evaluate]
by = ["sex", "race"]

{floor}{variables}"""
_UNMASKED = "[disclosure]\n# With fewer than three sites no sum can be masked; these patients' records are public.\n"


def _study_text(sites: Sequence[str]) -> str:
    """The study file."""
    coefficients = "\n".join(f'"{name}" = {value}' for name, value in MODEL.items())
    floor = f"{_UNMASKED}cell = 0\n\n" if len(sites) < 3 else ""
    return _STUDY.format(
        sites=nhefs.quote_names(sites), coefficients=coefficients, floor=floor, variables=nhefs.VARIABLES
    )


def _write_sites(folder: Path, sites: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site; returns their paths by site."""
    frame = nhefs.load_cohort()[[nhefs.OUTCOME, *_COLUMNS]]
    shares = nhefs.split(len(frame), sites)
    return {name: nhefs.write_frame(frame.iloc[rows], folder / name / "data.csv") for name, rows in shares.items()}


def _fit_pooled() -> Reference:
    """The measures that do not depend on the grid, of all patients and of groups, by scikit-learn and statsmodels."""
    frame = nhefs.load_cohort()
    values: dict[str, float] = {}
    levels = [(column, level) for column in ("sex", "race") for level in nhefs.LEVEL_WORDS[column].values()]
    groups = [(f"{column}[{level}]", frame[frame[column] == level]) for column, level in levels]
    for name, part in [("all", frame), *groups]:
        values |= {f"{measure}: {name}": value for measure, value in _measure(part)}
    return Reference(values)


def _measure(part: Any) -> Iterator[tuple[str, float]]:
    import statsmodels.api as sm
    from sklearn.metrics import brier_score_loss

    logit = MODEL["(Intercept)"] + MODEL["age"] * part["age"] + MODEL["smokeyrs"] * part["smokeyrs"]
    logit = (logit + MODEL["sex[female]"] * (part["sex"] == "female")).to_numpy(float)
    outcome, score = part["death"].to_numpy(float), 1.0 / (1.0 + np.exp(-logit))
    family = sm.families.Binomial()
    both = sm.GLM(outcome, sm.add_constant(logit), family=family).fit(tol=1e-14, maxiter=100).params
    alone = sm.GLM(outcome, np.ones((len(logit), 1)), offset=logit, family=family).fit(tol=1e-14, maxiter=100).params
    yield "n", float(len(outcome))
    yield "events", float(outcome.sum())
    yield "brier", float(brier_score_loss(outcome, score))
    yield "predicted", float(score.mean())
    yield "observed", float(outcome.mean())
    yield "calibration in the large", float(alone[0])
    yield "calibration intercept", float(both[0])
    yield "calibration slope", float(both[1])


_NOTE = "NHEFS: 1,629 people; the model is the demo's own."
CASE = Case(nhefs.name_sites, _study_text, _write_sites, _fit_pooled, (_NOTE,))
