"""NIST's reference data are fitted, to the digits that the table in docs/study.md claims."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from support.lanes import diagonal
from support.learners import cohorts
from support.learners.strd import CASES, CERTIFIED, Case, least_squares
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit
from coterie_learners.core.registry import complete_study
from coterie_learners.glore.glore import glore
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows

# Digits of estimates and standard errors that must be reached (least over the terms), plain and masked alike.
DIGITS = {
    "Norris": (12, 13),
    "Pontius": (11, 12),
    "NoInt1": (14, 14),
    "NoInt2": (14, 14),
    "Longley": (11, 12),
    "Wampler1": (9, 0),
    "Wampler2": (12, 0),
    "Wampler3": (9, 12),
    "Wampler4": (8, 12),
    "Wampler5": (6, 12),
    "Filip, degree 3": (12, 12),
    "Filip, degree 4": (12, 12),
    "Filip, degree 5": (11, 12),
    "Filip, degree 6": (9, 11),
    "Filip, degree 7": (9, 10),
    "Filip, degree 8": (8, 9),
    "Filip, degree 9": (7, 8),
    "Filip, degree 10": (7, 7),
    "NumAcc1": (15, 14),
    "NumAcc2": (14, 14),
    "NumAcc3": (15, 9),
    "NumAcc4": (15, 8),
}


def around(values: np.ndarray) -> list[float]:
    """A range such as people declare: the data fill a third of it."""
    low, high = float(values.min()), float(values.max())
    width = max(high - low, 1e-3 * max(abs(low), 1.0))
    return [low - width, high + width]


def study_of(case: Case, aggregation: str) -> tuple[Study, np.ndarray, np.ndarray]:
    x, y = np.array(case.x, dtype=float), np.array(case.y, dtype=float)
    names = [f"x{j}" for j in range(x.shape[1])]
    terms = [f"x0^{k}" if k > 1 else "x0" for k in range(1, case.degree + 1)] if case.degree > 1 else [*names]
    terms += [] if case.intercept and terms else ["1"] if case.intercept else ["0"]
    plain = {
        "name": "strd",
        "sites": list(cohorts.sites(3)),
        "formula": f"y ~ {' + '.join(terms)}",
        "variables": {
            "y": {"type": "number", "range": around(y)},
            **{name: {"type": "number", "range": around(x[:, j])} for j, name in enumerate(names)},
        },
        # The smallest of these sets has three rows, of which no site would open any sum.
        "learner": {"name": "glore", "family": "gaussian", "aggregation": aggregation, "opening": "none"},
    }
    return complete_study(Study.model_validate(plain)), x, y


@cache
def fit(name: str, aggregation: str) -> Fit:
    study, x, y = study_of(CASES[name], aggregation)
    codes = {"y": y, **{f"x{j}": x[:, j] for j in range(x.shape[1])}}
    parts = cohorts.split_sizes(codes, cohorts.even_sizes(len(y), 3))
    rows: dict[str, ArrayRows] = {}
    for site, part in zip(study.sites, parts, strict=True):
        mine = cohorts.rows(study, part)
        assert isinstance(mine, ArrayRows)
        rows[site] = mine
    result = MemoryProtocol(glore, study, rows).play()[study.sites[0]]
    assert isinstance(result, Fit)
    return result


def digits(got: np.ndarray, want: list[float]) -> float:
    """Digits in common, least over the terms (NIST's log relative error)."""
    off = np.abs(got - np.array(want)) / np.where(np.array(want) == 0.0, 1.0, np.abs(want))
    return float(np.min(-np.log10(np.maximum(off, 1e-16))))


@pytest.mark.parametrize("name", CERTIFIED)
def test_the_data_are_nists(name: str) -> None:
    """The exact solution of the data as floats hold them has NIST's certified first coefficient."""
    estimates, errors = least_squares(CASES[name])
    assert (estimates[0], errors[0]) == pytest.approx(CERTIFIED[name], rel=1e-6)


@pytest.mark.parametrize(("name", "aggregation"), diagonal(list(DIGITS), ["plain", "masked"]))
def test_reference_data_are_fitted_to_these_digits(name: str, aggregation: str) -> None:
    got, (estimates, errors) = fit(name, aggregation), least_squares(CASES[name])
    most, most_of_errors = DIGITS[name]
    assert digits(got.estimates, estimates) >= most
    assert digits(got.std_errors, errors) >= most_of_errors


@pytest.mark.parametrize("name", DIGITS)
def test_digits_that_the_result_calls_sure_are_sure(name: str) -> None:
    got, (estimates, errors) = fit(name, "plain"), least_squares(CASES[name])
    found = got.details["conditioning"]
    for estimate, want, sure in zip(got.estimates, estimates, found["digits"].values(), strict=True):
        assert digits(np.array([estimate]), [want]) >= min(sure, 15.0) - 1.0
    if got.dispersion > 0.0:
        assert digits(got.std_errors, errors) >= found["std_error_digits"] - 2.0


@pytest.mark.parametrize("name", ["Wampler1", "Wampler2"])
def test_an_exact_fit_has_no_error_and_a_warning(name: str) -> None:
    for aggregation in ("plain", "masked"):
        got = fit(name, aggregation)
        assert got.dispersion == 0.0
        assert got.warnings[0].startswith("The columns give the outcome without error")
