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


# Of values about the middle of their range, in units of half of it, rounding leaves so much.
_ROUNDING = 64.0 * float(np.finfo(float).eps)
# A bound that is this small beside the mean is nothing.
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class NumberMoments:
    """Number, mean and standard deviation (divisor n - 1) of values; NaN where there are too few.

    `least`: the least standard deviation that the sums can tell from zero; that of values which vary less is 0 where
    this is nothing beside the mean, and else NaN.
    """

    n: float
    mean: float
    sd: float
    least: float = 0.0

    @property
    def is_unclear(self) -> bool:
        """Whether sums over so wide a range tell fewer than six digits of the standard deviation."""
        if not self.n > 1:
            return False
        return math.isnan(self.sd) or 0.0 < _NEGLIGIBLE * self.sd**2 < self.least**2


def find_moments(n: float, total: float, squares: float, place: tuple[float, float], noise: float) -> NumberMoments:
    """The moments of n values from their sum and squares about their mean, both on the scale of the declared range.

    `place`: centre and unit of that scale. `noise`: what the squares are off by, beside the values' own rounding.
    """
    centre, unit = place
    mean = centre + unit * total / n if n > 0 else math.nan
    if not n > 1:
        return NumberMoments(n, mean, math.nan)
    floor = max(noise, n * (_ROUNDING * (1.0 + abs(centre) / unit)) ** 2)
    least = unit * math.sqrt(floor / (n - 1.0))
    if squares > floor:
        return NumberMoments(n, mean, unit * math.sqrt(squares / (n - 1.0)), least)
    nothing = total == 0.0 or least <= _NEGLIGIBLE * abs(mean)
    return NumberMoments(n, mean, 0.0 if nothing else math.nan, least)


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
    if not np.any((first > 0) & (second > 0)):
        # Without a level in common there is no distance in units of the spread; nor of a group without patients.
        return math.nan
    p, q = ((counts[used] / counts.sum())[1:] for counts in (first, second))
    if not len(p):
        return 0.0
    spread = 0.5 * sum(np.diag(share) - np.outer(share, share) for share in (p, q))
    return math.sqrt(max(float((p - q) @ np.linalg.solve(spread, p - q)), 0.0))


def average_pairs(values: Sequence[float]) -> float:
    """The mean over all pairs of groups; NaN for one that is not known."""
    return float(np.mean(values)) if values else math.nan
