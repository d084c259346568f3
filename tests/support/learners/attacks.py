"""Red team: attacks A1 to A5 on messages about split columns, given what the attacked party holds and nothing else."""

from __future__ import annotations

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from support.learners.cohorts import Array
from support.learners.published_attacks import NOISE


def from_vertigo_ci(message: Array, alpha: Array) -> Array:
    """A1: the centre divides X_k' V^(1/2) by V^(1/2), which it knows."""
    return np.asarray((message / np.sqrt(alpha * (1.0 - alpha))).T)


def from_known_rows(factor: Array, known_rows: NDArray[np.int64], rows: Array) -> Array:
    """A3: all rows (n, m) of a site, from its factor (n, r) and some rows (k, m) that the attacker knows, k >= r."""
    rotation = np.linalg.lstsq(factor[known_rows], rows, rcond=None)[0]
    return factor @ rotation


def variances(message: Array, rank: int, seed: int = 0) -> Array:
    """A4a: every patient's p (1 - p) from M_k, a diagonal plus a matrix of low rank; the noise need not be known.

    The low-rank part of a diagonal entry follows from blocks of which it is no part.
    """
    n = len(message)
    groups = np.array_split(np.random.default_rng(seed).permutation(n), 3)
    out = np.empty(n)
    for k in range(3):
        rows, columns, own_signs = (groups[(k + j) % 3] for j in (0, 1, 2))
        u, size, v = np.linalg.svd(message[np.ix_(rows, columns)])
        inverse = v[:rank].T @ (u[:, :rank] / size[:rank]).T
        low = np.einsum("ij,jk,ki->i", message[np.ix_(own_signs, columns)], inverse, message[np.ix_(rows, own_signs)])
        out[own_signs] = np.diag(message)[own_signs] - low
    return out


def column_space(message: Array, v: Array, q: int) -> Array:
    """A4b: an orthonormal basis (n, q) of the span of 1 and all sites' columns, from M_k and p (1 - p).

    V^-1/2 (V - M) V^-1/2 is nearly a projector on that span, less the noise, which a plane's worth of algebra removes.
    """
    root = 1.0 / np.sqrt(np.maximum(v, 1e-12))
    projector = -(message - np.diag(v)) * np.outer(root, root)
    size, vectors = np.linalg.eigh((projector + projector.T) / 2)
    order = np.argsort(size)
    pivots, last, negative = order[::-1][: q - 1], order[::-1][q - 1], order[0]
    mu1, mu2 = size[last], size[negative]
    b2 = -mu1 * mu2 / NOISE
    a2 = (1 - mu1 - mu2) / NOISE - b2
    share = np.clip((1 - NOISE * a2 - mu2) / (mu1 - mu2), 0, 1)
    ones = np.sqrt(np.maximum(v, 1e-12))
    solutions = []
    for sign in (1.0, -1.0):
        turned = np.sqrt(share) * vectors[:, last] + sign * np.sqrt(1 - share) * vectors[:, negative]
        basis = np.column_stack([vectors[:, pivots], turned])
        solutions.append((np.linalg.norm(ones - basis @ (basis.T @ ones)), basis))
    best = min(solutions, key=lambda pair: pair[0])[1]
    return np.asarray(np.linalg.qr(best * root[:, None])[0])


def outcomes(columns: Array, scores: Array) -> Array:
    """A5: outcomes (n,) that follow from the equations X_k' x = scores on x = y - p in (-1, 1); NaN where none does."""
    n = len(columns)
    out = np.full(n, np.nan)
    for i in range(n):
        ends = [_end(columns, scores, sign * np.eye(n)[i])[i] for sign in (1.0, -1.0)]
        if ends[0] > 0 or ends[1] < 0:
            out[i] = float(ends[0] > 0)
    return out


def _end(columns: Array, scores: Array, cost: Array) -> Array:
    done = scipy.optimize.linprog(cost, A_eq=columns.T, b_eq=scores, bounds=(-1, 1))
    assert done.status == 0
    return np.asarray(done.x)


def distance(solutions: Array, truth: Array) -> float:
    """Largest error relative to the largest entry."""
    return float(np.max(np.abs(solutions - truth)) / np.max(np.abs(truth)))


def share_outside(basis: Array, columns: Array) -> float:
    """Largest share of a column (n, m) that lies outside an orthonormal basis."""
    rest = columns - basis @ (basis.T @ columns)
    return float(np.max(np.linalg.norm(rest, axis=0) / np.linalg.norm(columns, axis=0)))
