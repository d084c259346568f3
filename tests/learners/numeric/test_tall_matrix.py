"""Tall matrices: products as exact as they say, and free of the order in which BLAS sums."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.learners.cohorts import Array

from coterie_learners.numeric.tall_matrix import BLOCK, TallMatrix, round_to_grid


def matrix(n: int, q: int, seed: int = 1) -> Array:
    """Columns of very different size, as principal components have."""
    rng = np.random.default_rng(seed)
    return round_to_grid(rng.normal(size=(n, q)) * 10.0 ** rng.integers(-6, 3, q))


def exact_product(a: Array, b: Array) -> Array:
    """a @ b in fractions, rounded once."""
    rows = [[Fraction(v) for v in row] for row in a.tolist()]
    columns = [[Fraction(v) for v in column] for column in b.T.tolist()]
    return np.array([[float(sum(x * y for x, y in zip(r, c, strict=True))) for c in columns] for r in rows])


def test_the_grid_takes_less_than_a_44th_bit_of_the_largest_entry() -> None:
    x = np.random.default_rng(0).normal(size=(500, 6)) * [1, 10, 1e-9, 1e9, 3, 0]
    gap = np.max(np.abs(round_to_grid(x) - x), axis=0)
    assert np.all(gap <= 2.0**-44 * np.max(np.abs(x), axis=0))
    np.testing.assert_array_equal(round_to_grid(round_to_grid(x)), round_to_grid(x))


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (BLOCK + 1, 5), (40, 0), (40, 130)])
def test_two_slices_hold_the_matrix_without_a_remainder(shape: tuple[int, int]) -> None:
    z = matrix(*shape)
    tall, q = TallMatrix.of([z]), shape[1]
    assert tall.shape == shape
    np.testing.assert_array_equal((tall.slices[:, :q] + tall.slices[:, q:]) * tall.scale, z)


def test_products_equal_those_in_fractions() -> None:
    z, rng = matrix(60, 4), np.random.default_rng(2)
    tall = TallMatrix.of([z[:, :1], z[:, 1:]])
    b, r = rng.normal(size=4) / np.max(np.abs(z), axis=0), rng.normal(size=60) * 1e-5
    np.testing.assert_allclose(tall.times(b), exact_product(z, b[:, None])[:, 0], rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(tall.sums(r), exact_product(z.T, r[:, None])[:, 0], rtol=1e-13, atol=0)


def test_a_gram_matrix_is_good_to_thirteen_digits() -> None:
    z, w = matrix(3 * BLOCK + 7, 12), np.random.default_rng(3).uniform(0, 0.25, 3 * BLOCK + 7)
    plain = (z * w[:, None]).T @ z
    size = np.sqrt(np.diag(plain))
    result = TallMatrix.of([z]).gram(w)
    np.testing.assert_array_equal(result, result.T)
    assert np.max(np.abs(result - plain) / size[:, None] / size) < 1e-13


def test_a_vector_of_zeros_has_products_of_zeros() -> None:
    tall = TallMatrix.of([matrix(30, 3)])
    assert not np.any(tall.times(np.zeros(3)))
    assert not np.any(tall.sums(np.zeros(30)))
    assert not np.any(tall.gram(np.zeros(30)))


@given(st.permutations(range(8)), st.integers(0, 5))
def test_within_a_block_the_order_of_the_rows_does_not_matter(order: list[int], seed: int) -> None:
    z, r = matrix(8, 3, seed), np.random.default_rng(seed).normal(size=8)
    w = r * r
    mine, other = TallMatrix.of([z]), TallMatrix.of([z[order]])
    assert mine.sums(r).tobytes() == other.sums(r[order]).tobytes()
    assert mine.gram(w).tobytes() == other.gram(w[order]).tobytes()
