"""The opened result of a Secure GLM: its form on the ledger, its units, and its words."""

from __future__ import annotations

from typing import Any

import numpy as np

from coterie_learners.core import model_warnings
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.errors import ProtocolError, pluralise
from coterie_learners.numeric.array import Array
from coterie_learners.secure_glm.glm_plan import GlmPlan
from coterie_learners.secure_glm.shared_newton import GlmOutcome
from coterie_learners.study.design import Design


def declare_result(plan: GlmPlan) -> Schema:
    """Form of the opened result."""
    p, o = plan.m + 1, plan.options
    single = ("n", "iterations", "rounds") + ("events",) * o.null_deviance
    fields = {
        **{name: Field("<i8") for name in single},
        "coefficients": Field("<f8", (p,)),
        "covariance" if o.covariance else "variances": Field("<f8", (p, p) if o.covariance else (p,)),
        "deviance": Field("<f8"),
        "sent": Field("<i8", (len(plan.study.sites),)),
        "transcript": Field("|u1", (32,)),
    }
    return Schema(fields, frozenset(), check_opened)


def check_opened(post: Payload) -> None:
    """ProtocolError for a result that no computation could open."""
    n, events = int(post["n"]), int(post.get("events", 0))
    variances = np.diagonal(post["covariance"]) if "covariance" in post else np.asarray(post["variances"])
    finite = all(np.all(np.isfinite(np.asarray(post[name]))) for name in ("coefficients", "deviance"))
    if n < 1 or not 0 <= events <= n or not finite or not np.all(variances > 0.0):
        what = f"The opened result has {n} rows, {events} events, or variances that are not above zero"
        raise ProtocolError("CO-P647", f"{what}. Compare the sites' versions.")


def pack_outcome(outcome: GlmOutcome) -> Payload:
    """What is opened, as arrays."""
    post: dict[str, Any] = {
        "n": outcome.n,
        "iterations": outcome.iterations,
        "coefficients": outcome.coefficients,
        "deviance": outcome.deviance,
    }
    if outcome.covariance is None:
        post["variances"] = outcome.variances
    else:
        post["covariance"] = outcome.covariance
    if outcome.events is not None:
        post["events"] = outcome.events
    return {name: np.asarray(value) for name, value in post.items()}


def build_glm_fit(plan: GlmPlan, post: Payload) -> Fit:
    """The result in the variables' own units."""
    n, deviance = int(post["n"]), float(post["deviance"])
    events = int(post["events"]) if "events" in post else None
    units = np.concatenate([[1.0], plan.scales])
    advice = model_warnings.advise_on_few_events(plan.study)
    warnings = (
        () if events is None else model_warnings.warn_of_few_events(n, events, plan.m, binary=True, advice=advice)
    )
    holder = {name: owner for owner in plan.study.owners for name in Design(plan.study, owner).names}
    ridge = model_warnings.warn_of_ridge(plan.options.ridge)
    return Fit(
        learner="secure_glm",
        family="binomial",
        link="logit",
        terms=plan.design.names,
        estimates=np.asarray(post["coefficients"]) / units,
        covariance=_read_covariance(post) / np.outer(units, units),
        n=n,
        events=events,
        rounds=int(post["rounds"]),
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=deviance,
        null_deviance=None if events is None else compute_null_deviance(n, events),
        log_likelihood=-0.5 * deviance,
        ratio="OR",
        sites=tuple(holder.get(name, "") for name in plan.design.names) if plan.joins else (),
        notes=(*ridge, *warnings, describe_cost(post)),
        warnings=warnings,
        details=list_details(plan, post),
    )


def _read_covariance(post: Payload) -> Array:
    """The covariance (p, p), NaN off the diagonal where only variances were opened."""
    if "covariance" in post:
        return np.asarray(post["covariance"])
    variances = np.asarray(post["variances"])
    out = np.full((len(variances), len(variances)), np.nan)
    np.fill_diagonal(out, variances)
    return out


def compute_null_deviance(n: int, events: int) -> float:
    """The deviance of the model with an intercept only."""
    counts = np.array([events, n - events], dtype=np.float64)
    shares = np.where(counts > 0.0, counts / n, 1.0)
    return float(-2.0 * np.sum(counts * np.log(shares)))


def describe_cost(post: Payload) -> str:
    """Iterations, rounds and bytes in a sentence."""
    megabytes = float(np.asarray(post["sent"]).max()) / 1e6
    rounds = f"{pluralise(int(post['rounds']), 'round')} between the parties, {megabytes:.1f} MB sent by the busiest"
    return f"{pluralise(int(post['iterations']), 'evaluation')} of the likelihood and a last one, {rounds}."


def list_details(plan: GlmPlan, post: Payload) -> dict[str, Any]:
    """What else was opened, as JSON has it."""
    return {
        "iterations": int(post["iterations"]),
        "interactive": {
            "rounds": int(post["rounds"]),
            "bytes_sent": dict(zip(plan.study.sites, np.asarray(post["sent"]).tolist(), strict=True)),
            "transcript": bytes(np.asarray(post["transcript"])).hex(),
        },
    }
