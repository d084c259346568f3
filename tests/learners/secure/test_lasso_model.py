"""The fit on shares against scikit-learn on the same rows: penalties, scales, quality, folds; and its limits."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from sklearn.linear_model import ElasticNet, Lasso, LinearRegression, Ridge
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from support.lanes import later
from support.learners import joins
from support.learners.parties import RecordedWire, run_parties

from coterie_learners.errors import NotConverged
from coterie_learners.numeric.array import Array
from coterie_learners.secure.fista import Rule
from coterie_learners.secure.lasso_model import OpenedLasso, Target, fit
from coterie_learners.secure.moments import INPUT, SharedSums, add_column_of_ones, field_bits
from coterie_learners.shares.field import PrimeField
from coterie_learners.shares.shamir3 import ThreePartyShamir

N, M = 400, 6
X, Y = joins.draw(N, M, seed=5)
CENTRE = np.array([0.5 * sum(joins.RANGES[j % 6]) for j in range(M)])
SCALE = np.array([0.5 * (joins.RANGES[j % 6][1] - joins.RANGES[j % 6][0]) for j in range(M)])
OUTCOME = 60.0
RULE = Rule(3000, 10, 1e-7)


def target(penalties: tuple[float, ...], **changes: Any) -> Target:
    plain: dict[str, Any] = {
        "penalties": penalties, "l1_ratio": 1.0, "cohort": False, "scales": SCALE, "outcome_scale": OUTCOME,
        "rule": RULE, "folds": 0, "held_out": False, "path": True,
    }  # fmt: skip
    return Target(**{**plain, **changes})


@dataclass(frozen=True)
class Run:
    outcome: OpenedLasso
    wire: RecordedWire
    cuts: list[int]

    @property
    def coefficients(self) -> Array:
        """Slopes (k, m) in units."""
        return np.asarray(self.outcome.coefficients[:, 1:] * OUTCOME / SCALE)

    @property
    def intercepts(self) -> Array:
        return np.asarray(self.outcome.coefficients[:, 0] * OUTCOME - self.coefficients @ CENTRE)

    def predicted(self, k: int, x: Array) -> Array:
        return np.asarray(self.intercepts[k] + x @ self.coefficients[k])


def run(t: Target, x: Array = X, y: Array = Y, absolute: bool = False, wire: RecordedWire | None = None) -> Run:
    """The rows, cut into folds and rows held out in their order, fitted on shares by three parties."""
    z = np.column_stack([(x - CENTRE[: x.shape[1]]) / SCALE[: x.shape[1]], y / OUTCOME])
    fitted = len(z) - len(z) // 4 if t.held_out else len(z)
    folds = max(t.folds, 1)
    cuts = [fitted * k // folds for k in range(folds + 1)] + ([len(z)] if t.held_out else [])
    field, wire = PrimeField.of_size(field_bits(1 << 22, x.shape[1], t.ridge)), wire or RecordedWire()

    def program(trio: ThreePartyShamir) -> OpenedLasso:
        shares = trio.deal(0, field.encode(z, INPUT) if trio.me == 0 else None, z.shape)
        groups = [shares[a:b] for a, b in itertools.pairwise(cuts)]
        counts = tuple(len(g) for g in groups)
        totals = np.stack([g.sum(axis=0) % field.p for g in groups])
        sums = SharedSums(
            counts, add_column_of_ones(trio, np.stack([field.gram(g) for g in groups]), totals, counts), totals
        )
        parts = [shares[:fitted], shares[fitted:]] if t.held_out else [shares]
        rows = [field.pack(part) for part in parts]
        return fit(trio, sums, rows if absolute else [], t)

    return Run(run_parties(program, field.bits, wire=wire)[0], wire, cuts)


def reference(a: float, l1: float, n: int) -> Any:
    if a == 0:
        return LinearRegression()
    if l1 == 1:
        return Lasso(alpha=a, tol=1e-14, max_iter=10**6)
    if l1 == 0:
        return Ridge(alpha=a * n, tol=1e-14)
    return ElasticNet(alpha=a, l1_ratio=l1, tol=1e-14, max_iter=10**6)


def pooled(a: float, l1: float, cohort: bool, x: Array, y: Array) -> tuple[Array, float]:
    """scikit-learn's slopes in units and intercept."""
    shift, spread, middle, width = x.mean(axis=0), x.std(axis=0), y.mean(), y.std()
    if not cohort:
        shift, spread, middle, width = 0.0 * shift, np.ones_like(spread), 0.0, 1.0
    model = reference(a, l1, len(x)).fit((x - shift) / spread, (y - middle) / width)
    slopes = model.coef_ / spread * width
    return slopes, float(y.mean() - x.mean(axis=0) @ slopes)


