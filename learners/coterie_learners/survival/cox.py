"""Cox's proportional hazards at several sites, stratified by site: equal to the stratified fit on the pooled rows.

Each site has a baseline hazard of its own, so that the partial likelihood is a product over the sites: its logarithm,
score and information are sums of what each site computes over its own risk sets (stratified Cox: Kalbfleisch and
Prentice 2002, section 4.4; over sites: Lu et al., JAMIA 2015;22:1212-1219). No time leaves a site.

What leaves a site, under masks alone: labels of its rows and counts of its levels (`sums.opening.counts`); then, in
each round, score (p), information (p (p + 1) / 2) and logarithm of the partial likelihood at the coefficients of that
round, in the scale of the declared ranges, with its numbers of patients and of events.

Newton-Raphson from zero, as R's `coxph`; a step at which the likelihood falls is halved. The fit stops when the next
step would be shorter than `tolerance` standard errors.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from coterie_learners.core import masked_sum
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.payload import Payload, Schema
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Posts, Script, Site, conclude, each, server
from coterie_learners.core.registry import Learner
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import NotConverged, ProtocolError, Separation
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Schedule, Study
from coterie_learners.study.rows import Codes
from coterie_learners.sums.opening.counts import PooledCounts, describe_pool
from coterie_learners.sums.opening.steps import open_pool, schedule_opening
from coterie_learners.sums.separation import find_growing
from coterie_learners.survival.cox_disclosure import disclose_cox
from coterie_learners.survival.cox_plan import CoxOptions, CoxPlan, check_cox_plan
from coterie_learners.survival.cox_result import build_cox_fit
from coterie_learners.survival.partial_likelihood import Survivors, measure_likelihood, split_strata
from coterie_learners.survival.step_counts import check_times

_VERSION = "1"
# A likelihood may fall by so much of itself through rounding.
_ROUNDING = 1e-12


def cox(site: Site) -> Script:
    """The pool's counts of levels, then sums from every site and one step by the server, until it rests."""
    plan = CoxPlan.of(site.study)
    pooled = (yield from open_pool(plan.opening)) if plan.options.opening != "none" else None
    model = begin_at_zero(plan)
    form = Schema({"masked": masked_sum.form_masked_field(plan.shapes)})
    for t in range(plan.options.max_rounds):
        topic = f"stats/{t}"
        posts = yield from each(
            topic,
            share_likelihood,
            plan,
            topic,
            model["beta"],
            expects=form,
            reveals=partial(expose_likelihood, plan, t, pooled),
        )
        model = yield from server(f"model/{t}", take_step, plan, model, posts)
        if model["converged"]:
            fit = build_cox_fit(plan, model, t + 1)
            yield from conclude()
            return fit
    length = float(np.sqrt(model["gain"]))
    message = (
        f"No convergence in {plan.options.max_rounds} rounds: the next step would be {length:.2g} standard errors long"
    )
    raise NotConverged("CO-N101", f"{message}. Raise max_rounds, or look for separation.")


def begin_at_zero(plan: CoxPlan) -> Payload:
    """The model before the first round."""
    zero = np.zeros(plan.p)
    return {"beta": zero, "step": zero, "best": zero, "value": -np.inf}


# At a site


def share_likelihood(site: Site, plan: CoxPlan, topic: str, beta: Array) -> Payload:
    """This site's sums at coefficients of the scaled columns (p,), under masks."""
    return masked_sum.mask_sums(site, topic, sum_likelihood(plan, site, beta))


def sum_likelihood(plan: CoxPlan, site: Site, beta: Array) -> dict[str, Array]:
    """Value, score and information over this site's strata, and its numbers of patients and of events."""
    codes = {name: np.concatenate(parts) for name, parts in _list_values(site).items()}
    patients, strata = read_survivors(plan, codes)
    efron = plan.options.ties == "efron"
    parts = [measure_likelihood(stratum, beta, efron) for stratum in split_strata(patients, strata)]
    upper = np.triu_indices(plan.p)
    return {
        "value": np.asarray(sum(part.value for part in parts)),
        "score": np.sum([part.score for part in parts], axis=0),
        "information": np.sum([part.information for part in parts], axis=0)[upper],
        "n": np.asarray(float(len(strata))),
        "events": np.asarray(float(patients.event.sum())),
    }


def _list_values(site: Site) -> dict[str, list[Any]]:
    blocks = list(site.codes.codes())
    return {name: [block[name] for block in blocks] for name in blocks[0]}


def read_survivors(plan: CoxPlan, codes: Codes) -> tuple[Survivors, Any]:
    """A site's patients with scaled columns, and each one's stratum (n,)."""
    options = plan.options
    time = np.asarray(codes[options.time], dtype=np.float64)
    # Without late entry everybody is at risk from before the first time, a time of 0 included.
    entry = np.full(len(time), -1.0) if options.entry is None else np.asarray(codes[options.entry], dtype=np.float64)
    check_times(options.time, options.entry, time, entry)
    x = np.ascontiguousarray(plan.design.matrix(codes, len(time))[:, 1:])
    strata = np.zeros(len(time), np.int64) if options.strata is None else np.asarray(codes[options.strata]).astype(int)
    return Survivors(x, time, entry, np.asarray(codes[options.event]) == 1), strata


