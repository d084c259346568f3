"""Stage two: what a site sums over its rows by arm, without (0) and with (1) the treatment, at its rows' scores.

With the weight w of a row in its arm the arm's mean is sum w y / sum w (Hajek). The stacked estimating equations of the
score's coefficients and of both means (Lunceford and Davidian, Stat Med 2004;23:2937-2960; Stefanski and Boos, Am Stat
2002;56:29-38) need, at their solution: the meat of the score, sum x x' (a - e)^2; that of the means, sum w^2 (y - m)^2;
between them, sum x (a - e) w (y - m); and how the means' equations turn with the coefficients, sum w'(e) e (1 - e) x
(y - m).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coterie_learners.causal.balancing_weights import ARMS, BalancingWeights, weigh_scores
from coterie_learners.causal.propensity_plan import BINS, PropensityPlan, split_treatment
from coterie_learners.causal.score_fit import frame_of
from coterie_learners.core.masked_sum import check_patient_counts
from coterie_learners.core.payload import Payload
from coterie_learners.errors import ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.study.rows import Block, Rows

ArmShapes = dict[str, tuple[int, ...]]
# Weights from which patients are counted, falling.
WEIGHT_POWERS = 10.0 ** np.arange(12, -13, -1)
# A score may stand at a bin's end by rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class ScoredRows:
    """Some rows with their scores: covariates x (m, p) in the score's frame, treatment, outcome as summed, score (m,).

    `weights`: of both arms, whichever a row is in.
    """

    x: Array
    treated: Array
    y: Array
    score: Array
    weights: BalancingWeights

    @cached_property
    def arms(self) -> Array:
        """Membership in each arm (2, m)."""
        return np.stack([1.0 - self.treated, self.treated])

    @cached_property
    def own(self) -> Array:
        """The rows' weights in their own arm (2, m), 0 in the other."""
        return self.arms * self.weights.values


def score_rows_of(plan: PropensityPlan, model: Payload, block: Block) -> ScoredRows:
    """Rows of the formula with the scores of the coefficients that a server posted."""
    split = frame_of(plan, model).block(split_treatment(block, plan.treatment_column))
    score = plan.model.family.parts(split.x @ model["beta"], split.y).mean
    weights = weigh_scores(score, plan.options.estimand, plan.options.truncate)
    return ScoredRows(split.x, split.y, plan.scale_outcome(block.y), score, weights)


# The sums of weights, before any of outcomes, and which bins of scores the floor allows


def shape_weights() -> ArmShapes:
    """Shapes of the sums of weights."""
    masses = dict.fromkeys(("masses", "mass_sites"), (ARMS, len(WEIGHT_POWERS)))
    return {**dict.fromkeys(("patients", "weight", "heavy"), (ARMS,)), **masses, "passes": (len(BINS),)}


def sum_weights(plan: PropensityPlan, rows: Rows, model: Payload) -> dict[str, Array]:
    """Patients, weights and squared weights of each arm (2,), and patients who weigh at least each power of ten (2, k).

    `mass_sites`: whether this site has such patients; `passes`: which numbers of bins this site's counts allow.
    """
    sums = {name: np.zeros(shape) for name, shape in shape_weights().items()}
    counts = {bins: np.zeros((ARMS, bins)) for bins in BINS}
    for block in rows.blocks():
        scored = score_rows_of(plan, model, block)
        sums["patients"] += scored.arms.sum(axis=1)
        sums["weight"] += scored.own.sum(axis=1)
        sums["heavy"] += np.sum(scored.own**2, axis=1)
        sums["masses"] += np.array([[np.count_nonzero(arm >= power) for power in WEIGHT_POWERS] for arm in scored.own])
        for bins, total in counts.items():
            total += count_scores(scored, bins)
    sums["mass_sites"] = (sums["masses"] > 0).astype(np.float64)
    floor = plan.study.disclosure.cell
    sums["passes"] = np.array([float(not np.any((n > 0) & (n < floor))) for n in counts.values()])
    return sums


# The sums of outcomes


def shape_outcomes() -> ArmShapes:
    """Shapes of the sums of outcomes."""
    return {"events": (ARMS,), "outcome": (ARMS,)}


