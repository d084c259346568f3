"""Cumulative incidence of competing causes from counts at each step: Aalen-Johansen, its variance and limits.

Aalen and Johansen, Scand J Stat 1978;5:141-150; the variance of Aalen, Ann Stat 1978;6:534-545, with tied events drawn
without replacement, as R's `cmprsk::cuminc` has it. Limits on the scale of log(-log F).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.survival.kaplan_meier import find_loglog_limits


@dataclass(frozen=True)
class IncidenceCurve:
    """The incidence of one cause in one group at the ends of the steps, each (t,).

    `events` are of this cause. `low`, `high`: limits, NaN where the incidence is 0 or 1.
    """

    times: Array
    events: Array
    incidence: Array
    variance: Array
    low: Array
    high: Array


def estimate_incidence(times: Array, at_risk: Array, events: Array, of_cause: Array) -> IncidenceCurve:
    """The curve of one cause in one group from its counts (t,); `events` are of all causes."""
    safe = np.where(at_risk > 0, at_risk, 1.0)
    survival = np.asarray(np.cumprod(np.where(at_risk > 0, (at_risk - events) / safe, 1.0)), dtype=np.float64)
    before = np.concatenate([[1.0], survival[:-1]])
    incidence = np.asarray(np.cumsum(before * of_cause / safe), dtype=np.float64)
    variance = _measure_variance(safe, (events - of_cause, of_cause), (before, survival), incidence)
    low, high = find_loglog_limits(incidence, np.sqrt(variance) / np.where(incidence > 0, incidence, 1.0))
    return IncidenceCurve(times, of_cause, incidence, variance, low, high)


def _measure_variance(
    at_risk: Array, events: tuple[Array, Array], survival: tuple[Array, Array], incidence: Array
) -> Array:
    """The variance (t,), from the events of other causes and of this one, and survival before and after each step."""
    (of_others, of_cause), (before, after) = events, survival
    inverse = np.where(after > 0, 1.0 / np.where(after > 0, after, 1.0), 0.0)
    ratio = incidence * inverse
    others = _weigh(before, at_risk, of_others)
    own = _weigh(before, at_risk, of_cause)
    whole = 1.0 + ratio
    first = np.cumsum(ratio * ratio * others + whole * whole * own)
    mixed = np.cumsum(inverse * ratio * others + inverse * whole * own)
    last = np.cumsum(inverse * inverse * (others + own))
    return np.asarray(np.maximum(first + incidence * incidence * last - 2.0 * incidence * mixed, 0.0))


def _weigh(before: Array, at_risk: Array, events: Array) -> Array:
    """The variance of a step's part, its events being drawn without replacement."""
    rest = 1.0 - np.where(events > 1, (events - 1.0) / np.where(at_risk > 1, at_risk - 1.0, 1.0), 0.0)
    return np.asarray(before * before * rest * events / (at_risk * at_risk))
