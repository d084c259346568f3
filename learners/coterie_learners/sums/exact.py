"""Sums of measurements that lose nothing to their distance from the centre: pairs of floats, added exactly.

A sum of squares about a wrong centre holds the spread in its last digits. So a table's sums of a measured outcome are
pairs: a part on a coarse grid, which adds up without rounding in any order, and what is left of it, scaled up by 2^40
so that it keeps its digits in the fixed point of a masked sum too. A reader of the sums moves them to another centre in
exact fractions (Dekker, Numer Math 1971;18:224-242, for the products).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array

# The coarse grid of values between -1 and 1: sums of 2^27 of them are exact.
GRID = 2.0**26
LOW = 2.0**40
SPLITTER = 2.0**27 + 1.0

Exact = NDArray[Any]


def square(a: Array) -> tuple[Array, Array]:
    """a^2 and its rounding error."""
    return multiply(a, a)


def subtract(a: Array, b: Array | float) -> tuple[Array, Array]:
    """a - b and its rounding error."""
    difference = a - b
    apart = difference - a
    return difference, (a - (difference - apart)) - (b + apart)


def pair(value: Array, error: Array) -> tuple[Array, Array]:
    """Values (m,) between -1 and 1 with their errors, as coarse and scaled fine parts."""
    coarse = np.rint(value * GRID) / GRID
    return coarse, ((value - coarse) + error) * LOW


def add_pairs(parts: Sequence[tuple[Any, Any]]) -> Exact:
    """The exact sum of pairs of equal shape, as fractions."""
    total: Exact = sum(fractions(high) + fractions(low) / Fraction(LOW) for high, low in parts)
    return total


def fractions(values: Any) -> Exact:
    """Floats of any shape as exact fractions."""
    array = np.asarray(values, dtype=np.float64)
    out = np.array([Fraction(v) for v in array.ravel().tolist()], dtype=object)
    return out.reshape(array.shape)


def split(values: Exact) -> tuple[Array, Array]:
    """Fractions as pairs, the coarse part on a grid of 2^-30 or as fine as a float has it."""
    flat = [Fraction(v) for v in np.ravel(values).tolist()]
    high = [math.ldexp(float(round(v * 2**30)), -30) for v in flat]
    low = [float((v - Fraction(h)) * Fraction(LOW)) for v, h in zip(flat, high, strict=True)]
    shape = np.shape(values)
    return np.array(high, dtype=np.float64).reshape(shape), np.array(low, dtype=np.float64).reshape(shape)


def floats(values: Exact) -> Array:
    """Fractions, each rounded to the nearest float."""
    return np.array([float(v) for v in np.ravel(values).tolist()], dtype=np.float64).reshape(np.shape(values))


def sum_weighted(x: Array, weight: Array, low: Array | None = None) -> Exact:
    """x' w (p,) for x (m, p) and w (m,), or for pairs of weights, as fractions, exact but one rounding in 2^100."""
    out = []
    for column in x.T:
        product, rounding = multiply(column, weight)
        terms = [*product.tolist(), *rounding.tolist()]
        terms += [] if low is None else (column * low / LOW).tolist()
        first = math.fsum(terms)
        out.append(Fraction(first) + Fraction(math.fsum([*terms, -first])))
    return np.array(out, dtype=object)


def multiply(a: Array, b: Array) -> tuple[Array, Array]:
    """a b and its rounding error."""
    product = a * b
    (high, low), (other, rest) = _halves(a), _halves(b)
    return product, ((high * other - product) + high * rest + low * other) + low * rest


def _halves(a: Array) -> tuple[Array, Array]:
    spread = a * SPLITTER
    high = spread - (spread - a)
    return high, a - high
