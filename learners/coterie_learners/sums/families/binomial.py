"""Outcomes of 0 and 1, with the links logit, probit, cloglog and others; and the same with an estimated dispersion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from coterie_learners.errors import ProtocolError, Separation
from coterie_learners.numeric import elementary, linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import special
from coterie_learners.sums.family import AT_AN_END, LOG_LIMIT, TINY, Curve, Parts, Totals, log_odds, scalar
from coterie_learners.sums.links.link import Elementary
from coterie_learners.sums.links.linked_family import LinkedFamily

_SLACK = 1e-9
QUANTILE_STEPS = 12


@dataclass(frozen=True)
class _JoinPlan:
    """A link of a binary outcome in both arithmetics, a predictor near that of a mean, and the observed information."""

    parts: Callable[[Array, Array], Parts]
    curve: Callable[[Array], Curve]
    start: Callable[[float], float]
    bend: Callable[[Array, Array, Array, Array], Array] | None = None


class Binomial(LinkedFamily):
    """A binary outcome."""

    name: ClassVar[str] = "binomial"
    law: ClassVar[str] = "binomial"
    links: ClassVar[tuple[str, ...]] = ("logit", "probit", "cloglog", "cauchit", "log", "identity")
    outcomes: ClassVar[tuple[str, ...]] = ("binary",)
    has_events: ClassVar[bool] = True
    binary: ClassVar[bool] = True
    firth_links: ClassVar[tuple[str, ...]] = ("logit",)
    extreme_means: ClassVar[str] = "probabilities numerically 0 or 1"
    certified: ClassVar[bool] = True
    ends: ClassVar[tuple[float, float]] = (0.0, 1.0)
    convex: ClassVar[tuple[str, ...]] = ("cauchit",)

    def parts(self, eta: Array, y: Array) -> Parts:
        """Pieces of rows."""
        return LINKS[self.link].parts(eta, y) if self.link in LINKS else super().parts(eta, y)

    def curve(self, eta: Array) -> Curve:
        """The mean at a linear predictor."""
        return LINKS[self.link].curve(eta) if self.link in LINKS else super().curve(eta)

    def start(self, mean: float) -> float:
        """A linear predictor near that of a pooled mean."""
        return LINKS[self.link].start(mean) if self.link in LINKS else super().start(mean)

    @property
    def bent(self) -> bool:
        """With the links probit and cloglog."""
        return self.link in LINKS and LINKS[self.link].bend is not None

    def bend(self, eta: Array, y: Array, residual: Array, weight: Array) -> Array:
        """The observed information of rows."""
        own = LINKS[self.link].bend if self.link in LINKS else None
        return weight if own is None else np.maximum(own(eta, y, residual, weight), 0.0)

    @property
    def ratio(self) -> str:
        """Ratios of risks with the log link."""
        return "RR" if self.link == "log" else super().ratio

    def variance(self, mean: Array) -> Array:
        """mu (1 - mu)."""
        return np.asarray(np.maximum(mean * (1.0 - mean), TINY))

    def variance_slope(self, mean: Array) -> Array:
        """1 - 2 mu."""
        return np.asarray(1.0 - 2.0 * mean)

    def unit_deviance(self, y: Array, mean: Array) -> Array:
        """-2 log of the probability of what happened."""
        return np.asarray(-2.0 * np.where(y > 0.5, np.log(mean), np.log1p(-mean)))

    def likelihood_terms(self, mean: Array, log: Elementary) -> tuple[Array, Array]:
        """The log-odds, and log(1 - mu)."""
        other = log(1.0 - mean)
        return log(mean) - other, other

    def at_an_end(self, mean: Array) -> bool:
        """Whether a fitted probability is 0 or 1 to a float."""
        return bool(np.any(mean < AT_AN_END) or np.any(mean > 1.0 - AT_AN_END))

    def null_deviance(self, totals: Totals, guess: tuple[float, float]) -> float:
        """From the counts, whatever the guess."""
        return binary_deviance(totals.mass, totals.outcome)

    def null_from_counts(self, totals: Totals) -> float | None:
        """From the counts alone."""
        return binary_deviance(totals.mass, totals.outcome)

    def check_total(self, n: float, outcome: float) -> None:
        """ProtocolError unless the outcomes are so many events of n rows."""
        if not (0 <= outcome <= n and outcome == round(outcome)):
            raise ProtocolError("CO-P504", f"{outcome:.6g} events cannot come from {n:.6g} rows.")

    def check_intercept(self, n: float, outcome: float, weight: float, score: float) -> None:
        """Each row weighs at most a quarter (logit), and its residual lies between -1 and 1."""
        super().check_intercept(n, outcome, weight, score)
        if self.link != "logit":
            return
        if weight > 0.25 * n * (1.0 + _SLACK):
            raise ProtocolError("CO-P508", f"{n:.0f} rows cannot carry an information of {weight:.6g}.")
        room = _SLACK * max(n, 1.0)
        if not outcome - n - room <= score <= outcome + room:
            raise ProtocolError("CO-P508", f"{outcome:.0f} events in {n:.0f} rows cannot give a score of {score:.6g}.")

    def check_extremes(self, n: float, outcome: float) -> None:
        """Separation if all outcomes are the same."""
        if outcome in (0.0, n):
            raise Separation("CO-N301", "All sites together have only one value of the outcome; nothing can be fitted.")

    def find_one_sided(self, n: Array, outcome: Array) -> tuple[Sequence[bool], Sequence[bool]]:
        """Groups without events, and groups of events only."""
        return ((n > 0) & (outcome == 0)).tolist(), ((n > 0) & (outcome == n)).tolist()

    def rarer(self, n: int, outcome: int) -> tuple[int, str]:
        """Patients with the rarer outcome."""
        return min(outcome, n - outcome), "patients with the rarer outcome"

    def draw(self, eta: Array, bounds: tuple[float, float], rng: np.random.Generator) -> Array:
        """Events at logistic probabilities, or at ones that another link has."""
        return np.asarray(rng.random(len(eta)) < self._draw_from(eta), dtype=np.float64)

    def _draw_from(self, eta: Array) -> Array:
        """The probabilities of synthetic outcomes."""
        if self.link == "log":
            return np.asarray(np.minimum(np.exp(0.2 * eta - 1.2), 0.9))
        if self.link == "identity":
            return np.clip(0.4 + 0.05 * eta, 0.02, 0.98)
        return np.asarray(special().expit(eta))

    def shift_to(self, eta: Array, mean: float) -> float:
        """By bisection: the mean probability grows with the constant."""
        low, high = -50.0, 50.0
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if float(np.mean(self._draw_from(eta + middle))) < mean else (low, middle)
        return low

    def score_by_definition(self, eta: Array, y: Array) -> tuple[Array, Array]:
        """(y - mu) mu' / V and mu'^2 / V, with the mean and its slope from the link's own formula."""
        if self.link not in LINKS:
            return super().score_by_definition(eta, y)
        if self.link == "probit":
            mean, slope = special().ndtr(eta), np.exp(-0.5 * eta**2) / np.sqrt(2.0 * np.pi)
        elif self.link == "cloglog":
            mean, slope = -np.expm1(-np.exp(eta)), np.exp(eta - np.exp(eta))
        else:
            mean = special().expit(eta)
            slope = mean * (1.0 - mean)
        variance = mean * (1.0 - mean)
        return (y - mean) * slope / variance, slope**2 / variance


