"""Gray's test whether groups have one incidence of a cause, stratified where there are strata, from counts by step.

Gray, Ann Stat 1988;16:1141-1154, with rho = 0, as R's `cmprsk::cuminc` has it: each group's patients at risk count by
(1 - F) / S, so that who had another event stays among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import chi_squared_above


@dataclass(frozen=True)
class GrayTest:
    """The test on `df` degrees of freedom; NaN where nothing can be tested."""

    chi2: float
    df: int
    p: float


@dataclass
class _Sums:
    """What runs over the steps of one stratum with g groups.

    By group (g,): incidence and survival before the step, and `own`, the variance of the paths. `path` (g, g) gathers
    the weights, `mixed` (g - 1, g) their covariance with the paths; `pooled` is the incidence of all groups.
    """

    incidence: Array
    survival: Array
    path: Array
    own: Array
    mixed: Array
    score: Array
    variance: Array
    pooled: float = 0.0

    @classmethod
    def of(cls, groups: int) -> _Sums:
        zero, square = np.zeros(groups), np.zeros((groups, groups))
        return cls(zero, np.ones(groups), square, zero, square[:-1], zero[:-1], square[:-1, :-1])


def compare_incidence(at_risk: Array, events: Array, of_cause: Array) -> GrayTest:
    """The test of counts (s, g, t); `events` are of all causes."""
    some = np.flatnonzero(at_risk.sum(axis=(0, 2)) > 0)
    score, variance = np.zeros(max(len(some) - 1, 0)), np.zeros((max(len(some) - 1, 0),) * 2)
    for stratum in range(at_risk.shape[0]) if len(some) > 1 else ():
        sums = _sum_stratum(*(counts[stratum][some] for counts in (at_risk, events - of_cause, of_cause)))
        score, variance = score + sums.score, variance + _close(sums)
    free = linalg.pick_independent(variance)
    if not free:
        return GrayTest(float("nan"), len(score), float("nan"))
    factor = linalg.cholesky(variance[np.ix_(free, free)], [str(g) for g in free])
    chi2 = linalg.dot(score[free], linalg.solve(factor, score[free]))
    return GrayTest(chi2, len(free), chi_squared_above(chi2, len(free)))


def _sum_stratum(at_risk: Array, of_others: Array, of_cause: Array) -> _Sums:
    """The sums over one stratum's steps, from counts (g, t)."""
    sums = _Sums.of(len(at_risk))
    for step in np.flatnonzero((of_others + of_cause).sum(axis=0)).tolist():
        _add_step(sums, at_risk[:, step], of_others[:, step], of_cause[:, step])
    return sums


def _add_step(sums: _Sums, n: Array, others: Array, own: Array) -> None:
    some, safe = n > 0, np.where(n > 0, n, 1.0)
    survival = np.where(some, sums.survival * (n - others - own) / safe, sums.survival)
    shares = np.where(some, n / np.where(some, sums.survival, 1.0), 0.0)
    whole, events = float(np.cumsum(shares)[-1]), float(np.cumsum(own)[-1])
    at_risk = shares * (1.0 - sums.incidence)
    weights = np.diag(shares) - shares[:, None] * shares / whole
    sums.path = sums.path + weights * (events / (whole * (1.0 - sums.pooled)))
    sums.score = sums.score + (own - events * at_risk / float(np.cumsum(at_risk)[-1]))[:-1]
    sums.pooled += events / whole
    rest = np.where(survival > 0, (1.0 - sums.pooled) / np.where(survival > 0, survival, 1.0), 0.0)
    if events > 0:
        others_at_risk = np.where(some & (events > 1), whole * sums.survival - 1.0, 1.0)
        drawn = 1.0 - (events - 1.0) / others_at_risk if events > 1 else np.ones(len(n))
        spread = np.where(some, drawn * sums.survival * events / (whole * safe), 0.0)
        _add_variance(sums, np.where(survival > 0, 1.0 - rest, 1.0), weights, spread)
    drawn = 1.0 - np.where(others > 1, (others - 1.0) / np.where(n > 1, n - 1.0, 1.0), 0.0)
    spread = np.where(some, drawn * sums.survival**2 * others / safe**2, 0.0)
    _add_variance(sums, -rest, 0.0 * weights, spread)
    sums.incidence = np.where(some, sums.incidence + sums.survival * own / safe, sums.incidence)
    sums.survival = survival


def _add_variance(sums: _Sums, factor: Array, weights: Array, spread: Array) -> None:
    """What events add: `factor` and `spread` (g,), `weights` (g, g) of the step."""
    rows = (weights - factor * sums.path)[:-1]
    sums.own = sums.own + factor * factor * spread
    sums.mixed = sums.mixed + rows * factor * spread
    sums.variance = sums.variance + linalg.matmul(rows * spread, rows.T)


def _close(sums: _Sums) -> Array:
    """The variance of one stratum's scores, when all steps are added."""
    path = sums.path[:-1]
    cross = linalg.matmul(path, sums.mixed.T)
    return np.asarray(sums.variance + linalg.matmul(path * sums.own, path.T) + cross + cross.T)
