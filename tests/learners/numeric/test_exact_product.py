"""Products by exact slices: right to the last digits, and the same bits on every kernel of BLAS."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from coterie_learners.errors import Collinear
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.exact_product import MAX_INNER, multiply_exactly

KERNELS = {
    "Nehalem, one thread": {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1"},
    "Haswell, two threads": {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"},
    "Prescott, two threads": {"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_NUM_THREADS": "2"},
}
NAMES = tuple(f"x{j}" for j in range(400))


def make_gram(p: int, seed: int = 3) -> Array:
    x = np.random.default_rng(seed).standard_normal((3 * p, p))
    return np.asarray(x.T @ x)


def multiply_by_fractions(a: Array, b: Array) -> Array:
    """The product, correctly rounded."""
    left, right = ([[Fraction(v) for v in row] for row in m.tolist()] for m in (a, b.T))
    return np.array([[float(sum(x * y for x, y in zip(r, c, strict=True))) for c in right] for r in left])


@pytest.mark.parametrize("inner", [1, 2, 33, 200, 1000])
def test_a_product_is_right_to_the_last_digits(inner: int) -> None:
    rng = np.random.default_rng(inner)
    a, b = rng.standard_normal((5, inner)), rng.standard_normal((inner, 4))
    bound = 4.0 * np.finfo(float).eps * np.abs(a).max(1)[:, None] * np.abs(b).max(0)
    assert np.all(np.abs(multiply_exactly(a, b) - multiply_by_fractions(a, b)) <= bound)


def test_the_longest_inner_index_loses_nothing() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((2, MAX_INNER)), rng.standard_normal((MAX_INNER, 2))
    exact = multiply_by_fractions(a, b)
    assert np.allclose(multiply_exactly(a, b), exact, rtol=0.0, atol=1e-13 * MAX_INNER**0.5)


@pytest.mark.parametrize("side", ["rows", "columns", "inner"])
def test_powers_of_two_in_rows_columns_or_the_inner_index_move_no_bit(side: str) -> None:
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((30, 60)), rng.standard_normal((60, 20))
    shape = {"rows": 30, "columns": 20, "inner": 60}[side]
    powers = 2.0 ** (2 * rng.integers(-40, 40, shape)).astype(float)
    plain = multiply_exactly(a, b)
    if side == "rows":
        assert np.array_equal(multiply_exactly(a * powers[:, None], b), plain * powers[:, None])
    elif side == "columns":
        assert np.array_equal(multiply_exactly(a, b * powers), plain * powers)
    else:
        assert np.array_equal(multiply_exactly(a * powers, b / powers[:, None]), plain)


@pytest.mark.parametrize("spread", [0, 30, 500])
def test_a_matrix_times_its_transpose_has_the_bits_of_any_product(spread: int) -> None:
    """Half of the symmetric sums is computed, and large powers of two take another path."""
    rng = np.random.default_rng(19)
    a = rng.standard_normal((70, 45)) * 2.0 ** rng.integers(-spread, spread + 1, (70, 1))
    a[3], a[:, 7] = 0.0, 0.0
    square = multiply_exactly(a, a.T)
    assert np.array_equal(square, multiply_exactly(a, a.T.copy()))
    assert np.array_equal(square, square.T)


@pytest.mark.parametrize("power", [-1060, -1030, -900, 900, 960])
def test_numbers_near_the_ends_of_a_double_s_range_lose_no_more_than_the_result_does(power: int) -> None:
    rng = np.random.default_rng(23)
    a, b = rng.standard_normal((6, 40)), rng.standard_normal((40, 5))
    far = np.ldexp(a, power)
    expected = multiply_by_fractions(far, b)
    assert np.allclose(multiply_exactly(far, b), expected, rtol=1e-13, atol=1e-14 * np.abs(expected).max() + 5e-324)


def test_nothing_times_anything_is_nothing() -> None:
    a = np.zeros((3, 40))
    assert np.array_equal(multiply_exactly(a, np.ones((40, 2))), np.zeros((3, 2)))
    assert np.array_equal(multiply_exactly(np.ones((2, 40)), np.zeros((40, 0))), np.zeros((2, 0)))


@pytest.mark.parametrize("p", [31, 32, 33, 70, 200])
def test_factor_inverse_and_root_agree_with_lapack_below_and_above_the_base(p: int) -> None:
    a = make_gram(p)
    factor = linalg.cholesky(a, NAMES[:p])
    assert np.allclose(factor, np.linalg.cholesky(a), rtol=0.0, atol=1e-13 * np.sqrt(a.max()))
    assert np.allclose(linalg.inverse(factor) @ a, np.eye(p), rtol=0.0, atol=1e-10)
    assert np.allclose(linalg.invert_lower(factor) @ factor, np.eye(p), rtol=0.0, atol=1e-12)
    root = linalg.root_of(a)
    assert np.allclose(root @ root.T, a, rtol=0.0, atol=1e-12 * a.max())


@pytest.mark.parametrize("place", [0, 40, 79, 99])
def test_a_column_that_others_determine_is_named_wherever_it_stands(place: int) -> None:
    x = np.random.default_rng(11).standard_normal((400, 100))
    x[:, place] = x[:, (place + 7) % 100] - 2.0 * x[:, (place + 13) % 100]
    last = max(place, (place + 7) % 100, (place + 13) % 100)
    with pytest.raises(Collinear, match=rf"^The column x{last} is a combination of "):
        linalg.cholesky(x.T @ x, NAMES[:100])


def test_a_root_of_a_matrix_of_low_rank_leaves_the_other_directions_at_zero() -> None:
    half = np.random.default_rng(13).standard_normal((120, 40))
    root = linalg.root_of(half @ half.T)
    assert np.allclose(root @ root.T, half @ half.T, rtol=0.0, atol=1e-7)


def compute_digest() -> str:
    """A digest of a factor, an inverse, a root and a product of 150 columns."""
    a = make_whole_gram(150)
    factor = linalg.cholesky(a, NAMES[:150])
    parts = (factor, linalg.inverse(factor), linalg.root_of(a), linalg.matmul(factor, a))
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def make_whole_gram(p: int) -> Array:
    """Sums of squares and products of whole numbers, which every kernel adds up alike."""
    x = np.random.default_rng(17).integers(-9, 10, (4 * p, p)).astype(float)
    return np.asarray(x.T @ x)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_bits_do_not_depend_on_the_kernel_or_the_threads(kernel: str) -> None:
    script = "import runpy, sys; print(runpy.run_path(sys.argv[1])['compute_digest']())"
    done = subprocess.run(
        [sys.executable, "-c", script, __file__],
        env=os.environ | KERNELS[kernel],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == compute_digest()
