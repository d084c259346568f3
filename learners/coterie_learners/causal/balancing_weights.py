"""What a row weighs by its propensity score e, and how the weight changes with the score.

Li, Morgan and Zaslavsky, JASA 2018;113:390-400, table 1: a tilt h(e) of the population makes the weights h / e of
treated rows and h / (1 - e) of the others. ATE: h = 1 (all patients); ATT: h = e (the treated); overlap: h = e (1 - e)
(those who might have either treatment).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from coterie_learners.numeric.array import Array

Estimand = Literal["ATE", "ATT", "overlap"]
ARMS = 2


@dataclass(frozen=True)
class BalancingWeights:
    """Weights of rows (2, m) as they would be without and with the treatment, and their slopes by the score (2, m)."""

    values: Array
    slopes: Array


def weigh_scores(score: Array, estimand: Estimand, truncate: tuple[float, ...] = ()) -> BalancingWeights:
    """The weights of rows with these scores (m,); a score outside `truncate` (low, high) is taken to be its end.

    The weight of such a row does not change with its score.
    """
    inside = np.ones(len(score))
    if truncate:
        low, high = truncate
        inside, score = ((score >= low) & (score <= high)).astype(np.float64), np.clip(score, low, high)
    values, slopes = _TILTS[estimand](score, 1.0 - score)
    return BalancingWeights(np.stack(values), np.stack(slopes) * inside)


_Pair = tuple[Array, Array]


def _weigh_all(e: Array, rest: Array) -> tuple[_Pair, _Pair]:
    return (1.0 / rest, 1.0 / e), (1.0 / rest**2, -1.0 / e**2)


def _weigh_treated(e: Array, rest: Array) -> tuple[_Pair, _Pair]:
    return (e / rest, np.ones_like(e)), (1.0 / rest**2, np.zeros_like(e))


def _weigh_overlap(e: Array, rest: Array) -> tuple[_Pair, _Pair]:
    return (e, rest), (np.ones_like(e), -np.ones_like(e))


_TILTS: dict[Estimand, Callable[[Array, Array], tuple[_Pair, _Pair]]] = {
    "ATE": _weigh_all,
    "ATT": _weigh_treated,
    "overlap": _weigh_overlap,
}
