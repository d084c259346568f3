"""What a table shows, from counts and sums: shares and rates with exact limits, quantiles of bins, mean differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coterie_learners.core.fit import LEVEL
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import special
from coterie_learners.table_one.table_plan import Bins

TABLE_QUANTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class NumberMoments:
    """Number, mean and standard deviation (divisor n - 1) of values; NaN where there are too few."""

    n: float
    mean: float
    sd: float


def limit_share(count: float, total: float, level: float = LEVEL) -> tuple[float, float]:
    """Exact limits of a share (Clopper and Pearson, Biometrika 1934;26:404-413), as R's binom.test has them."""
    if not total > 0:
        return math.nan, math.nan
    half, inverse = 0.5 * (1.0 - level), special().betaincinv
    low = 0.0 if count == 0 else float(inverse(count, total - count + 1.0, half))
    high = 1.0 if count == total else float(inverse(count + 1.0, total - count, 1.0 - half))
    return low, high


def limit_rate(events: float, time: float, level: float = LEVEL) -> tuple[float, float]:
    """Exact Poisson limits of a rate (Garwood, Biometrika 1936;28:437-442), as R's poisson.test has them."""
    if not time > 0:
        return math.nan, math.nan
    half, inverse = 0.5 * (1.0 - level), special().gammaincinv
    low = 0.0 if events == 0 else float(inverse(events, half)) / time
    return low, float(inverse(events + 1.0, 1.0 - half)) / time


def find_binned_quantile(bins: Bins, multiple: int, counts: Array, p: float) -> tuple[float, float, float]:
    """The quantile p of binned values, and the bin that has it.

    Values are taken to lie evenly in their bin, so that the error is at most its width. Whole numbers in bins of width
    1 are known: then the quantile is exact, and the mean of two values where n p is a whole number (R's type 2). In an
    open bin the quantile is NaN.
    """
    total, ends = float(counts.sum()), bins.list_ends(multiple)
    if total == 0:
        return math.nan, math.nan, math.nan
    reached, target = np.cumsum(counts), p * total
    at = int(np.argmax(reached >= target - 1e-9))
    low, high = float(ends[at, 0]), float(ends[at, 1])
    if not math.isfinite(low + high):
        return math.nan, low, high
    if bins.whole and bins.width * multiple == 1.0:
        return _find_whole(ends, counts, reached, target, at), low, high
    before = float(reached[at] - counts[at])
    return low + (high - low) * (target - before) / float(counts[at]), low, high


def _find_whole(ends: Array, counts: Array, reached: Array, target: float, at: int) -> float:
    later = np.flatnonzero(counts[at + 1 :])
    if abs(float(reached[at]) - target) > 1e-9 or not len(later):
        return float(ends[at, 1])
    return 0.5 * (float(ends[at, 1]) + float(ends[at + 1 + int(later[0]), 1]))


def compare_means(first: NumberMoments, second: NumberMoments) -> float:
    """The standardised mean difference: the difference over the root of the mean variance (Cohen 1988)."""
    spread = 0.5 * (first.sd**2 + second.sd**2)
    return abs(first.mean - second.mean) / math.sqrt(spread) if spread > 0 else math.nan


def compare_shares(first: Array, second: Array) -> float:
    """The same of a variable with levels, from its counts (k,): Yang and Dalton, SAS Global Forum 2012, paper 335."""
    used = (first + second) > 0
    if not first.sum() > 0 or not second.sum() > 0:
        return math.nan
    p, q = ((counts[used] / counts.sum())[1:] for counts in (first, second))
    if not len(p):
        return 0.0
    spread = 0.5 * sum(np.diag(share) - np.outer(share, share) for share in (p, q))
    try:
        return math.sqrt(max(float((p - q) @ np.linalg.solve(spread, p - q)), 0.0))
    except np.linalg.LinAlgError:  # the groups have no level in common
        return math.nan


def average_pairs(values: Sequence[float]) -> float:
    """The mean over all pairs of groups; NaN for one that is not known."""
    return float(np.mean(values)) if values else math.nan
