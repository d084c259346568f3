"""Fisher scoring with step halving, to rest: for whoever holds all that the likelihood needs.

The information at the reported coefficients gives the covariance (that of the step before would be off by 1e-10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from coterie_learners.errors import NotConverged
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array

_MAX_HALVINGS = 30
# An objective that fell by less than this share of itself fell by rounding.
_ROUNDING_SHARE = 1e-12
LONGEST_STEP = 5.0


@dataclass(frozen=True)
class LikelihoodPoint:
    """Coefficients (p,) with the score (p,), the expected information (p, p) and the log-likelihood there.

    `scale` is the dispersion by which the log-likelihood is to be divided (1 where it is known).
    """

    beta: Array
    score: Array
    information: Array
    likelihood: float
    scale: float = 1.0


@dataclass(frozen=True)
class Maximum:
    """Where the likelihood is largest, the inverse information (p, p) there, and the steps taken."""

    point: LikelihoodPoint
    inverse: Array
    steps: int


Evaluate = Callable[[Array], LikelihoodPoint]


def maximise(evaluate: Evaluate, start: Array, names: Sequence[str], tolerance: float, limit: int) -> Maximum:
    """Steps until the next would be shorter than `tolerance` standard errors; NotConverged after `limit`."""
    here = evaluate(start)
    for taken in range(limit):
        factor = linalg.cholesky(here.information, names)
        step = linalg.solve(factor, here.score)
        gain = linalg.dot(here.score, step) / here.scale
        if not gain > tolerance**2:
            return _build_maximum(evaluate(here.beta + step), names, taken + 1)
        here = _advance(evaluate, here, step * min(1.0, LONGEST_STEP / float(np.max(np.abs(step)))))
    raise NotConverged(
        "CO-N103",
        f"No convergence in {limit} steps: the next would still be {np.sqrt(gain):.2g} standard errors long. "
        "Look for separation, or raise max_iterations.",
    )


def _advance(evaluate: Evaluate, here: LikelihoodPoint, step: Array) -> LikelihoodPoint:
    for halvings in range(_MAX_HALVINGS):
        there = evaluate(here.beta + step * 0.5**halvings)
        if there.likelihood >= here.likelihood - _ROUNDING_SHARE * (abs(here.likelihood) + 0.1):
            return there
    raise NotConverged(
        "CO-N104",
        f"The likelihood still falls after halving a step {_MAX_HALVINGS} times. Check the data and the family.",
    )


def _build_maximum(here: LikelihoodPoint, names: Sequence[str], steps: int) -> Maximum:
    return Maximum(here, linalg.inverse(linalg.cholesky(here.information, names)), steps)
