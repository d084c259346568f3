"""Arithmetic that gives the same bits on every machine, for everything that a server posts.

Only + - * / and square root on whole arrays (correctly rounded by IEEE 754 wherever numpy runs), sums that are exact
(math.fsum) or taken in a fixed order, and our own exp and log. BLAS sums in an order that depends on the processor and
on the number of threads: here it multiplies only slices of whole numbers, of which no sum is rounded (exact_product).
A site's own work on its rows uses plain BLAS; nobody recomputes that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import Collinear
from coterie_learners.numeric.exact_product import MAX_INNER, multiply_exactly

Array = NDArray[np.float64]
# Up to so many columns work goes column by column; beyond, by halves and exact products.
BASE = 32

LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
EXP_TERMS = tuple(1.0 / math.factorial(k) for k in range(13, 1, -1))
# A squared pivot of the correlation matrix below this is rounding: the column has no variation of its own.
PIVOT_FLOOR = 1e-11
# A squared pivot below this is rounding of nothing.
SEMIDEFINITE = 1e-14


def total(arrays: Iterable[Array]) -> Array:
    """Elementwise sum of equally shaped arrays, correctly rounded: it does not depend on the order."""
    stacked = np.stack([np.asarray(a, dtype=np.float64) for a in arrays])
    flat = stacked.reshape(len(stacked), -1).T.tolist()
    return np.array([math.fsum(column) for column in flat]).reshape(stacked.shape[1:])


def dot(a: Array, b: Array) -> float:
    """Inner product of two vectors, its products summed exactly."""
    return math.fsum((a * b).tolist())


def matvec(a: Array, b: Array) -> Array:
    """a @ b, column by column from the first."""
    out = np.zeros(len(a))
    for j in range(a.shape[1]):
        out = out + a[:, j] * b[j]
    return out


def matmul(a: Array, b: Array) -> Array:
    """a @ b: few inner rows by outer products from the first, more by exact slices."""
    if BASE < a.shape[1] <= MAX_INNER and np.all(np.isfinite(a)) and np.all(np.isfinite(b)):
        return multiply_exactly(a, b)
    out = np.zeros((a.shape[0], b.shape[1]))
    part = np.empty_like(out)
    for j in range(a.shape[1]):
        np.multiply(a[:, j, None], b[j], out=part)
        out += part
    return out


@lru_cache(64)
def upper_triangle(p: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the upper triangle of a (p, p) matrix, row by row; the same arrays at every call."""
    rows, columns = np.triu_indices(p)
    rows.flags.writeable = columns.flags.writeable = False
    return rows, columns


def symmetric(upper: Array, p: int) -> Array:
    """The (p, p) matrix whose upper triangle, row by row, is `upper`."""
    out = np.zeros((p, p))
    rows, columns = upper_triangle(p)
    out[rows, columns] = upper
    out[columns, rows] = upper
    return out


def cholesky(a: Array, names: Sequence[str]) -> Array:
    """Lower triangular L with L L' = a; Collinear names the first column that the others determine.

    The matrix is scaled to unit diagonal first, so that the pivots are 1 - R^2 of each column on those before it.
    """
    scale = np.sqrt(np.maximum(np.diag(a), 0.0))
    if not np.all(scale > 0):
        raise no_variation([names[j] for j in np.flatnonzero(~(scale > 0)).tolist()])
    factor = a / (scale[:, None] * scale)
    end = _eliminate(factor, PIVOT_FLOOR, stop=True)
    if end < len(factor):
        raise _collinear(np.tril(factor)[: end + 1, :end], names[: end + 1])
    lower: Array = np.tril(factor) * scale[:, None]
    return lower


def _eliminate(m: Array, floor: float, stop: bool) -> int:
    """Turn m (h, w), h >= w, into the first w columns of its factor, on and below the diagonal; halves at a time.

    A pivot at or below the floor ends the work (`stop`) or makes its column zero. Returns the number of columns done.
    """
    w = int(m.shape[1])
    if w <= BASE:
        return _eliminate_columns(m, floor, stop)
    half = w // 2
    done = _eliminate(m[:, :half], floor, stop)
    if done < half:
        return done
    m[half:, half:] -= matmul(m[half:, :half], m[half:w, :half].T)
    return half + _eliminate(m[half:, half:], floor, stop)


def _eliminate_columns(m: Array, floor: float, stop: bool) -> int:
    """The same, column by column."""
    # Columns of m are rows here, so that each one's numbers are neighbours.
    rest, w = np.array(m.T, order="C"), int(m.shape[1])
    part = np.empty_like(rest)
    for j in range(w):
        column = rest[j, j:]
        pivot = float(column[0])
        if not pivot > floor:
            if stop:
                m[:, :j] = rest[:j].T
                return j
            column[:] = 0.0
            continue
        column /= math.sqrt(pivot)
        later = column[1:]
        product = part[j + 1 :, j + 1 :]
        np.multiply(later[: w - j - 1, None], later, out=product)
        rest[j + 1 :, j + 1 :] -= product
    m[:] = rest.T
    return w