class QuasiBinomial(Binomial):
    """A binary outcome whose dispersion is estimated by Pearson's residuals."""

    name: ClassVar[str] = "quasibinomial"
    firth_links: ClassVar[tuple[str, ...]] = ()
    dispersion: ClassVar[Literal["known", "pearson", "residual"]] = "pearson"

    def log_likelihood(self, totals: Totals, deviance: float) -> float | None:
        """A quasi family has none."""
        return None


def binary_deviance(n: float, events: float) -> float:
    """Deviance of one probability for all of n rows, the same bits everywhere."""
    mean = events / n
    if mean in (0.0, 1.0):
        return 0.0
    return -2.0 * (events * linalg.log(mean) + (n - events) * linalg.log(1.0 - mean))


def _logit_parts(eta: Array, y: Array) -> Parts:
    small = np.exp(-np.abs(eta))
    mean = np.where(eta >= 0, 1.0, small) / (1.0 + small)
    weight = small / (1.0 + small) ** 2
    deviance = 2.0 * (np.maximum(eta, 0.0) + np.log1p(small) - y * eta)
    return Parts(y - mean, weight, weight, deviance, mean)


def _probit_parts(eta: Array, y: Array) -> Parts:
    sign = 2.0 * y - 1.0
    log_p, log_q = special().log_ndtr(eta), special().log_ndtr(-eta)
    log_density = -0.5 * eta * eta - 0.5 * np.log(2 * np.pi)
    chosen = np.where(y > 0.5, log_p, log_q)
    residual = sign * np.exp(log_density - chosen)
    weight = np.exp(2.0 * log_density - log_p - log_q)
    return Parts(residual, weight, _bend_probit(eta, y, residual, weight), -2.0 * chosen, np.exp(log_p))


