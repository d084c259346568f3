"""A generalised linear model on a tall design that several sites made, in arithmetic with the same bits everywhere.

min over theta of -log L(Z theta + offset) + sum pen_j theta_j^2 / 2 by damped steps (McCullagh and Nelder 1989, section
2.5): with the residual s_i (y_i - mu_i) of each row, the score per unit of its predictor, and its weight w_i,

    (Z' diag(w) Z + diag(pen)) step = Z' residual - pen theta.

What a row's law is, a family says (`sums.family`): its curve at a predictor, and how much its log-likelihood is bent
there, by which the steps go. The covariance is that of the expected information at the last coefficients, as R's is.

A linear model is fitted about the mean of its outcome in units of a power of two near its spread; a ridge does not feel
either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from coterie_learners.errors import NotConverged, StudyError, pluralise
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.tall_matrix import TallMatrix
from coterie_learners.sums.family import TINY, Family, Totals

ARMIJO = 1e-4
_MAX_HALVINGS = 40
# What grew by less than this share of itself grew by rounding.
_ROUNDING_SHARE = 1e-13
# If the columns leave less than this fraction of an outcome's variance, it is their combination, up to rounding.
EXACT = 1e-24
# The same of squares of residuals beside those of the means: 64 roundings of each.
EXACT_SHARE = (64.0 * float(np.finfo(float).eps)) ** 2
# The gain of a linear model's step that moves nothing but the last bits of its means, in units of their square.
MEAN_BITS = 1e-28
_NULL_STEPS = 200


@dataclass(frozen=True, eq=False)
class SplitOutcome:
    """The outcome y (n,) of the common patients with the offset (n,) of their predictors, and the family."""

    family: Family
    y: Array
    offset: Array

    @property
    def n(self) -> int:
        """Number of patients."""
        return len(self.y)

    @cached_property
    def total(self) -> float:
        """The sum of the outcomes: of zeros and ones the events."""
        return math.fsum(self.y.tolist())

    @cached_property
    def centre(self) -> float:
        """What a linear model measures its outcome from."""
        return math.fsum((self.y - self.offset).tolist()) / self.n if self.family.linear else 0.0

    @cached_property
    def scale(self) -> float:
        """The unit of a linear model's outcome: a power of two near its spread, 1 of a constant one."""
        if not self.family.linear:
            return 1.0
        about = self.y - self.offset - self.centre
        spread = math.sqrt(math.fsum((about * about).tolist()) / self.n)
        return float(np.ldexp(1.0, int(np.frexp(spread)[1]))) if spread > 0.0 else 1.0

    def inside(self, centred: bool) -> SplitOutcome:
        """The outcome that the steps work on; about its mean only where there is an intercept to take the mean."""
        if not self.family.linear:
            return self
        centre = self.centre if centred else 0.0
        return SplitOutcome(self.family, (self.y - self.offset - centre) / self.scale, np.zeros(self.n))

    def check(self, columns: int) -> None:
        """StudyError or Separation for an outcome that cannot carry a model of so many columns."""
        if self.n <= columns:
            raise StudyError(
                "CO-N203",
                f"{pluralise(self.n, 'patient')} in common cannot carry {columns} coefficients. "
                "Use a shorter formula, or more patients.",
            )
        self.family.check_extremes(float(self.n), self.total)

    def null_predictor(self) -> float:
        """The intercept of the model without columns."""
        if self.family.linear:
            return self.total / self.n
        ones = SplitModel(TallMatrix.of([np.ones((self.n, 1))]), self, np.zeros(1), ["(Intercept)"])
        theta = np.array([self.family.start(self.total / self.n)])
        for _ in range(_NULL_STEPS):
            here = newton_step(ones, theta)
            if here.gain <= 1e-26 * self.n:
                break
            theta = shorten_step(ones.objective, theta, here.step, here.at.loss, here.gain)
        return float(theta[0])

    def null_deviance(self, intercept: bool) -> float:
        """Deviance of the model without columns, at the site that holds the outcome."""
        if not intercept:
            return self.deviance(self.offset)
        if self.family.linear:
            return math.fsum(np.square(self.y - self.offset - self.centre).tolist())
        return self.deviance(self.null_predictor() + self.offset)

    def deviance(self, eta: Array) -> float:
        """Deviance at linear predictors (n,), offset included, by the family's law for rows."""
        return math.fsum(self.family.parts(eta, self.y).deviance.tolist())

    def log_likelihood(self, deviance: float) -> float | None:
        """The log-likelihood of a fit with this deviance; None of a quasi family."""
        saturated = math.fsum(self.family.compute_saturated(self.y).tolist())
        return self.family.log_likelihood(Totals(float(self.n), self.total, saturated), deviance)

    def leave_frame(self, theta: Array, covariance: Array, intercept: bool) -> tuple[Array, Array]:
        """Coefficients (q,) and covariance (q, q) in the outcome's own units; the first is the intercept."""
        out = self.scale * theta
        if intercept:
            out[0] += self.centre
        return out, self.scale**2 * covariance

    @property
    def events(self) -> int | None:
        """Events, or the sum of counts; None where the outcome is no count."""
        return self.family.count_events(self.total)


