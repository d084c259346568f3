"""Linear combinations of a result's coefficients: tests, intervals, means at covariate values, and their differences.

Everything comes from the coefficients and their covariance, as a published result has them: c'b with error
(c'Vc)^(1/2), several at once by Wald's chi-squared or F (Rao 1973, section 6e). A mean is the inverse link of a
combination; its limits are those of the predictor carried over, and differences of means have errors by the delta
method (Oehlert, Am Stat 1992;46:27-29).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import (
    chi_squared_above,
    f_above,
    normal_quantile,
    t_quantile,
    two_sided_normal,
    two_sided_t,
)
from coterie_learners.study.design import INTERCEPT
from coterie_learners.sums.families import all_families, choose_family
from coterie_learners.sums.family import Family
from coterie_node.analysis.response import LINKS_ABOVE_ZERO, find_ends, find_response
from coterie_node.errors import ConfigError

_NUMBER = re.compile(r"\s*([0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*\*\s*")


@dataclass(frozen=True)
class Contrast:
    """One combination: its estimate with error, statistic (z or t), p-value and limits; NaN for what there is not."""

    name: str
    estimate: float
    std_error: float
    statistic: float
    p: float
    low: float
    high: float


@dataclass(frozen=True)
class JointTest:
    """All combinations at once: chi-squared, or F where the dispersion is estimated."""

    kind: str
    statistic: float
    df: int
    p: float


@dataclass(frozen=True)
class Coefficients:
    """A published result's coefficients (p,) by name with their covariance, and how its statistics are distributed."""

    names: tuple[str, ...]
    estimates: Array
    covariance: Array
    freedom: float | None
    family: str
    link: str

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Coefficients:
        """The coefficients of a result as `--json` prints it; ConfigError (CO-F350) if it has no covariance."""
        names = tuple(str(row["term"]) for row in result["terms"])
        whole = np.array(result.get("vcov") or [], dtype=np.float64)
        if whole.shape != (len(names), len(names)) or not np.all(np.isfinite(whole)):
            message = f"The result of {result.get('study', 'a study')!s:.60} has no covariance of all its coefficients"
            raise ConfigError("CO-F350", f"{message}. Choose a method with standard errors, and print it with --json.")
        estimates = np.array([float(row["estimate"]) for row in result["terms"]])
        freedom = float(result["df_residual"]) if result.get("statistic") == "t" else None
        return cls(names, estimates, whole, freedom, str(result.get("family", "")), str(result.get("link", "")))

    @cached_property
    def _longest_first(self) -> tuple[str, ...]:
        return tuple(sorted(self.names, key=len, reverse=True))

    def parse(self, text: str) -> Array:
        """Weights (p,) of a sum such as `sex[male] - 2 * age`; ConfigError (CO-F350) for what is no term."""
        text = text.strip()
        weights, at, sign, expects = np.zeros(len(self.names)), 0, 1.0, True
        while at < len(text):
            letter = text[at]
            if letter.isspace():
                at += 1
            elif letter in "+-" and (not expects or at == 0):
                sign, expects, at = 1.0 if letter == "+" else -1.0, True, at + 1
            elif expects:
                number = _NUMBER.match(text, at)
                factor, at = (float(number[1]), number.end()) if number else (1.0, at)
                name = next((n for n in self._longest_first if text.startswith(n, at)), None)
                if name is None:
                    raise _refuse_term(text[at:], self.names)
                weights[self.names.index(name)] += sign * factor
                at, expects = at + len(name), False
            else:
                raise _refuse_term(text[at:], self.names)
        if expects:
            raise _refuse_term("", self.names)
        return weights

    def contrast(self, name: str, weights: Array, level: float) -> Contrast:
        """One combination of the coefficients."""
        variance = float(weights @ self.covariance @ weights)
        return self._describe(name, float(weights @ self.estimates), math.sqrt(max(variance, 0.0)), level)

    def mean(self, name: str, weights: Array, level: float) -> Contrast:
        """The mean of the outcome where the linear predictor is this combination, without any test."""
        self._require_intercept(name, weights)
        eta = self.contrast(name, weights, level)
        family = self._find_family()
        mean, slope = _invert(family, name, eta.estimate)
        ends = find_ends(family.link, np.array([eta.estimate]), np.array([0.5 * (eta.high - eta.low)]))
        low, high = sorted(float(find_response(family, end)[0][0]) for end in ends)
        return Contrast(name, mean, abs(slope) * eta.std_error, math.nan, math.nan, low, high)

    def difference(self, name: str, first: Array, second: Array, level: float) -> Contrast:
        """The difference of two means, by the delta method: a marginal effect between two kinds of patients."""
        for weights in (first, second):
            self._require_intercept(name, weights)
        family = self._find_family()
        pairs = (_invert(family, name, float(w @ self.estimates)) for w in (first, second))
        (mean, slope), (other, other_slope) = pairs
        gradient = slope * first - other_slope * second
        variance = float(gradient @ self.covariance @ gradient)
        return self._describe(name, mean - other, math.sqrt(max(variance, 0.0)), level)

    def test(self, weights: Sequence[Array]) -> JointTest:
        """Whether all combinations are zero."""
        rows = np.array(weights)
        values, covariance = rows @ self.estimates, rows @ self.covariance @ rows.T
        scale = np.sqrt(np.diag(covariance))
        if not np.all(scale > 0.0) or np.linalg.matrix_rank(covariance / np.outer(scale, scale)) < len(rows):
            message = "The combinations depend on each other, or one of them has no terms"
            raise ConfigError("CO-F350", f"{message}. Leave one of them out.")
        z = values / scale
        chi2, df = float(z @ np.linalg.solve(covariance / np.outer(scale, scale), z)), len(rows)
        if self.freedom is None:
            return JointTest("chi-squared", chi2, df, chi_squared_above(chi2, df))
        p = float(f_above(np.array([chi2 / df]), np.array([float(df)]), self.freedom)[0])
        return JointTest("F", chi2 / df, df, p)

    def _describe(self, name: str, estimate: float, error: float, level: float) -> Contrast:
        statistic = estimate / error if error > 0.0 else math.nan
        if self.freedom is None:
            half, p = normal_quantile(0.5 + level / 2) * error, float(two_sided_normal(np.array([statistic]))[0])
        else:
            half = t_quantile(0.5 + level / 2, self.freedom) * error
            p = float(two_sided_t(np.array([statistic]), self.freedom)[0])
        return Contrast(name, estimate, error, statistic, p, estimate - half, estimate + half)

    def _require_intercept(self, name: str, weights: Array) -> None:
        """ConfigError (CO-F350) for a sum that leaves the intercept out, or takes another number of it: no patient."""
        if INTERCEPT in self.names and weights[self.names.index(INTERCEPT)] != 1.0:
            message = f"{name!r} has {weights[self.names.index(INTERCEPT)]:g} times the intercept, as no patient has"
            raise ConfigError("CO-F350", f"{message}. A mean is of a whole predictor: '(Intercept) + ...'.")

    def _find_family(self) -> Family:
        """The family, if it has one mean at a linear predictor; else ConfigError (CO-F350)."""
        family = all_families().get(self.family)
        if family is None or not family.by_rows or self.link not in family.links:
            message = f"A {self.family} model ({self.link}) has no single mean at a linear predictor"
            raise ConfigError("CO-F350", f"{message}. Leave out --mean.")
        return choose_family(self.family, self.link)


def _invert(family: Family, name: str, eta: float) -> tuple[float, float]:
    """The mean at a linear predictor, and its slope there; ConfigError (CO-F350) where there is no mean."""
    mean, slope = (float(part[0]) for part in find_response(family, np.array([eta])))
    if math.isfinite(mean) and (eta > 0.0 or family.link not in LINKS_ABOVE_ZERO):
        return mean, slope
    message = f"The linear predictor of {name!r} is {eta:.6g}, where the link {family.link} has no mean"
    raise ConfigError("CO-F350", f"{message}. Choose values nearer to those of the patients.")


def _refuse_term(rest: str, names: Sequence[str]) -> ConfigError:
    listed = ", ".join(names[:12]) + (" ..." if len(names) > 12 else "")
    return ConfigError(
        "CO-F350", f"{rest[:40]!r} does not begin with a term of the result. Write sums of its terms: {listed}."
    )


def contrasts_to_json(contrasts: Sequence[Contrast], joint: JointTest | None, level: float) -> dict[str, Any]:
    """The stable JSON keys."""
    return {
        "level": level,
        "contrasts": [asdict(c) for c in contrasts],
        "joint": None if joint is None else asdict(joint),
    }