def sum_outcomes(plan: PropensityPlan, rows: Rows, model: Payload) -> dict[str, Array]:
    """Events and weighted outcomes of each arm (2,). No events are counted for an outcome that is not binary."""
    sums = {name: np.zeros(shape) for name, shape in shape_outcomes().items()}
    binary = plan.design.outcome.type == "binary"
    for block in rows.blocks():
        scored = score_rows_of(plan, model, block)
        sums["events"] += scored.arms @ scored.y if binary else 0.0
        sums["outcome"] += scored.own @ scored.y
    return sums


def count_scores(scored: ScoredRows, bins: int) -> Array:
    """Rows by arm and bin of the score (2, bins)."""
    place = np.clip(np.floor(scored.score * bins + _ROUNDING), 0, bins - 1).astype(np.int64)
    return np.stack([np.bincount(place, arm, bins) for arm in scored.arms])


# The last sums: the sandwich, and the balance


def shape_closing(plan: PropensityPlan, bins: int) -> ArmShapes:
    """Shapes of the last sums, with scores counted in so many bins, or 0."""
    p = plan.p
    sandwich: ArmShapes = {"meat": (p * (p + 1) // 2,), "between": (ARMS, p), "turn": (ARMS, p), "squares": (ARMS,)}
    return sandwich | shape_balance(plan, bins)


def shape_balance(plan: PropensityPlan, bins: int) -> ArmShapes:
    """Shapes of the sums for the balance of covariates, and of counts of scores in so many bins."""
    balance: ArmShapes = dict.fromkeys(("plain", "plain_squares", "weighted"), (ARMS, len(plan.balanced)))
    return balance | ({"bins": (ARMS, bins)} if bins else {})


def sum_effects(plan: PropensityPlan, rows: Rows, model: Payload) -> dict[str, Array]:
    """The sums of the sandwich and of the balance of covariates. `model`: the post with both means."""
    bins = int(model["bins"])
    sums = {name: np.zeros(shape) for name, shape in shape_closing(plan, bins).items()}
    sums["meat"] = np.zeros((plan.p, plan.p))
    for block in rows.blocks():
        scored = score_rows_of(plan, model, block)
        apart = _find_residuals(plan, model, scored, block)
        for name, part in (_add_closing(scored, apart) | add_balance(plan, scored, bins)).items():
            sums[name] = sums[name] + part
    return sums | {"meat": sums["meat"][np.triu_indices(plan.p)]}


def _find_residuals(plan: PropensityPlan, model: Payload, rows: ScoredRows, block: Block) -> Array:
    """The outcomes about the means of both arms (2, m); in a unit, if the model has one, from the values themselves."""
    means = np.asarray(model["means"])[:, None]
    if "unit" not in model:
        return np.asarray(rows.y - means)
    centre, scale = plan.outcome_place
    return np.asarray((block.y - (centre + scale * means)) / (scale * float(model["unit"])))


def _add_closing(rows: ScoredRows, apart: Array) -> dict[str, Array]:
    residual = rows.treated - rows.score
    weighted = rows.own * apart
    turn = rows.arms * rows.weights.slopes * (rows.score * (1.0 - rows.score)) * apart
    scores = rows.x * residual[:, None]
    return {
        "meat": scores.T @ scores,
        "between": weighted @ scores,
        "turn": turn @ rows.x,
        "squares": np.sum(weighted**2, axis=1),
    }


def add_balance(plan: PropensityPlan, rows: ScoredRows, bins: int) -> dict[str, Array]:
    """The part of some rows in the sums for the balance."""
    covariates = rows.x[:, list(plan.balanced)]
    sums = {
        "plain": rows.arms @ covariates,
        "plain_squares": rows.arms @ covariates**2,
        "weighted": rows.own @ covariates,
    }
    return sums | ({"bins": count_scores(rows, bins)} if bins else {})


def take_scores(model: Payload, pooled: dict[str, Array]) -> dict[str, Array]:
    """The pooled counts of scores (2, bins), taken out of the sums; ProtocolError if no patients could have them."""
    if "bins" not in pooled:
        return {}
    counts = pooled.pop("bins")
    check_patient_counts("scores", counts)
    if not np.array_equal(counts.sum(axis=1), model["patients"]):
        raise ProtocolError("CO-P503", "The counts of scores do not add up to the patients of each arm.")
    return {"scores": counts}
