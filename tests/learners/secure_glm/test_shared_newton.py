"""The fit on shares against statsmodels' GLM on the same rows, and its ends without a result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit
from sklearn.datasets import load_breast_cancer
from support.lanes import later
from support.learners.glm_rows import GlmRows, draw_rows, fit_on_shares
from support.learners.parties import RecordedWire

from coterie_learners.errors import Collinear, NotConverged
from coterie_learners.numeric.array import Array
from coterie_learners.secure_glm.shared_newton import GlmOutcome


def fit_pooled(rows: GlmRows) -> tuple[Array, Array, float]:
    """statsmodels' coefficients, standard errors and deviance."""
    model = sm.GLM(rows.y, rows.design, family=sm.families.Binomial(), offset=rows.offset)
    fit = model.fit(tol=1e-13, maxiter=100)
    return np.asarray(fit.params), np.asarray(fit.bse), float(fit.deviance)


def assert_pooled(rows: GlmRows, outcome: GlmOutcome) -> None:
    estimates, errors, deviance = fit_pooled(rows)
    assert outcome.n == len(rows.y)
    assert np.abs((outcome.coefficients - estimates) / errors).max() < 1e-4
    assert np.abs(np.sqrt(outcome.variances) / errors - 1.0).max() < 1e-4
    assert abs(outcome.deviance - deviance) < 1e-3


def shrink_ranges() -> GlmRows:
    """Measured columns whose spread is from a 3rd to a 400th of their range, and far from its middle."""
    rows = draw_rows(500, 6, seed=11)
    x = rows.x.copy()
    for j, (middle, factor) in enumerate([(0.9, 0.02), (-0.5, 0.1), (0.0, 1.0)]):
        x[:, j] = middle + factor * x[:, j]
    return GlmRows(x, rows.y)


def strong_effects() -> GlmRows:
    """Odds ratios of 200 and more for a standard deviation."""
    rng = np.random.default_rng(7)
    x = np.clip(rng.normal(size=(600, 3)) / 5.0, -1.0, 1.0)
    return GlmRows(x, (rng.random(600) < expit(x @ [27.0, -13.0, 0.0])).astype(float))


def with_offset() -> GlmRows:
    rows = draw_rows(400, 3, seed=13)
    offset = np.random.default_rng(1).normal(0.0, 1.0, 400)
    return GlmRows(rows.x, rows.y, offset)


CASES: dict[str, Callable[[], GlmRows]] = {
    "no columns": lambda: draw_rows(200, 0),
    "one column": lambda: draw_rows(300, 1),
    "two columns": lambda: draw_rows(300, 2, seed=2),
    "ten correlated columns": lambda: draw_rows(500, 10, seed=3, rho=0.9),
    "a rare outcome": lambda: draw_rows(1000, 3, seed=4, rare=0.02),
    "thirty columns": lambda: draw_rows(500, 30, seed=5, rho=0.3),
    "badly scaled ranges": shrink_ranges,
    "strong effects": strong_effects,
    "an offset": with_offset,
}


HEAVY = ("ten correlated columns", "a rare outcome", "thirty columns", "strong effects")


@pytest.mark.parametrize("name", [*(name for name in CASES if name not in HEAVY), *later(*HEAVY)])
def test_the_fit_equals_that_of_the_pooled_rows(name: str) -> None:
    rows = CASES[name]()
    assert_pooled(rows, fit_on_shares(rows))


