"""Sums in a fixed order: right, and no less exact than numpy's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from coterie_learners.numeric.pairwise_sum import pairwise_sum, weighted_gram, weighted_sum


@pytest.mark.parametrize("m", [0, 1, 2, 3, 7, 64, 1001])
def test_a_fold_is_the_sum(m: int) -> None:
    a = np.random.default_rng(m).normal(size=(m, 3))
    np.testing.assert_allclose(pairwise_sum(a), a.sum(axis=0), rtol=1e-13, atol=1e-13)
    assert pairwise_sum(np.ones((m, 2))).tolist() == [m, m]


def test_whole_numbers_add_up_exactly() -> None:
    a = np.random.default_rng(1).integers(0, 2**40, 5000).astype(float)
    assert float(pairwise_sum(a)) == math.fsum(a.tolist())


def test_products_are_those_of_blas_but_for_rounding() -> None:
    rng = np.random.default_rng(2)
    x, w, v = rng.normal(size=(501, 6)), rng.random(501), rng.normal(size=501)
    np.testing.assert_allclose(weighted_gram(x, w), (x.T * w) @ x, atol=1e-12)
    np.testing.assert_allclose(weighted_sum(x, v), x.T @ v, atol=1e-12)
    assert np.array_equal(weighted_gram(x, w), weighted_gram(x, w).T)
