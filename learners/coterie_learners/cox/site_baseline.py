"""Cox models with a baseline hazard for each site: equal to the stratified fit on the pooled rows.

The partial likelihood is a product over the sites: its logarithm, score and information are sums of what each site
computes over its own risk sets (stratified Cox: Kalbfleisch and Prentice 2002, section 4.4; over sites: Lu et al.,
JAMIA 2015;22:1212-1219). No time leaves a site.

What leaves a site, under masks alone: labels of its rows and counts of its levels (`sums.opening.counts`); then, in
each round, score (p), information (p (p + 1) / 2) and logarithm of the partial likelihood at the coefficients of that
round, in the scale of the declared ranges or in nearer units that a server posted, with its numbers of rows and of
events; with Firth's penalty also the information's derivative (p (p + 1) (p + 2) / 6); at the end the sums of
`closing`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from coterie_learners.core import masked_sum
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.payload import Payload, Schema
from coterie_learners.core.protocol import Posts, Script, Site, each, server
from coterie_learners.cox.closing import (
    OwnRiskSets,
    describe_exposure,
    list_closing_shapes,
    sum_at_end,
)
from coterie_learners.cox.cox_plan import CoxPlan
from coterie_learners.cox.likelihood.exact_ties import measure_exact_likelihood
from coterie_learners.cox.likelihood.firth_penalty import FirthPart, count_third, measure_third
from coterie_learners.cox.likelihood.partial_likelihood import Likelihood, OwnRisk, measure_likelihood
from coterie_learners.cox.likelihood.risk_sets import RiskRows
from coterie_learners.cox.newton_step import (
    begin_at_zero,
    check_events,
    falls,
    halve_step,
    look_nearer,
    refuse_more_rounds,
    take_step,
)
from coterie_learners.cox.patients import read_cox_rows
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.sums.opening.counts import PooledCounts


def list_likelihood_shapes(plan: CoxPlan) -> dict[str, tuple[int, ...]]:
    """Shapes of one site's sums of a round."""
    third = {"third": (count_third(plan.p),)} if plan.options.firth else {}
    return {"score": (plan.p,), "information": plan.upper, **third, "value": (), "n": (), "events": ()}


def fit_site_baseline(plan: CoxPlan, pooled: PooledCounts | None) -> Script:
    """Sums from every site and one step by the server, until it rests; then the sums at the end."""
    model, shapes = begin_at_zero(plan), list_likelihood_shapes(plan)
    form = Schema({"masked": masked_sum.form_masked_field(shapes)})
    for t in range(plan.options.max_rounds):
        topic = f"stats/{t}"
        reveals = partial(expose_likelihood, plan, t, pooled)
        posts = yield from each(topic, share_likelihood, plan, topic, model["beta"], expects=form, reveals=reveals)
        model = yield from server(f"model/{t}", add_likelihoods, plan, model, posts)
        if "units" in model:
            plan = plan.move(model["shift"], model["units"])
        if model["converged"]:
            return (yield from _close(plan, pooled, model, t + 1))
    raise refuse_more_rounds(plan, model)


def _close(plan: CoxPlan, pooled: PooledCounts | None, model: Payload, rounds: int) -> Any:
    shapes = list_closing_shapes(plan)
    form = Schema({"masked": masked_sum.form_masked_field(shapes)})
    reveals = partial(_expose_closing, plan, pooled)
    posts = yield from each("closing", _share_closing, plan, model["best"], expects=form, reveals=reveals)
    end = yield from server("end", _add_closing, plan, posts)
    return {**model, **end, "rounds": rounds, "plan": plan}


# At a site


def share_likelihood(site: Site, plan: CoxPlan, topic: str, beta: Array) -> Payload:
    """This site's sums at coefficients of the scaled columns (p,), under masks."""
    rows = read_cox_rows(plan, site)
    placed, events = rows.place_at_events(), float(rows.event.sum())
    there = _measure(plan, placed, beta) if events else Likelihood(0.0, np.zeros(plan.p), np.zeros((plan.p, plan.p)))
    sums = {
        "value": np.asarray(there.value),
        "score": there.score,
        "information": there.information[np.triu_indices(plan.p)],
        **(_share_third(plan, placed, beta) if plan.options.firth else {}),
        "n": np.asarray(float(len(rows.time))),
        "events": np.asarray(events),
    }
    return masked_sum.mask_sums(site, topic, sums)


def _measure(plan: CoxPlan, placed: RiskRows, beta: Array) -> Likelihood:
    if plan.exact:
        return measure_exact_likelihood(placed, beta)
    return measure_likelihood(placed, beta, plan.efron)


def _share_third(plan: CoxPlan, placed: RiskRows, beta: Array) -> Payload:
    return {"third": measure_third(placed, beta, plan.efron) if placed.size else np.zeros(count_third(plan.p))}


def _share_closing(site: Site, plan: CoxPlan, beta: Array) -> Payload:
    """This site's sums at the end, under masks."""
    rows = read_cox_rows(plan, site)
    placed = rows.place_at_events()
    at = np.zeros(placed.size)
    at[placed.cell] = rows.time[rows.event]
    sets = OwnRiskSets(placed, OwnRisk.of(placed, beta, plan.efron), at)
    return masked_sum.mask_sums(site, "closing", sum_at_end(plan, rows, sets, beta))


# What leaves


def expose_likelihood(plan: CoxPlan, t: int, pooled: PooledCounts | None, site: Site, payload: Payload) -> Exposure:
    """What leaves under masks: nothing of this site alone. Its events are counted once, for the floor on them."""
    what = f"Masked sums of round {t} (score, information, partial likelihood)"
    return describe_exposure(plan, site, pooled, what, first=t == 0)


def _expose_closing(plan: CoxPlan, pooled: PooledCounts | None, site: Site, payload: Payload) -> Exposure:
    """The same of the sums at the end."""
    return describe_exposure(plan, site, pooled, "Masked sums at the end", first=False)


# From the sums of all sites


def add_likelihoods(plan: CoxPlan, last: Payload, posts: Posts) -> Payload:
    """The next server post: a Newton-Raphson step, half of the last one again, or the end of the fit."""
    sums = masked_sum.unmask_sums(posts, list_likelihood_shapes(plan))
    check_events(plan, float(sums["n"]), float(sums["events"]))
    value = float(sums["value"])
    there = Likelihood(value, np.asarray(sums["score"]), linalg.symmetric(sums["information"], plan.p))
    # Each site's columns are about its own means.
    again = look_nearer(plan, last, there.information, np.zeros(plan.p), float(sums["events"]))
    if again is not None:
        return again
    firth = FirthPart.of(there.information, sums["third"], plan.terms) if plan.options.firth else None
    if falls(last, plan, value, 0.0 if firth is None else firth.value):
        return halve_step(last)
    counts = {name: np.asarray(sums[name]) for name in ("n", "events")}
    return {**take_step(plan, last, there, firth), **counts}


def _add_closing(plan: CoxPlan, posts: Posts) -> Payload:
    """The sums at the end over all sites."""
    sums = masked_sum.unmask_sums(posts, list_closing_shapes(plan))
    return {**sums, "n": sums["patients"], "converged": np.True_}
