"""Tall matrices whose products are the same under every BLAS, at nearly the speed of BLAS.

Error-free splitting (Ozaki, Ogita, Oishi, Rump, Numer Algorithms 2012;59:95-118, doi:10.1007/s11075-011-9478-1):
a number is cut into slices so short that every product of two slices, and every partial sum of such products within a
block of rows, is a whole multiple of one unit below 2^53. Whatever order a kernel sums in, and with how many threads,
it makes no rounding at all. What is rounded is added elementwise, in a fixed order.

Columns are scaled by powers of two to at most 1 and lie on a grid of 2^-44 (`round_to_grid`), so that two slices
of 22 bits hold them without a remainder. The slices of the matrix are made once and kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_learners.numeric.parallel import one_thread

BITS = 22
# Sums of this many products of two slices stay below 2^53.
BLOCK = 512
# A vector is cut into so many slices: more bits than a double has.
PARTS = 3

Exponents = NDArray[np.int64]


def round_to_grid(x: Array) -> Array:
    """x (n, q) rounded to 44 bits below the largest entry of each column: relative error 2^-45 of that entry."""
    unit = np.ldexp(1.0, _exponents(x) - 2 * BITS)
    return np.rint(x / unit) * unit


@dataclass(frozen=True, eq=False)
class TallMatrix:
    """A matrix (n, q) on the grid of `round_to_grid`, with products of fixed bits.

    Exact up to one rounding for each block of 512 rows; `gram` has a relative error of about 2^-44 in each product.
    """

    slices: Array
    exponents: Exponents

    @classmethod
    def of(cls, columns: Sequence[Array]) -> TallMatrix:
        """The matrices (n, q_k) side by side; values off the grid are rounded to it."""
        x = np.concatenate(columns, axis=1) if len(columns) > 1 else np.asarray(columns[0], dtype=np.float64)
        exponents = _exponents(x)
        scaled = x * np.ldexp(1.0, -exponents)
        slices = np.empty((len(x), 2 * x.shape[1]))
        slices[:, : x.shape[1]] = np.rint(scaled * 2.0**BITS) * 2.0**-BITS
        rest = scaled - slices[:, : x.shape[1]]
        slices[:, x.shape[1] :] = np.rint(rest * 2.0 ** (2 * BITS)) * 2.0 ** (-2 * BITS)
        return cls(slices, exponents)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.slices), len(self.exponents)

    @cached_property
    def scale(self) -> Array:
        """The powers of two (q,) that the slices' columns are to be multiplied with."""
        return np.ldexp(1.0, self.exponents)

    @one_thread()
    def times(self, b: Array) -> Array:
        """Z b (n,) for b (q,)."""
        q = len(self.exponents)
        parts, unit = _cut(b * self.scale)
        # Columns: slice 1 or 2 of the matrix with slice 1, 2 or 3 of the vector.
        products = np.concatenate([self.slices[:, :q] @ parts, self.slices[:, q:] @ parts], axis=1)
        return unit * _from_small(products.T)

    @one_thread()
    def sums(self, r: Array) -> Array:
        """Z' r (q,) for r (n,)."""
        q = len(self.exponents)
        parts, unit = _cut(r)
        total = np.zeros((2 * q, PARTS))
        for rows in self._blocks():
            total = total + self.slices[rows].T @ parts[rows]
        products = np.concatenate([total[:q], total[q:]], axis=1)
        return unit * self.scale * _from_small(products.T)

    @one_thread()
    def gram(self, weights: Array) -> Array:
        """Z' diag(weights) Z (q, q) for weights (n,) of at least 0."""
        root = np.sqrt(weights)
        exponent = int(np.frexp(np.max(root, initial=0.0))[1])
        root = np.ldexp(root, -exponent)
        q = len(self.exponents)
        total, squares = np.zeros((q, q)), np.zeros(q)
        for rows in self._blocks():
            weighted = (self.slices[rows, :q] + self.slices[rows, q:]) * root[rows, None]
            high = np.rint(weighted * 2.0**BITS) * 2.0**-BITS
            low = np.rint((weighted - high) * 2.0 ** (2 * BITS)) * 2.0 ** (-2 * BITS)
            cross = high.T @ low
            total = total + (high.T @ high + (cross + cross.T))
            # Only the diagonal of low.T @ low counts, where it is a sum of squares.
            squares = squares + np.sum(low * low, axis=0)
        total[np.diag_indices(q)] += squares
        return total * np.ldexp(self.scale, exponent)[:, None] * np.ldexp(self.scale, exponent)

    def _blocks(self) -> Iterator[slice]:
        return (slice(at, at + BLOCK) for at in range(0, len(self.slices), BLOCK))


def _exponents(x: Array) -> Exponents:
    """For each column: the least e for which no entry is larger than 2^e; 0 for a column of zeros."""
    largest = np.max(np.abs(x), axis=0, initial=0.0)
    mantissa, exponent = np.frexp(largest)
    exponents: Exponents = np.where(mantissa == 0.5, exponent - 1, exponent).astype(np.int64)
    return exponents


def _cut(v: Array) -> tuple[Array, float]:
    """A vector as slices (k, 3) of 22 bits each that add up to v / unit."""
    unit = float(np.ldexp(1.0, int(np.frexp(np.max(np.abs(v), initial=0.0))[1])))
    rest = v / unit
    parts = np.empty((len(v), PARTS))
    for k in range(PARTS):
        grid = 2.0 ** (BITS * (k + 1))
        parts[:, k] = np.rint(rest * grid) / grid
        rest = rest - parts[:, k]
    return parts, unit


def _from_small(products: Array) -> Array:
    """Sum of the six products of slices (6, k), small ones first."""
    total = np.zeros(products.shape[1])
    for k in (5, 2, 4, 1, 3, 0):
        total = total + products[k]
    return total
