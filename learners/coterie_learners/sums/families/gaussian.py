"""Measurements: the linear model, and means that multiply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from coterie_learners.errors import ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.sums.exact import pair, square, subtract
from coterie_learners.sums.family import Baseline, Curve, Parts, Totals
from coterie_learners.sums.links.link import Elementary
from coterie_learners.sums.links.linked_family import LinkedFamily

_SLACK = 1e-9


class Gaussian(LinkedFamily):
    """A measurement."""

    name: ClassVar[str] = "gaussian"
    law: ClassVar[str] = "gaussian"
    links: ClassVar[tuple[str, ...]] = ("identity", "log")
    outcomes: ClassVar[tuple[str, ...]] = ("number", "count")
    dispersion: ClassVar[Literal["known", "pearson", "residual"]] = "residual"
    whole: ClassVar[bool] = False
    separable: ClassVar[bool] = False
    certified: ClassVar[bool] = True
    ends: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    convex: ClassVar[tuple[str, ...]] = ("log",)
    measures: ClassVar[tuple[str, ...]] = ("s", "s_low", "q", "q_low")
    whole_sums: ClassVar[tuple[str, ...]] = ("squares", "squares_low")

    @property
    def linear(self) -> bool:
        """With the identity link."""
        return self.link == "identity"

    @property
    def by_tables(self) -> bool:
        """With the identity link, whose sums are pairs."""
        return self.linear

    @property
    def closed_null(self) -> bool:
        """An offset is taken from the outcome."""
        return self.linear

    @property
    def ratio(self) -> str:
        """Ratios of means."""
        return "MR" if self.link == "log" else ""

    def tally(self, y: Array, offset: Array, place: Baseline) -> Sequence[Array]:
        """Measurements about the place, and their squares, each as a pair."""
        net, first = subtract(y, offset)
        about, second = subtract(net, place.centre)
        value, error = about / place.scale, (first + second) / place.scale
        squared, rounding = square(value)
        return (*pair(value, error), *pair(squared, rounding + 2.0 * value * error))

    def parts(self, eta: Array, y: Array) -> Parts:
        """Pieces of rows."""
        if not self.linear:
            return super().parts(eta, y)
        residual, one = y - eta, np.ones_like(eta)
        return Parts(residual, one, one, residual * residual, eta)

    def curve(self, eta: Array) -> Curve:
        """The mean at a linear predictor."""
        if not self.linear:
            return super().curve(eta)
        one = np.ones_like(eta)
        return Curve(eta, one, one, one, eta, -0.5 * eta * eta)

    def weight_terms(self, prior: Array) -> Array:
        """Half their logarithms: a row's variance is the dispersion over its weight."""
        return np.asarray(0.5 * np.log(prior))

    def variance(self, mean: Array) -> Array:
        """1."""
        return np.ones_like(mean)

    def variance_slope(self, mean: Array) -> Array:
        """0."""
        return np.zeros_like(mean)

    def unit_deviance(self, y: Array, mean: Array) -> Array:
        """The squared residual."""
        return np.asarray((y - mean) ** 2)

    def likelihood_terms(self, mean: Array, log: Elementary) -> tuple[Array, Array]:
        """mu, and minus half its square."""
        return mean, -0.5 * mean * mean

    def null_deviance(self, totals: Totals, guess: tuple[float, float]) -> float:
        """From the sum of squares about a guessed mean."""
        deviance, fitted_means = guess
        if not self.linear:
            return deviance
        return max(deviance - (totals.outcome - fitted_means) ** 2 / totals.mass, 0.0)

    def rounding_scale(self, totals: Totals, deviance: float) -> float:
        """Squares of the residuals and of the means."""
        return deviance + (totals.mass if self.linear else totals.outcome**2 / totals.mass)

    def log_likelihood(self, totals: Totals, deviance: float) -> float | None:
        """At the dispersion that makes it largest."""
        if deviance <= 0.0:
            return math.inf
        return -0.5 * totals.n * (math.log(2.0 * math.pi * deviance / totals.n) + 1.0) + totals.saturated

    def check_intercept(self, n: float, outcome: float, weight: float, score: float) -> None:
        """Each row weighs one, with the identity link."""
        if self.linear and not abs(weight - n) <= _SLACK * n:
            raise ProtocolError("CO-P508", f"{n:.0f} rows cannot carry an information of {weight:.6g}.")

    def rarer(self, n: int, outcome: int) -> tuple[int, str]:
        """Rows, of which nothing is counted."""
        return n, "rows"

    def draw(self, eta: Array, bounds: tuple[float, float], rng: np.random.Generator) -> Array:
        """Measurements in a small part of the range."""
        low, high = bounds
        if not self.linear:
            mean = 0.2 * high * np.exp(0.1 * np.clip(eta, -3.0, 3.0))
            return np.clip(mean + 0.02 * high * rng.normal(size=len(eta)), low, high)
        return np.clip(low + 0.3 * (high - low) + (high - low) / 80.0 * (eta + rng.normal(size=len(eta))), low, high)

    def score_by_definition(self, eta: Array, y: Array) -> tuple[Array, Array]:
        """The residual, and one."""
        if not self.linear:
            return super().score_by_definition(eta, y)
        return y - eta, np.ones_like(eta)
