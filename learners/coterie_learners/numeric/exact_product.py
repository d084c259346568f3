"""The product of two matrices with the same bits on every machine, at the speed of BLAS.

A kernel of BLAS sums in an order that depends on the processor. If no partial sum is rounded, the order does not
matter. So each matrix is cut into three slices of whole numbers so small that every sum of their products is a whole
number below 2^53. BLAS multiplies the slices exactly. The slices' products are added in one fixed order. Source: K.
Ozaki, T. Ogita, S. Oishi, S. M. Rump, "Error-free transformations of matrix multiplication by using fast routines of
matrix multiplication and its applications", Numerical Algorithms 59 (2012).
"""

from __future__ import annotations

import math

import numpy as np

from coterie_learners.numeric.array import Array

# Bits of a double's significand, less one: three products are added before they are rounded.
_ROOM = 52
# Three slices of 19 bits hold a double's 53. More inner rows than this leave fewer bits to a slice.
MAX_INNER = 1 << 14

# Powers of two up to here multiply without overflow; sums of two such exponents and a slice's digits do too.
_SAFE = 400

# Rows of a matrix, its three slices side by side.
Slices = Array


def multiply_exactly(a: Array, b: Array) -> Array:
    """a (m, k) @ b (k, n) for finite values and k up to MAX_INNER.

    An entry's error is at most some units of 2^-53 k times the largest magnitudes of its row of a and column of b,
    after the inner index is balanced: row and column scales, and scales of the inner index, cost no digits.
    """
    if _is_transpose(a, b):
        return _square_exactly(a)
    bits = _count_bits(a.shape[1])
    a, rows = _scale(a, axis=1)
    b, columns = _scale(b, axis=0)
    balance = (_exponent(b, axis=1)[:, 0] - _exponent(a, axis=0)[0]) // 2
    a, more_rows = _scale(_shift(a, balance), axis=1)
    b, more_columns = _scale(_shift(b, -balance[:, None]), axis=0)
    left, reverse, k = _slice(a, bits), _slice(b.T, bits, reverse=True).T, a.shape[1]
    # Each line is one sum of whole numbers below 2^53. The lines' units are 4^-bits, 8^-bits and 16^-bits.
    first = left[:, :k] @ reverse[2 * k :]
    second = left[:, : 2 * k] @ reverse[k:]
    third = left @ reverse
    return _add_lines((first, second, third), bits, rows + more_rows, columns + more_columns)


def _square_exactly(a: Array) -> Array:
    """a (m, k) @ a.T with the same bits as any product has: sums of whole numbers may be taken in any order.

    Both factors have the same scales, so the inner index is balanced as it is; and half of each symmetric sum is
    computed.
    """
    bits, k = _count_bits(a.shape[1]), a.shape[1]
    a, rows = _scale(a, axis=1)
    slices = _slice(a, bits)
    a1, a2 = slices[:, :k], slices[:, k : 2 * k]
    both, m = np.concatenate([a2, slices[:, 2 * k :]]) @ a1.T, len(a)
    second, third = both[:m], both[m:]
    return _add_lines((a1 @ a1.T, second + second.T, third + third.T + a2 @ a2.T), bits, rows, rows.T)


def _is_transpose(a: Array, b: Array) -> bool:
    """Whether b is a.T in the same memory."""
    same = a.shape == b.shape[::-1] and a.strides == b.strides[::-1]
    return same and a.__array_interface__["data"] == b.__array_interface__["data"]


def _count_bits(inner: int) -> int:
    """Bits of a slice of numbers of which so many products are added."""
    return (_ROOM - math.ceil(math.log2(max(inner, 2)))) // 2


def _add_lines(lines: tuple[Array, Array, Array], bits: int, rows: Array, columns: Array) -> Array:
    """The sum of the three lines, times two to the powers of its rows (m, 1) and columns (1, n); in place."""
    first, second, third = lines
    third *= 2.0**-bits
    third += second
    third *= 2.0**-bits
    third += first
    if np.all(np.abs(rows) <= _SAFE) and np.all(np.abs(columns) <= _SAFE):
        third *= np.ldexp(1.0, rows - 2 * bits)
        third *= np.ldexp(1.0, columns)
        return third
    return np.asarray(np.ldexp(third, rows + columns - 2 * bits))


def _shift(values: Array, exponents: Array) -> Array:
    """Values times powers of two: by a product where the powers are numbers, which `ldexp` is ten times slower than."""
    if np.all(np.abs(exponents) <= 2 * _SAFE):
        return np.asarray(values * np.ldexp(1.0, exponents))
    return np.asarray(np.ldexp(values, exponents))


def _scale(values: Array, axis: int) -> tuple[Array, Array]:
    """Values of magnitude at most 1 along an axis, and the exponents of the powers of two that were taken out."""
    exponents = _exponent(values, axis)
    return _shift(values, -exponents), exponents


def _slice(values: Array, bits: int, *, reverse: bool = False) -> Slices:
    """Three slices of whole numbers (m, 3 k) of values (m, k) of magnitude at most 1; the first one last if `reverse`.

    The first slice is at most 2^bits; what rounding leaves is at most a half, so the others are at most 2^(bits-1).
    """
    k, unit = values.shape[1], 2.0**bits
    out: Array = np.empty((len(values), 3 * k))
    first, second, third = (out[:, at : at + k] for at in ((2 * k, k, 0) if reverse else (0, k, 2 * k)))
    rest = values * unit
    for part in (first, second):
        np.rint(rest, out=part)
        rest -= part
        rest *= unit
    np.rint(rest, out=third)
    return out


def _exponent(values: Array, axis: int) -> Array:
    """The least e with every magnitude along an axis at most 2^e."""
    high = np.max(values, axis=axis, keepdims=True, initial=0.0)
    low = np.min(values, axis=axis, keepdims=True, initial=0.0)
    return np.asarray(np.frexp(np.maximum(high, -low))[1])
