"""A family that takes any of the links of this package, beside those that it computes itself."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Variable
from coterie_learners.sums.family import Curve, Family, Parts, check_positive
from coterie_learners.sums.links import all_links
from coterie_learners.sums.links.link import Elementary
from coterie_learners.sums.links.linked import curve_of, parts_of
from coterie_learners.sums.links.textbook import score_by_textbook


class LinkedFamily(Family):
    """A family by its variance, deviance and likelihood; the links do the rest.

    `ends`: open ends of the means. `convex`: links by which the observed information of a row may be negative.
    """

    ends: ClassVar[tuple[float, float]]
    certified: ClassVar[bool] = True
    convex: ClassVar[tuple[str, ...]] = ()

    @property
    def concave(self) -> bool:
        """Whether the log-likelihood of every row is concave in its predictor."""
        return self.link not in self.convex

    @property
    def probes(self) -> tuple[float, float]:
        """0 and 1, but of measurements above 0: 1 and 2."""
        return (1.0, 2.0) if self.ends[0] == 0.0 and not self.whole else (0.0, 1.0)

    @property
    def bounded(self) -> bool:
        """Whether a predictor may leave the range in which its mean exists."""
        low, high = all_links()[self.link].inside(*self.ends) if self.link in all_links() else (-np.inf, np.inf)
        return bool(low >= 0.0 or high <= 1.0)

    def check_outcome(self, name: str, variable: Variable) -> None:
        """StudyError unless the declared outcomes are those of the family; measurements whose means are above 0 are."""
        super().check_outcome(name, variable)
        if self.ends[0] == 0.0 and not self.whole:
            check_positive(self.name, name, variable)

    def parts(self, eta: Array, y: Array) -> Parts:
        """Pieces of rows."""
        out = parts_of(self, all_links()[self.link], eta, y)
        if self.canonical:
            return replace(out, curvature=out.weight)
        # By rounding a curvature of zero may come out below it.
        return replace(out, curvature=np.maximum(out.curvature, 0.0)) if self.concave else out

    def curve(self, eta: Array) -> Curve:
        """The mean at a linear predictor."""
        return curve_of(self, all_links()[self.link], eta)

    def start(self, mean: float) -> float:
        """The predictor of the pooled mean."""
        return all_links()[self.link].predictor(mean)

    def score_by_definition(self, eta: Array, y: Array) -> tuple[Array, Array]:
        """(y - mu) mu' / V and mu'^2 / V, by the textbook's formulas of the link."""
        return score_by_textbook(self.link, self.variance, eta, y)

    @abstractmethod
    def variance(self, mean: Array) -> Array:
        """V(mu) (m,), up to the dispersion."""

    @abstractmethod
    def variance_slope(self, mean: Array) -> Array:
        """V'(mu) (m,)."""

    @abstractmethod
    def unit_deviance(self, y: Array, mean: Array) -> Array:
        """The deviance of each row (m,), dispersion 1."""

    @abstractmethod
    def likelihood_terms(self, mean: Array, log: Elementary) -> tuple[Array, Array]:
        """What an outcome multiplies in a row's log-likelihood, and what stands beside it (m,)."""
