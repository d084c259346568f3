"""Models of an outcome with several levels on rows split over sites: multinomial logits, and proportional odds.

GLORE's rounds: after the pool's counts of levels are open, a look at the columns' moments draws a frame, and then each
round sums score, observed information and deviance at the coefficients of that round, under masks. The likelihoods are
concave: Newton-Raphson with step halving ends at their one maximum. Standard errors come from the observed information
there, which is what R's `nnet::multinom` and `MASS::polr` take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.fit import Fit, joint_tests
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts, Script, Site, conclude, each, server
from coterie_learners.errors import NotConverged, ProtocolError, Separation, pluralise
from coterie_learners.glore.category_plan import CategoryPlan
from coterie_learners.glore.category_sums import sum_categories
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.pairwise_sum import pairwise_sum
from coterie_learners.sums import newton, sums_disclosure
from coterie_learners.sums.frame import Frame
from coterie_learners.sums.opening.counts import describe_pool
from coterie_learners.sums.opening.steps import open_pool
from coterie_learners.sums.separation import find_growing, separation

_EPS = float(np.finfo(float).eps)
# As in `sums.newton`: rounding of a step, and an objective that grew by rounding.
_ROUNDING, _WORSE, _MAX_HALVINGS = 8.0, 1e-10, 20
# Patients of the rarest level for each of its coefficients, below which errors are too small (Peduzzi 1996).
_FEW = 10


def fit_category(plan: CategoryPlan, site: Site) -> Script:
    """Looks, then rounds until the step rests."""
    if plan.opens:
        plan = replace(plan, pooled=(yield from open_pool(plan.opening)))
    model = newton.begin(plan.rules)
    for t in range(plan.max_rounds):
        topic = f"stats/{t}"
        sums = plan.look if newton.kind_of(model) == "look" else plan.round
        judged = partial(expose_category, plan, t)
        posts = yield from each(topic, share_category, plan, topic, model, expects=sums.form, reveals=judged)
        model = yield from server(f"model/{t}", step_category, plan, model, posts)
        if model.get("converged", False):
            yield from conclude()
            return build_category_fit(plan, model, t + 1)
    message = f"No convergence in {pluralise(plan.max_rounds, 'round')}"
    raise NotConverged("CO-N101", f"{message}. Raise max_rounds, or look for separation.")


# At a site


def share_category(site: Site, plan: CategoryPlan, topic: str, model: Payload) -> Payload:
    """One site's sums after a server's post."""
    frame = Frame.from_payload(plan.rules.model.layout, model)
    if newton.kind_of(model) == "look":
        return plan.look.post(site, topic, plan.rules.model.look(site.rows, frame))
    theta = np.asarray(model["theta"]) if "theta" in model else plan.start()
    return plan.round.post(site, topic, sum_categories(plan, site.rows, frame, theta))


def expose_category(plan: CategoryPlan, t: int, site: Site, payload: Payload) -> Exposure:
    """What leaves under masks: nothing of this site alone."""
    path = (None,) * (t + 1)
    masked = sums_disclosure.expose_masked_sums(plan.design, plan.family, path, site, site.rows)
    return describe_pool(masked, plan.pooled)


# From the sums of all sites


def step_category(plan: CategoryPlan, last: Payload, posts: Posts) -> Payload:
    """The next server post: a frame, one Newton-Raphson step, half of the last again, or the end."""
    if newton.kind_of(last) == "look":
        sums = plan.look.add(posts)
        plan.rules.model.check("look", sums)
        return newton.advance(plan.rules, last, sums)
    sums = plan.round.add(posts)
    _check_sums(plan, sums)
    theta = np.asarray(last["theta"]) if "theta" in last else plan.start()
    deviance, before = float(sums["deviance"]), float(last["objective"])
    if deviance - before > _WORSE * (abs(deviance) + 0.1):
        return _halve_step(plan, last)
    return _take_newton_step(plan, last, theta, sums)


def _check_sums(plan: CategoryPlan, sums: Mapping[str, Array]) -> None:
    counts, deviance = sums["counts"], float(sums["deviance"])
    if np.any(counts < 0.0) or np.any(counts != np.rint(counts)):
        raise ProtocolError("CO-P503", f"{counts.min():.6g} cannot be a number of patients.")
    if deviance < -newton.WORSE:
        raise ProtocolError("CO-P502", f"The deviance {deviance:.6g} is negative.")
    absent = [level for level, n in zip(plan.levels, counts.tolist(), strict=True) if n == 0]
    if absent:
        message = f"No patient of all sites has {plan.design.formula.outcome} = {absent[0]}"
        raise Separation("CO-N301", f"{message}. Merge the level with another one.")


def _take_newton_step(plan: CategoryPlan, last: Payload, theta: Array, sums: Mapping[str, Array]) -> Payload:
    information = linalg.symmetric(sums["information"], plan.q)
    factor = linalg.cholesky(information, plan.names)
    step = linalg.solve(factor, sums["score"])
    gain = max(linalg.dot(sums["score"], step), 0.0)
    post = {
        **{name: last[name] for name in Frame.from_payload(plan.rules.model.layout, last).payload()},
        "known": 2,
        "base": theta,
        "step": step,
        "objective": float(sums["deviance"]),
        "deviance": float(sums["deviance"]),
        "gain": gain,
        "counts": sums["counts"],
        "halvings": 0,
    }
    if gain <= max(plan.tolerance**2, _measure_noise(plan, theta, information, factor, float(sums["counts"].sum()))):
        root = linalg.invert_lower(factor).T
        return _to_arrays({**post, "theta": theta + step, "root": root, "rests": True, "converged": True})
    if "step" in last:
        _check_growth(plan, gain, step, np.asarray(last["step"]))
    shorter = _order_thresholds(plan, theta, step)
    return _to_arrays({**post, "step": shorter, "theta": theta + shorter, "rests": False})


def _check_growth(plan: CategoryPlan, gain: float, step: Array, before: Array) -> None:
    growing = find_growing(gain, step, before) if len(before) == plan.q else np.zeros(plan.q, dtype=bool)
    if np.any(growing):
        names = [name for name, grows in zip(plan.names, growing.tolist(), strict=True) if grows]
        raise separation(names, plan.rules.advice)


def _order_thresholds(plan: CategoryPlan, theta: Array, step: Array) -> Array:
    """The step, halved until thresholds keep their order: beyond it no likelihood exists."""
    if not plan.ordinal:
        return step
    shorter = step
    while np.any(np.diff((theta + shorter)[: plan.cuts]) <= 0.1 * np.diff(theta[: plan.cuts])):
        shorter = shorter * 0.5
    return shorter


def _halve_step(plan: CategoryPlan, last: Payload) -> Payload:
    count = int(last["halvings"]) + 1
    if count > _MAX_HALVINGS:
        message = f"The deviance still grows after halving a step {_MAX_HALVINGS} times"
        raise NotConverged("CO-N102", f"{message}. Look for separation, or leave a term out.")
    theta = np.asarray(last["base"]) + np.asarray(last["step"]) * 0.5**count
    return _to_arrays({**last, "theta": theta, "halvings": count})


def _measure_noise(plan: CategoryPlan, theta: Array, information: Array, factor: Array, n: float) -> float:
    """The gain that rounding alone may make of the sums (as `newton`)."""
    sizes = linalg.dot(np.abs(theta), np.sqrt(np.maximum(np.diag(information), 0.0)))
    rounding = _ROUNDING * _EPS * (sizes + math.sqrt(n))
    root = linalg.invert_lower(factor)
    trace = math.fsum(pairwise_sum(root * root).tolist())
    return float(rounding * rounding + _ROUNDING * plan.rules.unit**2 * trace)


def _to_arrays(values: Mapping[str, Any]) -> Payload:
    return {name: np.asarray(value) for name, value in values.items()}


# The fit


def build_category_fit(plan: CategoryPlan, model: Payload, rounds: int) -> Fit:
    """The result in the variables' own units, from the last server post."""
    carry, order = plan.carry(Frame.from_payload(plan.rules.model.layout, model)), plan.order
    root = linalg.matmul(carry, np.asarray(model["root"]))
    covariance, estimates = linalg.matmul(root, root.T), linalg.matvec(carry, np.asarray(model["theta"]))
    counts, deviance = np.asarray(model["counts"]), float(model["deviance"])
    n = float(counts.sum())
    warnings = _warn_of_few(plan, counts)
    fit = Fit(
        learner="glore",
        family=plan.family.name,
        link=plan.family.link,
        terms=tuple(plan.names[k] for k in order),
        estimates=estimates[order],
        covariance=covariance[np.ix_(order, order)],
        n=round(n),
        events=None,
        rounds=rounds,
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=deviance,
        null_deviance=-2.0 * math.fsum(c * math.log(c / n) for c in counts.tolist()),
        log_likelihood=-0.5 * deviance,
        ratio=plan.family.ratio,
        notes=(*_describe_levels(plan, counts), *warnings),
        warnings=warnings,
        equations=1 if plan.ordinal else plan.cuts,
        thresholds=plan.cuts if plan.ordinal else 0,
    )
    return replace(fit, details={"tests": joint_tests(fit, _list_terms(plan))})


