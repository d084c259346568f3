"""Red team: columns on a grid from a factor of them, by lattice reduction (Lenstra, Lenstra, Lovasz 1982)."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from support.learners.cohorts import Array

Whole = NDArray[np.object_]

# Digits of the coordinates that are held against whole numbers, and how near a whole number is.
BITS, NEAR = 34, 1e-5
DELTA = 0.99


def reduce_basis(basis: Whole) -> Whole:
    """An LLL-reduced basis of the lattice that whole-number rows (k, d) span; rows may depend on each other."""
    rows = basis.copy()
    k = 1
    while k < len(rows):
        ortho, mu = _orthogonal(rows[: k + 1])
        for j in range(k - 1, -1, -1):
            factor = round(mu[k, j])
            if factor:
                rows[k] = rows[k] - factor * rows[j]
                mu[k, : j + 1] -= factor * mu[j, : j + 1]
        size = np.sum(ortho**2, axis=1)
        if size[k] >= (DELTA - mu[k, k - 1] ** 2) * size[k - 1]:
            k += 1
        else:
            rows[[k - 1, k]] = rows[[k, k - 1]]
            k = max(k - 1, 1)
    return rows


def _orthogonal(rows: Whole) -> tuple[Array, Array]:
    """Gram-Schmidt vectors of the rows, and the coefficients mu with ones on the diagonal."""
    plain = rows.astype(np.float64)
    q, r = np.linalg.qr(plain.T)
    diagonal = np.diag(r)
    return (q * diagonal).T, (r / diagonal[:, None]).T


def find_scores(factor: Array) -> Array:
    """Whole-number columns (k, n) of the span of 1 and a factor (n, r), those of least spread first.

    The span is written in terms of q of its rows, P = W inv(W_pivots); a whole-number column c of the pivots is whole
    everywhere if P c is. Short vectors of [I | 2^34 P_t' ; 0 | 2^34 I] are such c.
    """
    p = express_by_pivots(factor)
    q = p.shape[1]
    rest = np.flatnonzero(np.abs(p - np.round(p)).max(axis=1) > NEAR)[: 2 * q + 4]
    left = np.vstack([np.eye(q, dtype=int), np.zeros((len(rest), q), dtype=int)])
    scaled = np.round(p[rest] * 2.0**BITS).astype(np.int64)
    right = np.vstack([scaled.T, np.eye(len(rest), dtype=np.int64) << BITS])
    short = reduce_basis(np.hstack([left, right]).astype(object))
    columns = p @ short[:, :q].astype(np.float64).T
    whole = columns[:, np.abs(columns - np.round(columns)).max(axis=0) < NEAR].T
    return reduce_spread(np.round(whole))


def express_by_pivots(factor: Array) -> Array:
    """The span of 1 and a factor as a matrix P (n, q) that is the identity on q of its rows."""
    u, s, _ = np.linalg.svd(np.c_[np.ones(len(factor)), factor], full_matrices=False)
    span = u[:, s > 1e-8 * s[0]]
    pivots = scipy.linalg.qr(span.T, mode="economic", pivoting=True)[2][: span.shape[1]]
    p: Array = span @ np.linalg.inv(span[pivots])
    return p


def reduce_spread(columns: Array) -> Array:
    """The lattice of whole-number columns (k, n), reduced after each was centred: short ones vary least."""
    n = columns.shape[1]
    varying = columns[np.ptp(columns, axis=1) > 0.0]
    centred = np.round(varying * n - varying.sum(axis=1, keepdims=True)).astype(np.int64).astype(object)
    short = reduce_basis(centred).astype(np.float64) / n
    return np.asarray(short[np.argsort(np.sum(short**2, axis=1))])


def combine(short: Array, most: int = 1) -> Array:
    """All sums of the columns with coefficients from -most to most."""
    steps = np.arange(-most, most + 1)
    grid = np.stack(np.meshgrid(*[steps] * len(short), indexing="ij"), axis=-1).reshape(-1, len(short))
    sums: Array = grid @ short
    return sums


def same_column(column: Array, truth: Array) -> bool:
    """Whether a column differs from the true one by its origin and direction alone."""
    centred = truth - truth.mean()
    return bool(np.allclose(column, centred, atol=1e-6) or np.allclose(column, -centred, atol=1e-6))
