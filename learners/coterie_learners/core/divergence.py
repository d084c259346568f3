"""Signs that the maximum of a likelihood lies at infinity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array

# Under separation the gain of a step vanishes while the steps go on, straight and hardly shorter; in a converging fit
# both vanish. Fisher scoring far from a canonical link may look so for a while, so there are bounds on all four.
_FLAT_GAIN, _STEADY_STEP, _STRAIGHT, _LONG_STEP = 1e-3, 0.7, 0.99, 0.05


def diverging_coefficients(gain: float, step: Array, before: Array) -> NDArray[np.bool_]:
    """Which coefficients (p,) grow without bound, from the last two steps on the inside scale; none if it converges."""
    none = np.zeros(len(step), dtype=bool)
    longest = float(np.max(np.abs(step), initial=0.0))
    if gain > _FLAT_GAIN or longest < _LONG_STEP:
        return none
    aligned = linalg.dot(step, before)
    straight = aligned > 0 and aligned**2 >= _STRAIGHT**2 * linalg.dot(step, step) * linalg.dot(before, before)
    if not straight or longest < _STEADY_STEP * float(np.max(np.abs(before))):
        return none
    grown: NDArray[np.bool_] = np.abs(step) > 0.5 * longest
    return grown
