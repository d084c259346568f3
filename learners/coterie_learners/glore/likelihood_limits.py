"""Limits of the profile likelihood, by rounds of sums at two points for each coefficient.

Venzon and Moolgavkar, Appl Stat 1988;37:87-94. The limits of a coefficient c'b at level 0.95 are its least and largest
value among all b whose deviance is at most the fit's plus the 0.95 quantile of chi-squared on one degree of freedom.
From a point b with score u, information I and deviance d, the point of the quadratic model that ends at this deviance
D is b + I^-1 u -+ l I^-1 c, with l^2 = (D - d + u' I^-1 u) / (c' I^-1 c). The first such step, from the fit, is Wald's
limit.

A site posts the score (p) and the deviance of each point, and no information: each point keeps an information of its
own, which begins as that of the fit and learns from the change of the score over each step (BFGS; Nocedal and Wright
2006, section 6.1). So a round costs a site about as much as two of GLORE's, and its sums are few numbers. If they would
be as many as the rows of the pool, the limits are Wald's.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from coterie_learners.core.disclosure import PATTERNS, Exposure
from coterie_learners.core.fit import LEVEL, Fit
from coterie_learners.core.masked_sum import MIN_PARTIES, SiteSums, size_of
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts, Site, Step, each, server
from coterie_learners.core.study_disclosure import Disclosure, Protection, StepDisclosure
from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.glore.standardised_means import LevelColumns, shape_means
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.study.elsewhere import over_blocks
from coterie_learners.study.rows import Block
from coterie_learners.sums.opening.counts import describe_pool
from coterie_learners.sums.sums_disclosure import list_patterns

if TYPE_CHECKING:
    from coterie_learners.glore.glore import GlorePlan

_POINTS = "Score and deviance at two points for each coefficient, near the limits of its interval"
_SOLVABLE = ("If no more patterns of covariates occur than numbers are posted, readers can solve each one's patients.",)
# What a round changes of each point.
_MOVING = ("points", "steps", "scores", "information", "settled")
# The 0.95 quantile of chi-squared on one degree of freedom.
RISE = 3.841458820694124
# Rounds after which a limit that has not settled is not looked for any longer.
LIMIT_ROUNDS = 30
# So many rounds are counted on.
_FEW_ROUNDS = 8
# A change of the score over a step that is less than this share of the expected one says nothing of the information.
_STRAIGHT = 1e-3
# A limit has settled when its last step was shorter than so many standard errors.
_SETTLED = 1e-9
# A point whose deviance rose by so many times the rise is too far out: half of the step is made.
_TOO_FAR = 4.0
# A step of a coefficient of a standardised column, beyond which means could leave all bounds.
_LONGEST = 5.0
# The fit's deviance is the least, up to so much of itself.
_ROUNDING = 1e-8
# More coefficients have points whose sums are too many numbers for a post.
MOST_TERMS = 60


def looks_for_limits(plan: GlorePlan, n: float) -> bool:
    """Whether limits are looked for on so many rows of the pool: not if that many numbers are opened of them."""
    numbers = _FEW_ROUNDS * size_of(shape_points(plan))
    return plan.profiles and (plan.study.disclosure.cell <= 1 or numbers <= n)


def find_limits(plan: GlorePlan, rounds: int, model: Payload) -> Generator[Step, Posts, Array]:
    """The limits (p, 2) of all coefficients in the variables' own units, NaN where one was not found.

    `rounds`: how many rounds of sums the fit took; `model`: the post that ended it.
    """
    state = begin_at_wald(plan, model)
    for t in range(LIMIT_ROUNDS):
        topic, sums = f"limits/{t}", SiteSums(shape_points(plan), plan.masked)
        judge = partial(expose_limit_sums, plan, rounds, t)
        posts = yield from each(topic, share_points, plan, topic, sums, model, state, expects=sums.form, reveals=judge)
        state = yield from server(f"limits_model/{t}", step_points, plan, sums, model, state, posts, t)
        if state["converged"]:
            break
    return read_limits(plan, model, state)


def shape_points(plan: GlorePlan) -> dict[str, tuple[int, ...]]:
    """Shapes of a site's sums at the points (2 p)."""
    return {"score": (2 * plan.p, plan.p), "deviance": (2 * plan.p,)}


