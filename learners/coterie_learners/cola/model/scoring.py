"""Fisher scoring with step halving, to rest: for a site that has all that the likelihood needs.

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
_EPS = float(np.finfo(float).eps)
# Rounding of a step is bounded by this many times what the magnitudes in a row would make of one unit.
_ROUNDING = 8.0


@dataclass(frozen=True)
class LikelihoodPoint:
    """Coefficients (p,) with the score (p,), the expected information (p, p) and the log-likelihood there.

    `scale` is the dispersion by which the log-likelihood is to be divided (1 where it is known); `size` the sum of
    squares whose rounding is that of the outcomes.
    """

    beta: Array
    score: Array
    information: Array
    likelihood: float
    scale: float = 1.0
    size: float = 0.0


@dataclass(frozen=True)
class Steps:
    """How far to go: names of the columns, tolerance in standard errors, most steps, and the longest (None: any)."""

    names: Sequence[str]
    tolerance: float
    limit: int
    longest: float | None = None


@dataclass(frozen=True)
class Maximum:
    """The coefficients of the largest likelihood, a root of the inverse information (p, p) there, and the steps taken.

    `noise`: the gain that rounding alone makes of the sums there, times the dispersion.
    """

    point: LikelihoodPoint
    root: Array
    steps: int
    noise: float

    @property
    def condition_number(self) -> float:
        """The condition number of the information with its diagonal scaled to 1: a bound with the same bits everywhere.

        The product of the Frobenius norms of the scaled matrix and its inverse, over their order.
        """
        scale = np.sqrt(np.diag(self.point.information))
        scaled = self.point.information / scale[:, None] / scale
        inverse = linalg.matmul(self.root, self.root.T) * scale[:, None] * scale
        norms = [linalg.dot(a.ravel(), a.ravel()) for a in (scaled, inverse)]
        return float(np.sqrt(norms[0] * norms[1]) / len(scale))


Evaluate = Callable[[Array], LikelihoodPoint]


def maximise(evaluate: Evaluate, start: Array, rules: Steps) -> Maximum:
    """Steps until the next would be shorter than `tolerance` standard errors, or than rounding can tell.

    NotConverged after `limit`.
    """
    here = evaluate(start)
    for taken in range(rules.limit):
        factor = linalg.cholesky(here.information, rules.names)
        step = linalg.solve(factor, here.score)
        gain = linalg.dot(here.score, step)
        if not gain > max(rules.tolerance**2 * here.scale, _noise(here)):
            return _build_maximum(evaluate(here.beta + step), rules.names, taken + 1)
        longest = float(np.max(np.abs(step)))
        here = _advance(evaluate, here, step * (1.0 if rules.longest is None else min(1.0, rules.longest / longest)))
    raise NotConverged(
        "CO-N103",
        f"No convergence in {rules.limit} steps: the next would still be {np.sqrt(gain / here.scale):.2g} standard "
        "errors long. Look for separation, or raise max_iterations.",
    )


def _noise(here: LikelihoodPoint) -> float:
    """The gain that rounding alone may make of the sums at a point, as in `sums.newton`."""
    sizes = linalg.dot(np.abs(here.beta), np.sqrt(np.maximum(np.diag(here.information), 0.0)))
    return float((_ROUNDING * _EPS * (sizes + np.sqrt(here.size))) ** 2)


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
    root = linalg.invert_lower(linalg.cholesky(here.information, names)).T
    return Maximum(here, root, steps, _noise(here))
