"""What Secure GLM discloses, joined or by rows, and by what it opens."""

from __future__ import annotations

from coterie_learners.core.disclosure import indicators, two_way
from coterie_learners.core.study_disclosure import (
    Disclosure,
    StepDisclosure,
    conclude_disclosure,
    describe_patients,
)
from coterie_learners.secure.lasso_disclosure import (
    describe_inputs,
    describe_join_trust,
    disclose_join,
    disclose_terms,
)
from coterie_learners.secure_glm.glm_plan import GlmPlan
from coterie_learners.study.rows import Block

_TWO = (
    "Each of two hospitals can take its own part off what is opened. At the result it then knows the other's score, "
    "and one equation for each standard error and for the deviance. If the model has few binary columns only, these "
    "give the other's counts."
)
_COVARIANCE = (
    "The whole covariance gives each of two hospitals the other's X'WX exactly: for rare binary columns, counts of "
    "patients."
)
_EVENTS = "The null deviance gives each of two hospitals the other's number of events exactly."
_SIZES = "{} learn how many patients each site with rows has."
_BITS = (
    "Everybody learns whether columns are independent and, {}, whether the fit has settled. "
    "If not, the study ends and nothing else is opened."
)


def disclose_glm(plan: GlmPlan) -> Disclosure:
    """What a study discloses."""
    opened = _describe_opened(plan)
    terms = disclose_terms("A commitment to its rows")
    begin = disclose_join(plan.link) if plan.joins else (terms,)
    inputs = describe_inputs(plan.link if plan.joins else None)
    fit = StepDisclosure("fit", "each", f"{inputs}, and what is opened is {opened}", talks=True)
    names = ", ".join(plan.computing)
    trust = (
        f"No two of {names} may collude: together they could read every row that they compute on.",
        "All parties must follow the protocol: one that deviates can spoil the result, and is noticed only if shares "
        "of what is opened contradict each other.",
    )
    joined = describe_join_trust(plan.link) if plan.joins else ()
    return Disclosure((*begin, fit, conclude_disclosure("each")), (*trust, *joined), tuple(_list_lessons(plan, opened)))


def _list_lessons(plan: GlmPlan, opened: str) -> list[str]:
    """What everybody learns, and what follows from it where rows are split over few sites."""
    every = plan.options.check_every
    when = "after each evaluation" if every == 1 else f"every {every} evaluations"
    lessons = [f"Everybody learns {opened}.", _BITS.format(when)]
    if plan.joins:
        return lessons
    lessons.append(_SIZES.format(", ".join(plan.computing)))
    if len(plan.study.owners) == 2:
        lessons.append(_TWO)
    lessons += [_EVENTS] * plan.options.null_deviance + [_COVARIANCE] * plan.options.covariance
    return [*lessons, *describe_patients(plan.study)]


def _describe_opened(plan: GlmPlan) -> str:
    o = plan.options
    errors = "their whole covariance" if o.covariance else "their standard errors"
    events = ["the number of events with the null deviance"] * o.null_deviance
    parts = ["the coefficients", errors, "the number of patients", "the residual deviance", *events]
    return f"{', '.join(parts)}, and the number of iterations"


# Which counts of one site follow from the result


def count_cells(plan: GlmPlan, rows: Block) -> tuple[dict[str, int], dict[str, str]]:
    """Counts of this site's patients that others can work out from what is opened, and each count's kind.

    With two hospitals each can subtract its own part. If all columns are binary, the result's equations give the
    other's tables. With the number of events they give the outcome by each binary column, and with the covariance each
    level and pair of levels, whatever the other columns are.
    """
    o, at = plan.options, indicators(plan.design)
    binary = len(plan.study.owners) == 2 and len(at) == plan.m and not plan.design.formula.offset
    events, n = rows.y.sum(), len(rows.y)
    cells = {"events": int(events), "patients without the event": n - int(events)} if o.null_deviance else {}
    kinds: dict[str, str] = {}
    if binary or o.null_deviance or o.covariance:
        x = rows.x[:, at]
        tables, kinds = two_way(plan.design, n, x.T @ x, (float(events), x.T @ rows.y))
        outcome = plan.design.formula.outcome
        of_outcome = {name for name, kind in kinds.items() if kind == outcome or kind.endswith(f" by {outcome}")}
        shown = {True: binary or o.null_deviance, False: binary or o.covariance}
        cells |= {name: count for name, count in tables.items() if shown[name in of_outcome]}
    return cells, kinds
