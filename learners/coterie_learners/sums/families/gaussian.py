"""Measurements with the identity link: the linear model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from coterie_learners.errors import ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.sums.exact import pair, square, subtract
from coterie_learners.sums.family import Baseline, Curve, Family, Parts, Totals

_SLACK = 1e-9


class Gaussian(Family):
    """A measurement."""

    name: ClassVar[str] = "gaussian"
    law: ClassVar[str] = "gaussian"
    links: ClassVar[tuple[str, ...]] = ("identity",)
    outcomes: ClassVar[tuple[str, ...]] = ("number", "count")
    dispersion: ClassVar[Literal["known", "pearson", "residual"]] = "residual"
    whole: ClassVar[bool] = False
    separable: ClassVar[bool] = False
    certified: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = ("s", "s_low", "q", "q_low")
    whole_sums: ClassVar[tuple[str, ...]] = ("squares", "squares_low")

    def tally(self, y: Array, offset: Array, place: Baseline) -> Sequence[Array]:
        """Measurements about the place, and their squares, each as a pair."""
        net, first = subtract(y, offset)
        about, second = subtract(net, place.centre)
        value, error = about / place.scale, (first + second) / place.scale
        squared, rounding = square(value)
        return (*pair(value, error), *pair(squared, rounding + 2.0 * value * error))

    def parts(self, eta: Array, y: Array) -> Parts:
        """Pieces of rows."""
        residual, one = y - eta, np.ones_like(eta)
        return Parts(residual, one, one, residual * residual, eta)

    def curve(self, eta: Array) -> Curve:
        """The mean at a linear predictor."""
        one = np.ones_like(eta)
        return Curve(eta, one, one, one, eta, -0.5 * eta * eta)

    def start(self, mean: float) -> float:
        """The mean itself."""
        return mean

    def null_deviance(self, totals: Totals, guess: tuple[float, float]) -> float:
        """From the sum of squares about a guessed mean."""
        deviance, fitted_means = guess
        return max(deviance - (totals.outcome - fitted_means) ** 2 / totals.n, 0.0)

    def log_likelihood(self, totals: Totals, deviance: float) -> float | None:
        """At the dispersion that makes it largest."""
        if deviance <= 0.0:
            return math.inf
        return -0.5 * totals.n * (math.log(2.0 * math.pi * deviance / totals.n) + 1.0)

    def check_intercept(self, n: float, outcome: float, weight: float, score: float) -> None:
        """Each row weighs one."""
        if not abs(weight - n) <= _SLACK * n:
            raise ProtocolError("CO-P508", f"{n:.0f} rows cannot carry an information of {weight:.6g}.")

    def rarer(self, n: int, outcome: int) -> tuple[int, str]:
        """Rows, of which nothing is counted."""
        return n, "rows"

    def draw(self, eta: Array, bounds: tuple[float, float], rng: np.random.Generator) -> Array:
        """Measurements in a small part of the range."""
        low, high = bounds
        return np.clip(low + 0.3 * (high - low) + (high - low) / 80.0 * (eta + rng.normal(size=len(eta))), low, high)

    def score_by_definition(self, eta: Array, y: Array) -> tuple[Array, Array]:
        """The residual, and one."""
        return y - eta, np.ones_like(eta)
