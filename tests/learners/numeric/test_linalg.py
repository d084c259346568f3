"""Arithmetic with the same bits everywhere: as exact as the system's, and free of order."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.learners.cohorts import Array

from coterie_learners.errors import Collinear
from coterie_learners.numeric import linalg

finite = st.floats(min_value=-1e150, max_value=1e150)


def design(n: int = 200, p: int = 6, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(size=(n, p))


def names(p: int) -> list[str]:
    return [f"x{j}" for j in range(p)]


def ulps(got: float, want: float) -> float:
    return abs(got - want) / math.ulp(want)


# exp and log


@given(st.floats(min_value=-708.0, max_value=709.0))
def test_exp_is_within_two_units_in_the_last_place(x: float) -> None:
    assert ulps(linalg.exp(x), math.exp(x)) <= 2


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_log_is_within_two_units_in_the_last_place(x: float) -> None:
    assume(x != 1.0)
    assert ulps(linalg.log(x), math.log(x)) <= 2


def test_exp_and_log_hold_over_a_dense_range() -> None:
    rng = np.random.default_rng(0)
    for x in rng.uniform(-700, 700, 4000).tolist() + rng.uniform(-1, 1, 4000).tolist():
        assert ulps(linalg.exp(x), math.exp(x)) <= 2
    for x in np.exp(rng.uniform(-690, 690, 4000)).tolist() + (1 + rng.uniform(-0.3, 0.3, 4000)).tolist():
        assert ulps(linalg.log(x), math.log(x)) <= 2


def test_the_ends_of_exp_and_log() -> None:
    assert linalg.exp(0.0) == 1.0
    assert linalg.exp(-1000.0) == 0.0
    assert linalg.exp(-740.0) == pytest.approx(math.exp(-740.0), rel=1)
    assert linalg.log(1.0) == 0.0
    assert linalg.log(2.0**-1074) == pytest.approx(math.log(2.0**-1074), rel=1e-15)
    with pytest.raises(OverflowError):
        linalg.exp(710.0)


# Sums


@given(st.lists(finite, min_size=1, max_size=8))
def test_a_total_is_the_exact_sum_rounded_once(values: list[float]) -> None:
    assert linalg.total([np.array(v) for v in values]) == float(sum(map(Fraction, values)))


@given(st.lists(st.lists(finite, min_size=3, max_size=3), min_size=2, max_size=5), st.randoms(use_true_random=False))
def test_a_total_does_not_depend_on_the_order(rows: list[list[float]], random: object) -> None:
    arrays = [np.array(row) for row in rows]
    shuffled = list(arrays)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert linalg.total(arrays).tobytes() == linalg.total(shuffled).tobytes()


def test_plain_sums_do_depend_on_the_order() -> None:
    """The reason for total: five sites, 120 orders, more than one result of numpy's."""
    parts = list(np.random.default_rng(3).normal(size=(5, 40)))
    plain = {np.sum(order, axis=0).tobytes() for order in itertools.permutations(parts)}
    exact = {linalg.total(order).tobytes() for order in itertools.permutations(parts)}
    assert len(plain) > 10
    assert len(exact) == 1


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_a_total_keeps_the_shape(shape: tuple[int, ...]) -> None:
    assert linalg.total([np.ones(shape), np.ones(shape)]).shape == shape


