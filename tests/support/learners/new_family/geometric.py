"""Counts whose variance is mu + mu^2, with the log link: a family in one file, for the test of that promise."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from scipy import special

from coterie_learners.numeric import elementary
from coterie_learners.numeric.array import Array
from coterie_learners.sums.family import LOG_LIMIT, TINY, Curve, Family, Parts, scalar


class Geometric(Family):
    """A count of failures before a success; the log link is not its canonical one."""

    name: ClassVar[str] = "geometric"
    law: ClassVar[str] = "geometric"
    links: ClassVar[tuple[str, ...]] = ("log",)
    outcomes: ClassVar[tuple[str, ...]] = ("count",)
    canonical = False
    certified: ClassVar[bool] = True

    def parts(self, eta: Array, y: Array) -> Parts:
        """Pieces of rows."""
        mean = np.exp(np.minimum(eta, LOG_LIMIT))
        deviance = 2.0 * (special.xlogy(y, y / mean) - (y + 1.0) * np.log((y + 1.0) / (mean + 1.0)))
        curvature = mean * (1.0 + y) / (1.0 + mean) ** 2
        return Parts((y - mean) / (1.0 + mean), mean / (1.0 + mean), curvature, deviance, mean)

    def compute_saturated(self, y: Array) -> Array:
        """Log-likelihood of rows whose means are their counts."""
        return np.asarray(special.xlogy(y, y) - (y + 1.0) * np.log(y + 1.0))

    def variance(self, mean: Array) -> Array:
        """mu + mu^2."""
        return np.asarray(mean + mean * mean)

    def curve(self, eta: Array) -> Curve:
        """The mean at a linear predictor."""
        clipped = np.minimum(eta, LOG_LIMIT)
        mean = np.maximum(elementary.exp_of_array(clipped), TINY)
        ratio = mean / (1.0 + mean)
        logs = elementary.log_of_array(1.0 + mean)
        return Curve(mean, mean, ratio, ratio, clipped - logs, -logs)

    def start(self, mean: float) -> float:
        """The logarithm of the pooled mean."""
        return scalar(elementary.log_of_array, mean)

    def draw(self, eta: Array, bounds: tuple[float, float], rng: np.random.Generator) -> Array:
        """Counts with these logarithms of the mean."""
        return np.clip(rng.geometric(1.0 / (1.0 + np.exp(np.minimum(eta, 5.0)))) - 1, *bounds).astype(np.float64)

    def score_by_definition(self, eta: Array, y: Array) -> tuple[Array, Array]:
        """(y - mu) / (1 + mu) and mu / (1 + mu)."""
        mean = np.exp(eta)
        return (y - mean) / (1.0 + mean), mean / (1.0 + mean)
