"""Outcomes above zero whose standard deviation grows with their mean: costs, lengths of stay, waiting times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.sums.family import Baseline, OutcomeUnit, Totals
from coterie_learners.sums.links.link import Elementary
from coterie_learners.sums.links.linked_family import LinkedFamily

# Below this relative distance of an outcome from its mean the deviance is summed as a series: nothing cancels there.
_NEAR = 0.05
# From here on the first terms of Stirling's series have all digits.
_LARGE_SHAPE = 1e3
_SERIES = tuple((-1.0) ** k / k for k in range(14, 1, -1))

# By which power of the outcome's unit coefficients grow.
_POWERS = {"inverse": -1, "identity": 1}


class Gamma(LinkedFamily):
    """A measurement above zero with variance mu^2 (McCullagh and Nelder 1989, chapter 8)."""

    name: ClassVar[str] = "gamma"
    law: ClassVar[str] = "gamma"
    links: ClassVar[tuple[str, ...]] = ("inverse", "log", "identity")
    outcomes: ClassVar[tuple[str, ...]] = ("number", "count")
    ends: ClassVar[tuple[float, float]] = (0.0, math.inf)
    convex: ClassVar[tuple[str, ...]] = ("identity",)
    dispersion: ClassVar[Literal["known", "pearson", "residual"]] = "pearson"
    whole: ClassVar[bool] = False
    separable: ClassVar[bool] = False
    natural: ClassVar[float] = -1.0
    measures: ClassVar[tuple[str, ...]] = ("s", "q", "saturated")
    whole_sums: ClassVar[tuple[str, ...]] = ("saturated",)

    @property
    def unit(self) -> OutcomeUnit | None:
        """Weights of rows are powers of the mean; with the log link they are 1."""
        power = _POWERS.get(self.link)
        return None if power is None else OutcomeUnit(power, 0, 1e-4, 1e6)

    @property
    def ratio(self) -> str:
        """Ratios of means."""
        return "MR" if self.link == "log" else ""

    def tally(self, y: Array, offset: Array, place: Baseline) -> Sequence[Array]:
        """Outcomes, their squares, and the saturated log-likelihood."""
        return y, y * y, self.compute_saturated(y)

    def compute_saturated(self, y: Array) -> Array:
        """Log-likelihood of rows whose means are their outcomes."""
        return np.asarray(-np.log(y) - 1.0)

    def list_summed(self, y: Array) -> Mapping[str, Array]:
        """The logarithm, in the deviance."""
        return {"log({})": np.log(y)}

    def variance(self, mean: Array) -> Array:
        """mu^2."""
        return np.asarray(mean * mean)

    def variance_slope(self, mean: Array) -> Array:
        """2 mu."""
        return np.asarray(2.0 * mean)

    def unit_deviance(self, y: Array, mean: Array) -> Array:
        """2 ((y - mu) / mu - log(y / mu))."""
        apart = (y - mean) / mean
        near = np.clip(apart, -_NEAR, _NEAR)
        series = np.full_like(near, _SERIES[0])
        for term in _SERIES[1:]:
            series = series * near + term
        far = apart - np.log(y / mean)
        return np.asarray(2.0 * np.where(np.abs(apart) <= _NEAR, near * near * series, far))

    def likelihood_terms(self, mean: Array, log: Elementary) -> tuple[Array, Array]:
        """-1 / mu, and -log(mu)."""
        return -1.0 / mean, -log(mean)

    def log_likelihood(self, totals: Totals, deviance: float) -> float | None:
        """At the dispersion deviance / n, as R takes it for AIC."""
        if deviance <= 0.0:
            return math.inf
        # Half of the shape times the deviance is half of the weights.
        return totals.mass * (_log_peak(totals.mass / deviance) + 0.5) + totals.saturated

    def rarer(self, n: int, outcome: int) -> tuple[int, str]:
        """Rows, of which nothing is counted."""
        return n, "rows"

    def draw(self, eta: Array, bounds: tuple[float, float], rng: np.random.Generator) -> Array:
        """Outcomes in the lower part of the range, a third of their mean apart."""
        low, high = bounds
        mean = low + (high - low) * 0.1 * np.exp(0.2 * np.clip(eta, -3.0, 3.0))
        return np.clip(mean * rng.gamma(9.0, 1.0 / 9.0, len(eta)), low, high)


def _log_peak(shape: float) -> float:
    """shape log(shape) - shape - log Gamma(shape): the logarithm of a gamma density at its mean, times the mean.

    By Stirling's series for large shapes (Abramowitz and Stegun 6.1.41), where the terms cancel.
    """
    if shape < _LARGE_SHAPE:
        return shape * (math.log(shape) - 1.0) - math.lgamma(shape)
    return 0.5 * math.log(shape / (2.0 * math.pi)) - (1.0 - 1.0 / (30.0 * shape * shape)) / (12.0 * shape)