# What leaves


def expose_likelihood(plan: CoxPlan, t: int, pooled: PooledCounts | None, site: Site, payload: Payload) -> Exposure:
    """What leaves under masks: nothing of this site alone. Its events are counted once, for the floor on them."""
    rows = plan.read_rows(site)
    events = sum(int(np.count_nonzero(block.y == 1)) for block in rows.blocks()) if t == 0 else None
    exposure = Exposure(
        what=f"Masked sums of round {t} (score, information, partial likelihood)",
        rows=rows.n,
        events=events,
        parameters=plan.p if t == 0 else 0,
        sums_only=True,
        parties=len(site.parties),
    )
    return describe_pool(exposure, pooled)


# From the sums of all sites


def take_step(plan: CoxPlan, last: Payload, posts: Posts) -> Payload:
    """The next server post: a Newton-Raphson step, half of the last one again, or the end of the fit."""
    sums = masked_sum.unmask_sums(posts, plan.shapes)
    _check_sums(plan, sums)
    value = float(sums["value"])
    if value < float(last["value"]) - _ROUNDING * abs(value):
        half = 0.5 * np.asarray(last["step"])
        return {**last, "beta": last["best"] + half, "step": half, "converged": np.False_}
    factor = linalg.cholesky(linalg.symmetric(sums["information"], plan.p), plan.terms)
    step = linalg.solve(factor, sums["score"])
    gain = linalg.dot(step, sums["score"])
    _check_growth(plan, gain, step, np.asarray(last["step"]))
    null = last if "null_value" in last else {"null_value": value, "score_chi2": gain}
    model = {name: np.asarray(sums[name]) for name in ("information", "value", "n", "events")}
    model |= {"best": np.asarray(last["beta"]), "step": step, "gain": np.asarray(gain)}
    model |= {name: np.asarray(null[name]) for name in ("null_value", "score_chi2")}
    rests = gain <= plan.options.tolerance**2
    beta = last["beta"] if rests else last["beta"] + step
    return {**model, "beta": np.asarray(beta), "converged": np.bool_(rests)}


def _check_sums(plan: CoxPlan, sums: dict[str, Array]) -> None:
    """ProtocolError for sums that no patients can give; Separation without events."""
    n, events = float(sums["n"]), float(sums["events"])
    if events < 0 or n < events or n != round(n) or events != round(events):
        raise ProtocolError("CO-P504", f"{events:.6g} events of {n:.6g} patients cannot be.")
    if events == 0:
        raise Separation(
            "CO-N301",
            f"No patient of the {n:.0f} has the event {plan.options.event}. Wait for events, or for more sites.",
        )


def _check_growth(plan: CoxPlan, gain: float, step: Array, before: Array) -> None:
    """Separation (naming columns) if the likelihood is flat and the steps go on in one direction."""
    growing = find_growing(gain, step, before)
    if np.any(growing):
        names = [name for name, grows in zip(plan.terms, growing.tolist(), strict=True) if grows]
        message = f"Coefficients of {', '.join(names)} grow without bound"
        cause = "a level has no events, or its patients always have theirs first"
        raise Separation("CO-N302", f"{message}: {cause}. Merge rare levels, or leave the term out.")


# Which studies it can run


def _check_study(study: Study) -> None:
    """StudyError for a study that this learner cannot run."""
    check_cox_plan(CoxPlan.of(study))


def _schedule(study: Study) -> Schedule:
    """Rounds of each and server until a server's post says converged."""
    options = CoxPlan.of(study).options
    return Schedule(
        opening=schedule_opening(options.opening),
        loop=("each", "server"),
        closing=("server",),
        max_rounds=options.max_rounds,
    )


def _discloses(study: Study) -> Disclosure:
    return disclose_cox(CoxPlan.of(study))


def _assess(study: Study, rows: int | None) -> Suitability:
    """For studies that name a time and covariates, and for no others."""
    if not isinstance(study.learner.options.get("time"), str):
        return Suitability(8, False, "it models times to an event; the study names no `time`.")
    if len(study.sites) < masked_sum.MIN_PARTIES:
        return Suitability(8, False, f"it needs three sites or more; the study has {len(study.sites)}.")
    return Suitability(-1, True, "it fits hazard ratios of times to an event, with a baseline hazard for each site.")


COX = Learner(
    "cox",
    _VERSION,
    CoxOptions,
    _check_study,
    _schedule,
    cox,
    _discloses,
    reads="codes",
    talks_if=lambda study: CoxPlan.of(study).options.opening == "bits",
    profile=Profile(
        _assess,
        examples=({"ties": "efron"},),
        method="Cox proportional-hazards model, stratified by site,",
    ),
)
