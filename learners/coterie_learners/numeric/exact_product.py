"""The product of two matrices with the same bits on every machine, at the speed of BLAS.

A kernel of BLAS sums in an order that depends on the processor. Where no partial sum is rounded the order does not
matter. So each matrix is cut into three slices of whole numbers so small that every sum of their products is a whole
number below 2^53. BLAS multiplies the slices exactly. The slices' products are added in one fixed order.
Source: K. Ozaki, T. Ogita, S. Oishi, S. M. Rump, "Error-free transformations of matrix multiplication by using fast
routines of matrix multiplication and its applications", Numerical Algorithms 59 (2012).
"""

from __future__ import annotations

import math

import numpy as np

from coterie_learners.numeric.array import Array

# Bits of a double's significand, less one: three products are added before they are rounded.
_ROOM = 52
# Three slices of 19 bits hold a double's 53. More inner rows than this leave fewer bits to a slice.
MAX_INNER = 1 << 14

Slices = tuple[Array, Array, Array]


def multiply_exactly(a: Array, b: Array) -> Array:
    """a (m, k) @ b (k, n) for finite values and k up to MAX_INNER.

    An entry's error is at most some units of 2^-53 k times the largest magnitudes of its row of a and column of b,
    after the inner index is balanced: row and column scales, and scales of the inner index, cost no digits.
    """
    bits = (_ROOM - math.ceil(math.log2(max(a.shape[1], 2)))) // 2
    a, rows = _scale(a, axis=1)
    b, columns = _scale(b, axis=0)
    balance = (_exponent(b, axis=1)[:, 0] - _exponent(a, axis=0)[0]) // 2
    a, more_rows = _scale(np.ldexp(a, balance), axis=1)
    b, more_columns = _scale(np.ldexp(b, -balance[:, None]), axis=0)
    (a1, a2, a3), (b1, b2, b3) = _slice(a, bits), _slice(b, bits)
    # Each line is one sum of whole numbers below 2^53. The lines' units are 4^-bits, 8^-bits and 16^-bits.
    first = a1 @ b1
    second = np.concatenate([a1, a2], axis=1) @ np.concatenate([b2, b1])
    third = np.concatenate([a1, a2, a3], axis=1) @ np.concatenate([b3, b2, b1])
    whole = first + (second + third * 2.0**-bits) * 2.0**-bits
    return np.asarray(np.ldexp(whole, rows + more_rows + columns + more_columns - 2 * bits))


def _scale(values: Array, axis: int) -> tuple[Array, Array]:
    """Values of magnitude at most 1 along an axis, and the exponents of the powers of two that were taken out."""
    exponents = _exponent(values, axis)
    return np.asarray(np.ldexp(values, -exponents)), exponents


def _slice(values: Array, bits: int) -> Slices:
    """Three slices of whole numbers of values of magnitude at most 1.

    The first slice is at most 2^bits; what rounding leaves is at most a half, so the others are at most 2^(bits-1).
    """
    rest = values * 2.0**bits
    first = np.rint(rest)
    rest = (rest - first) * 2.0**bits
    second = np.rint(rest)
    return first, second, np.rint((rest - second) * 2.0**bits)


def _exponent(values: Array, axis: int) -> Array:
    """The least e with every magnitude along an axis at most 2^e."""
    return np.asarray(np.frexp(np.max(np.abs(values), axis=axis, keepdims=True, initial=0.0))[1])
