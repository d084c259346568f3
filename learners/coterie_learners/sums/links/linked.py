"""Pieces of rows for any variance with any link, by the chain rule (McCullagh and Nelder 1989, section 2.5).

A linear predictor may leave the range in which its mean exists: a sum of effects below zero is no rate. Such a row is
evaluated where a mean exists, and its deviance is raised by more than data could explain, so that the step that led
there is halved.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric import elementary
from coterie_learners.numeric.array import Array
from coterie_learners.sums.family import Curve, Parts
from coterie_learners.sums.links.link import Elementary, Link, LinkPoint

# What a row outside the range adds to the deviance.
BARRIER = 1e9
# The distance from an end of the range at which a row outside of it is evaluated.
INDENT = 1e-4
# Pieces of a row beyond this do not fit a masked sum of many rows.
BEYOND = 1e15


class Law(Protocol):
    """How an outcome varies about its mean."""

    @property
    def ends(self) -> tuple[float, float]:
        """Open ends of the means."""

    def variance(self, mean: Array) -> Array:
        """V(mu) (m,), up to the dispersion."""

    def variance_slope(self, mean: Array) -> Array:
        """V'(mu) (m,)."""

    def unit_deviance(self, y: Array, mean: Array) -> Array:
        """The deviance of each row (m,), dispersion 1."""

    def likelihood_terms(self, mean: Array, log: Elementary) -> tuple[Array, Array]:
        """What an outcome multiplies in a row's log-likelihood, and what stands beside it (m,)."""


def parts_of(law: Law, link: Link, eta: Array, y: Array) -> Parts:
    """Pieces of rows with outcome y (m,) at predictors eta (m,)."""
    inside, outside = _bring_inside(law, link, eta)
    out = _pieces(law, link.at(inside, np.exp), y)
    large = np.abs(out.residual) + out.weight + out.deviance > BEYOND
    # A step that leads outside is halved whatever is summed there, which only has to fit the sum.
    large |= outside & (np.abs(out.curvature) > BEYOND)
    if np.any(large):
        out = _pieces(law, link.at(np.where(large, _safe(law, link), inside), np.exp), y)
    deviance = out.deviance + BARRIER * (outside | large)
    return Parts(out.residual, out.weight, out.curvature, deviance, out.mean)


def _pieces(law: Law, at: LinkPoint, y: Array) -> Parts:
    mean, variance = at.mean, law.variance(at.mean)
    rise, apart = at.slope / variance, y - at.mean
    weight = rise * at.slope
    curvature = weight - apart * (at.bend / variance - rise * rise * law.variance_slope(mean))
    return Parts(apart * rise, weight, curvature, law.unit_deviance(y, mean), mean)


def curve_of(law: Law, link: Link, eta: Array) -> Curve:
    """The mean at linear predictors (m,), the same bits everywhere."""
    inside, outside = _bring_inside(law, link, eta)
    at = link.at(inside, elementary.exp_of_array)
    variance = law.variance(at.mean)
    up, down = law.likelihood_terms(at.mean, elementary.log_of_array)
    slope = at.slope / variance
    return Curve(at.mean, variance, slope, slope * at.slope, up, down - 0.5 * BARRIER * outside)


def _bring_inside(law: Law, link: Link, eta: Array) -> tuple[Array, NDArray[np.bool_]]:
    low, high = link.inside(*law.ends)
    outside = (eta <= low) | (eta >= high)
    nearest = np.where(eta <= low, low + INDENT, np.where(eta >= high, high - INDENT, eta))
    return nearest, outside


def _safe(law: Law, link: Link) -> float:
    """A predictor whose mean is moderate."""
    low, high = link.inside(*law.ends)
    return min(max(1.0, low + INDENT), high - INDENT)
