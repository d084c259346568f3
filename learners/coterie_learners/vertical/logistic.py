"""The logistic model on a tall design that several sites made, in arithmetic with the same bits on every machine.

Primal: min over theta of sum log(1 + exp(-s_i z_i' theta)) + sum pen_j theta_j^2 / 2, by damped Newton steps. Dual, as
VERTIGO has it (Li, Jiang, Wang, Xiong, Ohno-Machado, JAMIA 2016;23:570-579; equations after the published code of
"Revisiting VERTIGO and VERTIGO-CI", rs-6933988): with labels s in {-1, 1} and alpha in (0, 1)^n

    J(alpha) = (s alpha)' K (s alpha) / (2 lambda) + sum alpha log alpha + (1 - alpha) log(1 - alpha),    K = F F'

whose minimum has alpha_i = |y_i - p_i| of the primal one, so that either gives the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from coterie_learners.errors import NotConverged
from coterie_learners.numeric import elementary, linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.tall_matrix import TallMatrix

ARMIJO = 1e-4
_MAX_HALVINGS = 40
# What grew by less than this share of itself grew by rounding.
_ROUNDING_SHARE = 1e-13


@dataclass(frozen=True)
class LogisticPoint:
    """The model at one linear predictor: means and weights of the rows (n,), and minus the log-likelihood."""

    mean: Array
    weight: Array
    loss: float


@dataclass(frozen=True, eq=False)
class Logistic:
    """Design z (n, q), outcome y (n,) of zeros and ones, and the penalty (q,) of each squared coefficient (halved)."""

    z: TallMatrix
    y: Array
    penalty: Array
    names: Sequence[str]

    def at(self, eta: Array) -> LogisticPoint:
        """Means, weights and loss at a linear predictor (n,)."""
        small = elementary.exp_of_array(-np.abs(eta))
        whole = 1.0 + small
        mean = np.where(eta >= 0, 1.0, small) / whole
        loss = np.maximum(eta, 0.0) - self.y * eta + elementary.log1p(small)
        return LogisticPoint(mean, small / (whole * whole), math.fsum(loss.tolist()))

    def objective(self, theta: Array) -> float:
        """Loss and penalty at coefficients (q,)."""
        return self.at(self.z.times(theta)).loss + self.penalty_at(theta)

    def penalty_at(self, theta: Array) -> float:
        """The penalty at coefficients (q,)."""
        return 0.5 * linalg.dot(self.penalty * theta, theta)

    def factor(self, information: Array) -> Array:
        """Cholesky factor of information and penalty; Collinear names the columns that cannot be separated."""
        return linalg.cholesky(information + np.diag(self.penalty), self.names)

    def covariance(self, information: Array) -> Array:
        """The inverse information (q, q); with a penalty the variance of the penalised estimator."""
        whole = linalg.inverse(self.factor(information))
        return linalg.matmul(linalg.matmul(whole, information), whole) if np.any(self.penalty) else whole


@dataclass(frozen=True)
class NewtonStep:
    """One Newton step from coefficients: the step (q,), its gain in objective, the information (q, q) at its start."""

    step: Array
    gain: float
    information: Array
    at: LogisticPoint


def newton_step(model: Logistic, theta: Array) -> NewtonStep:
    """The Newton step at theta (q,); `gain` is its squared length in standard errors."""
    at = model.at(model.z.times(theta))
    gradient = model.z.sums(model.y - at.mean) - model.penalty * theta
    information = model.z.gram(at.weight)
    step = linalg.solve(model.factor(information), gradient)
    return NewtonStep(step, max(linalg.dot(gradient, step), 0.0), information, at)


def shorten_step(objective: Callable[[Array], float], start: Array, step: Array, here: float, gain: float) -> Array:
    """start + t step for the first t of 1, 1/2, 1/4 ... at which the objective falls as it should (Armijo)."""
    share = 1.0
    for _ in range(_MAX_HALVINGS):
        there = start + share * step
        if objective(there) <= here - ARMIJO * share * gain + _ROUNDING_SHARE * (1.0 + abs(here)):
            return there
        share *= 0.5
    raise NotConverged(
        "CO-N102", f"The objective still grows after halving a step {_MAX_HALVINGS} times. Check the data."
    )


@dataclass(frozen=True, eq=False)
class Dual:
    """The dual of a penalised model: labels s (n,), factor F (n, r) of K = F F', the ridge lambda > 0.

    `free`: the intercept is not penalised, which in the dual is the constraint sum s alpha = 0.
    """

    f: TallMatrix
    s: Array
    ridge: float
    free: bool
    names: Sequence[str]

    def start(self) -> Array:
        """alpha (n,) at the null model, which meets the constraint."""
        positive = math.fsum((self.s > 0).tolist()) / len(self.s)
        return np.where(self.s > 0, 1.0 - positive, positive) if self.free else np.full(len(self.s), 0.5)

    def objective(self, alpha: Array) -> float:
        """J(alpha); infinite outside the box."""
        if not (np.all(alpha > 0) and np.all(alpha < 1)):
            return math.inf
        turned = self.f.sums(self.s * alpha)
        entropy = alpha * elementary.log_of_array(alpha) + (1.0 - alpha) * elementary.log_of_array(1.0 - alpha)
        return 0.5 * linalg.dot(turned, turned) / self.ridge + math.fsum(entropy.tolist())

    def step(self, alpha: Array) -> tuple[Array, float]:
        """The Newton step (n,) at alpha and its gain, by Woodbury's identity on F (n, r)."""
        variance = alpha * (1.0 - alpha)
        turned = self.f.times(self.f.sums(self.s * alpha))
        gradient = self.s * turned / self.ridge + elementary.log_of_array(alpha / (1.0 - alpha))
        middle = self.f.gram(variance) + self.ridge * np.eye(self.f.shape[1])
        factor = linalg.cholesky(middle, self.names)

        def solve_woodbury(v: Array) -> Array:
            inner = linalg.solve(factor, self.f.sums(self.s * variance * v))
            return variance * (v - self.s * self.f.times(inner))

        step = solve_woodbury(gradient)
        if self.free:
            along = solve_woodbury(self.s)
            step = step - along * (linalg.dot(self.s, step) / linalg.dot(self.s, along))
        return -step, max(linalg.dot(gradient, step), 0.0)

    def intercept(self, alpha: Array) -> float:
        """The intercept that alpha stands for."""
        if not self.free:
            return math.fsum((self.s * alpha).tolist()) / self.ridge
        eta = self.s * elementary.log_of_array((1.0 - alpha) / alpha)
        rest = eta - self.f.times(self.f.sums(self.s * alpha)) / self.ridge
        return math.fsum(rest.tolist()) / len(alpha)
