"""Sums over many rows in a fixed order, so that they have the same bits on every machine, and few operations.

An array is folded onto itself, half upon half, until one row is left: elementwise additions only, and errors that grow
with the logarithm of the number of rows (pairwise summation, Higham 2002, section 4.2).
"""

from __future__ import annotations

import numpy as np

from coterie_learners.numeric.array import Array


def pairwise_sum(a: Array) -> Array:
    """Sum over the first axis of an array (m, ...)."""
    if not len(a):
        return np.zeros(a.shape[1:])
    while len(a) > 1:
        half = len(a) // 2
        folded = a[:half] + a[half : 2 * half]
        a = np.concatenate([folded, a[2 * half :]]) if len(a) % 2 else folded
    return np.asarray(a[0])


def weighted_sum(x: Array, v: Array) -> Array:
    """x' v (p,) for x (m, p) and v (m,)."""
    return pairwise_sum(x * v[:, None])


def weighted_gram(x: Array, w: Array) -> Array:
    """x' diag(w) x (p, p). Memory: one weighted copy of x."""
    p = x.shape[1]
    out = np.zeros((p, p))
    for j in range(p):
        out[j, j:] = pairwise_sum(x[:, j:] * (w * x[:, j])[:, None])
        out[j:, j] = out[j, j:]
    return out
