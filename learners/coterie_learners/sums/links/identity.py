"""The mean itself: effects add up."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.sums.links.link import Elementary, Link, LinkPoint


class Identity(Link):
    """eta = mu."""

    name: ClassVar[str] = "identity"

    def at(self, eta: Array, exp: Elementary) -> LinkPoint:
        """A straight line."""
        return LinkPoint(eta, np.ones_like(eta), np.zeros_like(eta))

    def predictor(self, mean: float) -> float:
        """The mean."""
        return mean

    def inside(self, low: float, high: float) -> tuple[float, float]:
        """The means themselves."""
        return low, high
