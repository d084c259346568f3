"""From shared sums over rows to shared correlation matrices: exact centring, variances, one over their square roots.

Sums come per group of rows (a fold, or the rows held out), so that training sets are sums of groups and nobody touches
rows again. Values of columns lie in [-1, 1]. Everything is batched: any number of training sets costs the same rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coterie_learners.shares.comparison import negative_shares
from coterie_learners.shares.field import Elements, constant_elements
from coterie_learners.shares.shamir3 import SECURITY, ThreePartyShamir

# Binary digits behind the point: of inputs, of second moments, of correlations and coefficients, of public penalties.
INPUT, MOMENT, POINT, THRESHOLD = 36, 60, 40, 56
# Columns whose variance is below 4^-LEVELS (of a range of [-1, 1]) count as constant.
LEVELS = 12
# 1/sqrt(c) on [1, 4] is within 9 % of FIRST - SLOPE c; four steps of Newton's method make that 5e-15.
FIRST, SLOPE, NEWTON = 1.065, 0.152, 4


@dataclass(frozen=True)
class SharedSums:
    """Shares of the sums of several groups of rows.

    `counts` (g) are public. `gram` (g, c + 1, c + 1) are the Gram matrices of the c columns (the outcome last) and a
    column of ones, all of INPUT digits, shares of degree two at most; `totals` (g, c) the columns' sums, degree one.
    """

    counts: tuple[int, ...]
    gram: Elements
    totals: Elements

    @property
    def digits(self) -> int:
        """Binary digits of the largest count of rows."""
        return digits_of(sum(self.counts))

    def over(self, groups: Sequence[int]) -> SharedSums:
        """The groups added up, as a single group."""
        chosen = list(groups)
        return SharedSums(
            (sum(self.counts[g] for g in chosen),),
            self.gram[chosen].sum(axis=0)[None],
            self.totals[chosen].sum(axis=0)[None],
        )


def concatenate_sums(parts: Sequence[SharedSums]) -> SharedSums:
    """Several groups, one after the other."""
    return SharedSums(
        tuple(count for part in parts for count in part.counts),
        np.concatenate([part.gram for part in parts]),
        np.concatenate([part.totals for part in parts]),
    )


def digits_of(count: int) -> int:
    """The smallest q >= 1 with count <= 2^q."""
    return max(1, (count - 1).bit_length())


def field_bits(rows: int, columns: int, ridge: float) -> int:
    """Bits of the field in which no number of a study can overflow, masks included."""
    gram = 2 * INPUT + 2 * digits_of(rows) + 3
    power = 2 * POINT + math.ceil(8 * math.log2(max(columns, 2))) + 3
    strong = MOMENT + 4 * (levels_above(ridge) + LEVELS) + 6
    solver = 2 * POINT + 42
    threshold = POINT + THRESHOLD + 28
    return max(gram, power, strong, solver, threshold) + SECURITY + 3


def levels_above(ridge: float) -> int:
    """Powers of four above 1 that a variance with this ridge added may reach."""
    return max(0, math.ceil(math.log(1.0 + ridge, 4.0)))


def add_column_of_ones(trio: ThreePartyShamir, gram: Elements, totals: Elements, counts: Sequence[int]) -> Elements:
    """Gram matrices (g, c, c) bordered by the column sums and the counts, as `SharedSums` has them."""
    g, c = totals.shape
    out = constant_elements(0, (g, c + 1, c + 1))
    out[:, :c, :c] = gram
    out[:, :c, c] = out[:, c, :c] = totals << INPUT
    out[:, c, c] = [int(count) << 2 * INPUT for count in counts]
    return np.asarray(out % trio.field.p)


def covariances(trio: ThreePartyShamir, sums: SharedSums, digits: int) -> Elements:
    """Shares (g, c, c) of (n / 2^digits)^2 times the covariance of each group, with MOMENT digits; one round.

    n Z'Z - s s' is exact, so the intercept leaves the problem without a rounding error.
    """
    c = sums.totals.shape[1]
    rows, columns = np.triu_indices(c)
    counts = np.array(sums.counts, dtype=object)[:, None]
    exact = counts * sums.gram[:, rows, columns] - sums.totals[:, rows] * sums.totals[:, columns]
    upper = trio.truncate(exact, 2 * INPUT - MOMENT + 2 * digits, 2 * INPUT + 2 * digits + 3)
    return symmetric_shares(upper, c)


def symmetric_shares(upper: Elements, c: int) -> Elements:
    """Matrices (..., c, c) whose upper triangles, row by row, are given."""
    rows, columns = np.triu_indices(c)
    out = constant_elements(0, (*upper.shape[:-1], c, c))
    out[..., rows, columns] = upper
    out[..., columns, rows] = upper
    return out


def diagonal(matrices: Elements) -> Elements:
    """The diagonals (..., c) of matrices (..., c, c)."""
    return np.diagonal(matrices, axis1=-2, axis2=-1).copy()


def inverse_roots(trio: ThreePartyShamir, variances: Elements, ridge: float = 0.0) -> Elements:
    """Shares of 1/sqrt(v) with POINT digits for v with MOMENT digits, 0 where v < 4^-LEVELS; v is at most 1 + ridge.

    The power of four below v is found by comparing with all of them at once; then Newton's method in [1, 4).
    """
    top = levels_above(ridge)
    powers = list(range(-LEVELS, top + 1))
    flat = variances.ravel()
    limits = np.array([1 << MOMENT + 2 * k for k in powers], dtype=object)
    reached = 1 - negative_shares(trio, flat - limits[:, None], MOMENT + 2 * top + 4)
    level = reached - np.concatenate([reached[1:], constant_elements(0, (1, len(flat)))])
    up = np.array([4 ** (top - k) for k in powers], dtype=object)
    normal = trio.truncate(flat * (up @ level), MOMENT - POINT + 2 * top, MOMENT + 2 * (top + LEVELS) + 6 + 2 * top)
    root = _newton(trio, normal)
    back = np.array([2 ** (top - k) for k in powers], dtype=object) @ level
    rescaled_roots = trio.truncate(root * back, top, POINT + top + LEVELS + 4) if top else trio.reshare(root * back)
    return np.asarray(rescaled_roots).reshape(variances.shape)


def _newton(trio: ThreePartyShamir, normal: Elements) -> Elements:
    """1/sqrt(c) for c in [1, 4), both with POINT digits; anything for c = 0."""
    bits, unit = 2 * POINT + 8, 1 << POINT
    line = int(FIRST * unit) * unit - int(SLOPE * unit) * normal
    y = trio.truncate(line, POINT, bits)
    for _ in range(NEWTON):
        square = trio.truncate(y * y, POINT, bits)
        product = trio.truncate(normal * square, POINT, bits)
        y = trio.truncate(y * (3 * unit - product), POINT + 1, bits)
    return y


def correlations(trio: ThreePartyShamir, covariance: Elements, roots: Elements) -> Elements:
    """Shares (..., c, c) of S_ij r_i r_j with POINT digits; the diagonal is set to 1."""
    c = roots.shape[-1]
    rows, columns = np.triu_indices(c, 1)
    once = trio.truncate(covariance[..., rows, columns] * roots[..., rows], POINT, MOMENT + POINT + 6)
    twice = trio.truncate(once * roots[..., columns], MOMENT, MOMENT + POINT + 6)
    out = constant_elements(0, (*roots.shape[:-1], c, c))
    out[..., rows, columns] = twice
    out[..., columns, rows] = twice
    out[..., np.arange(c), np.arange(c)] = 1 << POINT
    return out