def test_products_equal_numpys() -> None:
    a, b = design(7, 5), design(5, 4, seed=2)
    np.testing.assert_allclose(linalg.matmul(a, b), a @ b, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(linalg.matvec(a, b[:, 0]), a @ b[:, 0], rtol=1e-13, atol=1e-14)
    assert linalg.dot(a[:, 0], a[:, 1]) == pytest.approx(float(a[:, 0] @ a[:, 1]), rel=1e-12)


def test_a_dot_product_cancels_exactly() -> None:
    assert linalg.dot(np.array([1e16, 1.0, -1e16]), np.ones(3)) == 1.0


@pytest.mark.parametrize("p", [1, 2, 5])
def test_a_triangle_becomes_the_symmetric_matrix_that_it_came_from(p: int) -> None:
    x = design(p=p)
    a = x.T @ x
    a = 0.5 * (a + a.T)
    np.testing.assert_array_equal(linalg.symmetric(a[np.triu_indices(p)], p), a)


# Cholesky


@pytest.mark.parametrize("p", [1, 2, 6, 25])
def test_cholesky_solve_and_inverse_equal_numpys(p: int) -> None:
    x = design(p=p)
    a = x.T @ x
    factor = linalg.cholesky(a, names(p))
    np.testing.assert_allclose(factor, np.linalg.cholesky(a), rtol=1e-12, atol=1e-12)
    b = np.arange(1.0, p + 1)
    np.testing.assert_allclose(linalg.solve(factor, b), np.linalg.solve(a, b), rtol=1e-11)
    many = design(p, 3, seed=5)
    np.testing.assert_allclose(linalg.solve(factor, many), np.linalg.solve(a, many), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(linalg.inverse(factor), np.linalg.inv(a), rtol=1e-10, atol=1e-14)


def test_an_inverse_is_symmetric_to_the_last_bit() -> None:
    x = design(p=12)
    inverse_matrix = linalg.inverse(linalg.cholesky(x.T @ x, names(12)))
    assert inverse_matrix.tobytes() == inverse_matrix.T.copy().tobytes()


def test_inputs_are_not_changed() -> None:
    x = design()
    a, b = x.T @ x, np.ones(6)
    before = a.copy()
    linalg.solve(linalg.cholesky(a, names(6)), b)
    np.testing.assert_array_equal(a, before)
    np.testing.assert_array_equal(b, 1.0)


@pytest.mark.parametrize("units", [1e-12, 1.0, 1e12])
def test_units_of_a_column_do_not_make_it_collinear(units: float) -> None:
    x = design() * np.array([1, units, 1, 1, 1, 1])
    a = x.T @ x
    factor = linalg.cholesky(a, names(6))
    np.testing.assert_allclose(factor @ factor.T, a, rtol=1e-12, atol=1e-12 * units)


def collinear(x: Array) -> str:
    with pytest.raises(Collinear) as caught:
        linalg.cholesky(x.T @ x, names(x.shape[1]))
    return f"{caught.value.code} {caught.value.message}"


def test_a_column_that_is_a_sum_of_others_is_named_with_them_alone() -> None:
    x = design()
    x[:, 4] = 2 * x[:, 1] - x[:, 3]
    cause = collinear(x)
    assert cause.startswith("CO-N202 The column x4 is a combination of x1, x3:")


def test_a_repeated_column_is_named_with_its_double() -> None:
    x = design()
    x[:, 5] = -7 * x[:, 0]
    assert collinear(x).startswith("CO-N202 The column x5 is a combination of x0:")


@pytest.mark.parametrize(
    "names", [["(Intercept)", "h[v]", "h[w]"], ["(Intercept)", "x:h[v]", "x:h[w]"], ["x", "y", "z"]]
)
def test_only_levels_of_one_category_lack_a_reference(names: list[str]) -> None:
    x = np.column_stack([np.ones(6), [1, 0, 1, 0, 1, 1], [0, 1, 0, 1, 0, 0]]).astype(float)
    with pytest.raises(Collinear) as caught:
        linalg.cholesky(x.T @ x, names)
    assert caught.value.message.startswith("No row has the reference level of h,") == (names[1] == "h[v]")
    assert names[2] in caught.value.message


def test_columns_without_variation_are_all_named() -> None:
    x = design()
    x[:, [2, 4]] = 0.0
    assert collinear(x).startswith("CO-N201 The pooled rows have no variation in x2, x4.")


def test_a_nearly_collinear_column_still_passes() -> None:
    x = design()
    x[:, 4] = x[:, 1] + 1e-4 * x[:, 4]
    factor = linalg.cholesky(x.T @ x, names(6))
    assert factor[4, 4] > 0


def test_a_matrix_that_is_not_positive_definite_is_no_factor() -> None:
    with pytest.raises(Collinear):
        linalg.cholesky(np.array([[1.0, 2.0], [2.0, 1.0]]), names(2))
