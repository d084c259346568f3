"""The opened result of a Secure Lasso: its form on the ledger, its units, and its words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.errors import ProtocolError, pluralise
from coterie_learners.numeric.array import Array
from coterie_learners.secure.lasso_model import OpenedLasso
from coterie_learners.secure.lasso_plan import LassoPlan
from coterie_learners.secure.moments import SharedSums
from coterie_learners.study.design import Design

UNSEEN = "All iterations were done, and nobody looked whether the fit had settled (check_every = 0): it may not have."


def result_form(plan: LassoPlan) -> Schema:
    """Form of the opened result."""
    columns = plan.m + 1
    single = {"n": Field("<i8"), "variance": Field("<f8"), "iterations": Field("<i8"), "rounds": Field("<i8")}
    fields = {
        **single,
        "shown": Field("<i8", (None,)),
        "coefficients": Field("<f8", (None, columns)),
        "errors": Field("<f8", (None,)),
        "sent": Field("<i8", (len(plan.study.sites),)),
        "transcript": Field("|u1", (32,)),
    }
    extra = {
        "scores": Field("<f8", (len(plan.options.alpha),)),
        "held_out_n": Field("<i8"),
        "held_out_errors": Field("<f8", (None,)),
        "held_out_variance": Field("<f8"),
        "absolute_errors": Field("<f8", (None, None)),
    }
    return Schema({**fields, **extra}, frozenset(extra), lambda post: check_result(plan, post))


def check_result(plan: LassoPlan, post: Payload) -> None:
    """ProtocolError for a result that no computation could open."""
    shown = np.asarray(post["shown"])
    if len(shown) == 0 or np.any(shown < 0) or np.any(shown >= len(plan.options.alpha)):
        raise ProtocolError(
            "CO-P647",
            f"The opened result is for penalties {shown.tolist()}, which the study does not have. "
            "Compare the sites' versions.",
        )
    if int(post["n"]) < 1 or len(shown) != len(post["coefficients"]) or len(shown) != len(post["errors"]):
        message = f"The opened result has {pluralise(int(post['n']), 'row')}, or figures of other penalties"
        raise ProtocolError("CO-P647", f"{message}. Compare the sites' versions.")


def pack_result(plan: LassoPlan, sums: SharedSums, outcome: OpenedLasso) -> Payload:
    """What is opened, as arrays."""
    held_out_rows = sums.counts[-1] if plan.options.held_out else 0
    post: dict[str, Any] = {
        "n": sum(sums.counts) - held_out_rows,
        "shown": np.array(outcome.shown, dtype=np.int64),
        "coefficients": outcome.coefficients,
        "errors": outcome.errors,
        "variance": outcome.variance,
        "iterations": outcome.iterations,
    }
    if outcome.scores is not None:
        post["scores"] = outcome.scores
    if outcome.held_out is not None:
        post |= {
            "held_out_n": held_out_rows,
            "held_out_errors": outcome.held_out[0],
            "held_out_variance": outcome.held_out[1],
        }
    if outcome.absolute:
        post["absolute_errors"] = np.stack(outcome.absolute)
    return {name: np.asarray(value) for name, value in post.items()}


def build_lasso_fit(plan: LassoPlan, post: Payload) -> Fit:
    """The result in the variables' own units: the best penalty's (or the first one's) fit, and all that is shown."""
    chosen = int(np.argmin(post["scores"])) if "scores" in post else int(post["shown"][0])
    place = [int(k) for k in post["shown"]].index(chosen)
    unit = plan.outcome[1] ** 2
    n, error, variance = int(post["n"]), float(post["errors"][place]) * unit, float(post["variance"]) * unit
    coefficients = to_own_units(plan, np.asarray(post["coefficients"]))
    holder = (
        {name: owner for owner in plan.link.owners for name in Design(plan.study, owner).names} if plan.joins else {}
    )
    return Fit(
        learner="secure_lasso",
        family="gaussian",
        link="identity",
        terms=plan.design.names,
        estimates=coefficients[place],
        covariance=None,
        n=n,
        events=None,
        rounds=int(post["rounds"]),
        converged=plan.options.check_every > 0,
        dispersion=max(error, 0.0),
        dispersion_known=False,
        deviance=error * n,
        null_deviance=variance * n,
        log_likelihood=None,
        sites=tuple(holder.get(name, "") for name in plan.design.names) if plan.joins else (),
        notes=notes_of(plan, post, chosen),
        details=_details_of(plan, post, coefficients, chosen),
        selected=True,
    )


def to_own_units(plan: LassoPlan, inside: Array) -> Array:
    """Coefficients (k, m + 1) in the variables' own units."""
    centre, scale = plan.outcome
    slopes = inside[:, 1:] * scale / plan.target.scales
    return np.column_stack([centre + scale * inside[:, 0] - slopes @ plan.middles, slopes])


def _details_of(plan: LassoPlan, post: Payload, coefficients: Array, chosen: int) -> Mapping[str, Any]:
    """Everything that was opened, in units, as JSON has it."""
    scale = plan.outcome[1]
    errors, variance = np.asarray(post["errors"]), float(post["variance"])
    figures: dict[str, Any] = {
        "alpha": plan.options.alpha[chosen],
        "alphas": [plan.options.alpha[int(k)] for k in post["shown"]],
        "coefficients": coefficients.tolist(),
        "r2": [1.0 - e / variance if variance else 0.0 for e in errors.tolist()],
        "mse": (errors * scale**2).tolist(),
        "iterations": int(post["iterations"]),
        "interactive": {
            "rounds": int(post["rounds"]),
            "bytes_sent": dict(zip(plan.study.sites, np.asarray(post["sent"]).tolist(), strict=True)),
            "transcript": bytes(np.asarray(post["transcript"])).hex(),
        },
    }
    if "scores" in post:
        figures["cross_validation_mse"] = (np.asarray(post["scores"]) * scale**2).tolist()
    if "held_out_errors" in post:
        held_out_rows, spread = np.asarray(post["held_out_errors"]), float(post["held_out_variance"])
        figures["held_out"] = {
            "n": int(post["held_out_n"]),
            "r2": [1.0 - e / spread if spread else 0.0 for e in held_out_rows.tolist()],
            "mse": (held_out_rows * scale**2).tolist(),
        }
    if "absolute_errors" in post:
        figures["mae"] = (np.asarray(post["absolute_errors"]) * scale).tolist()
    return figures


def notes_of(plan: LassoPlan, post: Payload, chosen: int) -> tuple[str, ...]:
    """Sentences for people."""
    place = [int(k) for k in post["shown"]].index(chosen)
    r2 = 1.0 - float(post["errors"][place]) / max(float(post["variance"]), 1e-300)
    zeros = int(np.count_nonzero(np.asarray(post["coefficients"])[place, 1:] == 0))
    by = " (least error in cross-validation)" if "scores" in post else ""
    choice = f"alpha {plan.options.alpha[chosen]:g}{by}: R2 {r2:.6f}, {zeros} of {plan.m} coefficients are zero"
    megabytes = np.asarray(post["sent"]) / 1e6
    cost = (
        f"{pluralise(int(post['rounds']), 'round')} between the parties, {megabytes.max():.1f} MB sent by the busiest"
    )
    message = (
        f"{choice}; {pluralise(int(post['iterations']), 'iteration')}, {cost}.",
        *_describe_held_out(plan, post, place),
    )
    return message if plan.options.check_every else (*message, UNSEEN)


def _describe_held_out(plan: LassoPlan, post: Payload, place: int) -> tuple[str, ...]:
    """How well the shown fit predicts the rows held out, and what cross-validation expected."""
    unit, texts = plan.outcome[1] ** 2, []
    if "scores" in post:
        error = float(np.min(post["scores"])) * unit
        texts.append(f"Cross-validation in {plan.options.folds} folds: least mean squared error {error:.6g}.")
    if "held_out_errors" in post:
        error, spread = float(post["held_out_errors"][place]), float(post["held_out_variance"])
        figures = [f"R2 {1.0 - error / max(spread, 1e-300):.6f}", f"mean squared error {error * unit:.6g}"]
        if "absolute_errors" in post:
            absolute = float(np.asarray(post["absolute_errors"])[1, place]) * plan.outcome[1]
            figures.append(f"mean absolute error {absolute:.6g}")
        dealt = "chance" if plan.options.seed is None else f"seed {plan.options.seed}"
        texts.append(f"{pluralise(int(post['held_out_n']), 'row')} held out by {dealt}: {', '.join(figures)}.")
    return tuple(texts)