CASES = [
    ("lasso in units", (2.0, 0.3), 1.0, False),
    ("lasso of the cohort", (0.3, 0.05), 1.0, True),
    ("elastic net in units", (1.0, 0.2), 0.5, False),
    ("elastic net of the cohort", (0.3, 0.05), 0.4, True),
    ("ridge in units", (0.7,), 0.0, False),
    ("ridge of the cohort", (0.7,), 0.0, True),
    ("ordinary least squares", (0.0,), 1.0, False),
]


QUICK = ("elastic net of the cohort", "ridge in units")


def list_cases() -> list[ParameterSet]:
    """Each penalty once in `make test`; the other scale of its coefficients waits."""
    marks = {name: () if name in QUICK else pytest.mark.long for name, *_ in CASES}
    return [pytest.param(*case, id=name, marks=marks[name]) for name, *case in CASES]


@pytest.mark.parametrize(("penalties", "l1", "cohort"), list_cases())
def test_the_fit_equals_scikit_learn_s(penalties: tuple[float, ...], l1: float, cohort: bool) -> None:
    found = run(target(penalties, l1_ratio=l1, cohort=cohort))
    for k, a in enumerate(penalties):
        slopes, intercept = pooled(a, l1, cohort, X, Y)
        np.testing.assert_allclose(found.coefficients[k], slopes, atol=2e-5 * np.abs(slopes).max(), rtol=0)
        assert abs(found.intercepts[k] - intercept) < 2e-3 * max(1.0, abs(intercept)) / 10
        assert ((found.coefficients[k] == 0) == (slopes == 0)).all()
        plain = r2_score(Y, intercept + X @ slopes)
        assert abs(1.0 - found.outcome.errors[k] / found.outcome.variance - plain) < 1e-6


@pytest.mark.long
def test_figures_of_quality_are_those_of_the_opened_coefficients_on_rows_fitted_and_held_out() -> None:
    found = run(target((0.5, 0.1), held_out=True), absolute=True)
    fitted = found.cuts[-2]
    assert found.outcome.held_out is not None
    for k in range(2):
        for part, (x, y) in enumerate(((X[:fitted], Y[:fitted]), (X[fitted:], Y[fitted:]))):
            guess = found.predicted(k, x)
            errors, variance = (found.outcome.errors, found.outcome.variance) if part == 0 else found.outcome.held_out
            assert abs(errors[k] * OUTCOME**2 / mean_squared_error(y, guess) - 1) < 1e-5
            assert abs(1.0 - errors[k] / variance - r2_score(y, guess)) < 1e-6
            assert abs(found.outcome.absolute[part][k] * OUTCOME - mean_absolute_error(y, guess)) < 1e-3


@pytest.mark.parametrize("cohort", later(True, False))
def test_cross_validation_equals_a_loop_over_folds_and_opens_only_the_best(cohort: bool) -> None:
    penalties = (1.0, 0.3, 0.1, 0.02) if cohort else (4.0, 1.0, 0.3, 0.05)
    found = run(target(penalties, cohort=cohort, folds=4, path=False))
    expected = []
    for a in penalties:
        errors = []
        for low, high in itertools.pairwise(found.cuts):
            training = np.r_[0:low, high:N]
            slopes, intercept = pooled(a, 1.0, cohort, X[training], Y[training])
            errors.append(mean_squared_error(Y[low:high], intercept + X[low:high] @ slopes))
        expected.append(np.mean(errors))
    assert found.outcome.scores is not None
    np.testing.assert_allclose(found.outcome.scores * OUTCOME**2, expected, rtol=1e-5)
    assert found.outcome.shown == (int(np.argmin(expected)),)
    assert len(found.outcome.coefficients) == 1


