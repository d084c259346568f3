"""Newton-Raphson on a partial likelihood from pooled sums, as R's `coxph`: a step at which it falls is halved.

The fit stops when the next step would be shorter than `tolerance` standard errors. A ridge is half the squared
coefficients, which the score, the information and the value have in them. Firth's penalty is half the logarithm of the
information's determinant, which the score and the value have in them (Heinze and Schemper, Biometrics 2001;57:114-119).
"""

from __future__ import annotations

import math

import numpy as np

from coterie_learners.core.payload import Payload
from coterie_learners.cox.cox_plan import CoxPlan
from coterie_learners.cox.likelihood.firth_penalty import FirthPart
from coterie_learners.cox.likelihood.partial_likelihood import Likelihood
from coterie_learners.errors import NotConverged, ProtocolError, Separation
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.sums.frame import power_of_two
from coterie_learners.sums.separation import find_growing

# A likelihood may fall by so much of itself through rounding.
_ROUNDING = 1e-12
# A likelihood that is not known yet.
_UNSEEN = np.asarray(-1e300)


# A variance below this share of the declared range's square is summed again in a unit near its root; of sums that are
# taken about the declared middle, one below the second.
_NARROW, _NARROW_ABOUT_MIDDLE, _LEAST = 2.0**-36, 2.0**-20, 2.0**-60
_MOST_LOOKS = 3


def begin_at_zero(plan: CoxPlan) -> Payload:
    """The model before the first round."""
    zero = np.zeros(plan.p)
    return {"beta": zero, "step": zero, "best": zero, "value": -np.inf, "penalised": -np.inf}


def look_nearer(plan: CoxPlan, last: Payload, information: Array, mean: Array, events: float) -> Payload | None:
    """The model before the first round again, with places and units of columns; None where the first one will do.

    `information` (p, p) and `mean` (p,) are those at coefficients of zero; their columns may lie so close together in
    their declared ranges that the sums have lost them.
    """
    if plan.looks >= _MOST_LOOKS or "null_value" in last or np.any(last["beta"]):
        return None
    variance = np.diag(information) / events
    narrow = plan.measured & (variance < (_NARROW_ABOUT_MIDDLE if np.any(mean) else _NARROW))
    if not np.any(narrow):
        return None
    units = [power_of_two(math.sqrt(max(v, _LEAST))) for v in variance.tolist()]
    places = {"shift": np.where(narrow, mean, 0.0), "units": np.where(narrow, units, 1.0)}
    return {**begin_at_zero(plan), "value": _UNSEEN, "penalised": _UNSEEN, **places, "converged": np.False_}


def falls(last: Payload, plan: CoxPlan, value: float, more: float = 0.0) -> bool:
    """Whether the penalised value is below that of the last best coefficients; `more`: Firth's part of it."""
    beta = np.asarray(last["beta"])
    own = value + more - 0.5 * linalg.dot(plan.penalty, beta * beta)
    return own < float(last["penalised"]) - _ROUNDING * abs(own)


def halve_step(last: Payload) -> Payload:
    """The model half as far from the last best coefficients."""
    half = 0.5 * np.asarray(last["step"])
    return {**last, "beta": last["best"] + half, "step": half, "converged": np.False_}


def take_step(plan: CoxPlan, last: Payload, there: Likelihood, firth: FirthPart | None = None) -> Payload:
    """The next model from the likelihood at the last one's coefficients: further, or at rest."""
    beta = np.asarray(last["beta"])
    score = there.score - plan.penalty * beta + (0.0 if firth is None else firth.score)
    information = there.information + np.diag(plan.penalty)
    factor = linalg.cholesky(information, plan.terms)
    step = linalg.solve(factor, score)
    gain = linalg.dot(step, score)
    if firth is None:  # a penalised likelihood has its maximum
        _check_growth(plan, gain, step, np.asarray(last["step"]))
    more = 0.0 if firth is None else firth.value
    null = last if "null_value" in last else {"null_value": there.value + more, "score_chi2": gain}
    rests = gain <= plan.options.tolerance**2
    return {
        "information": information[np.triu_indices(plan.p)],
        "value": np.asarray(there.value),
        "penalised": np.asarray(there.value + more - 0.5 * linalg.dot(plan.penalty, beta * beta)),
        "best": beta,
        "step": step,
        "gain": np.asarray(gain),
        "null_value": np.asarray(null["null_value"]),
        "score_chi2": np.asarray(null["score_chi2"]),
        "beta": beta if rests else beta + step,
        "converged": np.bool_(rests),
    }


def check_events(plan: CoxPlan, n: float, events: float) -> None:
    """ProtocolError for numbers that no patients can give; Separation without events."""
    if events < 0 or n < events or n != round(n) or events != round(events):
        raise ProtocolError("CO-P504", f"{events:.6g} events of {n:.6g} patients cannot be.")
    if events == 0:
        raise Separation(
            "CO-N301",
            f"No patient of the {n:.0f} has the event {plan.event_name}. Wait for events, or for more sites.",
        )


def refuse_more_rounds(plan: CoxPlan, model: Payload) -> NotConverged:
    """The error of a fit that has not converged."""
    length = float(np.sqrt(model["gain"]))
    message = (
        f"No convergence in {plan.options.max_rounds} rounds: the next step would be {length:.2g} standard errors long"
    )
    return NotConverged("CO-N101", f"{message}. Raise max_rounds, or look for separation.")


def _check_growth(plan: CoxPlan, gain: float, step: Array, before: Array) -> None:
    """Separation (naming columns) if the likelihood is flat and the steps go on in one direction."""
    growing = find_growing(gain, step, before)
    if np.any(growing):
        names = [name for name, grows in zip(plan.terms, growing.tolist(), strict=True) if grows]
        message = f"Coefficients of {', '.join(names)} grow without bound"
        cause = "a level has no events, or its patients always have theirs first"
        raise Separation("CO-N302", f"{message}: {cause}. Merge rare levels, or leave the term out.")
