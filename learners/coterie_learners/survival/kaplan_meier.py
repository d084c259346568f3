"""Kaplan-Meier curves with Greenwood's errors, Nelson-Aalen hazards, quantiles and restricted means, from counts.

Kaplan and Meier, JASA 1958;53:457-481; Greenwood 1926; Nelson, Technometrics 1972;14:945-966; limits on the scale of
log(-log S) after Kalbfleisch and Prentice 2002, section 1.4. All as R's `survfit(conf.type = "log-log")` has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import normal_quantile
from coterie_learners.numeric.elementary import exp_of_array, log_of_array

CONFIDENCE = 0.95
# Survival this close to a quantile is at it, as in R: the curve is then flat at the quantile.
FLAT = 1.4901161193847656e-08


@dataclass(frozen=True)
class SurvivalCurve:
    """One group's curve at the ends of the steps, each (t,).

    `log_error`: Greenwood's standard error of log S. `low`, `high`: limits, NaN where S is 0 or 1. `hazard` is
    Nelson-Aalen's cumulative hazard, with its `hazard_error`.
    """

    times: Array
    at_risk: Array
    events: Array
    censored: Array
    survival: Array
    log_error: Array
    low: Array
    high: Array
    hazard: Array
    hazard_error: Array

    @property
    def std_error(self) -> Array:
        """Greenwood's standard error of S; NaN where S is 0."""
        return self.survival * self.log_error


def estimate_curve(times: Array, at_risk: Array, events: Array, censored: Array) -> SurvivalCurve:
    """The curve of one group from its counts (t,)."""
    safe = np.where(at_risk > 0, at_risk, 1.0)
    rest = at_risk - events
    survival = np.asarray(np.cumprod(np.where(at_risk > 0, rest / safe, 1.0)), dtype=np.float64)
    step = np.where(events > 0, events / (safe * np.where(rest > 0, rest, 1.0)), 0.0)
    log_error = np.sqrt(np.cumsum(np.where((events > 0) & (rest == 0), np.inf, step)))
    log_error = np.where(np.isfinite(log_error), log_error, np.nan)
    low, high = find_loglog_limits(survival, log_error)
    return SurvivalCurve(
        times=times,
        at_risk=at_risk,
        events=events,
        censored=censored,
        survival=survival,
        log_error=log_error,
        low=low,
        high=high,
        hazard=np.cumsum(events / safe),
        hazard_error=np.sqrt(np.cumsum(events / (safe * safe))),
    )


def find_loglog_limits(survival: Array, log_error: Array) -> tuple[Array, Array]:
    """Limits of probabilities (t,) with the errors of their logarithms, on the scale of log(-log)."""
    inner = (survival > 0.0) & (survival < 1.0)
    logs = log_of_array(np.where(inner, survival, 0.5))
    half = normal_quantile(0.5 + CONFIDENCE / 2) * np.where(inner, log_error, 0.0) / logs
    middle = log_of_array(-logs)
    low, high = (exp_of_array(-exp_of_array(middle + sign * -half)) for sign in (1.0, -1.0))
    return np.where(inner, low, np.nan), np.where(inner, high, np.nan)


def find_quantile(times: Array, survival: Array, p: float) -> float:
    """The first time at which S is 1 - p or less; NaN if never, and the middle of a step of S that is at 1 - p."""
    lost = 1.0 - np.where(np.isnan(survival), 1.0, survival)
    reaches = np.flatnonzero(lost >= p - FLAT)
    if not len(reaches):
        return float("nan")
    at = int(reaches[0])
    beyond = np.flatnonzero(lost > p + FLAT)
    flat = abs(lost[at] - p) < FLAT and len(beyond) > 0
    return float(0.5 * (times[at] + times[beyond[0]]) if flat else times[at])


def find_quantiles(curve: SurvivalCurve, p: float) -> tuple[float, float, float]:
    """The quantile p of the time to event, and its limits by Brookmeyer and Crowley, Biometrics 1982;38:29-41."""
    middle, low, high = (find_quantile(curve.times, s, p) for s in (curve.survival, curve.low, curve.high))
    return middle, low, high


def measure_restricted_mean(curve: SurvivalCurve) -> tuple[float, float]:
    """The area under the curve up to the last time, and its variance (Klein and Moeschberger 2003, section 4.5)."""
    widths = np.diff(curve.times, prepend=0.0)
    areas = widths * np.concatenate([[1.0], curve.survival[:-1]])
    after = np.concatenate([np.cumsum(areas[::-1])[::-1][1:], [0.0]])
    rest = curve.at_risk - curve.events
    step = np.where((curve.events > 0) & (rest > 0), curve.events / np.where(rest > 0, curve.at_risk * rest, 1.0), 0.0)
    return float(np.cumsum(areas)[-1]), float(np.cumsum(after * after * step)[-1])


def find_survival(curve: SurvivalCurve, at: Sequence[float]) -> list[tuple[float, float, float]]:
    """Survival with its limits at these times; 1 before the end of the first step."""
    places = np.searchsorted(curve.times, np.asarray(at) + FLAT, side="right") - 1
    return [
        (1.0, float("nan"), float("nan"))
        if place < 0
        else (float(curve.survival[place]), float(curve.low[place]), float(curve.high[place]))
        for place in places.tolist()
    ]
