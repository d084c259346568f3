"""Secure Lasso under wide ranges and other units: the same coefficients to eight digits, which are scikit-learn's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest
from sklearn.linear_model import Lasso
from support.lanes import later, one_of_each
from support.learners import joins
from support.learners.joins import JoinCohort

from coterie_learners.core.fit import merge_fits
from coterie_learners.core.intervals import check_spread, find_intervals, merge_intervals
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError, ProtocolError
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


def standard_errors(c: JoinCohort, times: float = 1.0) -> dict[str, float]:
    """Those of least squares: what is far below them is no digit of a coefficient."""
    x = np.column_stack([np.ones(len(c.y)), c.x])
    x[:, 1] *= times
    inverse, residual = np.linalg.inv(x.T @ x), c.y - x @ np.linalg.lstsq(x, c.y, rcond=None)[0]
    errors = np.sqrt(np.diag(inverse) * float(residual @ residual) / (len(c.y) - x.shape[1]))
    return dict(zip(["(Intercept)", *(f"x{j}" for j in range(c.x.shape[1]))], errors.tolist(), strict=True))


def agree(got: Mapping[str, float], want: Mapping[str, float], errors: Mapping[str, float], digits: int = 8) -> bool:
    """Whether coefficients agree to so many digits of the larger of the coefficient and its standard error."""
    return all(abs(got[t] - want[t]) <= 10.0**-digits * max(abs(want[t]), errors[t]) for t in want)


@cache
def base(split: str) -> tuple[JoinCohort, dict[str, float]]:
    c = COHORTS[split]()
    return c, fit(c.study, c.data)


@pytest.mark.parametrize(
    ("split", "variable"), one_of_each([(s, v) for s in COHORTS for v in ("x0", "y")], lambda _: "a range")
)
@pytest.mark.parametrize("times", [1e4, *later(10.0, 1e2, 1e6)])
@pytest.mark.parametrize("at", [0.37, *later(0.0, 1.0)])
def test_a_wide_range_changes_no_digit(split: str, at: float, times: float, variable: str) -> None:
    c, want = base(split)
    study = declare(c.study, {variable: widen(c, variable, times, at)})
    assert agree(fit(study, rescale(c, study, 1.0)), want, standard_errors(c))


@pytest.mark.parametrize("split", ["rows", *later("columns")])
def test_with_a_narrow_tolerance_the_coefficients_are_those_of_scikit_learn_to_seven_digits(split: str) -> None:
    c, _ = base(split)
    plain = c.study.model_dump()
    plain["learner"] |= {"tolerance": 1e-9, "max_iterations": 10_000}
    spans = {name: widen(c, name, 1e4, 0.3) for name in ("x0", "y")}
    study = declare(Study.model_validate(plain), spans)
    assert agree(fit(study, rescale(c, study, 1.0)), pooled(c), standard_errors(c), digits=7)


@pytest.mark.parametrize("power", [-12, *later(-6, -3, 3, 6, 12)])
@pytest.mark.parametrize("split", [*list(COHORTS)[:1], *later(*list(COHORTS)[1:])])
def test_with_a_penalty_on_standardised_columns_the_unit_changes_its_own_coefficient_alone(
    split: str, power: int
) -> None:
    unit, c = 10.0**power, COHORTS[split]()
    plain = c.study.model_dump()
    plain["learner"] |= {"penalise": "cohort"}
    cohort_study = Study.model_validate(plain)
    low, high = cohort_study.variables["x0"].bounds
    first, turned = (declare(cohort_study, {"x0": (low * t, high * t)}) for t in (1.0, unit))
    want, got = fit(first, rescale(c, first, 1.0)), fit(turned, rescale(c, turned, unit))
    assert agree({**got, "x0": got["x0"] * unit}, want, standard_errors(c))


def test_a_value_far_from_all_others_is_refused_with_a_word_on_the_range() -> None:
    """Among many rows its column varies in too small a part of any interval that has all of its values."""
    values = np.random.default_rng(1).normal(size=(10**6, 1)) * 1e-9
    values[0] = 1.0
    own = find_intervals(values)
    assert own.levels[0] == 0
    with pytest.raises(DataError, match="Look for a value far from all others; or narrow the range") as caught:
        check_spread(own.place(values), "north")
    assert caught.value.code == "CO-D344"


@pytest.mark.parametrize("width", [1.0, 0.1, 1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("middle", [-1.0, -0.3, 0.0, 0.77, 1.0])
def test_an_interval_has_all_values_and_is_as_narrow_as_their_spread_asks(middle: float, width: float) -> None:
    raw = np.clip(middle + width * np.random.default_rng(2).normal(size=(500, 1)), -1.0, 1.0)
    own = find_intervals(raw)
    inside = (raw - own.middle) / own.half
    assert np.all(np.abs(inside) <= 1.0)
    assert np.all(np.abs(own.middle) + own.half <= 1.0 + 1e-12)
    assert own.levels[0] == 0 or 1.0 / 128.0 / 1.01 <= inside.std() <= 1.0 / 63.0
    np.testing.assert_allclose(own.place(raw) * own.half + own.middle, raw, rtol=0, atol=1e-15)


def test_an_ordinary_range_and_a_constant_column_say_nothing_of_their_values() -> None:
    rng = np.random.default_rng(3)
    columns = np.column_stack([rng.uniform(-0.2, 0.2, 300), np.full(300, 0.12345), rng.integers(0, 2, 300) * 2.0 - 1.0])
    own = find_intervals(columns)
    assert (own.levels.tolist(), own.places.tolist()) == ([0, 0, 0], [0, 0, 0])


@pytest.mark.parametrize(("level", "place"), [(-1, 0), (31, 0), (2, 4), (0, 1)])
def test_an_interval_that_no_range_has_names_its_site(level: int, place: int) -> None:
    good = {"levels": np.zeros(2, np.int64), "places": np.zeros(2, np.int64)}
    bad = {"levels": np.array([0, level]), "places": np.array([0, place])}
    with pytest.raises(ProtocolError, match="south posts intervals") as caught:
        merge_intervals({"north": good, "south": bad}, 2, None)
    assert caught.value.code == "CO-P654"