def _list_terms(plan: CategoryPlan) -> dict[str, tuple[str, ...]]:
    """The coefficients of each term of the formula."""
    if plan.ordinal:
        return plan.design.by_term
    levels = plan.levels[1:]
    return {term: tuple(f"{v}:{name}" for v in levels for name in names) for term, names in plan.design.by_term.items()}


def _describe_levels(plan: CategoryPlan, counts: Array) -> tuple[str, ...]:
    listed = ", ".join(f"{level} {n:.0f}" for level, n in zip(plan.levels, counts.tolist(), strict=True))
    what = f"Patients by level of {plan.design.formula.outcome}: {listed}."
    if not plan.ordinal:
        return (what, f"Coefficients are of a level against {plan.levels[0]}.")
    return (what, "Proportional odds: logit P(outcome <= level) = threshold - x b, as R's polr writes it.")


def _warn_of_few(plan: CategoryPlan, counts: Array) -> tuple[str, ...]:
    rarest, slopes = int(np.argmin(counts)), plan.p - 1
    if counts[rarest] >= _FEW * slopes:
        return ()
    message = f"{pluralise(counts[rarest], 'patient has', 'patients have')} the level {plan.levels[rarest]}"
    advice = f"With fewer than {_FEW} each, estimates are biased away from 0. Shorten the formula."
    return (f"{message} for {pluralise(slopes, 'coefficient')}. {advice}",)
