"""Families and links: what a generalised linear model needs of one block of rows.

McCullagh and Nelder, Generalized Linear Models, 2nd ed. 1989, chapter 2. For a row with linear predictor eta and
mean mu: `residual` is the score per unit of eta, (y - mu) mu'(eta) / V(mu); `weight` the expected information,
mu'(eta)^2 / V(mu); the deviance is twice the log-likelihood ratio against the saturated model (dispersion 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Variable

# Beyond this a Poisson mean (1e13) is far outside any declared count; the step that led there is halved anyway.
LOG_LIMIT = 30.0
_TINY = 1e-300


@dataclass(frozen=True)
class Parts:
    """Per-row pieces at one linear predictor: residual (m,), weight (m,), and the block's deviance."""

    residual: Array
    weight: Array
    deviance: float


@dataclass(frozen=True)
class Family:
    """A family with its link.

    `parts(eta, y)` gives a block's pieces; `saturated(y)` the block's saturated log-likelihood (dispersion 1).
    `dispersion`: whether the dispersion is estimated. `outcomes`: variable types that the outcome may have.
    """

    name: str
    link: str
    parts: Callable[[Array, Array], Parts]
    saturated: Callable[[Array], float]
    outcomes: tuple[str, ...]
    dispersion: bool = False

    def check_outcome(self, name: str, variable: Variable) -> None:
        """StudyError unless the outcome's declared type fits the family."""
        if variable.type not in self.outcomes:
            raise StudyError(
                "CO-S301",
                f"A {self.name} model needs an outcome of type {' or '.join(self.outcomes)}; "
                f"{name!r} is declared as {variable.type}.",
            )
        if self.name == "poisson" and variable.bounds[0] < 0:
            raise StudyError("CO-S302", f"A count is never negative; the range of {name!r} begins below 0.")


def _logit(eta: Array, y: Array) -> Parts:
    small = np.exp(-np.abs(eta))
    mu = np.where(eta >= 0, 1.0, small) / (1.0 + small)
    deviance = 2.0 * float(np.sum(np.maximum(eta, 0.0) + np.log1p(small) - y * eta))
    return Parts(y - mu, small / (1.0 + small) ** 2, deviance)


def _probit(eta: Array, y: Array) -> Parts:
    sign = 2.0 * y - 1.0
    log_p, log_q = special.log_ndtr(eta), special.log_ndtr(-eta)
    log_density = -0.5 * eta * eta - 0.5 * np.log(2 * np.pi)
    chosen = np.where(y > 0.5, log_p, log_q)
    residual = sign * np.exp(log_density - chosen)
    weight = np.exp(2.0 * log_density - log_p - log_q)
    return Parts(residual, weight, -2.0 * float(np.sum(chosen)))


def _cloglog(eta: Array, y: Array) -> Parts:
    hazard = np.exp(np.minimum(eta, LOG_LIMIT))
    log_p = np.log(np.maximum(-np.expm1(-hazard), _TINY))
    chosen = np.where(y > 0.5, log_p, -hazard)
    # mu' = hazard (1 - mu); the residual is mu'/mu for an event and -hazard otherwise.
    odds = np.exp(-hazard - log_p)
    return Parts(np.where(y > 0.5, hazard * odds, -hazard), hazard * hazard * odds, -2.0 * float(np.sum(chosen)))


def _log(eta: Array, y: Array) -> Parts:
    clipped = np.minimum(eta, LOG_LIMIT)
    mu = np.exp(clipped)
    deviance = 2.0 * float(np.sum(special.xlogy(y, y) - y * clipped - (y - mu)))
    return Parts(y - mu, mu, deviance)


def _identity(eta: Array, y: Array) -> Parts:
    residual = y - eta
    return Parts(residual, np.ones_like(eta), float(residual @ residual))


def _zero_saturated(y: Array) -> float:
    return 0.0


def _poisson_saturated(y: Array) -> float:
    return float(np.sum(special.xlogy(y, y) - y - special.gammaln(y + 1.0)))


FAMILIES = {
    (f.name, f.link): f
    for f in (
        Family("binomial", "logit", _logit, _zero_saturated, ("binary",)),
        Family("binomial", "probit", _probit, _zero_saturated, ("binary",)),
        Family("binomial", "cloglog", _cloglog, _zero_saturated, ("binary",)),
        Family("poisson", "log", _log, _poisson_saturated, ("count",)),
        Family("gaussian", "identity", _identity, _zero_saturated, ("number", "count"), dispersion=True),
    )
}
CANONICAL_LINKS = {"binomial": "logit", "poisson": "log", "gaussian": "identity"}


def family_of(name: str, link: str | None) -> Family:
    """The family by name and link (None: its canonical link); StudyError lists what there is."""
    chosen = link or CANONICAL_LINKS.get(name, "")
    if (name, chosen) not in FAMILIES:
        names = ", ".join(f"{f}/{k}" for f, k in FAMILIES)
        raise StudyError("CO-S303", f"There is no family {name!r} with link {chosen!r}. There are: {names}.")
    return FAMILIES[name, chosen]