def begin_at_wald(plan: GlorePlan, model: Payload) -> Payload:
    """Wald's limits as points (2 p, p) in the frame: first all lower ones, then all upper ones."""
    root = np.asarray(model["root"])
    carry = plan.frame(model).carry
    # I^-1 c of each coefficient, as rows.
    leads = linalg.matmul(linalg.matmul(carry, root), root.T)
    errors = np.sqrt(np.array([linalg.dot(c, d) for c, d in zip(carry, leads, strict=True)]))
    steps = np.sqrt(RISE) * leads / errors[:, None]
    steps = np.array([_limit_step(step) for step in (*-steps, *steps)])
    return {
        "points": np.asarray(model["beta"]) + steps,
        "steps": steps,
        # The score of the fit is nothing.
        "scores": np.zeros_like(steps),
        "information": np.tile(np.asarray(model["information"]), (len(steps), 1)),
        "errors": errors,
        "settled": np.zeros(len(steps), dtype=bool),
        "converged": np.False_,
    }


# At a site


def share_points(site: Site, plan: GlorePlan, topic: str, sums: SiteSums, model: Payload, state: Payload) -> Payload:
    """This site's score and deviance at each point."""
    rows, frame, points = plan.rows_of(site), plan.frame(model), np.asarray(state["points"])
    out = {name: np.zeros(shape) for name, shape in shape_points(plan).items()}

    def sum_block(block: Block) -> dict[str, Array]:
        here = plan.model.weigh(frame.block(block))
        part = {name: np.zeros(shape) for name, shape in shape_points(plan).items()}
        own = np.ones(len(here)) if here.weight is None else here.weight
        for k, point in enumerate(points):
            eta = here.x @ point if here.offset is None else here.x @ point + here.offset
            parts = plan.family.parts(eta, here.y)
            part["score"][k] = here.x.T @ (parts.residual * own)
            part["deviance"][k] = parts.deviance @ own
        return part

    for part in over_blocks(sum_block, rows):
        out = {name: out[name] + part[name] for name in out}
    return sums.post(site, topic, out)


def expose_limit_sums(plan: GlorePlan, rounds: int, t: int, site: Site, payload: Payload) -> Exposure:
    """What readers can solve from one site's sums at all points of t + 1 rounds, after those of the fit."""
    rows, what = plan.rows_of(site), f"Sums at the points of round {t} (score, deviance)"
    exposure = Exposure(what=what, rows=rows.n, parties=len(site.parties))
    if plan.masked:
        return describe_pool(replace(exposure, sums_only=True), plan.pooled)
    own = size_of(shape_points(plan))
    means = size_of(shape_means(plan, LevelColumns.of(plan.design, o))) if (o := plan.options.standardise) else 0
    numbers = rounds * size_of(plan.model.shapes("first")) + means + (t + 1) * own
    patterns = list_patterns(plan.design, rows, numbers)
    enough = len(plan.study.sites) >= MIN_PARTIES
    instead = 'set aggregation = "masked"' if enough else 'set intervals = "wald"'
    exposure = replace(exposure, cells=patterns, kinds=dict.fromkeys(patterns, PATTERNS), by_columns=True)
    return replace(exposure, numbers=own, instead=instead)


# From the sums of all sites


def step_points(plan: GlorePlan, sums: SiteSums, model: Payload, last: Payload, posts: Posts, t: int) -> Payload:
    """The next points; they have converged where all have settled, or the rounds have ended."""
    pooled, least = sums.add(posts), float(model["deviance"])
    if float(np.min(pooled["deviance"])) < least - _ROUNDING * (abs(least) + 1.0):
        message = f"A deviance of {float(np.min(pooled['deviance'])):.8g} is below that of the fit, {least:.8g}"
        raise ProtocolError("CO-P508", f"{message}, which no rows can give.")
    carry, after = plan.frame(model).carry, {name: np.array(last[name]) for name in _MOVING}
    for k in np.flatnonzero(~after["settled"]).tolist():
        j, side = k % plan.p, -1.0 if k < plan.p else 1.0
        rise = float(pooled["deviance"][k]) - least
        if rise > _TOO_FAR * RISE:
            after["steps"][k] = 0.5 * after["steps"][k]
            after["points"][k] = after["points"][k] - after["steps"][k]
            continue
        _move_point(plan, after, k, pooled["score"][k], side * carry[j], RISE - rise)
        after["settled"][k] = abs(linalg.dot(carry[j], after["steps"][k])) <= _SETTLED * float(last["errors"][j])
    ends = bool(np.all(after["settled"])) or t + 1 == LIMIT_ROUNDS
    return {**last, **after, "converged": np.bool_(ends)}


