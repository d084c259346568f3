"""What a study of a treatment's effect discloses, under masks and in the clear."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Literal

import numpy as np

from coterie_learners.causal.arm_sums import score_rows_of, shape_closing, shape_outcomes, shape_weights
from coterie_learners.causal.propensity_plan import BINS, PropensityPlan
from coterie_learners.core.disclosure import PATTERNS, Exposure, ScoreWeights, indicators, list_cell_kinds, two_way
from coterie_learners.core.masked_sum import MIN_PARTIES, size_of
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Site
from coterie_learners.core.study_disclosure import (
    Disclosure,
    Protection,
    StepDisclosure,
    conclude_disclosure,
    describe_patients,
)
from coterie_learners.study.rows import Rows
from coterie_learners.sums.opening.counts import PooledCounts, describe_pool
from coterie_learners.sums.opening.disclosure import disclose_opening, list_seen_in_opening
from coterie_learners.sums.sums_disclosure import list_patterns

# Of what there are sums by arm: of the weights alone, or of weighed outcomes.
ArmSums = Literal["weights", "outcomes"]
BINS_OF_SCORES = "bins of scores by treatment"
_SCORE = "Sums over its rows for the score: first moments, then score, information, deviance and counts of each round"
_WEIGHTS = (
    "By arm of the treatment: patients, weights, squared weights, and how many weigh at least 10, 1, 0.1 and so on; "
    "whether counts of scores in bins pass the floor"
)
_OUTCOMES = "By arm of the treatment: weighted outcomes, and events of a binary outcome"
_STOP = (
    "The study stops before it if an arm's effective sample size is below the floor, or if one or two sites have "
    "nearly all of its weight."
)
_CLOSING = (
    "By arm: squared residuals, their products with the score's equations, weighted and plain sums and "
    "squares of covariates; patients by bin of the score where every site's counts pass the floor"
)
_HAZARD = (
    "Weighted logarithm, score and information of the partial likelihood over its own risk sets; numbers of patients "
    "and events"
)
_HAZARD_CLOSING = (
    "Squared score residuals, and by arm weighted and plain sums and squares of covariates; patients by bin of the "
    "score where every site's counts pass the floor"
)
_ARM_COUNTS = "The opening counts each level of all sites together, and those in it with and without the treatment."
_SOLVABLE = (
    "If few patterns of covariates, treatment and outcome occur, readers can solve the patients of each pattern.",
)


def expose_arm_sums(
    plan: PropensityPlan,
    rounds: int,
    pooled: PooledCounts | None,
    scores: Payload,
    of: ArmSums,
    site: Site,
    payload: Payload,
) -> Exposure:
    """What readers can solve from one site's sums by arm, after so many rounds for the score, which made `scores`."""
    exposure = Exposure(
        what="Sums by arm of the treatment",
        rows=site.rows.n,
        parties=len(site.parties),
        weighed=_weigh(plan, scores, of, site),
    )
    if plan.masked:
        return describe_pool(replace(exposure, sums_only=True), pooled)
    cells, kinds = _list_tables(plan, site.rows)
    more = (shape_weights(), shape_outcomes(), shape_closing(plan, max(BINS)))
    posted = rounds * size_of(plan.model.shapes("first")) + sum(size_of(shapes) for shapes in more)
    patterns = list_patterns(plan.design, site.rows, posted)
    counts = _list_bins(payload) if "bins" in payload else {}
    return replace(
        exposure,
        cells={**cells, **patterns, **counts},
        kinds={**kinds, **dict.fromkeys(patterns, PATTERNS), **dict.fromkeys(counts, BINS_OF_SCORES)},
        by_columns=True,
        instead='set aggregation = "masked"' if len(plan.study.sites) >= MIN_PARTIES else "",
    )


def _weigh(plan: PropensityPlan, scores: Payload, of: ArmSums, site: Site) -> ScoreWeights:
    o = plan.options
    parts = [score_rows_of(plan, scores, block).score for block in plan.read_rows(site).blocks()]
    return ScoreWeights(o.treatment, o.estimand, o.truncate, of == "outcomes", np.concatenate(parts))


