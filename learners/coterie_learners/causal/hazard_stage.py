"""Stage two of a hazard ratio: a weighted Cox model of the treatment alone, with a baseline hazard for each site.

Equal to R's `coxph(Surv(time, event) ~ treatment + strata(site), weights = w, robust = TRUE)` on the pooled rows, and
with late entry to that of `Surv(entry, time, event)` (Cole and Hernan, Comput Methods Programs Biomed 2004;75:45-49;
Lin and Wei, JASA 1989;84:1074-1078). The robust errors take the weights for known, as R's do: they are not stacked with
the score, which would make them smaller as a rule (ATE).

What leaves a site, under masks alone, as in `cox.site_baseline`: value, score and information of its own weighted
partial likelihood in each round, with its numbers of patients and events; at the end squared score residuals and the
sums for the balance. No time leaves a site.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie_learners.causal.arm_sums import (
    add_balance,
    score_rows_of,
    shape_balance,
    take_scores,
)
from coterie_learners.causal.hazard_result import build_hazard_fit
from coterie_learners.causal.propensity_plan import PropensityPlan
from coterie_learners.core import masked_sum
from coterie_learners.core.masked_sum import SiteSums
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts, Reveals, Script, Site, conclude, each, server
from coterie_learners.cox.cox_plan import CoxOptions, CoxPlan
from coterie_learners.cox.likelihood.partial_likelihood import Likelihood, OwnRisk, measure_likelihood
from coterie_learners.cox.likelihood.risk_sets import RiskRows, place_times
from coterie_learners.cox.newton_step import begin_at_zero, refuse_more_rounds
from coterie_learners.cox.site_baseline import add_likelihoods, list_likelihood_shapes
from coterie_learners.errors import ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import LearnerChoice
from coterie_learners.survival.step_counts import check_times


@dataclass(frozen=True)
class HazardPlan:
    """The plan of the score, and that of the Cox model of the treatment alone."""

    scores: PropensityPlan
    cox: CoxPlan

    @classmethod
    def of(cls, plan: PropensityPlan) -> HazardPlan:
        """Both plans, from that of the study."""
        o, event = plan.options, plan.design.formula.outcome
        choice: dict[str, Any] = {
            "time": o.time,
            "event": event,
            "ties": o.ties,
            "robust": True,
            "proportionality": "none",
        }
        choice |= {"entry": o.entry} if o.entry is not None else {}
        choice |= {"tolerance": o.tolerance, "max_rounds": o.max_rounds}
        learner = LearnerChoice.model_validate({"name": "cox", **choice})
        study = plan.study.model_copy(update={"formula": f"{event} ~ {o.treatment}", "learner": learner})
        return cls(plan, CoxPlan(study, Design(study), CoxOptions.model_validate(choice), True))


def fit_hazards(scores: PropensityPlan, weights: Payload, rounds: int, reveals: Reveals) -> Script:
    """Newton-Raphson on the weighted partial likelihood until it rests, then the sums at the end.

    `weights`: the server post of the arms' weights, after so many `rounds` of the score.
    """
    plan = HazardPlan.of(scores)
    model: Payload = begin_at_zero(plan.cox)
    sums = SiteSums(list_likelihood_shapes(plan.cox), True)
    for t in range(scores.options.max_rounds):
        topic = f"hazard/{t}"
        posts = yield from each(
            topic, share_hazard, plan, topic, weights, model["beta"], expects=sums.form, reveals=reveals
        )
        model = yield from server(f"hazard_model/{t}", step_hazard, plan, model, posts)
        if model["rests"]:
            break
    else:
        raise refuse_more_rounds(plan.cox, model)
    sums = SiteSums(shape_hazard_closing(plan, int(weights["bins"])), True)
    posts = yield from each(
        "hazard_closing", share_hazard_closing, plan, sums, weights, model["best"], expects=sums.form, reveals=reveals
    )
    end = yield from server("hazard_effect", end_hazard, sums, weights, model, posts)
    yield from conclude()
    return build_hazard_fit(plan.scores, plan.cox, end, rounds + t + 3)


# At a site


def share_hazard(site: Site, plan: HazardPlan, topic: str, weights: Payload, beta: Array) -> Payload:
    """This site's weighted partial likelihood at coefficients (1,), under masks."""
    rows = place_patients(plan, site, weights)
    events = float(np.count_nonzero(rows.event))
    none = Likelihood(0.0, np.zeros(plan.cox.p), np.zeros((plan.cox.p, plan.cox.p)))
    there = measure_likelihood(rows, beta, plan.cox.efron) if events else none
    sums = {
        "value": np.asarray(there.value),
        "score": there.score,
        "information": there.information[np.triu_indices(plan.cox.p)],
        "n": np.asarray(float(len(rows.event))),
        "events": np.asarray(events),
    }
    return masked_sum.mask_sums(site, topic, sums)


