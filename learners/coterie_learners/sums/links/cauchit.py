"""The quantile of the Cauchy distribution: probabilities that approach 0 and 1 slowly, so that outliers count less."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.numeric.elementary import arctan, tan
from coterie_learners.sums.links.link import Elementary, Link, LinkPoint


class Cauchit(Link):
    """eta = tan(pi (mu - 1/2)), as R's `cauchit` (McCullagh and Nelder 1989, section 4.3.1)."""

    name: ClassVar[str] = "cauchit"

    def at(self, eta: Array, exp: Elementary) -> LinkPoint:
        """The distribution function, its density, and the density's slope; the lower tail to full precision."""
        tail = arctan(1.0 / np.maximum(np.abs(eta), 1.0)) / math.pi
        middle = 0.5 + arctan(np.clip(eta, -1.0, 1.0)) / math.pi
        mean = np.where(eta < -1.0, tail, np.where(eta > 1.0, 1.0 - tail, middle))
        spread = 1.0 + eta * eta
        density = 1.0 / (math.pi * spread)
        return LinkPoint(mean, density, -2.0 * eta * density / spread)

    def predictor(self, mean: float) -> float:
        """The quantile, by the tangent of the smaller of two angles."""
        tail = min(mean, 1.0 - mean)
        size = 1.0 / tan(math.pi * tail) if tail < 0.25 else tan(math.pi * (0.5 - tail))
        return size if mean > 0.5 else -size

    def inside(self, low: float, high: float) -> tuple[float, float]:
        """All numbers."""
        return -math.inf, math.inf
