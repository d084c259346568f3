"""The root of the mean, which gives all counts one variance."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.sums.links.link import Elementary, Link, LinkPoint


class SquareRoot(Link):
    """eta = sqrt(mu)."""

    name: ClassVar[str] = "sqrt"

    def at(self, eta: Array, exp: Elementary) -> LinkPoint:
        """The square."""
        return LinkPoint(eta * eta, 2.0 * eta, np.full_like(eta, 2.0))

    def predictor(self, mean: float) -> float:
        """The root."""
        return math.sqrt(mean)

    def inside(self, low: float, high: float) -> tuple[float, float]:
        """The predictors of means above 0: they are above 0."""
        return math.sqrt(max(low, 0.0)), math.sqrt(high)
