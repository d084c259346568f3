"""Outcomes above zero with a long right tail, whose variance grows with the cube of their mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.sums.family import Baseline, OutcomeUnit, Totals
from coterie_learners.sums.links.link import Elementary
from coterie_learners.sums.links.linked_family import LinkedFamily

# By which power of the outcome's unit coefficients grow.
_POWERS = {"1/mu^2": -2, "inverse": -1, "identity": 1}


class InverseGaussian(LinkedFamily):
    """A measurement above zero with variance mu^3 (McCullagh and Nelder 1989, table 2.1)."""

    name: ClassVar[str] = "inverse_gaussian"
    law: ClassVar[str] = "inverse_gaussian"
    links: ClassVar[tuple[str, ...]] = ("1/mu^2", "log", "inverse", "identity")
    outcomes: ClassVar[tuple[str, ...]] = ("number", "count")
    ends: ClassVar[tuple[float, float]] = (0.0, math.inf)
    convex: ClassVar[tuple[str, ...]] = ("log", "inverse", "identity")
    dispersion: ClassVar[Literal["known", "pearson", "residual"]] = "pearson"
    whole: ClassVar[bool] = False
    separable: ClassVar[bool] = False
    natural: ClassVar[float] = -0.5
    measures: ClassVar[tuple[str, ...]] = ("s", "q", "saturated", "constant")
    whole_sums: ClassVar[tuple[str, ...]] = ("saturated", "constant")

    @property
    def unit(self) -> OutcomeUnit | None:
        """Weights of rows are powers of the mean; with the log link a constant tells it."""
        power = _POWERS.get(self.link)
        return None if power is None else OutcomeUnit(power, -1, 1e-3, 16384.0)

    @property
    def ratio(self) -> str:
        """Ratios of means."""
        return "MR" if self.link == "log" else ""

    def tally(self, y: Array, offset: Array, place: Baseline) -> Sequence[Array]:
        """Outcomes, their squares, and two terms of the likelihood that no coefficient touches."""
        logs = self.compute_saturated(y)
        return y, y * y, logs, logs - 0.5 / y

    def compute_saturated(self, y: Array) -> Array:
        """Log-likelihood of rows whose means are their outcomes, without half the logarithm of 2 pi."""
        return np.asarray(-1.5 * np.log(y))

    def list_summed(self, y: Array) -> Mapping[str, Array]:
        """The reciprocal, in the deviance, and the logarithm, in the likelihood."""
        return {"1 / {}": 1.0 / y, "log({})": np.log(y)}

    def variance(self, mean: Array) -> Array:
        """mu^3."""
        return np.asarray(mean * mean * mean)

    def variance_slope(self, mean: Array) -> Array:
        """3 mu^2."""
        return np.asarray(3.0 * mean * mean)

    def unit_deviance(self, y: Array, mean: Array) -> Array:
        """(y - mu)^2 / (mu^2 y)."""
        apart = (y - mean) / mean
        return np.asarray(apart * apart / y)

    def likelihood_terms(self, mean: Array, log: Elementary) -> tuple[Array, Array]:
        """-1 / (2 mu^2), and 1 / mu."""
        return -0.5 / (mean * mean), 1.0 / mean

    def log_likelihood(self, totals: Totals, deviance: float) -> float | None:
        """At the dispersion deviance / n, as R takes it for AIC."""
        if deviance <= 0.0:
            return math.inf
        return -0.5 * totals.mass * (math.log(2.0 * math.pi * deviance / totals.mass) + 1.0) + totals.saturated

    def rounding_scale(self, totals: Totals, deviance: float) -> float:
        """Squares of the means over their cubes."""
        return totals.mass * totals.mass / totals.outcome

    def rarer(self, n: int, outcome: int) -> tuple[int, str]:
        """Rows, of which nothing is counted."""
        return n, "rows"

    def draw(self, eta: Array, bounds: tuple[float, float], rng: np.random.Generator) -> Array:
        """Outcomes in the lower part of the range, a third of their mean apart."""
        low, high = bounds
        mean = low + (high - low) * 0.1 * np.exp(0.2 * np.clip(eta, -3.0, 3.0))
        return np.clip(rng.wald(mean, 9.0 * mean), low, high)
