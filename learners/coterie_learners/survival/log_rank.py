"""The log-rank test, stratified where there are strata, and its test for trend, from counts at each step.

Mantel, Cancer Chemother Rep 1966;50:163-170; Peto et al., Br J Cancer 1977;35:1-39; as R's `survdiff` has them.
Variances are hypergeometric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import chi_squared_above
from coterie_learners.survival.step_counts import StepCounts


@dataclass(frozen=True)
class LogRank:
    """Observed and expected events (g,) over the strata, the covariance (g, g) of their differences, and the tests.

    `trend_chi2`: on 1 degree of freedom, with the groups' places as scores. NaN where nothing can be tested.
    """

    observed: Array
    expected: Array
    covariance: Array
    chi2: float
    df: int
    p: float
    trend_chi2: float
    trend_p: float


def compare_groups(counts: StepCounts) -> LogRank:
    """The test whether all groups have one hazard; stratified if the counts have several strata."""
    d, n = counts.events, counts.at_risk
    all_events, all_at_risk = d.sum(axis=1, keepdims=True), n.sum(axis=1, keepdims=True)
    share = n / np.where(all_at_risk > 0, all_at_risk, 1.0)
    expected = _sum_steps(share * all_events)
    spread = all_events * (all_at_risk - all_events) / np.where(all_at_risk > 1, all_at_risk - 1.0, 1.0)
    spread = np.where(all_at_risk > 1, spread, 0.0)
    groups = d.shape[1]
    covariance = np.array(
        [
            [_sum_all(spread[:, 0] * share[:, g] * ((g == h) - share[:, h])) for h in range(groups)]
            for g in range(groups)
        ]
    )
    observed = _sum_steps(d)
    return _test_difference(observed, expected, covariance)


def write_test(chi2: float, df: int, p: float) -> str:
    """A test in words; why there is none where nothing can be tested."""
    if math.isnan(chi2):
        return "nothing to test, as no event falls while patients of two groups are at risk"
    return f"chi-squared {chi2:.4f} on {df} df, p = {p:.3g}"


def _sum_steps(values: Array) -> Array:
    return np.array([_sum_all(values[:, g]) for g in range(values.shape[1])])


def _sum_all(values: Array) -> float:
    """The sum in one order on every machine."""
    return float(np.cumsum(values.ravel())[-1])


def _test_difference(observed: Array, expected: Array, covariance: Array) -> LogRank:
    # A group that is never at risk beside another one tells nothing; strata may hold other groups each.
    free = linalg.pick_independent(covariance)
    difference = observed - expected
    chi2 = trend = float("nan")
    if free:
        factor = linalg.cholesky(covariance[np.ix_(free, free)], [str(g) for g in free])
        chi2 = linalg.dot(difference[free], linalg.solve(factor, difference[free]))
        scores = np.arange(len(observed), dtype=np.float64)
        variance = linalg.dot(scores, linalg.matvec(covariance, scores))
        trend = linalg.dot(scores, difference) ** 2 / variance
    return LogRank(
        observed=observed,
        expected=expected,
        covariance=covariance,
        chi2=chi2,
        df=len(free),
        p=chi_squared_above(chi2, len(free)) if chi2 == chi2 else chi2,
        trend_chi2=trend,
        trend_p=chi_squared_above(trend, 1) if trend == trend else trend,
    )