def _list_tables(plan: PropensityPlan, rows: Rows) -> tuple[dict[str, int], dict[str, str]]:
    """Every two-way table of levels, treatment and outcome: weights that are all one would make the sums these."""
    at = indicators(plan.design)
    gram, events, total = np.zeros((len(at), len(at))), np.zeros(len(at)), 0.0
    for block in rows.blocks():
        inside = block.x[:, at]
        gram, events, total = gram + inside.T @ inside, events + inside.T @ block.y, total + float(block.y.sum())
    binary = plan.design.outcome.type == "binary"
    return two_way(plan.design, float(rows.n), gram, (total, events) if binary else None)


def _list_bins(payload: Payload) -> dict[str, int]:
    counts = np.asarray(payload["bins"])
    places = itertools.product(range(counts.shape[0]), range(counts.shape[1]))
    return {f"bin {k + 1} of the score, treatment {arm}": round(float(counts[arm, k])) for arm, k in places}


def disclose_propensity(plan: PropensityPlan) -> Disclosure:
    """The readers of each sum, and what everybody learns."""
    protection: Protection = "masked" if plan.masked else "plain"
    rebuilds = () if plan.masked else _SOLVABLE
    first, kinds = list_cell_kinds(plan.scores), (*list_cell_kinds(plan.design), BINS_OF_SCORES)
    steps = (
        *disclose_opening("counts" if plan.masked else "none"),
        StepDisclosure("score/*", "each", _SCORE, None, protection, rebuilds, cells=first),
        StepDisclosure("score_model/*", "server", "The score's coefficients after each round"),
        StepDisclosure("weights", "each", _WEIGHTS, None, protection, rebuilds, cells=kinds),
        StepDisclosure("weighing", "server", "The weights of each arm"),
        *_list_effect_steps(plan, protection, rebuilds, kinds),
        conclude_disclosure(),
    )
    return Disclosure(steps, _list_collusion(plan), _list_results(plan))


def _list_effect_steps(
    plan: PropensityPlan, protection: Protection, rebuilds: tuple[str, ...], kinds: tuple[str, ...]
) -> tuple[StepDisclosure, ...]:
    """The steps after the weights: of weighted means, or of a weighted Cox model."""
    if plan.hazards:
        return (
            StepDisclosure("hazard/*", "each", _HAZARD, None, protection, (_STOP,)),
            StepDisclosure("hazard_model/*", "server", "The hazard ratio after each round"),
            StepDisclosure("hazard_closing", "each", _HAZARD_CLOSING, None, protection),
            StepDisclosure("hazard_effect", "server", "All of these over all sites"),
        )
    return (
        StepDisclosure("outcomes", "each", _OUTCOMES, None, protection, (*rebuilds, _STOP), cells=kinds),
        StepDisclosure("means", "server", "The weighted mean of each arm"),
        StepDisclosure("sandwich", "each", _CLOSING, None, protection, rebuilds, cells=kinds),
        StepDisclosure("effect", "server", "All of these over all sites"),
    )


def _list_collusion(plan: PropensityPlan) -> tuple[str, ...]:
    if not plan.masked:
        return ("No site has to be trusted not to collude: every member already reads each site's sums.",)
    others = len(plan.study.sites) - 1
    return (f"All {others} other sites together can compute the sums of the last one. They must not collude.",)


def _list_results(plan: PropensityPlan) -> tuple[str, ...]:
    sums = "the sums over all sites" if plan.masked else "each site's sums"
    effect = (
        "patients of each arm, the hazard ratio after each round"
        if plan.hazards
        else ("patients and weighted means of each arm")
    )
    own = "score, weight and time" if plan.hazards else "score and weight"
    return (
        f"Everybody learns {sums} of every round, the score's coefficients, {effect}, and the balance of each "
        f"covariate. A patient's {own} stay at the site.",
        *((_ARM_COUNTS,) if plan.masked else ()),
        *list_seen_in_opening("counts" if plan.masked else "none"),
        *describe_patients(plan.study),
    )
