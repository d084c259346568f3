"""What a site sums over its rows for an outcome of several levels: score, observed information, deviance, counts.

Multinomial logits: Agresti, Categorical Data Analysis, 2nd ed. 2002, section 7.1. Proportional odds: logit P(Y <= k) =
zeta_k - x'b (McCullagh, J R Stat Soc B 1980;42:109-142); with a and c the predictors above and below a row's level its
likelihood is F(a) - F(c), whose derivatives by a and c give all else. Both likelihoods are concave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coterie_learners.glore.category_plan import CategoryPlan
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.distributions import special
from coterie_learners.study.elsewhere import over_blocks
from coterie_learners.study.rows import Block, Rows
from coterie_learners.sums.frame import Frame

# Below this a row's probability counts as zero.
_TINY = 1e-300


@dataclass(frozen=True)
class RowSums:
    """The sums of some rows: score (q,), observed information (q, q), deviance, patients by level (k,)."""

    score: Array
    information: Array
    deviance: float
    counts: Array


def sum_categories(plan: CategoryPlan, rows: Rows, frame: Frame, theta: Array) -> dict[str, Array]:
    """One site's sums at these coefficients of a frame."""
    total = RowSums(np.zeros(plan.q), np.zeros((plan.q, plan.q)), 0.0, np.zeros(len(plan.levels)))
    measure = _sum_ordinal if plan.ordinal else _sum_multinomial
    for part in over_blocks(lambda block: measure(plan, frame.block(block), theta), rows):
        total = RowSums(
            total.score + part.score,
            total.information + part.information,
            total.deviance + part.deviance,
            total.counts + part.counts,
        )
    upper = total.information[np.triu_indices(plan.q)]
    return {"score": total.score, "information": upper, "deviance": np.asarray(total.deviance), "counts": total.counts}


def _sum_multinomial(plan: CategoryPlan, block: Block, theta: Array) -> RowSums:
    x, at, p = block.x, block.y.astype(np.intp), plan.p
    eta = np.column_stack([np.zeros(len(at)), x @ theta.reshape(plan.cuts, p).T])
    eta -= eta.max(axis=1, keepdims=True)
    share = np.exp(eta)
    share /= share.sum(axis=1, keepdims=True)
    chosen = at[:, None] == np.arange(1, plan.cuts + 1)
    score = ((chosen - share[:, 1:]).T @ x).ravel()
    information = np.zeros((plan.q, plan.q))
    for i in range(plan.cuts):
        for j in range(i, plan.cuts):
            weight = share[:, i + 1] * ((i == j) - share[:, j + 1])
            part = (x.T * weight) @ x
            information[i * p : (i + 1) * p, j * p : (j + 1) * p] = part
            information[j * p : (j + 1) * p, i * p : (i + 1) * p] = part.T
    likely = np.maximum(share[np.arange(len(at)), at], _TINY)
    return RowSums(score, information, -2.0 * float(np.log(likely).sum()), _count_levels(plan, at))


def _count_levels(plan: CategoryPlan, at: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Array:
    return np.bincount(at, minlength=len(plan.levels)).astype(np.float64)


def _sum_ordinal(plan: CategoryPlan, block: Block, theta: Array) -> RowSums:
    x, at, cuts = block.x[:, 1:], block.y.astype(np.intp), plan.cuts
    thresholds = np.concatenate([[-np.inf], theta[:cuts], [np.inf]])
    shift = x @ theta[cuts:]
    above, below = thresholds[at + 1] - shift, thresholds[at] - shift
    likely, slope_a, slope_c = _find_likelihood(above, below)
    rise_a, rise_c = slope_a / likely, -slope_c / likely
    bend_a, bend_c = _bend(above, slope_a) / likely, -_bend(below, slope_c) / likely
    places_a, places_c = (_mark(at + shift_by, cuts) for shift_by in (0, -1))
    design_a, design_c = np.hstack([places_a, -x]), np.hstack([places_c, -x])
    score = design_a.T @ rise_a + design_c.T @ rise_c
    information = (design_a.T * (rise_a * rise_a - bend_a)) @ design_a
    information += (design_c.T * (rise_c * rise_c - bend_c)) @ design_c
    cross = (design_a.T * (rise_a * rise_c)) @ design_c
    return RowSums(score, information + cross + cross.T, -2.0 * float(np.log(likely).sum()), _count_levels(plan, at))


def _find_likelihood(above: Array, below: Array) -> tuple[Array, Array, Array]:
    """F(a) - F(c) without cancellation in either tail, and the slopes of F at a and c; 0 at infinity."""
    expit = special().expit
    flip = np.where(np.isinf(above), below, np.where(np.isinf(below), above, above + below)) > 0.0
    high, low = np.where(flip, -below, above), np.where(flip, -above, below)
    likely = np.maximum(expit(high) - expit(low), _TINY)
    slope_a, slope_c = (expit(v) * expit(-v) for v in (above, below))
    return likely, slope_a, slope_c


def _bend(eta: Array, slope: Array) -> Array:
    """The second derivative of the logistic function; 0 at infinity."""
    return np.asarray(slope * (1.0 - 2.0 * special().expit(eta)))


def _mark(places: np.ndarray[tuple[int], np.dtype[np.intp]], cuts: int) -> Array:
    """Indicators (m, cuts) of a threshold; none where there is none above or below."""
    return np.asarray(places[:, None] == np.arange(cuts), dtype=np.float64)