def _bend_probit(eta: Array, y: Array, residual: Array, weight: Array) -> Array:
    """Minus the derivative of phi / Phi."""
    return residual * (residual + eta)


def _cloglog_parts(eta: Array, y: Array) -> Parts:
    hazard = np.exp(np.minimum(eta, LOG_LIMIT))
    mean = -np.expm1(-hazard)
    log_p = np.log(np.maximum(mean, TINY))
    chosen = np.where(y > 0.5, log_p, -hazard)
    # mu' = hazard (1 - mu); the residual is mu'/mu for an event and -hazard otherwise.
    event = hazard * np.exp(-hazard - log_p)
    residual, weight = np.where(y > 0.5, event, -hazard), hazard * event
    curvature = np.maximum(_bend_cloglog(eta, y, residual, weight), 0.0)
    return Parts(residual, weight, curvature, -2.0 * chosen, mean)


def _bend_cloglog(eta: Array, y: Array, residual: Array, weight: Array) -> Array:
    """For an event with residual e and hazard h: e (h + e - 1), where e h is the weight; else the hazard."""
    return np.asarray(np.where(y > 0.5, weight + residual * (residual - 1.0), -residual))


def _logit_curve(eta: Array) -> Curve:
    small = elementary.exp_of_array(-np.abs(eta))
    mean = np.where(eta >= 0, 1.0, small) / (1.0 + small)
    variance = small / ((1.0 + small) * (1.0 + small))
    return Curve(mean, variance, np.ones_like(eta), variance, eta, -elementary.softplus(eta))


def _probit_curve(eta: Array) -> Curve:
    z = elementary.evaluate_normal(eta)
    variance = np.maximum(z.below * z.above, TINY)
    weight = z.rate_below * z.rate_above
    return Curve(z.below, variance, z.rate_below + z.rate_above, weight, z.log_below - z.log_above, z.log_above)


def _cloglog_curve(eta: Array) -> Curve:
    hazard = elementary.exp_of_array(np.clip(eta, -700.0, LOG_LIMIT))
    mean, other = -elementary.expm1(-hazard), elementary.exp_of_array(-hazard)
    event = hazard * other / np.maximum(mean, TINY)
    log_mean = elementary.log_of_array(np.maximum(mean, TINY))
    return Curve(mean, np.maximum(mean * other, TINY), event + hazard, event * hazard, log_mean + hazard, -hazard)


def _log_hazard(mean: float) -> float:
    return scalar(elementary.log_of_array, -scalar(elementary.log1p, -mean))


def _probability(mean: float) -> float:
    """The normal quantile, by Newton's method on the logarithm of the tail, which is concave: steps never overshoot."""
    tail = min(mean, 1.0 - mean)
    eta = min(log_odds(tail) / 1.702, 0.0)
    for _ in range(QUANTILE_STEPS):
        at = elementary.evaluate_normal(np.array([eta]))
        eta += (linalg.log(tail) - float(at.log_below[0])) / float(at.rate_below[0])
    return eta if mean <= 0.5 else -eta


LINKS = {
    "logit": _JoinPlan(_logit_parts, _logit_curve, log_odds),
    "probit": _JoinPlan(_probit_parts, _probit_curve, _probability, _bend_probit),
    "cloglog": _JoinPlan(_cloglog_parts, _cloglog_curve, _log_hazard, _bend_cloglog),
}
