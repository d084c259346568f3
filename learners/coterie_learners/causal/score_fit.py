"""Stage one: the propensity score by GLORE's rounds of sums, a logistic model of the treatment.

The server's posts hold the score's coefficients; each site makes its rows' scores of them, and keeps these.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial

import numpy as np

from coterie_learners.causal.propensity_plan import PropensityPlan, ScoreRows
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.masked_sum import MIN_PARTIES, SiteSums
from coterie_learners.core.payload import Payload, Schema
from coterie_learners.core.protocol import Posts, Site, Step, each, server
from coterie_learners.errors import NotConverged, Separation, pluralise
from coterie_learners.numeric.array import Array
from coterie_learners.sums import newton
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.opening.counts import PooledCounts, describe_pool
from coterie_learners.sums.sums_disclosure import expose_masked_sums, expose_sums

Views = tuple[Array | None, ...]


def fit_scores(plan: PropensityPlan, pooled: PooledCounts | None) -> Generator[Step, Posts, tuple[Payload, int]]:
    """A look, then Newton-Raphson until it rests; the last server post, and the number of rounds.

    `pooled`: the pool's counts, if they were opened.
    """
    model = newton.begin(plan.rules)
    path: Views = ()
    for t in range(plan.options.max_rounds):
        topic, path = f"score/{t}", (*path, _view_model(plan, model))
        form, judge = form_score_sums(plan, model), partial(expose_score_sums, plan, path, pooled)
        posts = yield from each(topic, share_score_sums, plan, topic, model, expects=form, reveals=judge)
        model = yield from server(f"score_model/{t}", step_scores, plan, model, posts)
        if model["rests"]:
            return model, t + 1
    rounds = plan.options.max_rounds
    message = f"The propensity score does not converge in {pluralise(rounds, 'round')}"
    raise NotConverged("CO-N101", f"{message}. Raise max_rounds, or look for covariates that determine the treatment.")


def frame_of(plan: PropensityPlan, model: Payload) -> Frame:
    """The frame that a server posted."""
    return Frame.from_payload(plan.model.layout, model)


def _view_model(plan: PropensityPlan, model: Payload) -> Array | None:
    return None if newton.kind_of(model) == "look" else frame_of(plan, model).outside(model["beta"])


def _sums_of(plan: PropensityPlan, model: Payload) -> SiteSums:
    return SiteSums(plan.model.shapes(newton.kind_of(model)), plan.masked)


def form_score_sums(plan: PropensityPlan, model: Payload) -> Schema:
    """Form of one site's post after a server's."""
    return _sums_of(plan, model).form if plan.masked else plan.model.form(newton.kind_of(model))


def share_score_sums(site: Site, plan: PropensityPlan, topic: str, model: Payload) -> Payload:
    """One site's sums for the score at the coefficients of a server's post."""
    kind, frame, rows = newton.kind_of(model), frame_of(plan, model), plan.read_scores(site)
    if kind == "look":
        return _sums_of(plan, model).post(site, topic, plan.model.look(rows, frame))
    sums = plan.model.round(kind, rows, frame, model["beta"], float(model["null"]))
    return _sums_of(plan, model).post(site, topic, sums)


def expose_score_sums(
    plan: PropensityPlan, path: Views, pooled: PooledCounts | None, site: Site, payload: Payload
) -> Exposure:
    """What readers can solve from one site's sums for the score, after the views of `path`."""
    rows: ScoreRows = plan.read_scores(site)
    if plan.masked:
        exposure = expose_masked_sums(plan.scores, plan.model.family, path, site, rows)
        return describe_pool(exposure, pooled)
    exposure = expose_sums(plan.scores, plan.model.family, path, replace(site, data=rows), payload)
    enough = len(plan.study.sites) >= MIN_PARTIES
    return replace(exposure, instead='set aggregation = "masked"' if enough else "")


def step_scores(plan: PropensityPlan, last: Payload, posts: Posts) -> Payload:
    """The next server post: a frame, a Newton-Raphson step, half of the last one again, or the score at rest."""
    sums = _sums_of(plan, last).add(posts)
    if plan.masked:
        plan.model.check(newton.kind_of(last), sums)
    try:
        return {**newton.advance(plan.rules, last, sums), "converged": np.False_}
    except Separation as error:
        raise Separation(error.code, error.message.replace("The outcome is", "The treatment is")) from None
