"""VALORIS and VERTIGO with every family against R's glm on the joined columns: coefficients, errors, the whole fit.

R's fits rest at epsilon 1e-15 with the covariance taken there (tests/golden/r/columns.R).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.learners import column_owners, vertical
from support.learners.r_stays import references
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit, merge_fits
from coterie_learners.core.registry import learner_of
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study

LEARNERS: dict[str, dict[str, Any]] = {
    "valoris": {"name": "valoris"},
    "valoris, aggregated": {"name": "valoris", "mode": "aggregated"},
    "vertigo": {"name": "vertigo"},
}
WHOLE = {"deviance": "deviance", "null deviance": "null_deviance", "AIC": "aic", "BIC": "bic"}


def fit(study: Study, data: str) -> tuple[Fit, MemoryProtocol]:
    table = MemoryProtocol(learner_of(study).script, study, vertical.split(study, column_owners.codes(data)))
    return merge_fits(table.play(), Design(study).names), table


def check_equal(result: Fit, data: str, model: str) -> None:
    """Estimates to 1e-8 of themselves or of their errors, errors to 1e-7, the whole fit and its tests to 1e-8."""
    reference = references("columns")[f"{data}_{model}"]
    rows = {t: v for t, v in reference.terms.items() if not t.startswith("test ") and t != "BIC"}
    names = [term.replace("[", "").replace("]", "") for term in result.terms]
    assert sorted(names) == sorted(rows)
    pairs = np.array([rows[name] for name in names])
    scale = np.maximum(np.abs(pairs[:, 0]), pairs[:, 1])
    assert np.max(np.abs(result.estimates - pairs[:, 0]) / scale) < 1e-8
    assert np.max(np.abs(result.std_errors / pairs[:, 1] - 1.0)) < 1e-7
    numbers = {**reference.numbers, **{t: v[0] for t, v in reference.terms.items() if t == "BIC"}}
    assert result.dispersion == pytest.approx(numbers["dispersion"], rel=1e-8)
    for name in WHOLE.keys() & numbers.keys():
        assert getattr(result, WHOLE[name]) == pytest.approx(numbers[name], rel=1e-8), name
    tests = {test["term"]: test["statistic"] for test in result.details["tests"]}
    expected = {term[5:]: value for term, (value, _) in reference.terms.items() if term.startswith("test ")}
    assert tests == pytest.approx(expected, rel=1e-6, abs=1e-9)


NAMES = [f"{data} {model}" for model in column_owners.MODELS for data in ("stays", "cohort")]
# What `make test` checks of all models, splits and learners.
QUICK = (
    ("stays gaussian_offset", "3", "valoris"),
    ("cohort gaussian", "3", "vertigo"),
    ("stays poisson_offset", "3 in another order", "valoris, aggregated"),
    ("cohort probit", "2", "vertigo"),
)


def list_cells() -> list[Any]:
    """All cells, of which those that are not quick wait for the long lane."""
    owners = list(column_owners.OWNERS)
    cells = [(n, o, a) for n in NAMES for o in owners for a in LEARNERS if not (o == "2" and "aggregated" in a)]
    return [pytest.param(*cell, marks=() if cell in QUICK else pytest.mark.long) for cell in cells]


@pytest.mark.parametrize(("name", "owners", "learner"), list_cells())
def test_every_family_equals_r_on_the_joined_columns(name: str, owners: str, learner: str) -> None:
    data, model = name.split(" ")
    study = column_owners.study(data, model, owners, **LEARNERS[learner])
    result, table = fit(study, data)
    check_equal(result, data, model)
    assert table.auditor().result is None or learner == "vertigo"
