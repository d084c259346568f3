"""The calibration of a model: a logistic regression of the outcome on the model's logit, by Newton's method on sums.

Cox, Biometrika 1958;45:562-565 (doi:10.1093/biomet/45.3-4.562); Steyerberg, Clinical Prediction Models, 2nd ed. 2019,
section 15.3.1. The start is that of the patients on the grid, each with the mean score of its range; the steps that
follow are on the patients' own scores. All that is posted has the same bits on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie_learners.core.payload import Payload
from coterie_learners.errors import ProtocolError
from coterie_learners.evaluate.evaluation_plan import ShownRanges
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.elementary import exp_of_array, log_of_array

# Steps of the start on the grid; a step is bounded, so that a start far away leads nowhere else.
GRID_STEPS, LONGEST = 30, 4.0
# With fewer ranges the grid says little of a group's slope.
FEW_RANGES = 4
# A fraction of the product of the diagonal: below it the slope has no information of its own.
SINGULAR = 1e-12
# A calibration has settled whose last step was shorter, in standard errors.
SETTLED = 1e-6
# A mean score nearer to 0 or 1 says nothing of its logit.
LEAST_SCORE = 1e-12


@dataclass(frozen=True)
class CalibrationStep:
    """A Newton step of one group: of the intercept alone, of intercept and slope; their length in standard errors."""

    alone: float
    intercept: float
    slope: float
    length: float


def find_step(sums: Array) -> CalibrationStep:
    """The step from the sums (7,) of a group; no step of what has no information."""
    score, weight, a, b, w, wz, wzz = (float(value) for value in sums)
    alone = score / weight if weight > 0.0 else 0.0
    determinant = w * wzz - wz * wz
    if determinant > SINGULAR * w * wzz:
        intercept, slope = (wzz * a - wz * b) / determinant, (w * b - wz * a) / determinant
    else:
        intercept, slope = (a / w if w > 0.0 else 0.0), 0.0
    length = max(abs(alone * score), abs(intercept * a + slope * b))
    return CalibrationStep(_bound(alone), _bound(intercept), _bound(slope), math.sqrt(length))


def _bound(step: float) -> float:
    return max(-LONGEST, min(LONGEST, step))


def move(state: Array, sums: Array) -> tuple[Array, Array]:
    """The next state (s, 3) and the lengths of the steps (s,), from sums (s, 7) at a state."""
    steps = [find_step(row) for row in sums]
    change = np.array([[step.alone, step.intercept, step.slope] for step in steps])
    return state + change, np.array([step.length for step in steps])


def start_on_grid(shown: ShownRanges, pooled: Payload) -> Array:
    """The state (s, 3) at which the calibration of the pooled counts on the grid rests.

    A group that is counted in few ranges starts where all patients do.
    """
    parts = zip(shown.split(pooled["counts"]), shown.split(pooled["scores"]), strict=True)
    states = [_calibrate_counts(counts, scores) for counts, scores in parts]
    own = [state if bins >= FEW_RANGES else states[0] for state, bins in zip(states, shown.bins, strict=True)]
    return np.array(own) if own else np.array([[0.0, 0.0, 1.0]])


def _calibrate_counts(counts: Array, scores: Array) -> list[float]:
    """The rest of one group from counts (bins, 2) and scores (bins,)."""
    n = counts.sum(axis=1)
    used = n > 0
    mean = np.clip(scores[used] / n[used], LEAST_SCORE, 1.0 - LEAST_SCORE)
    logit, state = log_of_array(mean) - log_of_array(1.0 - mean), np.array([[0.0, 0.0, 1.0]])
    for _ in range(GRID_STEPS):
        state, _ = move(state, _sum_counts(n[used], counts[used, 1], logit, state[0])[None])
    return [float(value) for value in state[0]] if bool(np.all(np.isfinite(state))) else [0.0, 0.0, 1.0]


def _sum_counts(n: Array, events: Array, z: Array, state: Array) -> Array:
    """The sums (7,) of patients who have one logit in each range."""
    alone, mean = _expit(state[0] + z), _expit(state[1] + state[2] * z)
    residual, weight = events - n * mean, n * mean * (1.0 - mean)
    pieces = (events - n * alone, n * alone * (1.0 - alone), residual, residual * z, weight, weight * z, weight * z * z)
    return np.array([math.fsum(piece.tolist()) for piece in pieces])


def _expit(x: Array) -> Array:
    return np.asarray(1.0 / (1.0 + exp_of_array(-x)))


def check_sums(sums: Array) -> None:
    """ProtocolError for sums (s, 7) that no patients can give."""
    weights = sums[:, (1, 4, 6)]
    if np.any(weights < -1e-9):
        raise ProtocolError("CO-P502", f"The information {weights.min():.6g} of a calibration is negative.")


def describe_calibration(state: Array, sums: Array, length: float) -> dict[str, Any]:
    """Intercept and slope of a group with standard errors; None where they have not settled."""
    weight, (w, wz, wzz) = float(sums[1]), (float(value) for value in sums[4:])
    determinant = w * wzz - wz * wz
    sound = math.isfinite(length) and length < SETTLED and weight > 0.0
    sloped = sound and determinant > SINGULAR * w * wzz
    return {
        "in_the_large": _pair(state[0], 1.0 / weight) if sound else None,
        "intercept": _pair(state[1], wzz / determinant) if sloped else None,
        "slope": _pair(state[2], w / determinant) if sloped else None,
    }


def _pair(estimate: float, variance: float) -> dict[str, float]:
    return {"estimate": float(estimate), "std_error": math.sqrt(variance)}
