"""One over the squared mean: the canonical link of the inverse Gaussian family, up to a factor."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.sums.links.link import Elementary, Link, LinkPoint


class InverseSquare(Link):
    """eta = 1 / mu^2."""

    name: ClassVar[str] = "1/mu^2"

    def at(self, eta: Array, exp: Elementary) -> LinkPoint:
        """Powers of one over the root of the predictor."""
        mean = 1.0 / np.sqrt(eta)
        cube = mean * mean * mean
        return LinkPoint(mean, -0.5 * cube, 0.75 * cube * mean * mean)

    def predictor(self, mean: float) -> float:
        """One over the squared mean."""
        return 1.0 / (mean * mean)

    def inside(self, low: float, high: float) -> tuple[float, float]:
        """The predictors of means above 0: they are above 0."""
        return (0.0 if math.isinf(high) else high**-2), (math.inf if low == 0.0 else low**-2)
