"""Counts that vary more than a Poisson model allows, by a shape that is estimated with the coefficients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import special
from coterie_learners.sums.families.poisson import Poisson
from coterie_learners.sums.family import Curve, Parts, Totals
from coterie_learners.sums.links.link import Elementary
from coterie_learners.sums.links.linked_family import LinkedFamily


class NegativeBinomial(Poisson):
    """A count with variance mu + mu^2 / theta (Lawless, Can J Stat 1987;15:209-225), theta being estimated too."""

    name: ClassVar[str] = "negative_binomial"
    law: ClassVar[str] = "negative_binomial"
    links: ClassVar[tuple[str, ...]] = ("log",)
    ends: ClassVar[tuple[float, float]] = (0.0, math.inf)
    shaped: ClassVar[bool] = True
    quasi: ClassVar[str] = ""
    canonical = False
    by_tables = False
    closed_null = False

    def __init__(self, link: str | None = None, theta: float = 1.0) -> None:
        super().__init__(link)
        self.theta = theta

    def at_state(self, state: Mapping[str, Any]) -> NegativeBinomial:
        """The family at the shape of a server's post."""
        return NegativeBinomial(self.link, math.exp(float(state["shape"]))) if "shape" in state else self

    def parts(self, eta: Array, y: Array) -> Parts:
        """Pieces of rows."""
        return LinkedFamily.parts(self, eta, y)

    def curve(self, eta: Array) -> Curve:
        """The mean at a linear predictor."""
        return LinkedFamily.curve(self, eta)

    def variance(self, mean: Array) -> Array:
        """mu + mu^2 / theta."""
        return np.asarray(mean + mean * mean / self.theta)

    def variance_slope(self, mean: Array) -> Array:
        """1 + 2 mu / theta."""
        return np.asarray(1.0 + 2.0 * mean / self.theta)

    def unit_deviance(self, y: Array, mean: Array) -> Array:
        """2 (y log(y / mu) - (y + theta) log((y + theta) / (mu + theta)))."""
        both = (y + self.theta) * np.log1p((y - mean) / (mean + self.theta))
        return np.asarray(np.maximum(2.0 * (special().xlogy(y, y / mean) - both), 0.0))

    def likelihood_terms(self, mean: Array, log: Elementary) -> tuple[Array, Array]:
        """log(mu / (mu + theta)), and -theta log(1 + mu / theta)."""
        sums = log(mean + self.theta)
        return log(mean) - sums, -self.theta * log(1.0 + mean / self.theta)

    def compute_saturated(self, y: Array) -> Array:
        """Log-likelihood of rows whose means are their counts."""
        theta = self.theta
        constant = special().gammaln(y + theta) - math.lgamma(theta) - special().gammaln(y + 1.0)
        return np.asarray(constant - theta * np.log1p(y / theta) + special().xlogy(y, y / (y + theta)))

    def shape_parts(self, y: Array, mean: Array) -> tuple[Array, Array]:
        """Score and observed information of theta of each row (m,), as MASS's theta.ml has them."""
        theta, polygamma = self.theta, special().polygamma
        whole = mean + theta
        score = special().digamma(y + theta) - special().digamma(theta) - np.log1p(mean / theta)
        information = polygamma(1, theta) - polygamma(1, y + theta) - 1.0 / theta
        return (
            np.asarray(score + 1.0 - (y + theta) / whole),
            np.asarray(information + 2.0 / whole - (y + theta) / whole**2),
        )

    def score_by_definition(self, eta: Array, y: Array) -> tuple[Array, Array]:
        """(y - mu) / (1 + mu / theta) and mu / (1 + mu / theta)."""
        mean = np.exp(eta)
        return (y - mean) / (1.0 + mean / self.theta), mean / (1.0 + mean / self.theta)

    def draw(self, eta: Array, bounds: tuple[float, float], rng: np.random.Generator) -> Array:
        """Counts with these logarithms of the mean, and a theta of one and a half."""
        mean = np.exp(np.minimum(eta, 10.0)) * rng.gamma(1.5, 1.0 / 1.5, len(eta))
        return np.clip(rng.poisson(mean), *bounds).astype(np.float64)

    def null_deviance(self, totals: Totals, guess: tuple[float, float]) -> float:
        """That of the guess, which is fitted round by round."""
        return guess[0]
