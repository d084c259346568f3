"""Measures of a model from counts by score: discrimination, calibration by range, and net benefit at thresholds.

All follow from the number of patients with and without the outcome in ranges of the score. Scores of one range count
as equal, so that an area under the curve is exact where no range holds different scores of patients with and without
the outcome, and is never off by more than half of the share of pairs that lie in one range.

DeLong, DeLong and Clarke-Pearson, Biometrics 1988;44:837-845 (doi:10.2307/2531595), for the area's error; Vickers and
Elkin, Med Decis Making 2006;26:565-574 (doi:10.1177/0272989X06295361), for the net benefit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie_learners.core.fit import LEVEL
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import normal_quantile


@dataclass(frozen=True)
class Area:
    """The area under the ROC curve with its standard error, and how far the true scores' area can be from it."""

    value: float
    std_error: float
    within: float

    def as_dict(self) -> dict[str, float]:
        """As JSON has it, with limits inside 0 and 1."""
        half = normal_quantile(0.5 + LEVEL / 2) * self.std_error
        low, high = max(self.value - half, 0.0), min(self.value + half, 1.0)
        return {"value": self.value, "std_error": self.std_error, "low": low, "high": high, "within": self.within}


def measure_area(counts: Array) -> Area | None:
    """The area of counts (bins, 2) in ascending score; None of a single range, or without patients of both kinds."""
    without, events = counts[:, 0], counts[:, 1]
    n, m = float(without.sum()), float(events.sum())
    if not n or not m or len(counts) < 2:
        return None
    # For a patient with the outcome: the share of those without it who have a lower score; and the other way round.
    above = (np.cumsum(without) - 0.5 * without) / n
    below = (m - np.cumsum(events) + 0.5 * events) / m
    value = math.fsum((events * above).tolist()) / m
    spread = _measure_spread(events, above, value, m) / m + _measure_spread(without, below, value, n) / n
    return Area(value, math.sqrt(spread), 0.5 * math.fsum((without * events).tolist()) / (n * m))


def _measure_spread(patients: Array, shares: Array, mean: float, count: float) -> float:
    """The sample variance of shares; NaN of one patient."""
    return math.fsum((patients * (shares - mean) ** 2).tolist()) / (count - 1.0) if count > 1 else math.nan


def list_roc(counts: Array, thresholds: Sequence[float]) -> list[dict[str, float]]:
    """Points of the ROC curve: for each threshold, the fractions of patients with at least this score."""
    tails = _count_tails(counts)
    total = np.maximum(tails[0], 1.0)
    rates = zip(thresholds, (tails / total).tolist(), strict=True)
    return [{"threshold": at, "specificity": 1.0 - false, "sensitivity": true} for at, (false, true) in rates]


def list_net_benefit(counts: Array, thresholds: Sequence[float]) -> list[dict[str, float]]:
    """The net benefit of treating at thresholds inside 0 and 1, and of treating everybody."""
    tails, n = _count_tails(counts), float(counts.sum())
    (everybody_false, everybody_true), points = tails[0].tolist(), zip(thresholds, tails.tolist(), strict=True)
    return [
        {
            "threshold": at,
            "net_benefit": _weigh(true, false, at) / n,
            "treat_all": _weigh(everybody_true, everybody_false, at) / n,
        }
        for at, (false, true) in points
        if 0.0 < at < 1.0
    ]


def _weigh(true: float, false: float, threshold: float) -> float:
    return true - false * threshold / (1.0 - threshold)


def _count_tails(counts: Array) -> Array:
    """Patients (bins + 1, 2) in each bin or above, and nobody at the end."""
    return np.concatenate([np.cumsum(counts[::-1], axis=0)[::-1], np.zeros((1, 2))])


def list_ranges(counts: Array, scores: Array, thresholds: Sequence[float], most: int) -> list[dict[str, Any]]:
    """The calibration table: at most so many ranges of about as many patients, with mean score and observed share."""
    n = counts.sum(axis=1)
    lines: list[dict[str, Any]] = []
    start = 0
    reached = np.cumsum(n) / max(float(n.sum()), 1.0)
    for k in range(len(n)):
        last = k == len(n) - 1
        if (last or reached[k] >= (len(lines) + 1) / most - 1e-12) and n[start : k + 1].sum() > 0:
            lines.append(
                _describe_range(counts[start : k + 1], scores[start : k + 1], thresholds[start], thresholds[k + 1])
            )
            start = k + 1
    return lines


def _describe_range(counts: Array, scores: Array, low: float, high: float) -> dict[str, Any]:
    n, events = float(counts.sum()), float(counts[:, 1].sum())
    mean = math.fsum(scores.tolist()) / n
    share = events / n
    error = math.sqrt(share * (1.0 - share) / n)
    return {
        "low": low,
        "high": high,
        "n": int(n),
        "events": int(events),
        "predicted": mean,
        "observed": share,
        "std_error": error,
    }
