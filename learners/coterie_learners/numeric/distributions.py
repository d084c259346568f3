"""Tails and quantiles of distributions, for tables of results; nobody recomputes them, so scipy may give them.

Normal and chi-squared tails need the error function alone. scipy takes half a second to import, so it is imported where
a t, an F or a special function is asked for.
"""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist
from types import ModuleType

import numpy as np

from coterie_learners.numeric.array import Array

# Beyond so many degrees of freedom the finite sum of a chi-squared tail is longer than the import of scipy.
_MAX_DF = 400


@cache
def special() -> ModuleType:
    """scipy.special, imported at the first call."""
    import scipy.special

    return scipy.special


def two_sided_normal(z: Array) -> Array:
    """P(|Z| > |z|) of a standard normal Z; NaN stays NaN."""
    flat = [math.erfc(abs(value) / math.sqrt(2.0)) for value in np.ravel(z).tolist()]
    return np.array(flat).reshape(np.shape(z))


def normal_quantile(p: float) -> float:
    """The z with P(Z <= z) = p of a standard normal Z, 0 < p < 1."""
    return NormalDist().inv_cdf(p)


def two_sided_t(t: Array, freedom: float) -> Array:
    """P(|T| > |t|) of Student's t on `freedom` degrees of freedom."""
    return np.asarray(2.0 * special().stdtr(freedom, -np.abs(t)))


def t_quantile(p: float, freedom: float) -> float:
    """The t with P(T <= t) = p of Student's t."""
    return float(special().stdtrit(freedom, p))


def f_above(value: Array, df: Array, freedom: float) -> Array:
    """P(F > value) of Fisher's F on (df, freedom) degrees of freedom."""
    return np.asarray(special().fdtrc(df, freedom, value))


def chi_squared_above(value: float, df: int) -> float:
    """P(X > value) of a chi-squared X on a whole number of degrees of freedom; NaN without any.

    Source: Abramowitz and Stegun 1964, 26.4.4 and 26.4.5: a finite sum, each term positive.
    """
    if not df > 0 or math.isnan(value):
        return math.nan
    if df > _MAX_DF:
        return float(special().chdtrc(df, value))
    if value <= 0.0:
        return 1.0
    half, odd = value / 2.0, df % 2
    first = math.erfc(math.sqrt(half)) if odd else math.exp(-half)
    # Terms half^k e^-half / Gamma(k + 1) for k = 1/2, 3/2, ... or 1, 2, ...
    places = [k + 0.5 if odd else float(k + 1) for k in range((df - 1) // 2)]
    terms = [math.exp(k * math.log(half) - half - math.lgamma(k + 1.0)) for k in places]
    return min(math.fsum([first, *terms]), 1.0)


def chi_squared_tails(values: Array, df: Array) -> Array:
    """The same for arrays of values and degrees of freedom of one shape."""
    pairs = zip(np.ravel(values).tolist(), np.ravel(df).tolist(), strict=True)
    return np.array([chi_squared_above(value, round(k)) for value, k in pairs]).reshape(np.shape(values))
