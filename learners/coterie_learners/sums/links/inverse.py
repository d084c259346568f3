"""One over the mean: the canonical link of the gamma family, up to its sign."""

from __future__ import annotations

import math
from typing import ClassVar

from coterie_learners.numeric.array import Array
from coterie_learners.sums.links.link import Elementary, Link, LinkPoint


class Inverse(Link):
    """eta = 1 / mu."""

    name: ClassVar[str] = "inverse"

    def at(self, eta: Array, exp: Elementary) -> LinkPoint:
        """Powers of one over the predictor."""
        mean = 1.0 / eta
        return LinkPoint(mean, -mean * mean, 2.0 * mean * mean * mean)

    def predictor(self, mean: float) -> float:
        """One over the mean."""
        return 1.0 / mean

    def inside(self, low: float, high: float) -> tuple[float, float]:
        """The predictors of means above 0: they are above 0."""
        return (0.0 if math.isinf(high) else 1.0 / high), (math.inf if low == 0.0 else 1.0 / low)
