"""The effect of a treatment by propensity scores, equal to the estimate on the pooled rows, with stacked errors.

Rosenbaum and Rubin, Biometrika 1983;70:41-55 (scores); Hernan and Robins, Causal Inference: What If, 2020, chapter 12
(weights, marginal structural models); Lunceford and Davidian, Stat Med 2004;23:2937-2960 (errors).

Stage one fits the score, a logistic model of the treatment, by rounds of sums (`score_fit`). The scores and weights of
the rows stay at their sites. What they weigh together is summed before any outcome, so that no mean is opened that is
that of few patients or of one or two sites. Stage two is the weighted model of the outcome with the treatment alone:
its means by arm are sums of weighted outcomes over sums of weights, so that one round of sums solves it, whatever
family and link; or a weighted Cox model (`hazard_stage`). One more round has the sums for the sandwich of both stages,
in which the scores are known to be estimated, and for the balance of the covariates.

Masked (the default with three sites or more): only sums over the sites exist outside a site, after the pool's counts of
levels by treatment. Plain: every member reads each site's sums.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from coterie_learners.causal.arm_sums import (
    shape_closing,
    shape_outcomes,
    shape_weights,
    sum_effects,
    sum_outcomes,
    sum_weights,
    take_scores,
)
from coterie_learners.causal.dominance import check_weights, refuse_dominance
from coterie_learners.causal.hazard_stage import fit_hazards
from coterie_learners.causal.propensity_disclosure import disclose_propensity, expose_arm_sums
from coterie_learners.causal.propensity_plan import BINS, PropensityOptions, PropensityPlan, check_propensity_plan
from coterie_learners.causal.propensity_result import build_effect_fit
from coterie_learners.causal.score_fit import fit_scores
from coterie_learners.causal.stacked_sandwich import check_variances, stack_sandwich
from coterie_learners.core.masked_sum import MIN_PARTIES, SiteSums, check_patient_counts
from coterie_learners.core.payload import Payload
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Posts, Script, Site, conclude, each, server
from coterie_learners.core.registry import Learner
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import ProtocolError, Separation
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Schedule, Study
from coterie_learners.sums.frame import power_of_two
from coterie_learners.sums.opening.steps import open_pool, schedule_opening

_VERSION = "2"
# A weighted mean may leave its range by so much of itself through rounding.
_ROUNDING = 1e-9
# A variance below this share of the declared range's square is summed again in a unit near its root, or the least.
_NARROW, _LEAST = 2.0**-36, 2.0**-60
# Sums of squares.
_SQUARES = ("squares", "plain_squares")
# What the later posts repeat of the score: its coefficients, their frame, a root of their covariance, and the rows.
KEPT = ("beta", "root", "n", "centre", "scale", "outcome_centre", "outcome_scale", "offset_centre")
# Rounds after those of the score: weights, outcomes, sandwich.
MORE_ROUNDS = 3


def propensity(site: Site) -> Script:
    """The score, the weights that it makes, both means at these, then the sandwich of both stages."""
    plan = PropensityPlan.of(site.study)
    pooled = (yield from open_pool(plan.opening)) if plan.masked else None
    scores, rounds = yield from fit_scores(plan, pooled)
    judge_first = partial(expose_arm_sums, plan, rounds, pooled, scores, "weights")
    judge = partial(expose_arm_sums, plan, rounds, pooled, scores, "outcomes")
    sums = SiteSums(shape_weights(), plan.masked)
    posts = yield from each("weights", share_weights, plan, sums, scores, expects=sums.form, reveals=judge_first)
    weights = yield from server("weighing", judge_weights, plan, sums, scores, posts)
    if plan.hazards:
        return (yield from fit_hazards(plan, weights, rounds, judge))
    sums = SiteSums(shape_outcomes(), plan.masked)
    posts = yield from each("outcomes", share_outcomes, plan, sums, weights, expects=sums.form, reveals=judge)
    means = yield from server("means", weigh_outcomes, sums, weights, posts)
    sums = SiteSums(shape_closing(plan, int(means["bins"])), plan.masked)
    share = partial(share_closing, topic="sandwich")
    posts = yield from each("sandwich", share, plan, sums, means, expects=sums.form, reveals=judge)
    effect = yield from server("effect", end_effect, plan, sums, means, posts)
    nearer = not effect["converged"]
    if nearer:
        share = partial(share_closing, topic="sandwich/1")
        posts = yield from each("sandwich/1", share, plan, sums, effect, expects=sums.form, reveals=judge)
        effect = yield from server("effect/1", end_effect, plan, sums, effect, posts)
    yield from conclude()
    return build_effect_fit(plan, effect, rounds + MORE_ROUNDS + nearer)


# At a site


def share_weights(site: Site, plan: PropensityPlan, sums: SiteSums, scores: Payload) -> Payload:
    """This site's weights by arm."""
    return sums.post(site, "weights", sum_weights(plan, plan.read_rows(site), scores))


def share_outcomes(site: Site, plan: PropensityPlan, sums: SiteSums, weights: Payload) -> Payload:
    """This site's weighted outcomes by arm."""
    return sums.post(site, "outcomes", sum_outcomes(plan, plan.read_rows(site), weights))


