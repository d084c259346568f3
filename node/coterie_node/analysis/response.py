"""The mean of an outcome at a linear predictor, and the predictors at the ends of an interval about one."""

from __future__ import annotations

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.sums.family import Family
from coterie_learners.sums.links.textbook import MEANS

# Links whose linear predictors end at 0, where a mean is 0 or infinite.
LINKS_ABOVE_ZERO = ("inverse", "1/mu^2", "sqrt")


def find_response(family: Family, eta: Array) -> tuple[Array, Array]:
    """The mean at linear predictors (m,), and its slope; as R has it, it may lie where no outcome is.

    NaN where the link has no mean.
    """
    if family.link in MEANS:
        with np.errstate(all="ignore"):
            mean, slope = (np.asarray(function(eta)) for function in MEANS[family.link])
        return mean, slope
    curve = family.curve(eta)
    return curve.mean, curve.slope * curve.variance


def find_ends(link: str, eta: Array, half: Array) -> tuple[Array, Array]:
    """Linear predictors (m,) at the ends of intervals; where predictors end at 0 they stay above it.

    NaN for a predictor that has no mean itself.
    """
    if link not in LINKS_ABOVE_ZERO:
        return eta - half, eta + half
    usable = np.where(eta > 0.0, eta, np.nan)
    return np.maximum(usable - half, 0.0), usable + half