# Rows, columns, the share of events (0: about a half) and the correlation of columns.
SWEEP = [
    (300, 2, 0.0, 0.0), (400, 3, 0.0, 0.5), (400, 5, 0.0, 0.9), (500, 8, 0.0, 0.99), (600, 10, 0.0, 0.3),
    (1500, 4, 0.02, 0.0), (2000, 6, 0.02, 0.5), (2000, 10, 0.02, 0.0), (3000, 8, 0.02, 0.9), (800, 15, 0.0, 0.5),
    (800, 20, 0.0, 0.2), (900, 25, 0.0, 0.8), (1000, 30, 0.0, 0.0), (1000, 35, 0.0, 0.3), (1200, 40, 0.0, 0.5),
    (500, 4, 0.1, 0.9), (700, 12, 0.1, 0.5), (700, 6, 0.0, 0.95), (450, 7, 0.0, 0.1), (1500, 60, 0.0, 0.3),
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("number", range(len(SWEEP)))
def test_twenty_simulated_sets_are_fitted_as_pooled(number: int) -> None:
    n, m, rare, rho = SWEEP[number]
    rows = draw_rows(n, m, seed=100 + number, rare=rare, rho=rho)
    assert_pooled(rows, fit_on_shares(rows))


@pytest.mark.long
@pytest.mark.parametrize("columns", [(0, 1), (0, 1, 4, 8), (0, 2, 3, 1, 4), (0, 1, 4, 5, 8, 9)], ids=str)
def test_tumours_that_a_few_measurements_nearly_separate_are_fitted_as_pooled(columns: tuple[int, ...]) -> None:
    """The breast-cancer data of scikit-learn: linear predictors up to 56, odds ratios above 200, collinear columns."""
    data = load_breast_cancer()
    x = data.data[:, columns]
    scaled = 2.0 * (x - x.min(axis=0)) / (x.max(axis=0) - x.min(axis=0)) - 1.0
    rows = GlmRows(scaled, data.target.astype(float))
    assert_pooled(rows, fit_on_shares(rows))


def test_a_ridge_gives_the_penalised_maximum_and_the_inverse_of_its_information() -> None:
    rows, weight = draw_rows(400, 4, seed=8), 3.0
    outcome = fit_on_shares(rows, ridge=weight)
    x, penalty = rows.design, np.diag([0.0] + [weight] * 4)
    p = expit(x @ outcome.coefficients)
    inverse = np.linalg.inv(x.T @ (x * (p * (1 - p))[:, None]) + penalty)
    step = inverse @ (x.T @ (rows.y - p) - penalty @ outcome.coefficients)
    errors = np.sqrt(np.diag(inverse))
    assert np.abs(step / errors).max() < 1e-4
    assert np.abs(np.sqrt(outcome.variances) / errors - 1.0).max() < 1e-4


@pytest.mark.long
def test_covariance_and_events_are_opened_only_if_the_study_says_so() -> None:
    rows = draw_rows(300, 3, seed=9)
    assert (fit_on_shares(rows).covariance, fit_on_shares(rows).events) == (None, None)
    outcome = fit_on_shares(rows, covariance=True, events=True)
    p = expit(rows.design @ fit_pooled(rows)[0])
    expected = np.linalg.inv(rows.design.T @ (rows.design * (p * (1 - p))[:, None]))
    assert outcome.events == int(rows.y.sum())
    assert outcome.covariance is not None
    np.testing.assert_allclose(outcome.covariance, expected, atol=2e-5 * np.abs(expected).max())


def separate(kind: str) -> GlmRows:
    rows = draw_rows(240, 3, seed=10)
    x, y = rows.x.copy(), rows.y.copy()
    if kind == "complete":
        y = (x[:, 0] > 0.05).astype(float)
    else:
        x[:, 2] = 0.0
        x[np.flatnonzero(y == 1)[:4], 2] = 1.0
    return GlmRows(x, y)


@pytest.mark.parametrize("kind", later("quasi", "complete"))
def test_separation_ends_without_opening_anything(kind: str) -> None:
    with pytest.raises(NotConverged) as caught:
        fit_on_shares(separate(kind))
    assert caught.value.code == "CO-N142"
    assert "Nothing was opened" in caught.value.message
    assert "separation" in caught.value.message


@pytest.mark.parametrize("kind", ["constant", "combination"])
def test_a_column_that_others_give_ends_it_after_one_bit(kind: str) -> None:
    rows = draw_rows(200, 3, seed=12)
    x = rows.x.copy()
    x[:, 2] = 0.4 if kind == "constant" else 0.5 * x[:, 0] - 0.2
    with pytest.raises(Collinear) as caught:
        fit_on_shares(GlmRows(x, rows.y))
    assert caught.value.code == "CO-N244"


def test_iterations_are_opened_in_steps_of_check_every() -> None:
    rows = draw_rows(300, 2, seed=2)
    assert fit_on_shares(rows, check_every=5).iterations == 5


@pytest.mark.long
def test_rounds_do_not_depend_on_rows() -> None:
    few, many = RecordedWire(), RecordedWire()
    fit_on_shares(draw_rows(100, 2, seed=2), few, check_every=4)
    fit_on_shares(draw_rows(400, 2, seed=2), many, check_every=4)
    assert len(few.log) == len(many.log)