def _move_point(plan: GlorePlan, after: dict[str, Array], k: int, score: Array, c: Array, missing: float) -> None:
    """Move point k to where its deviance should have risen by what is missing."""
    before = linalg.symmetric(after["information"][k], plan.p)
    information = _learn(before, after["steps"][k], after["scores"][k] - score)
    step = _limit_step(_step_to_rise(plan, information, score, c, missing))
    after["points"][k], after["steps"][k], after["scores"][k] = after["points"][k] + step, step, score
    after["information"][k] = information[np.triu_indices(plan.p)]


def _learn(information: Array, step: Array, fall: Array) -> Array:
    """An information (p, p) that gives this fall of the score over this step, and is else as it was."""
    along, bend = linalg.matvec(information, step), linalg.dot(fall, step)
    before = linalg.dot(along, step)
    if not bend > _STRAIGHT * before:
        return information
    return np.asarray(information - np.outer(along, along) / before + np.outer(fall, fall) / bend)


def add_limits(fit: Fit, limits: Array | None) -> Fit:
    """The fit with these limits (p, 2) in place of Wald's; None: they were not looked for."""
    if limits is None:
        cause = "the sums for those of the profile likelihood would be as many numbers as there are rows"
        return replace(fit, notes=(*fit.notes, f"Intervals are Wald's: {cause}."))
    low, high = (column.tolist() for column in limits.T)
    lost = [term for term, pair in zip(fit.terms, limits, strict=True) if not np.all(np.isfinite(pair))]
    notes = [f"Intervals are of the profile likelihood ({100 * LEVEL:g} %); at another level they are Wald's."]
    notes += [f"A limit of {', '.join(lost)} was not found in {LIMIT_ROUNDS} rounds."] if lost else []
    details = {**fit.details, "intervals": {"kind": "profile", "level": LEVEL, "low": low, "high": high}}
    return replace(fit, notes=(*fit.notes, *notes), details=details)


# Which studies can have them


def check_limits(plan: GlorePlan) -> None:
    """StudyError for a study whose fit has no profile likelihood here."""
    o, family = plan.options, plan.family
    simple = family.dispersion == "known" and family.concave
    simple = simple and not (family.shaped or family.bounded or family.linear)
    if not simple or o.firth or o.ridge or o.site_intercepts or plan.robust:
        message = "Profile-likelihood intervals are of binomial and Poisson models, without firth, ridge, "
        raise StudyError("CO-S354", f'{message}site_intercepts, robust and sampling weights. Set intervals = "wald".')
    if plan.p > MOST_TERMS:
        message = f"Profile-likelihood intervals of {plan.p} coefficients; the limit is {MOST_TERMS}"
        raise StudyError("CO-S354", f'{message}. Shorten the formula, or set intervals = "wald".')
    if plan.study.ledger.silent_site == "exclude":
        message = "The fit of all sites and limits of fewer would not belong together"
        raise StudyError("CO-S306", f'{message}. Set silent_site = "wait" or "abort".')


def disclose_limits(disclosure: Disclosure, masked: bool) -> Disclosure:
    """What the rounds disclose, with those of the limits before the conclusion."""
    *steps, end = disclosure.steps
    protection: Protection = "masked" if masked else "plain"
    rebuilds = () if masked else _SOLVABLE
    limits = StepDisclosure("limits/*", "each", _POINTS, None, protection, rebuilds, cells=(PATTERNS,), occasional=True)
    what = "The points at which the likelihood is looked at next"
    after = StepDisclosure("limits_model/*", "server", what, occasional=True)
    return replace(disclosure, steps=(*steps, limits, after, end))


def _step_to_rise(plan: GlorePlan, information: Array, score: Array, c: Array, missing: float) -> Array:
    """The step to where the quadratic model of the deviance has risen by what is missing, in the direction of c."""
    factor = linalg.cholesky(information, plan.design.names)
    ahead, lead = linalg.solve(factor, score), linalg.solve(factor, c)
    square = (missing + linalg.dot(score, ahead)) / linalg.dot(c, lead)
    return np.asarray(ahead + np.sqrt(max(square, 0.0)) * lead)


def _limit_step(step: Array) -> Array:
    """A step of which no coefficient of a standardised column is longer than the longest safe one."""
    longest = float(np.max(np.abs(step)))
    return step if longest <= _LONGEST else step * (_LONGEST / longest)


def read_limits(plan: GlorePlan, model: Payload, state: Payload) -> Array:
    """The limits (p, 2) in the variables' own units."""
    frame, p = plan.frame(model), plan.p
    ends = [float(frame.outside(point)[k % p]) for k, point in enumerate(np.asarray(state["points"]))]
    values = np.where(np.asarray(state["settled"]), np.array(ends), np.nan)
    return np.stack([values[:p], values[p:]], axis=1)
