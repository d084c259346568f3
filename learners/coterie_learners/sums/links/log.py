"""The logarithm of the mean: effects multiply."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.sums.links.link import Elementary, Link, LinkPoint

# A mean beyond e^-30 to e^30 is far outside any declared outcome; the step that led there is halved anyway.
FARTHEST = 30.0


class Log(Link):
    """eta = log(mu)."""

    name: ClassVar[str] = "log"

    def at(self, eta: Array, exp: Elementary) -> LinkPoint:
        """The exponential function is its own derivative."""
        mean = exp(np.clip(eta, -FARTHEST, FARTHEST))
        return LinkPoint(mean, mean, mean)

    def predictor(self, mean: float) -> float:
        """The logarithm."""
        return linalg.log(mean)

    def inside(self, low: float, high: float) -> tuple[float, float]:
        """Predictors up to that of the highest mean."""
        return -FARTHEST, FARTHEST if math.isinf(high) else math.log(high)
