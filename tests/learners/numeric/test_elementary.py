"""Elementary functions of arrays: accurate against mpmath's 40 digits, and defined at their ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy import special
from support.learners.cohorts import Array

from coterie_learners.numeric import elementary, linalg

mpmath.mp.dps = 40
WITHIN = 1e-15


def error(got: Array, function: Callable[[Any], Any], at: Array) -> float:
    """Largest relative error."""
    worst = 0.0
    for x, value in zip(at.tolist(), got.tolist(), strict=True):
        want = function(mpmath.mpf(x))
        worst = max(worst, float(abs((mpmath.mpf(value) - want) / want)) if want else abs(value))
    return worst


def spread(low: float, high: float, count: int = 150) -> Array:
    rng = np.random.default_rng(5)
    return np.concatenate([np.linspace(low, high, count), rng.uniform(low, high, count)])


def log_ndtr(x: Any) -> Any:
    return mpmath.log1p(-mpmath.ncdf(-x)) if x > 3 else mpmath.log(mpmath.ncdf(x))


CASES: dict[str, tuple[Callable[[Array], Array], Callable[[Any], Any], Array]] = {
    "exp": (elementary.exp_of_array, mpmath.exp, spread(-700, 709)),
    "exp near 0": (elementary.exp_of_array, mpmath.exp, spread(-1, 1)),
    "log": (elementary.log_of_array, mpmath.log, np.exp(spread(-690, 690))),
    "log near 1": (elementary.log_of_array, mpmath.log, spread(0.7, 1.4)),
    "log1p": (elementary.log1p, mpmath.log1p, np.concatenate([spread(-0.999, 5), 10.0 ** spread(-18, 5)])),
    "expm1": (elementary.expm1, mpmath.expm1, np.concatenate([spread(-40, 100), 10.0 ** spread(-18, 0)])),
    "erfcx": (elementary.erfcx, lambda x: mpmath.exp(x * x) * mpmath.erfc(x), spread(0, 30)),
    "normal below": (lambda z: elementary.evaluate_normal(z).below, mpmath.ncdf, spread(-37, 9)),
    "normal above": (lambda z: elementary.evaluate_normal(z).above, lambda x: mpmath.ncdf(-x), spread(-9, 37)),
    "log below": (lambda z: elementary.evaluate_normal(z).log_below, log_ndtr, spread(-40, 12)),
    "log above": (lambda z: elementary.evaluate_normal(z).log_above, lambda x: log_ndtr(-x), spread(-12, 40)),
    "rate below": (
        lambda z: elementary.evaluate_normal(z).rate_below,
        lambda x: mpmath.npdf(x) / mpmath.ncdf(x),
        spread(-40, 20),
    ),
    "rate above": (
        lambda z: elementary.evaluate_normal(z).rate_above,
        lambda x: mpmath.npdf(x) / mpmath.ncdf(-x),
        spread(-20, 40),
    ),
    "arctan": (elementary.arctan, mpmath.atan, np.concatenate([spread(-4, 4), spread(-1e9, 1e9)])),
    "softplus": (elementary.softplus, lambda x: mpmath.log1p(mpmath.exp(x)), spread(-40, 60)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_function_is_right_to_a_few_units_in_the_last_place(name: str) -> None:
    function, exact, at = CASES[name]
    assert error(function(at), exact, at) < WITHIN


def test_the_arrays_and_the_single_numbers_have_the_same_bits() -> None:
    at = spread(-30, 30)
    assert elementary.exp_of_array(at).tolist() == [linalg.exp(x) for x in at.tolist()]
    assert elementary.log_of_array(at * at).tolist() == [linalg.log(x * x) for x in at.tolist()]


def test_the_ends_are_what_scipy_says() -> None:
    far = np.array([-1e6, -800.0, 800.0, 1e6])
    assert elementary.exp_of_array(far[:2]).tolist() == [0.0, 0.0]
    assert np.all(elementary.exp_of_array(far[2:]) > 1e307)
    assert elementary.exp_of_array(np.zeros(1)) == 1.0
    assert elementary.log1p(np.zeros(1)) == 0.0
    z = elementary.evaluate_normal(far)
    assert z.below.tolist() == special.ndtr(far).tolist()
    assert z.rate_below[2:].tolist() == [0.0, 0.0]
    np.testing.assert_allclose(z.log_below, special.log_ndtr(far), rtol=1e-13)
