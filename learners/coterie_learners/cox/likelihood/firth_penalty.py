"""Firth's penalty on a partial likelihood: half the logarithm of the information's determinant, and its derivative.

Firth, Biometrika 1993;80:27-38; for Cox models Heinze and Schemper, Biometrics 2001;57:114-119. The information is a
sum over the sites, and so is its derivative by the coefficients: over the events, the third cumulant of x in each one's
risk set. So each site posts its own, and the penalty is that of the pool.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coterie_learners.cox.likelihood.partial_likelihood import OwnRisk
from coterie_learners.cox.likelihood.risk_sets import Places, RiskRows
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.elementary import log_of_array


@dataclass(frozen=True)
class FirthPart:
    """What the penalty adds to the value and to the score (p,)."""

    value: float
    score: Array

    @classmethod
    def of(cls, information: Array, third: Array, names: Sequence[str]) -> FirthPart:
        """The penalty of an information (p, p) with its derivative, as `measure_third` packs it."""
        p = len(information)
        factor = linalg.cholesky(information, names)
        value = float(np.cumsum(log_of_array(np.diag(factor)))[-1])
        inverse = linalg.inverse(factor)
        return cls(value, 0.5 * linalg.matvec(unpack_third(third, p).reshape(p, p * p), inverse.ravel()))


def count_third(p: int) -> int:
    """Numbers in a symmetric array (p, p, p)."""
    return p * (p + 1) * (p + 2) // 6


def unpack_third(packed: Array, p: int) -> Array:
    """The symmetric array (p, p, p) whose entries j <= k <= l stand one after the other."""
    out = np.zeros((p, p, p))
    triples = np.array(list(itertools.combinations_with_replacement(range(p), 3)), np.int64).reshape(-1, 3)
    for order in itertools.permutations(range(3)):
        j, k, m = triples[:, order].T
        out[j, k, m] = packed
    return out


def measure_third(rows: RiskRows, beta: Array, efron: bool) -> Array:
    """The derivative of the information (p (p + 1) (p + 2) / 6,) of rows, some with the event."""
    own, pairs, p = OwnRisk.of(rows, beta, efron), np.triu_indices(rows.x.shape[1]), rows.x.shape[1]
    products = rows.x[:, pairs[0]] * rows.x[:, pairs[1]]
    # For each event: the mean and the second moment of x in its risk set, and its weight.
    mean, second, weight = _measure_events(rows, own, products, efron)
    raw = (rows.x * _weigh_rows(rows, own)[:, None]).T @ products
    mixed = _spread(((mean * weight[:, None]).T @ second), pairs, p)
    cubes = _spread((mean * weight[:, None]).T @ (mean[:, pairs[0]] * mean[:, pairs[1]]), pairs, p)
    whole = _spread(raw, pairs, p) - mixed - mixed.transpose(1, 0, 2) - mixed.transpose(2, 1, 0) + 2.0 * cubes
    j, k, m = np.array(list(itertools.combinations_with_replacement(range(p), 3)), np.int64).reshape(-1, 3).T
    return np.asarray(whole[j, k, m])


def _measure_events(rows: RiskRows, own: OwnRisk, products: Array, efron: bool) -> tuple[Array, Array, Array]:
    """Means (e, p), second moments (e, p (p + 1) / 2) and weights (e,) of the events, tied ones in turn."""
    count, weights = rows.count_events()
    counts = count.astype(np.int64)
    at = np.repeat(np.arange(rows.size), counts)
    place = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = place / counts[at] if efron else np.zeros(len(at))
    values = products * own.risk[:, None]
    at_risk = rows.sum_at_risk(values)
    events = np.zeros_like(at_risk)
    np.add.at(events, rows.cell, values[rows.event])
    size = own.cells.s0[at] - share * own.cells.d0[at]
    mean = (own.cells.s1[at] - share[:, None] * own.cells.d1[at]) / size[:, None]
    second = (at_risk[at] - share[:, None] * events[at]) / size[:, None]
    return mean, second, (weights / np.maximum(count, 1.0))[at]


def _weigh_rows(rows: RiskRows, own: OwnRisk) -> Array:
    """By row (n,): its risk times the sum of 1 / R over the events in whose risk sets it is."""
    sums = np.concatenate([[0.0], np.cumsum(own.ties.a)])
    weight = own.risk * (sums[rows.last] - sums[rows.first])
    weight[rows.event] -= own.risk[rows.event] * own.ties.b[rows.cell]
    return np.asarray(weight)


def _spread(packed: Array, pairs: tuple[Places, Places], p: int) -> Array:
    """The full array (p, p, p) of one whose last two axes are packed (p, p (p + 1) / 2)."""
    out = np.zeros((p, p, p))
    out[:, pairs[0], pairs[1]] = packed
    out[:, pairs[1], pairs[0]] = packed
    return out
