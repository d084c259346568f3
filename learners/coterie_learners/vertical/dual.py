"""The dual of a penalised model, as VERTIGO has it: one variable for each patient, and Gram matrices alone.

Li, Jiang, Wang, Xiong, Ohno-Machado, JAMIA 2016;23:570-579, for the logistic model (equations after the published code
of "Revisiting VERTIGO and VERTIGO-CI", rs-6933988); for any concave log-likelihood l_i of a row by Fenchel's duality
(Rockafellar, Convex Analysis, 1970, section 31; Smola and Schoelkopf 2004). With K = F F', eta = F b + b_0 + offset:

    max over b of   sum l_i(eta_i) - lambda b'b / 2
    min over r of   J(r) = r'K r / (2 lambda) + sum [l_i(eta(r_i)) - r_i eta(r_i)] + offset'r
                    with sum r = 0 if b_0 is free

where eta(r_i) is the predictor at which the row's residual, l_i'(eta), is r_i. Then b = F'r / lambda, and

    gradient   K r / lambda + offset - eta(r)
    Hessian    K / lambda + diag(1 / bend_i),    bend_i = -l_i''(eta(r_i))

The logistic row has r_i = s_i alpha_i with labels s and the paper's alpha in (0, 1), and J is the paper's. The linear
row has eta(r) = y - r, so that J is a parabola and one step ends it (kernel ridge regression); the Poisson row has
eta(r) = log(y - r); probit and cloglog rows have no formula for eta(r), which Newton's method finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric import elementary, linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.tall_matrix import TallMatrix
from coterie_learners.sums.family import TINY, Family
from coterie_learners.vertical.split_model import SplitOutcome

# Predictors between which a residual is looked for; beyond them probabilities are 0 or 1 to any float.
LOWEST, HIGHEST, _EDGE = -38.0, 30.0, 1e-9
# Steps of a search at the most: every fourth halves the bracket. A search rests at this share of the predictor, or
# where the rest is rounding of a mean and the next step is short.
_SEARCHES, _REST, _NEAR = 200, 5e-16, 1e-3

# The predictor of a mean by canonical link, the same bits everywhere.
_OF_MEAN: dict[str, Callable[[Array], Array]] = {
    "logit": lambda mean: elementary.log_of_array(mean / (1.0 - mean)),
    "identity": lambda mean: mean,
    "log": elementary.log_of_array,
}


def has_dual(family: Family) -> bool:
    """Whether the predictor of a residual can be found: canonical links by formula, links with a bend by a search."""
    return (family.canonical and family.link in _OF_MEAN) or family.bent


@dataclass(frozen=True)
class DualPoint:
    """The rows at one dual variable: predictors (n,), minus the second derivatives (n,), the conjugate's sum."""

    eta: Array
    bend: Array
    conjugate: float


@dataclass(frozen=True, eq=False)
class Dual:
    """The dual of a penalised model: factor F (n, k) of K = F F', the outcome, the ridge lambda > 0.

    `free`: the intercept is not penalised, which in the dual is the constraint sum r = 0.
    """

    f: TallMatrix
    outcome: SplitOutcome
    ridge: float
    free: bool
    names: tuple[str, ...]

    def start(self) -> Array:
        """The residuals r (n,) of the null model, which meet the constraint."""
        null = self.outcome.null_predictor() if self.free else 0.0
        eta = null + self.outcome.offset
        curve = self.outcome.family.curve(eta)
        return np.asarray(curve.slope * (self.outcome.y - curve.mean))

    def at(self, r: Array) -> DualPoint | None:
        """The rows at r (n,); None where a row cannot have such a residual."""
        family, y = self.outcome.family, self.outcome.y
        eta, outside = find_predictor(family, r, y)
        if np.any(outside):
            return None
        curve = family.curve(eta)
        conjugate = y * curve.up + curve.down - r * eta
        return DualPoint(eta, family.bend(eta, y, r, curve.weight), math.fsum(conjugate.tolist()))

    def objective(self, r: Array) -> float:
        """J(r); infinite where a row cannot have such a residual."""
        at = self.at(r)
        if at is None:
            return math.inf
        turned = self.f.sums(r)
        return 0.5 * linalg.dot(turned, turned) / self.ridge + at.conjugate + linalg.dot(self.outcome.offset, r)

    def step(self, r: Array) -> tuple[Array, float]:
        """The Newton step (n,) at r and its gain, by Woodbury's identity on F (n, k)."""
        at = self.at(r)
        assert at is not None
        bend = at.bend
        gradient = self.f.times(self.f.sums(r)) / self.ridge + self.outcome.offset - at.eta
        middle = self.f.gram(bend) + self.ridge * np.eye(self.f.shape[1])
        factor = linalg.cholesky(middle, self.names)

        def solve_woodbury(v: Array) -> Array:
            inner = linalg.solve(factor, self.f.sums(bend * v))
            return np.asarray(bend * (v - self.f.times(inner)))

        step = solve_woodbury(gradient)
        if self.free:
            along = solve_woodbury(np.ones(len(r)))
            step = step - along * (math.fsum(step.tolist()) / math.fsum(along.tolist()))
        return -step, max(linalg.dot(gradient, step), 0.0)

    def finish(self, r: Array, step: Array) -> Array:
        """r (n,) after a last whole step, which leaves nothing but rounding, if rows can have such residuals."""
        return np.asarray(r + step) if self.at(r + step) is not None else r

    def coefficients(self, r: Array) -> Array:
        """b = F'r / lambda (k,), after the intercept where that is free."""
        gamma = self.f.sums(r) / self.ridge
        if not self.free:
            return np.asarray(gamma)
        at = self.at(r)
        assert at is not None
        rest = at.eta - self.outcome.offset - self.f.times(gamma)
        return np.concatenate([[math.fsum(rest.tolist()) / len(r)], gamma])


def find_predictor(family: Family, residual: Array, y: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The predictors (n,) at which rows with outcome y have these residuals (n,), and which rows have none."""
    if family.canonical and family.link in _OF_MEAN:
        low, high = family.ends
        mean = y - residual
        outside = (mean <= low) | (mean >= high)
        return _OF_MEAN[family.link](np.where(outside, 0.5, mean)), outside
    return _search_predictor(family, residual, y)


def _search_predictor(family: Family, residual: Array, y: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The same by Newton's method within a bracket, which is halved where a step leaves it, and at every fourth step.

    A concave log-likelihood has residuals that fall with the predictor.
    """
    low, high = np.full(len(y), LOWEST), np.full(len(y), HIGHEST)
    eta, at_rest = np.zeros(len(y)), np.zeros(len(y), dtype=bool)
    for k in range(_SEARCHES):
        curve = family.curve(eta)
        own = curve.slope * (y - curve.mean)
        above = own > residual
        low, high = np.where(above, eta, low), np.where(above, high, eta)
        bend = family.bend(eta, y, own, curve.weight)
        step = (own - residual) / np.maximum(bend, TINY)
        # The last bit of a mean moves a residual by its slope.
        rounding = (np.abs(own - residual) <= _REST * curve.slope) & (np.abs(step) <= _NEAR)
        at_rest |= rounding | (np.abs(step) <= _REST * (1.0 + np.abs(eta)))
        if np.all(at_rest):
            break
        near = (eta + step > low) & (eta + step < high) & (k % 4 < 3)
        eta = np.where(at_rest, eta, np.where(near, eta + step, 0.5 * (low + high)))
    return eta, (eta <= LOWEST + _EDGE) | (eta >= HIGHEST - _EDGE)
