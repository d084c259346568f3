"""Secure Lasso under wide ranges and other units: scikit-learn's coefficients to five digits, or a refusal in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from sklearn.linear_model import Lasso
from support.lanes import later
from support.learners import joins
from support.learners.joins import JoinCohort

from coterie_learners.core.fit import merge_fits
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import LearnerError
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows, Data, OwnColumns
from coterie_node.run.simulate import simulate

ALPHA = 0.05
COHORTS = {
    "rows": lambda: joins.rows_cohort(alpha=ALPHA),
    "columns": lambda: joins.cohort(alpha=ALPHA),
}


def declare(study: Study, spans: Mapping[str, tuple[float, float]]) -> Study:
    """The study with other declared ranges."""
    plain = study.model_dump()
    for variable, span in spans.items():
        plain["variables"][variable]["range"] = span
    plain["learner"].pop("version", None)
    return complete_study(Study.model_validate(plain))


def rescale(c: JoinCohort, study: Study, times: float) -> Mapping[str, Data]:
    """The same patients under the ranges of `study`, with x0 in another unit."""
    old, new = (dict(zip(Design(s).names, Design(s).columns, strict=True)) for s in (c.study, study))
    out: dict[str, Data] = {}
    for site, data in c.data.items():
        if isinstance(data, ArrayRows):
            block = next(iter(data.blocks()))
            out[site] = ArrayRows(block.x * np.where(np.arange(block.x.shape[1]) == 1, times, 1.0), block.y)
            continue
        assert isinstance(data, OwnColumns)
        columns = []
        for j, name in enumerate(data.names):
            raw = (data.x[:, j] * old[name].scale + old[name].centre) * (times if name == "x0" else 1.0)
            columns.append((raw - new[name].centre) / new[name].scale)
        out[site] = OwnColumns(data.identifiers, data.names, np.column_stack(columns), data.y)
    return out


def fit(study: Study, data: Mapping[str, Data]) -> dict[str, float]:
    _, runners, _ = simulate(study, data)
    merged = merge_fits({name: runner.machine.result for name, runner in runners.items()}, Design(study).names)
    return dict(zip(merged.terms, merged.estimates.tolist(), strict=True))


def pooled(c: JoinCohort, times: float = 1.0) -> dict[str, float]:
    x: Array = c.x.copy()
    x[:, 0] *= times
    want = Lasso(alpha=ALPHA, tol=1e-14, max_iter=10**6).fit(x, c.y)
    return {"(Intercept)": float(want.intercept_)} | {f"x{j}": float(b) for j, b in enumerate(want.coef_)}


def widen(c: JoinCohort, variable: str, times: float, at: float) -> tuple[float, float]:
    low, high = c.study.variables[variable].bounds
    start = low - (high - low) * (times - 1.0) * at
    return start, start + (high - low) * times


@pytest.mark.parametrize("variable", ["x0", "y"])
@pytest.mark.parametrize("times", [10.0, 1e4, *later(1.0, 30.0, 60.0, 1e2, 1e6)])
@pytest.mark.parametrize("split", COHORTS)
def test_a_wide_range_gives_the_coefficients_or_a_refusal_that_names_the_range(
    split: str, times: float, variable: str
) -> None:
    c = COHORTS[split]()
    study = declare(c.study, {variable: widen(c, variable, times, 0.3)})
    want = pooled(c)
    try:
        got = fit(study, rescale(c, study, 1.0))
    except LearnerError as refusal:
        message = refusal.message
        got = {}
    if not got:
        assert times > 10.0
        assert "Narrow the range in the study" in message
        return
    assert times < 1e3
    assert list(got.values()) == pytest.approx([want[term] for term in got], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("power", [-12, *later(-3, 3, 12)])
@pytest.mark.parametrize("split", COHORTS)
def test_with_a_penalty_on_standardised_columns_the_unit_changes_its_own_coefficient_alone(
    split: str, power: int
) -> None:
    unit, c = 10.0**power, COHORTS[split]()
    plain = c.study.model_dump()
    plain["learner"] |= {"penalise": "cohort"}
    cohort_study = Study.model_validate(plain)
    low, high = cohort_study.variables["x0"].bounds
    base, turned = (declare(cohort_study, {"x0": (low * t, high * t)}) for t in (1.0, unit))
    want, got = fit(base, rescale(c, base, 1.0)), fit(turned, rescale(c, turned, unit))
    assert got["x0"] * unit == pytest.approx(want["x0"], rel=1e-5)
    assert [got[t] for t in got if t != "x0"] == pytest.approx([want[t] for t in got if t != "x0"], rel=1e-5)
