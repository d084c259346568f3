"""How much of a result can be trusted: condition number, digits that are sure, variance inflation.

Belsley, Kuh, Welsch, Regression Diagnostics, 1980, chapter 3: of the information with its diagonal scaled to 1, in the
frame of the pooled moments. An error of one rounding in the sums moves a standard error by at most that number times
it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from coterie_learners.core.payload import Payload
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.linalg import symmetric
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.newton import FitRules, dispersion_of

EPS = float(np.finfo(float).eps)
MOST_DIGITS = 15.0
# A sum is off by fewer units of the fixed point than these.
UNITS = 64.0


@dataclass(frozen=True)
class Conditioning:
    """Condition number of the scaled information; decimal digits of estimates and standard errors (p,) that are sure.

    `inflation` (p,): by how much the other columns inflate the variance of each term; NaN for an intercept.
    """

    number: float
    digits: Array
    error_digits: float
    inflation: Array

    @property
    def digits_of_columns(self) -> float:
        """The digits of standard errors that the columns' condition number alone would leave."""
        return float(_digits(np.array([self.number * EPS]))[0])

    def without(self, first: int) -> Conditioning:
        """The same without the first terms."""
        return replace(self, digits=self.digits[first:], inflation=self.inflation[first:])


def condition(frame: Frame, rules: FitRules, model: Payload) -> Conditioning:
    """The conditioning of a fit at its last server post."""
    information = symmetric(model["information"], rules.model.p)
    scale = np.sqrt(np.diag(information))
    size = np.linalg.eigvalsh(information / scale[:, None] / scale)
    number = float(size[-1] / max(float(size[0]), EPS))
    lost = number * (EPS + rules.unit / float(np.min(scale)) ** 2)
    if rules.model.family.dispersion == "pearson" and float(model["pearson"]) > UNITS * rules.unit:
        lost += rules.unit / float(model["pearson"])
    digits = _digits(_error(frame, rules, model))
    return Conditioning(number, digits, float(_digits(np.array([lost]))[0]), _inflation(frame, information))


def _error(frame: Frame, rules: FitRules, model: Payload) -> Array:
    """Relative error of each estimate (p,): of a step that rounding hides, and of the way back to its own units."""
    dispersion = dispersion_of(rules.model, float(model["deviance"]), float(model["n"]))
    reach = np.sqrt(np.diag(frame.covariance(np.asarray(model["root"]))))
    hidden = np.sqrt(float(model["noise"]) * dispersion) * reach
    carry_forward = EPS * np.abs(frame.carry) @ np.abs(model["beta"]) * frame.coefficient_unit
    size = np.abs(frame.outside(model["beta"]))
    return np.asarray((hidden + carry_forward) / np.where(size > 0.0, size, 1.0))


def _digits(relative: Array) -> Array:
    return np.asarray(np.clip(-np.log10(np.maximum(relative, EPS)), 0.0, MOST_DIGITS))


def _inflation(frame: Frame, information: Array) -> Array:
    """Variance of each term over what it would be if the columns were not correlated."""
    out = np.diag(information) * np.diag(np.linalg.inv(information))
    if not frame.layout.design.formula.intercept:
        return np.asarray(out)
    own = np.diag(information) - information[0] ** 2 / information[0, 0]
    out = np.maximum(own, 0.0) * np.diag(np.linalg.inv(information))
    out[0] = np.nan
    return np.asarray(out)
