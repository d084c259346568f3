"""Families and links for rows that are summed per covariate pattern.

McCullagh and Nelder, Generalized Linear Models, 2nd ed. 1989, chapter 2, with all rows of a pattern taken together: of
a pattern with linear predictor eta they need the number of rows u (or the exposure) and, unless the link is canonical,
the sum s of the outcomes. All arithmetic is `elementary`'s, so that the results have the same bits everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coterie_learners.errors import StudyError
from coterie_learners.numeric import elementary
from coterie_learners.numeric.array import Array

# Beyond this a mean (1e13) is far outside any declared count; the step that led there is halved.
_LOG_LIMIT = 30.0
_TINY = 1e-300


@dataclass(frozen=True)
class Curve:
    """A family's mean at one linear predictor (m,) per pattern.

    `mean`; `variance` V(mean); `slope` d mean / d eta over V, which is 1 for a canonical link; `weight` the information
    of one row, slope^2 V; `up` and `down`: the log-likelihood of one row is y up + down, but for what the coefficients
    do not touch.
    """

    mean: Array
    variance: Array
    slope: Array
    weight: Array
    up: Array
    down: Array


@dataclass(frozen=True)
class TableFamily:
    """A family with its link; `canonical` where counts and X'y are all that the coefficients depend on.

    `dispersion`: None where it is known, "pearson" or "residual" (sum of squares) where it is estimated. `start` is the
    linear predictor of a pooled mean. `law` is the family's name without "quasi".
    """

    name: str
    law: str
    link: str
    curve: Callable[[Array], Curve]
    start: Callable[[float], float]
    outcomes: tuple[str, ...]
    canonical: bool = True
    dispersion: str | None = None


def _logit(eta: Array) -> Curve:
    small = elementary.exp_of_array(-np.abs(eta))
    mean = np.where(eta >= 0, 1.0, small) / (1.0 + small)
    variance = small / ((1.0 + small) * (1.0 + small))
    return Curve(mean, variance, np.ones_like(eta), variance, eta, -elementary.softplus(eta))


def _probit(eta: Array) -> Curve:
    z = elementary.evaluate_normal(eta)
    variance = np.maximum(z.below * z.above, _TINY)
    weight = z.rate_below * z.rate_above
    return Curve(z.below, variance, z.rate_below + z.rate_above, weight, z.log_below - z.log_above, z.log_above)


def _cloglog(eta: Array) -> Curve:
    hazard = elementary.exp_of_array(np.clip(eta, -700.0, _LOG_LIMIT))
    mean, other = -elementary.expm1(-hazard), elementary.exp_of_array(-hazard)
    event = hazard * other / np.maximum(mean, _TINY)
    log_mean = elementary.log_of_array(np.maximum(mean, _TINY))
    return Curve(mean, np.maximum(mean * other, _TINY), event + hazard, event * hazard, log_mean + hazard, -hazard)


def _log(eta: Array) -> Curve:
    clipped = np.minimum(eta, _LOG_LIMIT)
    mean = np.maximum(elementary.exp_of_array(clipped), _TINY)
    return Curve(mean, mean, np.ones_like(eta), mean, clipped, -mean)


def _identity(eta: Array) -> Curve:
    ones = np.ones_like(eta)
    return Curve(eta, ones, ones, ones, eta, -0.5 * eta * eta)


def _log_odds(mean: float) -> float:
    return _scalar(elementary.log_of_array, mean / (1.0 - mean))


def _log_hazard(mean: float) -> float:
    return _scalar(elementary.log_of_array, -_scalar(elementary.log1p, -mean))


def _start_probit(mean: float) -> float:
    """Near the normal quantile (Bowling et al. 2009 invert the logistic approximation); only a place to start from."""
    return _log_odds(mean) / 1.702


def _start_log(mean: float) -> float:
    return _scalar(elementary.log_of_array, mean)


def _start_identity(mean: float) -> float:
    return mean


def _scalar(function: Callable[[Array], Array], value: float) -> float:
    return float(function(np.array([value]))[0])


TABLE_FAMILIES = {
    (f.name, f.link): f
    for f in (
        TableFamily("binomial", "binomial", "logit", _logit, _log_odds, ("binary",)),
        TableFamily("binomial", "binomial", "probit", _probit, _start_probit, ("binary",), canonical=False),
        TableFamily("binomial", "binomial", "cloglog", _cloglog, _log_hazard, ("binary",), canonical=False),
        TableFamily("quasibinomial", "binomial", "logit", _logit, _log_odds, ("binary",), dispersion="pearson"),
        TableFamily("poisson", "poisson", "log", _log, _start_log, ("count",)),
        TableFamily("quasipoisson", "poisson", "log", _log, _start_log, ("count",), dispersion="pearson"),
        TableFamily(
            "gaussian", "gaussian", "identity", _identity, _start_identity, ("number", "count"), dispersion="residual"
        ),
        TableFamily("multinomial", "multinomial", "logit", _logit, _log_odds, ("category",)),
    )
}
TABLE_DEFAULT_LINKS = {"poisson": "log", "quasipoisson": "log", "gaussian": "identity"}


def table_family(name: str, link: str | None) -> TableFamily:
    """The family by name and link (None: its canonical link); StudyError lists what there is."""
    chosen = link or TABLE_DEFAULT_LINKS.get(name, "logit")
    if (name, chosen) not in TABLE_FAMILIES:
        known = ", ".join(f"{f}/{k}" for f, k in TABLE_FAMILIES)
        raise StudyError("CO-S303", f"There is no family {name!r} with link {chosen!r}. There are: {known}.")
    return TABLE_FAMILIES[name, chosen]