def share_closing(site: Site, plan: PropensityPlan, sums: SiteSums, means: Payload, *, topic: str) -> Payload:
    """This site's sums for the sandwich and the balance."""
    return sums.post(site, topic, sum_effects(plan, plan.read_rows(site), means))


# From the sums of all sites


def judge_weights(plan: PropensityPlan, sums: SiteSums, scores: Payload, posts: Posts) -> Payload:
    """What the server posts: the weights of both arms, and in how many bins scores are counted (0: in none).

    Withheld before any outcome is summed where few patients, or one or two sites, have nearly all weight of an arm.
    """
    pooled = sums.add(posts)
    for name in ("patients", "masses", "mass_sites", "passes"):
        check_patient_counts(name, pooled[name])
    if not np.all(pooled["patients"] > 0):
        raise Separation("CO-N301", "An arm of the treatment has no patients. Correct the treatment, or add sites.")
    check_weights(pooled)
    refuse_dominance(plan, pooled, posts)
    finest = [bins for bins, n in zip(BINS, pooled["passes"].tolist(), strict=True) if round(n) == len(posts)]
    counts = {name: pooled[name] for name in ("patients", "weight", "heavy")}
    bins = np.asarray(float(finest[0] if finest else 0))
    kept = {name: scores[name] for name in KEPT}
    return {**kept, **counts, "bins": bins, "converged": np.False_}


def weigh_outcomes(sums: SiteSums, weights: Payload, posts: Posts) -> Payload:
    """What the server posts: the weighted mean of each arm."""
    pooled = sums.add(posts)
    check_patient_counts("events", pooled["events"])
    return {**weights, "events": pooled["events"], "means": find_means(weights, pooled)}


def find_means(weights: Payload, pooled: Payload) -> Array:
    """The weighted means (2,) of the outcome as it is summed; ProtocolError if no rows could have them."""
    weight, outcome = np.asarray(weights["weight"]), np.asarray(pooled["outcome"])
    if np.any(np.abs(outcome) > weight * (1.0 + _ROUNDING)) or np.any(pooled["events"] > weights["patients"]):
        message = f"Weights of {weight.min():.6g} and weighted outcomes of {np.abs(outcome).max():.6g}"
        raise ProtocolError("CO-P508", f"{message} cannot be of outcomes in their declared range.")
    return np.asarray(outcome / weight)


def end_effect(plan: PropensityPlan, sums: SiteSums, means: Payload, posts: Posts) -> Payload:
    """The last server post: everything that the effect and its errors need.

    Or the means again with a `unit` of the outcome, where its values lie so close together in their declared range that
    masked sums of squares have lost them.
    """
    pooled = sums.add(posts)
    variance = float(np.min(pooled["squares"] / np.asarray(means["heavy"])))
    if plan.masked and "unit" not in means and variance < _NARROW:
        unit = power_of_two(math.sqrt(max(variance, _LEAST)))
        return {**means, "unit": np.asarray(unit), "converged": np.False_}
    negative = [name for name in _SQUARES if np.any(pooled[name] < 0.0)]
    if negative:
        message = f"The sum {negative[0]!r} is {pooled[negative[0]].min():.6g}"
        raise ProtocolError("CO-P502", f"{message}, and squares add up to no such number.")
    scores = take_scores(means, pooled)
    effect = {**means, **pooled, **scores, "converged": np.True_}
    check_variances(stack_sandwich(effect))
    return effect


# Which studies it can run


def _check_study(study: Study) -> None:
    """StudyError for a study that this learner cannot run."""
    check_propensity_plan(PropensityPlan.of(study))


def _schedule(study: Study) -> Schedule:
    """Rounds of each and server: those of the score, the means, the sandwich, whose server's post ends them."""
    plan = PropensityPlan.of(study)
    opening = schedule_opening("counts" if plan.masked else "none", plan.opening)
    rounds = plan.options.max_rounds * (2 if plan.hazards else 1) + MORE_ROUNDS
    return Schedule(opening=opening, loop=("each", "server"), closing=("server",), max_rounds=rounds)


def _discloses(study: Study) -> Disclosure:
    return disclose_propensity(PropensityPlan.of(study))


def _assess(study: Study, rows: int | None) -> Suitability:
    """For studies that name a treatment, and for no others."""
    if not isinstance(study.learner.options.get("treatment"), str):
        return Suitability(8, False, "it estimates the effect of a treatment; the study names no `treatment`.")
    several = len(study.sites) >= MIN_PARTIES
    masks = "under masks" if several else "without masks, because fewer than three sites take part"
    return Suitability(-1, True, f"it weighs patients by propensity scores, in rounds of sums {masks}.")


PROPENSITY = Learner(
    "propensity",
    _VERSION,
    PropensityOptions,
    _check_study,
    _schedule,
    propensity,
    _discloses,
    reads_if=lambda study: "codes" if isinstance(study.learner.options.get("time"), str) else None,
    profile=Profile(
        _assess,
        alternatives=({"aggregation": "masked"},),
        examples=({"aggregation": "masked"}, {"aggregation": "plain"}, {"effect": "hazard_ratio"}),
        method="marginal structural model weighted by propensity scores, with stacked sandwich errors,",
    ),
)
