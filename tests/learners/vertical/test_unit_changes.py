"""Units, places, ranges, signs and orders of sites with split columns: results follow to eight digits, or are refused.

A refusal names the range or the unit. The whole grid is the full lane (`make ranges`); its result stands in
docs/study.md under "range of use".
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np
import pytest
from support.lanes import diagonal
from support.learners import vertical
from support.learners.cohorts import Array, Codes
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit, merge_fits
from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.errors import LearnerError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study

COLUMNS = {"north": ("died", "a1", "p1"), "south": ("b1", "q1"), "east": ("c1", "c2")}
LEARNERS: dict[str, dict[str, Any]] = {
    "vertigo": {"learner": "vertigo"},
    "valoris per site": {"learner": "valoris", "mode": "per_site"},
    "valoris aggregated": {"learner": "valoris", "mode": "aggregated"},
}
WHOLE = os.environ.get("COTERIE_WHOLE_GRID") == "1"
POWERS = range(-12, 13) if WHOLE else (-12, -6, 6, 12)
SHIFTS = (1e2, -1e3, 1e4, -1e5, 1e6) if WHOLE else (-1e4, 1e6)
WIDENINGS = (1e1, 1e2, 1e3, 1e4, 1e5, 1e6) if WHOLE else (1e4, 1e6)
SPREAD = 0.5
PLACES = (0.0, 0.37, 1.0) if WHOLE else (0.37,)


@cache
def codes() -> Codes:
    drawn = dict(vertical.draw(400, columns_by_site=COLUMNS))
    return {name: 2.0 + SPREAD * values if name == "b1" else values for name, values in drawn.items()}


def study_of(name: str, spans: dict[str, list[float]], order: tuple[str, ...] = tuple(COLUMNS)) -> Study:
    plain = vertical.study({site: COLUMNS[site] for site in order}, **LEARNERS[name]).model_dump()
    for variable, span in {"b1": [-6.0, 10.0], **spans}.items():
        plain["variables"][variable]["range"] = span
    plain["learner"] = {k: v for k, v in plain["learner"].items() if k != "version"}
    return complete_study(Study.model_validate(plain))


def fit(study: Study, rows: Codes) -> Fit:
    fits = MemoryProtocol(learner_of(study).script, study, vertical.split(study, rows)).play()
    return merge_fits(fits, Design(study).names)


@cache
def right(name: str) -> tuple[dict[str, float], dict[str, float]]:
    got = fit(study_of(name, {}), codes())
    return by_term(got, got.estimates), by_term(got, got.std_errors)


def by_term(got: Fit, values: Array) -> dict[str, float]:
    return dict(zip(got.terms, values.tolist(), strict=True))


def outcome(name: str, study: Study, rows: Codes, times: float = 1.0, variable: str = "b1") -> str:
    """ "right" where all slopes follow to eight digits, "refused", or how far off."""
    try:
        got = fit(study, rows)
    except LearnerError as error:
        return "refused" if "range" in error.message or "unit" in error.message else error.message
    estimates, errors = right(name)
    off = 0.0
    for values, wanted in ((by_term(got, got.estimates), estimates), (by_term(got, got.std_errors), errors)):
        for term in set(values) - {"(Intercept)"}:
            unit = times if term == variable else 1.0
            sign = unit if wanted is estimates else abs(unit)
            off = max(off, abs(values[term] * sign - wanted[term]) / max(abs(wanted[term]), errors[term]))
    return "right" if off < 1e-8 else f"off by {off:.1e}"


def turned(name: str, times: float, plus: float) -> str:
    low, high = sorted(times * end + plus for end in (-6.0, 10.0))
    rows = {**codes(), "b1": times * codes()["b1"] + plus}
    return outcome(name, study_of(name, {"b1": [low, high]}), rows, times)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_pooled_fit_is_what_the_turned_ones_are_held_against(name: str) -> None:
    study = study_of(name, {})
    estimates, _ = vertical.pooled(study, codes())
    assert list(right(name)[0].values()) == pytest.approx(estimates.tolist(), abs=1e-8)


@pytest.mark.parametrize(("name", "power"), diagonal(list(LEARNERS), POWERS))
def test_the_unit_of_a_column_changes_its_own_coefficient_alone(name: str, power: int) -> None:
    assert turned(name, 10.0**power, 0.0) == "right"


@pytest.mark.parametrize(("name", "shift"), diagonal(list(LEARNERS), SHIFTS))
def test_a_column_measured_from_another_zero_changes_the_intercept_alone(name: str, shift: float) -> None:
    assert turned(name, 1.0, shift * SPREAD) == "right"


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize(("name", "times"), diagonal(list(LEARNERS), WIDENINGS))
def test_a_declared_range_changes_nothing(name: str, times: float, at: float) -> None:
    width = 16.0 * times
    start = -6.0 - (width - 16.0) * at
    assert outcome(name, study_of(name, {"b1": [start, start + width]}), codes()) == "right"


@pytest.mark.parametrize("name", LEARNERS)
def test_signs_and_the_order_of_sites_change_nothing(name: str) -> None:
    assert turned(name, -1.0, 0.0) == "right"
    assert outcome(name, study_of(name, {}, ("east", "north", "south")), codes()) == "right"
    assert outcome(name, study_of(name, {}), {k: np.flip(v).copy() for k, v in codes().items()}) == "right"
