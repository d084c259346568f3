"""Chances of a category's levels from a published multinomial or proportional-odds model, with their errors.

With x a row's columns, p_k the chance of level k, and F the logistic function:

    multinomial: p_k = exp(x'b_k) / sum_j exp(x'b_j), b_1 = 0;   ordinal: p_1 + ... + p_k = F(c_k - x'b).

Errors are those of the delta method, sqrt(g'Vg) with g the derivative of p_k by all coefficients. Limits are those of
the chance's logit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coterie_learners.numeric.array import Array


@dataclass(frozen=True)
class LevelModel:
    """The levels of an outcome; `ordered`: by proportional odds, whose thresholds follow the slopes."""

    levels: tuple[str, ...]
    ordered: bool

    def list_terms(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Names of the coefficients, by the columns of the design with the intercept first."""
        if self.ordered:
            cuts = (f"{low}|{high}" for low, high in zip(self.levels, self.levels[1:], strict=False))
            return (*columns[1:], *cuts)
        return tuple(f"{level}:{name}" for level in self.levels[1:] for name in columns)

    def predict(self, x: Array, beta: Array, covariance: Array | None, quantile: float) -> dict[str, Array]:
        """Chance, error and limits of each level, (m,) each, of rows x (m, p)."""
        chances, slopes = (self._predict_ordered if self.ordered else self._predict_nominal)(x, beta)
        out: dict[str, Array] = {}
        for k, level in enumerate(self.levels):
            chance, slope = chances[:, k], slopes[:, k]
            out[f"probability[{level}]"] = chance
            error = _compute_errors(slope, covariance)
            with np.errstate(divide="ignore", invalid="ignore"):
                logit, half = np.log(chance) - np.log1p(-chance), quantile * error / (chance * (1.0 - chance))
            out[f"probability_se[{level}]"] = error
            out[f"probability_low[{level}]"] = _logistic(logit - half)
            out[f"probability_high[{level}]"] = _logistic(logit + half)
        return out

    def _predict_nominal(self, x: Array, beta: Array) -> tuple[Array, Array]:
        """Chances (m, levels) and their derivatives (m, levels, coefficients)."""
        others = len(self.levels) - 1
        eta = np.column_stack([np.zeros(len(x)), x @ beta.reshape(others, -1).T])
        odds = np.exp(eta - eta.max(axis=1, keepdims=True))
        chances = odds / odds.sum(axis=1, keepdims=True)
        own = np.eye(others + 1)[None, :, 1:] - chances[:, None, 1:]
        slopes = (chances[:, :, None] * own)[..., None] * x[:, None, None, :]
        return chances, slopes.reshape(len(x), others + 1, -1)

    def _predict_ordered(self, x: Array, beta: Array) -> tuple[Array, Array]:
        """Chances (m, levels) and their derivatives (m, levels, coefficients); x has no intercept's column here."""
        cuts = len(self.levels) - 1
        columns, thresholds = x[:, 1:], beta[len(beta) - cuts :]
        eta = columns @ beta[: len(beta) - cuts]
        below = _logistic(thresholds[None, :] - eta[:, None])
        ends = np.column_stack([np.zeros(len(x)), below, np.ones(len(x))])
        density = np.column_stack([np.zeros(len(x)), below * (1.0 - below), np.zeros(len(x))])
        by_eta = -np.diff(density, axis=1)[:, :, None] * columns[:, None, :]
        picks = np.eye(cuts + 2)[:, 1:-1]
        by_cut = density[:, 1:, None] * picks[None, 1:] - density[:, :-1, None] * picks[None, :-1]
        return np.diff(ends, axis=1), np.concatenate([by_eta, by_cut], axis=2)


def _logistic(eta: Array) -> Array:
    """1 / (1 + exp(-eta)), exact to a float on both sides."""
    small = np.exp(-np.abs(eta))
    return np.asarray(np.where(eta >= 0.0, 1.0, small) / (1.0 + small))


def _compute_errors(slope: Array, covariance: Array | None) -> Array:
    if covariance is None:
        return np.full(len(slope), np.nan)
    return np.asarray(np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", slope, covariance, slope), 0.0)))
