"""A ridge in the variables' own units, as a quadratic form on the coefficients of a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.sums.frame import Frame


@dataclass(frozen=True)
class Penalty:
    """Weights (p,) on half the squared coefficients in the variables' own units."""

    weights: Array

    @classmethod
    def ridge(cls, frame_columns: int, ridge: float, spare_first: bool) -> Penalty:
        """One weight for all columns, but none for the intercept where it is spared."""
        weights = np.full(frame_columns, ridge)
        if spare_first:
            weights[0] = 0.0
        return cls(weights)

    def matrix(self, frame: Frame) -> Array:
        """The matrix P (p, p) that belongs to the information on the frame's scale."""
        if not np.any(self.weights):
            return np.zeros((frame.layout.p, frame.layout.p))
        return linalg.matmul(frame.carry.T * (self.weights * _unit_of(frame)), frame.carry)

    def gradient(self, frame: Frame, beta: Array) -> Array:
        """What the penalty adds to minus the score (p,)."""
        if not np.any(self.weights):
            return np.zeros_like(beta)
        raw = linalg.matvec(frame.carry, beta) + frame.origin
        return linalg.matvec(frame.carry.T, self.weights * _unit_of(frame) * raw)

    def value(self, frame: Frame, beta: Array) -> float:
        """Twice the penalty, as it stands beside a deviance of the frame's scale."""
        if not np.any(self.weights):
            return 0.0
        raw = linalg.matvec(frame.carry, beta) + frame.origin
        return linalg.dot(self.weights * _unit_of(frame) * raw, raw)


def _unit_of(frame: Frame) -> float:
    """What a squared coefficient of the frame is beside a deviance of it, both in the outcome's own units."""
    return frame.coefficient_unit**2 / frame.deviance_unit