@dataclass(frozen=True)
class ModelPoint:
    """The model at one linear predictor: residuals, expected weights and curvatures of the rows (n,), mean, -log L.

    The loss is without the terms that no coefficient touches. `pearson`: the sum of squared residuals over variances.
    """

    residual: Array
    weight: Array
    bend: Array
    mean: Array
    loss: float
    pearson: float


@dataclass(frozen=True, eq=False)
class SplitModel:
    """Design z (n, q), the outcome, and the penalty (q,) of each squared coefficient (halved)."""

    z: TallMatrix
    outcome: SplitOutcome
    penalty: Array
    names: Sequence[str]

    def predictor(self, theta: Array) -> Array:
        """The linear predictor (n,) with its offset."""
        return np.asarray(self.z.times(theta) + self.outcome.offset)

    def at(self, eta: Array) -> ModelPoint:
        """Pieces of the rows and the loss at a linear predictor (n,)."""
        family, y = self.outcome.family, self.outcome.y
        curve = family.curve(eta)
        apart = y - curve.mean
        residual = curve.slope * apart
        bend = family.bend(eta, y, residual, curve.weight)
        loss = -math.fsum((y * curve.up + curve.down).tolist())
        pearson = math.fsum((apart * apart / np.maximum(curve.variance, TINY)).tolist())
        return ModelPoint(residual, curve.weight, bend, curve.mean, loss, pearson)

    def objective(self, theta: Array) -> float:
        """Loss and penalty at coefficients (q,)."""
        return self.at(self.predictor(theta)).loss + self.penalty_at(theta)

    def penalty_at(self, theta: Array) -> float:
        """The penalty at coefficients (q,)."""
        return 0.5 * linalg.dot(self.penalty * theta, theta)

    def factor(self, information: Array) -> Array:
        """Cholesky factor of information and penalty; Collinear names the columns that cannot be separated."""
        return linalg.cholesky(information + np.diag(self.penalty), self.names)

    def covariance(self, at: ModelPoint) -> Array:
        """The dispersion times the inverse information (q, q); with a penalty the variance of that estimator."""
        information = self.z.gram(at.weight)
        whole = linalg.inverse(self.factor(information))
        plain = linalg.matmul(linalg.matmul(whole, information), whole) if np.any(self.penalty) else whole
        return np.asarray(self.dispersion(at) * plain)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the residuals."""
        return self.outcome.n - len(self.names)

    def dispersion(self, at: ModelPoint) -> float:
        """1 where it is known; else by Pearson's residuals, which of a linear model are the residuals themselves.

        0 of an exact fit.
        """
        if self.outcome.family.dispersion == "known":
            return 1.0
        return 0.0 if self.is_exact(at) else at.pearson / self.freedom

    def start(self, intercept: bool) -> Array:
        """The null model's coefficients (q,); the first is the intercept if there is one."""
        theta = np.zeros(len(self.names))
        if intercept:
            theta[0] = self.outcome.null_predictor()
        return theta

    def is_exact(self, at: ModelPoint) -> bool:
        """Whether nothing but rounding is left of a measured outcome: of a linear model's, whose spread is about 1.

        Pearson's residuals of an outcome above zero are shares of its means.
        """
        family = self.outcome.family
        return not family.whole and at.pearson <= (EXACT if family.linear else EXACT_SHARE) * self.outcome.n

    def is_at_rest(self, at: ModelPoint, gain: float, tolerance: float) -> bool:
        """Whether a step of this gain is shorter than so many standard errors, or nothing but rounding is left."""
        rounding = 0.0 if self.outcome.family.whole else MEAN_BITS * len(self.names)
        if self.outcome.family.linear:
            rounding = MEAN_BITS * (1.0 + math.fsum((at.mean * at.mean).tolist()) / self.outcome.n)
        return gain <= max(tolerance**2 * self.dispersion(at), rounding) or self.is_exact(at)


def summarise_fit(model: SplitModel, outcome: SplitOutcome, theta: Array, intercept: bool) -> dict[str, Any]:
    """The facts about a fit that the outcome's site knows besides its coefficients theta (q,) in the frame, by name.

    In the outcome's own units; the dispersion of an exact linear fit is 0. `outcome` is that before its frame.
    """
    eta = model.predictor(theta)
    at, square = model.at(eta), outcome.scale**2
    deviance = square * at.pearson if outcome.family.linear else outcome.deviance(eta)
    return {
        "n": outcome.n,
        "events": outcome.events,
        "deviance": deviance,
        "null_deviance": outcome.null_deviance(intercept),
        "dispersion": square * model.dispersion(at),
        "freedom": model.freedom,
        "log_likelihood": math.inf if model.is_exact(at) else outcome.log_likelihood(deviance),
        "pearson": square * at.pearson,
    }


@dataclass(frozen=True)
class NewtonStep:
    """One step from coefficients: the step (q,), its gain in objective, and the model at its start."""

    step: Array
    gain: float
    at: ModelPoint


def newton_step(model: SplitModel, theta: Array) -> NewtonStep:
    """The Newton step at theta (q,); `gain` is its squared length in standard errors, dispersion 1."""
    at = model.at(model.predictor(theta))
    gradient = model.z.sums(at.residual) - model.penalty * theta
    step = linalg.solve(model.factor(model.z.gram(at.bend)), gradient)
    return NewtonStep(step, max(linalg.dot(gradient, step), 0.0), at)


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
