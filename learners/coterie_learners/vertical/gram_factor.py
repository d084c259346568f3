"""Thin factors: n x r numbers that say exactly what an n x n Gram matrix says.

For standardised columns Z (n, m) of rank r, L = Z W with the eigenvectors W (m, r) of Z'Z satisfies L L' = Z Z' = K.
L follows from K (its principal component scores, up to the choice of a basis among equal eigenvalues) and K from L, so
they disclose the same: the data up to one rotation of its columns. W stays at the site. L is rounded to a grid
(`tall_matrix.round_to_grid`), so that its last bits carry nothing that K does not.

The factor of a Gram matrix itself is its pivoted Cholesky factor, computed with the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coterie_learners.errors import Collinear, DataError
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.tall_matrix import round_to_grid

# A column of the factor that is shorter than this share of the longest is rounding.
NULL = 1e-10
# Largest error of Z = L W' that the grid may cause, in standard deviations.
EQUIVALENT = 1e-11


@dataclass(frozen=True)
class Standardised:
    """Columns z (n, m) with mean 0 and standard deviation 1 (n - 1 degrees of freedom), and what was taken off them.

    Without an intercept in the model the columns are only scaled and `mean` is 0.
    """

    z: Array
    mean: Array
    sd: Array


@dataclass(frozen=True)
class ThinFactor:
    """A factor (n, r) of L L' = Z Z', and the rotation W (m, r) with Z = L W', W'W = I."""

    factor: Array
    rotation: Array


def standardise(x: Array, names: Sequence[str], centred: bool) -> Standardised:
    """Standardise columns (n, m); DataError names those that are constant over these rows."""
    mean = x.mean(axis=0) if centred else np.zeros(x.shape[1])
    spread = x.std(axis=0, ddof=1)
    constant = [
        name for name, s, m in zip(names, spread, np.abs(x).max(axis=0, initial=0.0), strict=True) if s <= 1e-12 * m
    ]
    if constant:
        raise DataError(
            "CO-D120",
            f"The columns {', '.join(constant)} are the same for all {len(x)} patients that the sites have in common. "
            "Leave the terms out.",
        )
    return Standardised((x - mean) / spread, mean, spread)


def thin_factor(z: Array) -> ThinFactor:
    """The canonical factor of standardised columns (n, m): principal component scores, longest first, on the grid.

    The largest entry of each column is positive. A column without length is dropped, so that r is the rank, which
    the Gram matrix shows as well.
    """
    if not z.shape[1]:
        return ThinFactor(np.zeros((len(z), 0)), np.zeros((0, 0)))
    rotation: Array = np.linalg.eigh(z.T @ z)[1][:, ::-1]
    scores: Array = z @ rotation
    length = np.linalg.norm(scores, axis=0)
    nonzero = length > NULL * length.max()
    scores = scores[:, nonzero]
    rotation = rotation[:, nonzero]
    peak = scores[np.abs(scores).argmax(axis=0), np.arange(scores.shape[1])]
    sign = np.where(peak < 0, -1.0, 1.0)
    thin = ThinFactor(round_to_grid(scores * sign), rotation * sign)
    check_equivalent(thin, z)
    return thin


def check_equivalent(thin: ThinFactor, z: Array) -> None:
    """Collinear unless the factor says what the Gram matrix Z Z' says: Z = L W' with orthonormal columns of W.

    Then L L' = L W'W L' = Z Z', without making a matrix of n x n numbers.
    """
    r = thin.rotation.shape[1]
    rotated = float(np.max(np.abs(thin.rotation.T @ thin.rotation - np.eye(r)), initial=0.0))
    error = float(np.max(np.abs(z - thin.factor @ thin.rotation.T), initial=0.0))
    if rotated > EQUIVALENT or error > EQUIVALENT * max(1.0, float(np.max(np.abs(z), initial=0.0))):
        raise Collinear(
            "CO-N204",
            f"The factor of this site's columns does not reproduce them (off by {max(rotated, error):.1g}): they are "
            "almost, but not quite, combinations of each other. Leave one of them out.",
        )


def gram_upper_triangle(z: Array) -> Array:
    """The upper triangle of Z Z' row by row, n (n + 1) / 2 numbers, as the papers send it."""
    upper: Array = (z @ z.T)[np.triu_indices(len(z))]
    return upper


def factor_of_gram(upper: Array, n: int, most: int) -> Array:
    """The pivoted Cholesky factor (n, r) of a Gram matrix, r at most `most`, the same bits on every machine."""
    rows = _SymmetricRows(upper, n)
    rest = rows.diagonal()
    largest = float(np.max(rest, initial=0.0))
    columns: list[Array] = []
    while len(columns) < most and float(np.max(rest)) > NULL * largest:
        pivot = int(np.argmax(rest))
        column = rows.row(pivot)
        for earlier in columns:
            column = column - earlier * earlier[pivot]
        column = column / np.sqrt(rest[pivot])
        columns.append(column)
        rest = np.maximum(rest - column * column, 0.0)
        rest[pivot] = 0.0
    return round_to_grid(np.column_stack(columns)) if columns else np.zeros((n, 0))


@dataclass(frozen=True)
class _SymmetricRows:
    """Rows of a symmetric matrix that is stored as its upper triangle."""

    upper: Array
    n: int

    def _start(self, i: int) -> int:
        """The place at which row i begins, from its diagonal on."""
        return i * self.n - i * (i - 1) // 2

    def row(self, i: int) -> Array:
        """Row i (n,)."""
        k = np.arange(i)
        left = self.upper[k * self.n - k * (k - 1) // 2 + (i - k)]
        return np.concatenate([left, self.upper[self._start(i) : self._start(i) + self.n - i]])

    def diagonal(self) -> Array:
        """The diagonal (n,)."""
        k = np.arange(self.n)
        return self.upper[k * self.n - k * (k - 1) // 2].copy()


def rotation_of(factor: Array, z: Array) -> Array:
    """The W (m, r) with L = Z W, for a factor that was not made by rotating Z."""
    return np.asarray(np.linalg.lstsq(z, factor, rcond=None)[0], dtype=np.float64)


def unstandardise(rotation: Array, sd: Array, gamma: Array, covariance: Array) -> tuple[Array, Array]:
    """Coefficients (m,) and covariance (m, m) in units of the columns, from those of the factor's columns."""
    turned = rotation / sd[:, None]
    return linalg.matvec(turned, gamma), linalg.matmul(linalg.matmul(turned, covariance), turned.T)