def solve(factor: Array, b: Array) -> Array:
    """x with L L' x = b, for b (p,) or (p, k)."""
    x = np.array(b, dtype=np.float64)
    p = len(factor)
    shape = (-1,) + (1,) * (x.ndim - 1)
    for j in range(p):
        x[j] = x[j] / factor[j, j]
        x[j + 1 :] = x[j + 1 :] - factor[j + 1 :, j].reshape(shape) * x[j]
    for j in range(p - 1, -1, -1):
        x[j] = x[j] / factor[j, j]
        x[:j] = x[:j] - factor[j, :j].reshape(shape) * x[j]
    return x


def inverse(factor: Array) -> Array:
    """(L L')^-1, symmetric to the last bit."""
    root = invert_lower(factor)
    whole = matmul(root.T, root)
    return 0.5 * (whole + whole.T)


def invert_lower(factor: Array) -> Array:
    """L^-1 (p, p) of a lower triangular L: a root of (L L')^-1 from which nothing has been subtracted."""
    p = len(factor)
    x = np.zeros_like(factor)
    if p > BASE:
        half = p // 2
        first, last = invert_lower(factor[:half, :half]), invert_lower(factor[half:, half:])
        x[:half, :half], x[half:, half:] = first, last
        x[half:, :half] = -matmul(matmul(last, factor[half:, :half]), first)
        return x
    x[:] = np.eye(p)
    for j in range(p):
        # To the right of its diagonal a row is zero and stays so.
        row = x[j, : j + 1]
        row /= factor[j, j]
        x[j + 1 :, : j + 1] -= factor[j + 1 :, j, None] * row
    return x


def root_of(a: Array) -> Array:
    """A root R (p, p) with R R' = a for a positive semi-definite a; directions in which a is nothing are nothing."""
    scale = np.sqrt(np.maximum(np.diag(a), 0.0))
    safe = np.where(scale > 0.0, scale, 1.0)
    factor = a / safe[:, None] / safe
    _eliminate(factor, SEMIDEFINITE, stop=False)
    return np.asarray(np.tril(factor) * safe[:, None])


def exp(x: float) -> float:
    """e^x by range reduction and a fixed polynomial: within 1 unit in the last place, the same bits everywhere."""
    k = float(round(x * 1.4426950408889634))
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    tail = 0.0
    for term in EXP_TERMS:
        tail = tail * r + term
    return math.ldexp(1.0 + (r + r * r * tail), int(k))


def log(x: float) -> float:
    """Natural logarithm of x > 0 by frexp and the series of atanh: the same bits everywhere."""
    mantissa, k = math.frexp(x)
    if mantissa < 0.7071067811865476:
        mantissa, k = 2 * mantissa, k - 1
    s = (mantissa - 1) / (mantissa + 1)
    square, series = s * s, 0.0
    for n in range(23, 1, -2):
        series = (series + 1 / n) * square
    return k * LN2_HIGH + (2 * s + (2 * s * series + k * LN2_LOW))


def pick_independent(a: Array, floor: float = 1e-9) -> list[int]:
    """The first rows of a positive semi-definite matrix (p, p) that no earlier picked rows determine, in order."""
    rest, out = a.copy(), []
    for j in range(len(a)):
        if a[j, j] > 0.0 and rest[j, j] > floor * a[j, j]:
            out.append(j)
            rest = rest - rest[:, j, None] * rest[j] / rest[j, j]
    return out


def no_variation(names: list[str]) -> Collinear:
    """The error for columns that are zero in all rows."""
    return Collinear(
        "CO-N201",
        f"The pooled rows have no variation in {', '.join(names)}. "
        "Leave the term out, or check its coding at the sites.",
    )


def _collinear(factor: Array, names: Sequence[str]) -> Collinear:
    """Which columns make up the last one: the coefficients of its regression on those before it."""
    weights = np.linalg.solve(factor[:-1].T, factor[-1]) if len(factor) > 1 else np.zeros(0)
    partners = [name for name, w in zip(names, weights.tolist(), strict=False) if abs(w) > 1e-6]
    levels = [name for name in partners if name != "(Intercept)"]
    of = names[-1].rpartition("[")[0]
    if levels and of and ":" not in of and all(name.rpartition("[")[0] == of for name in levels):
        # Columns of 0 and 1 of which no two are 1 at once depend on each other only if each row has one of them.
        listed = f"{', '.join(levels)} and {names[-1]}"
        return Collinear(
            "CO-N202",
            f"No row has the reference level of {of}, so that the columns {listed} add up to one in all rows: the "
            "coefficients are not unique. Take that level out of `levels`, or declare another one first.",
        )
    return Collinear(
        "CO-N202",
        f"The column {names[-1]} is a combination of {', '.join(partners) or 'the others'}: "
        "the coefficients are not unique. Leave one of them out.",
    )
