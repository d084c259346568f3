"""Counts with the log, identity or root link, with or without person-time; also with an estimated dispersion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from coterie_learners.errors import ProtocolError, Separation, StudyError
from coterie_learners.numeric import elementary, linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import special
from coterie_learners.study.document import Variable
from coterie_learners.sums.family import AT_AN_END, LOG_LIMIT, TINY, Baseline, Curve, Parts, Totals, scalar
from coterie_learners.sums.links.link import Elementary
from coterie_learners.sums.links.linked_family import LinkedFamily

# Below this relative distance of a count from its mean the deviance is summed as a series: nothing cancels there.
NEAR = 0.05
# The root of the mean of synthetic counts with the square root link, and its slope.
ROOT, ROOT_SLOPE = 1.7, 0.03
SERIES = tuple((-1.0) ** k / (k * (k - 1)) for k in range(12, 1, -1))


class Poisson(LinkedFamily):
    """A count."""

    name: ClassVar[str] = "poisson"
    law: ClassVar[str] = "poisson"
    links: ClassVar[tuple[str, ...]] = ("log", "identity", "sqrt")
    outcomes: ClassVar[tuple[str, ...]] = ("count",)
    ends: ClassVar[tuple[float, float]] = (0.0, math.inf)
    measures: ClassVar[tuple[str, ...]] = ("s", "q", "saturated", "constant")
    whole_sums: ClassVar[tuple[str, ...]] = ("saturated", "constant")
    quasi: ClassVar[str] = "quasipoisson"
    extreme_means: ClassVar[str] = "rates numerically 0"
    certified: ClassVar[bool] = True

    @property
    def closed_null(self) -> bool:
        """An offset is an exposure."""
        return self.link == "log"

    def tally(self, y: Array, offset: Array, place: Baseline) -> Sequence[Array]:
        """Counts, their squares over the exposure, and two terms of the likelihood that no coefficient touches."""
        if self.link != "log":
            return y, y * y, self.compute_saturated(y), -special().gammaln(y + 1.0)
        entropy, factorial, time = special().xlogy(y, y) - y, special().gammaln(y + 1.0), offset - place.offset
        return y, y * y / np.exp(time), entropy - factorial, y * time - factorial

    def parts(self, eta: Array, y: Array) -> Parts:
        """Pieces of rows."""
        if self.link != "log":
            return super().parts(eta, y)
        mean = np.exp(np.minimum(eta, LOG_LIMIT))
        return Parts(y - mean, mean, mean, unit_deviance(y, mean), mean)

    def compute_saturated(self, y: Array) -> Array:
        """Log-likelihood of rows whose means are their counts."""
        return np.asarray(special().xlogy(y, y) - y - special().gammaln(y + 1.0))

    def variance(self, mean: Array) -> Array:
        """The mean itself."""
        return np.asarray(np.maximum(mean, TINY))

    def variance_slope(self, mean: Array) -> Array:
        """1."""
        return np.ones_like(mean)

    def unit_deviance(self, y: Array, mean: Array) -> Array:
        """2 (y log(y / mu) - (y - mu))."""
        return unit_deviance(y, mean)

    def likelihood_terms(self, mean: Array, log: Elementary) -> tuple[Array, Array]:
        """log(mu), and -mu."""
        return log(mean), -mean

    def at_an_end(self, mean: Array) -> bool:
        """Whether a fitted rate is 0 to a float."""
        return bool(np.any(mean < AT_AN_END))

    def curve(self, eta: Array) -> Curve:
        """The mean at a linear predictor."""
        if self.link != "log":
            return super().curve(eta)
        clipped = np.minimum(eta, LOG_LIMIT)
        mean = np.maximum(elementary.exp_of_array(clipped), TINY)
        return Curve(mean, mean, np.ones_like(eta), mean, clipped, -mean)

    def start(self, mean: float) -> float:
        """The predictor of the pooled mean."""
        if self.link != "log":
            return super().start(mean)
        return scalar(elementary.log_of_array, mean)

    def null_deviance(self, totals: Totals, guess: tuple[float, float]) -> float:
        """From the deviance at a guessed rate, which one factor corrects."""
        deviance, fitted_means = guess
        if self.link != "log":
            return deviance
        factor = totals.outcome / fitted_means
        return deviance - 2.0 * (totals.outcome * linalg.log(factor) - (totals.outcome - fitted_means))

    def check_outcome(self, name: str, variable: Variable) -> None:
        """StudyError unless the outcome is a count from 0."""
        super().check_outcome(name, variable)
        if variable.bounds[0] < 0:
            raise StudyError("CO-S302", f"A count is never negative; the range of {name!r} begins below 0.")

    def check_total(self, n: float, outcome: float) -> None:
        """ProtocolError unless counts can add up to this."""
        if not (outcome >= 0 and outcome == round(outcome)):
            raise ProtocolError("CO-P504", f"Counts cannot add up to {outcome:.6g}.")

    def check_extremes(self, n: float, outcome: float) -> None:
        """Separation if all counts are zero."""
        if outcome == 0.0:
            raise Separation("CO-N301", "All counts at all sites are zero; nothing can be fitted.")

    def find_one_sided(self, n: Array, outcome: Array) -> tuple[Sequence[bool], Sequence[bool]]:
        """Groups without a count above zero; no count is the most."""
        return ((n > 0) & (outcome == 0)).tolist(), [False] * len(n)

    def draw(self, eta: Array, bounds: tuple[float, float], rng: np.random.Generator) -> Array:
        """Counts with these logarithms of the mean, with means that add up, or with roots that do."""
        if self.link == "sqrt":
            return np.clip(rng.poisson((ROOT + ROOT_SLOPE * eta) ** 2), *bounds).astype(np.float64)
        if self.link == "identity":
            return np.clip(rng.poisson(np.maximum(3.0 + 0.05 * eta, 0.01)), *bounds).astype(np.float64)
        return np.clip(rng.poisson(np.exp(np.minimum(eta, 10.0))), *bounds).astype(np.float64)

    def shift_to(self, eta: Array, mean: float) -> float:
        """The logarithm of the factor between the means; what is added to means or roots, by their slope."""
        if self.link == "sqrt":
            spread = ROOT_SLOPE * ROOT_SLOPE * float(np.var(eta))
            return (math.sqrt(max(mean - spread, 0.0)) - ROOT) / ROOT_SLOPE - float(np.mean(eta))
        if self.link == "identity":
            return (mean - 3.0) / 0.05 - float(np.mean(eta))
        return math.log(mean / float(np.mean(np.exp(eta))))

    def score_by_definition(self, eta: Array, y: Array) -> tuple[Array, Array]:
        """y - mu and mu."""
        if self.link != "log":
            return super().score_by_definition(eta, y)
        mean = np.exp(eta)
        return y - mean, mean


class QuasiPoisson(Poisson):
    """A count whose dispersion is estimated by Pearson's residuals."""

    name: ClassVar[str] = "quasipoisson"
    quasi: ClassVar[str] = ""
    dispersion: ClassVar[Literal["known", "pearson", "residual"]] = "pearson"

    def log_likelihood(self, totals: Totals, deviance: float) -> float | None:
        """A quasi family has none."""
        return None


def unit_deviance(y: Array, mean: Array) -> Array:
    """2 (y log(y / mean) - (y - mean)) (m,), to full relative precision also where counts are near their means."""
    apart = (y - mean) / np.maximum(mean, TINY)
    near = np.clip(apart, -NEAR, NEAR)
    series = np.full_like(near, SERIES[0])
    for term in SERIES[1:]:
        series = series * near + term
    far = special().kl_div(y, np.maximum(mean, TINY))
    return np.asarray(2.0 * np.where(np.abs(apart) <= NEAR, mean * near * near * series, far))
