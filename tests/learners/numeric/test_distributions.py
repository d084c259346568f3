"""Tails and quantiles against scipy, also far out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from coterie_learners.numeric import distributions


@pytest.mark.parametrize("df", [1, 2, 3, 4, 7, 22, 99, 100, 399, 400, 401, 2000])
def test_chi_squared_tails_are_those_of_scipy(df: int) -> None:
    for value in (0.0, 1e-9, 0.1, 1.0, 0.5 * df, float(df), 2.0 * df, df + 500.0):
        expected = float(stats.chi2.sf(value, df))
        assert distributions.chi_squared_above(value, df) == pytest.approx(expected, rel=1e-11, abs=1e-300)


def test_tails_without_degrees_of_freedom_are_unknown() -> None:
    assert math.isnan(distributions.chi_squared_above(3.0, 0))
    assert math.isnan(distributions.chi_squared_above(math.nan, 2))
    tails = distributions.chi_squared_tails(np.array([[1.0, np.nan], [2.0, 3.0]]), np.array([[1, 1], [0, 2]]))
    assert tails.shape == (2, 2)
    assert np.isnan(tails).tolist() == [[False, True], [True, False]]


def test_normal_tails_and_quantiles_are_those_of_scipy() -> None:
    z = np.array([0.0, -0.3, 1.96, 8.0, -30.0, np.nan])
    assert distributions.two_sided_normal(z) == pytest.approx(2.0 * stats.norm.sf(np.abs(z)), rel=1e-12, nan_ok=True)
    for p in (0.5, 0.9, 0.975, 0.9999):
        assert distributions.normal_quantile(p) == pytest.approx(float(stats.norm.ppf(p)), abs=1e-14)


def test_t_and_f_are_those_of_scipy() -> None:
    t = np.array([0.0, -2.0, 12.0])
    assert distributions.two_sided_t(t, 5.0) == pytest.approx(2.0 * stats.t.sf(np.abs(t), 5.0))
    assert distributions.t_quantile(0.975, 5.0) == pytest.approx(float(stats.t.ppf(0.975, 5.0)))
    values, df = np.array([0.5, 3.0]), np.array([1.0, 4.0])
    assert distributions.f_above(values, df, 30.0) == pytest.approx(stats.f.sf(values, df, 30.0))
