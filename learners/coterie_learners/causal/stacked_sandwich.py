"""The covariance of both means from the stacked estimating equations, and what follows for their contrasts.

Stefanski and Boos, Am Stat 2002;56:29-38. Near the solution the mean m_a of an arm is its truth plus the average of
(w (y - m_a) + H_a' I^-1 x (a - e)) / W_a: W_a is the arm's weight, I the information of the score, and H_a how the
mean's equation turns with the score's coefficients. Taking the scores for known leaves out the second part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie_learners.causal.balancing_weights import ARMS
from coterie_learners.causal.propensity_plan import Effect
from coterie_learners.errors import ProtocolError
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array


@dataclass(frozen=True)
class MeansCovariance:
    """Covariances (2, 2) of the means as they are summed: `stacked`, and with the scores taken for known."""

    stacked: Array
    known: Array

    def scale(self, factor: float) -> MeansCovariance:
        """The same of means in units of 1 / factor."""
        return MeansCovariance(self.stacked * factor**2, self.known * factor**2)


def stack_sandwich(effect: Mapping[str, Any]) -> MeansCovariance:
    """Both covariances, from the last server post."""
    root, between, turn = (np.asarray(effect[name]) for name in ("root", "between", "turn"))
    meat = linalg.symmetric(np.asarray(effect["meat"]), root.shape[0])
    # H_a' I^-1 (2, p), from a root of I^-1.
    slopes = linalg.matmul(linalg.matmul(turn, root), root.T)
    crossed = linalg.matmul(slopes, between.T)
    known = np.diag(np.asarray(effect["squares"]))
    whole = known + crossed + crossed.T + linalg.matmul(linalg.matmul(slopes, meat), slopes.T)
    weight = np.asarray(effect["weight"])
    over = weight[:, None] * weight
    return MeansCovariance(0.5 * (whole + whole.T) / over, known / over)


def check_variances(covariance: MeansCovariance) -> None:
    """ProtocolError if sums of no rows could have this covariance."""
    variances = np.diag(covariance.stacked)
    if not np.all(np.isfinite(covariance.stacked)) or np.any(variances < 0.0):
        raise ProtocolError("CO-P508", f"The sums of the sites make a variance of {variances.min():.6g}.")


@dataclass(frozen=True)
class ArmContrast:
    """A contrast on the scale on which it is about normal: estimate, both variances, and the mean without treatment.

    `covariance` (2, 2) is of that mean on this scale and of the contrast.
    """

    base: float
    estimate: float
    covariance: Array
    known_variance: float


def contrast_means(means: Array, covariance: MeansCovariance, effect: Effect) -> ArmContrast:
    """The contrast of means (2,), without treatment first, by the delta method."""
    links, slopes = _link_means(means, effect)
    turn = np.array([[1.0, 0.0], [-1.0, 1.0]]) * slopes
    whole = turn @ covariance.stacked @ turn.T
    known = turn[1] @ covariance.known @ turn[1]
    return ArmContrast(float(links[0]), float(links[1] - links[0]), 0.5 * (whole + whole.T), float(known))


def has_contrast(means: Array, effect: Effect) -> bool:
    """Whether the means have this contrast: no logarithm of 0."""
    inside = bool(np.all(means > 0.0))
    return effect == "difference" or (inside and (effect == "ratio" or bool(np.all(means < 1.0))))


def _link_means(means: Array, effect: Effect) -> tuple[Array, Array]:
    """The means on the scale of a contrast, and the slopes of that scale (2,)."""
    if effect == "difference":
        return means, np.ones(ARMS)
    if effect == "ratio":
        return np.log(means), 1.0 / means
    return np.log(means / (1.0 - means)), 1.0 / (means * (1.0 - means))