def place_patients(plan: HazardPlan, site: Site, weights: Payload) -> RiskRows:
    """This site's patients in their risk sets, each with the weight of its score; DataError for times below 0."""
    scores, cox = plan.scores, plan.cox
    blocks = list(site.codes.codes())
    codes = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    time = np.asarray(codes[cox.options.time], dtype=np.float64)
    n = len(time)
    late, event = cox.options.entry, np.asarray(codes[cox.options.event]) == 1
    # Without late entry everybody is at risk from before the first time, a time of 0 included.
    entry = np.full(n, -1.0) if late is None else np.asarray(codes[late], dtype=np.float64)
    check_times(cox.options.time, late, time, entry)
    patients = np.asarray(weights["patients"])
    share = patients / patients.sum() if scores.options.stabilised else np.ones(len(patients))
    scored = (score_rows_of(scores, weights, block) for block in scores.read_rows(site).blocks())
    weight = np.concatenate([share @ rows.own for rows in scored])
    x = np.ascontiguousarray(cox.design.matrix(codes, n)[:, 1:])
    places = place_times(np.zeros(n, np.int64), time, entry, event)
    return RiskRows(x, np.zeros(n), weight, event, *places, np.arange(n))


def shape_hazard_closing(plan: HazardPlan, bins: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one site's sums at the end."""
    return {"squared_scores": plan.cox.upper, **shape_balance(plan.scores, bins)}


def share_hazard_closing(site: Site, plan: HazardPlan, sums: SiteSums, weights: Payload, beta: Array) -> Payload:
    """This site's squared score residuals, and its sums for the balance, under masks."""
    own = {name: np.zeros(shape) for name, shape in sums.shapes.items()}
    for block in plan.scores.read_rows(site).blocks():
        parts = add_balance(plan.scores, score_rows_of(plan.scores, weights, block), int(weights["bins"]))
        own |= {name: own[name] + part for name, part in parts.items()}
    rows = place_patients(plan, site, weights)
    if rows.event.any():
        risk = OwnRisk.of(rows, beta, plan.cox.efron)
        scores = rows.score_rows(risk.risk, risk.ties, risk.cells)
        own["squared_scores"] = (scores.T @ scores)[np.triu_indices(plan.cox.p)]
    return sums.post(site, "hazard_closing", own)


# From the sums of all sites


def step_hazard(plan: HazardPlan, last: Payload, posts: Posts) -> Payload:
    """The next server post: a step of the Cox model, which `rests` at its maximum."""
    model = add_likelihoods(plan.cox, last, posts)
    return {**model, "rests": model["converged"], "converged": np.False_}


def end_hazard(sums: SiteSums, weights: Payload, model: Payload, posts: Posts) -> Payload:
    """The last server post: everything that the hazard ratio and its errors need."""
    pooled = sums.add(posts)
    for name in ("squared_scores", "plain_squares"):
        if np.any(pooled[name] < 0.0):
            message = f"The sum {name!r} is {pooled[name].min():.6g}"
            raise ProtocolError("CO-P502", f"{message}, and squares add up to no such number.")
    counts = {name: weights[name] for name in ("patients", "weight", "heavy")}
    scores = take_scores(weights, pooled)
    kept = {name: model[name] for name in ("best", "information", "n", "events")}
    return {**kept, **counts, **pooled, **scores, "converged": np.True_}
