"""Units, places and declared ranges with other families on split columns: results follow to eight digits."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from support.lanes import diagonal
from support.learners import column_owners, vertical
from support.learners.cohorts import Codes
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit, merge_fits
from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study

MODELS: dict[str, dict[str, Any]] = {
    "gaussian": {"name": "valoris"},
    "poisson_offset": {"name": "vertigo"},
    "probit": {"name": "valoris", "mode": "aggregated"},
    "cloglog": {"name": "vertigo"},
}
N = 300
# What is done to the covariate w: times so much, and so many standard deviations from zero.
CHANGES = {"unit 1e-12": (1e-12, 0.0), "unit 1e12": (1e12, 0.0), "place 1e4": (1.0, 1e4), "place -1e6": (1.0, -1e6)}


def rows() -> Codes:
    return {name: values[:N] for name, values in column_owners.codes("stays").items()}


def widen(study: Study, name: str, span: tuple[float, float]) -> Study:
    plain = study.model_dump()
    plain["variables"][name] = {**plain["variables"][name], "range": list(span)}
    plain["learner"] = {key: value for key, value in plain["learner"].items() if key != "version"}
    return complete_study(Study.model_validate(plain))


def fit(study: Study, codes: Codes) -> Fit:
    results = MemoryProtocol(learner_of(study).script, study, vertical.split(study, codes)).play()
    return merge_fits(results, Design(study).names)


@cache
def first(model: str) -> Fit:
    return fit(column_owners.study("stays", model, "3", **MODELS[model]), rows())


def check_same(result: Fit, model: str, unit: float = 1.0, outcome: float = 1.0) -> None:
    """Slopes and errors follow to eight digits; w is in units of 1 / `unit`, the outcome in those of 1 / `outcome`."""
    before = first(model)
    scale = np.array([outcome / unit if term == "w" else outcome for term in before.terms])
    slopes = np.array([term != "(Intercept)" for term in before.terms])
    errors = before.std_errors * scale
    off = np.abs(result.estimates - before.estimates * scale) / np.maximum(np.abs(before.estimates * scale), errors)
    assert np.max(off[slopes]) < 1e-8
    assert np.max(np.abs(result.std_errors / errors - 1.0)[slopes]) < 1e-8


@pytest.mark.parametrize(("model", "change"), diagonal(list(MODELS), list(CHANGES)))
def test_a_covariate_may_be_in_any_unit_and_at_any_place(model: str, change: str) -> None:
    unit, place = CHANGES[change]
    w = rows()["w"]
    moved = unit * w + place * unit * w.std()
    span = (float(moved.min() - unit), float(moved.max() + unit))
    study = widen(column_owners.study("stays", model, "3", **MODELS[model]), "w", span)
    check_same(fit(study, {**rows(), "w": moved}), model, unit)


@pytest.mark.parametrize(("model", "times"), diagonal(list(MODELS), [1e1, 1e6]))
def test_a_declared_range_may_be_far_too_wide(model: str, times: float) -> None:
    study = widen(column_owners.study("stays", model, "3", **MODELS[model]), "w", (0.1 - 2.0 * times, 5.0 + times))
    check_same(fit(study, rows()), model)


@pytest.mark.parametrize("unit", [1e-12, pytest.param(1e12, marks=pytest.mark.long)])
def test_a_measured_outcome_may_be_in_any_unit_and_at_any_place(unit: float) -> None:
    stay = unit * (rows()["stay"] + 1e4)
    study = column_owners.study("stays", "gaussian", "3", name="vertigo")
    study = widen(study, "stay", (float(stay.min()) - unit, float(stay.max()) + unit))
    check_same(fit(study, {**rows(), "stay": stay}), "gaussian", outcome=unit)
