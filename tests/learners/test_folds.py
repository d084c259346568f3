"""Sums in a fixed order: right, and no less exact than numpy's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coterie_learners.folds import cross, fold, gram


@pytest.mark.parametrize("m", [0, 1, 2, 3, 7, 64, 1001])
def test_a_fold_is_the_sum(m: int) -> None:
    a = np.random.default_rng(m).normal(size=(m, 3))
    np.testing.assert_allclose(fold(a), a.sum(axis=0), rtol=1e-13, atol=1e-13)
    assert fold(np.ones((m, 2))).tolist() == [m, m]


def test_whole_numbers_add_up_exactly() -> None:
    a = np.random.default_rng(1).integers(0, 2**40, 5000).astype(float)
    assert float(fold(a)) == math.fsum(a.tolist())


def test_products_are_those_of_blas_but_for_rounding() -> None:
    rng = np.random.default_rng(2)
    x, w, v = rng.normal(size=(501, 6)), rng.random(501), rng.normal(size=501)
    np.testing.assert_allclose(gram(x, w), (x.T * w) @ x, atol=1e-12)
    np.testing.assert_allclose(cross(x, v), x.T @ v, atol=1e-12)
    assert np.array_equal(gram(x, w), gram(x, w).T)