def test_a_path_needs_as_many_rounds_as_its_slowest_penalty_alone() -> None:
    wire, alone = RecordedWire(), RecordedWire()
    rule = Rule(20, 0, 1e-4)
    run(target((1.0, 0.3, 0.1, 0.03, 0.01), rule=rule), wire=wire)
    run(target((0.01,), rule=rule), wire=alone)
    assert len(wire.log) == len(alone.log)


def test_without_checks_no_bit_is_opened_and_the_iterations_are_fixed() -> None:
    found = run(target((0.3,), rule=Rule(40, 0, 1e-4)))
    assert found.outcome.iterations == 40


@pytest.mark.long
def test_a_constant_column_gets_zero_and_a_constant_outcome_its_mean() -> None:
    x = X.copy()
    x[:, 2] = 3.0
    found = run(target((0.3,)), x)
    slopes, _ = pooled(0.3, 1.0, False, x, Y)
    assert found.coefficients[0, 2] == 0.0
    np.testing.assert_allclose(found.coefficients[0], slopes, atol=2e-5 * np.abs(slopes).max())
    flat = run(target((0.3,)), X, np.full(N, 4.0))
    assert np.abs(flat.outcome.coefficients[:, 1:]).max() < 1e-7
    assert abs(flat.intercepts[0] - 4.0) < 1e-6


@pytest.mark.long
def test_one_column_and_hardly_varying_columns_are_no_special_cases() -> None:
    x = X[:, :1]
    found = run(target((0.3,), scales=SCALE[:1]), x)
    slope = found.outcome.coefficients[0, 1] * OUTCOME / SCALE[0]
    assert abs(slope - pooled(0.3, 1.0, False, x, Y)[0][0]) < 1e-5
    narrow = X.copy()
    narrow[:, 1] = 20.0 + 0.01 * (narrow[:, 1] - 20.0)  # a standard deviation of a 400th of its range
    narrow_run = run(target((0.05,), cohort=True), narrow)
    slopes, _ = pooled(0.05, 1.0, True, narrow, Y)
    np.testing.assert_allclose(narrow_run.coefficients[0], slopes, atol=1e-4 * np.abs(slopes).max())


def test_values_at_the_ends_of_their_ranges_do_not_overflow() -> None:
    signs = np.where(np.random.default_rng(0).random((N, M)) < 0.5, -1.0, 1.0)
    x, y = CENTRE + SCALE * signs, OUTCOME * signs[:, 0]
    found = run(target((0.001,)), x, y)
    slopes, intercept = pooled(0.001, 1.0, False, x, y)
    np.testing.assert_allclose(found.coefficients[0], slopes, atol=1e-5 * np.abs(slopes).max())
    assert abs(found.intercepts[0] - intercept) < 1e-3


def test_a_fit_that_does_not_settle_opens_nothing() -> None:
    with pytest.raises(NotConverged) as caught:
        run(target((0.01,), rule=Rule(10, 5, 1e-7)))
    assert caught.value.code == "CO-N141"
    assert "Nothing was opened" in caught.value.message


@pytest.mark.parametrize(("rows", "columns", "ridge"), [(10, 1, 0.0), (1 << 22, 60, 0.0), (1 << 22, 200, 10.0)])
def test_fields_grow_with_what_they_must_hold(rows: int, columns: int, ridge: float) -> None:
    assert field_bits(rows, columns, ridge) <= 256
    assert field_bits(rows, columns, ridge) <= field_bits(4 * rows, 2 * columns, ridge + 1)
