"""What a Cox study discloses."""

from __future__ import annotations

from collections.abc import Iterator

from coterie_learners.core.study_disclosure import (
    Disclosure,
    Protection,
    StepDisclosure,
    conclude_disclosure,
    describe_patients,
)
from coterie_learners.cox.cox_plan import CoxPlan
from coterie_learners.sums.opening.disclosure import (
    disclose_opening,
    list_opening_collusion,
    list_seen_in_opening,
)

_SUMS = (
    "Score, information and logarithm of the partial likelihood over its own risk sets; numbers of patients and events"
)
_WIDTHS = "Whether the sums that neighbouring steps show of its rows reach the floor, by width of the steps"


def disclose_cox(plan: CoxPlan) -> Disclosure:
    """The readers of each sum, and what everybody learns."""
    opens = plan.options.opening if plan.masked else "none"
    steps = (*disclose_opening(opens), *_list_steps(plan), conclude_disclosure())
    others = len(plan.study.sites) - 1
    together = f"The other {others} sites together can compute the sums of the last one. They must not collude."
    if not plan.masked:
        together = "No site has to be trusted not to collude: every member already reads each site's sums."
    collusion = (together, *list_opening_collusion(opens, plan.study.sites))
    seen = (_list_results(plan), *list_seen_in_opening(opens), *describe_patients(plan.study))
    return Disclosure(steps, collusion, seen)


def _list_steps(plan: CoxPlan) -> Iterator[StepDisclosure]:
    protection: Protection = "masked" if plan.masked else "plain"
    if plan.options.baseline == "site":
        third = "; the information's derivative by the coefficients" if plan.options.firth else ""
        yield StepDisclosure("stats/*", "each", f"{_SUMS}{third}", None, "masked")
    else:
        late = ", and of rows that enter" if plan.options.entry is not None else ""
        strata = f" and {plan.options.strata}" if plan.options.strata else ""
        counts = f"Numbers of events, of other rows that leave{late}, by step of time{strata}"
        yield StepDisclosure("grid", "each", _WIDTHS, None, protection)
        risk = () if plan.masked else ("Readers can solve how many of its patients are at risk at each step.",)
        yield StepDisclosure("counts", "each", counts, None, protection, risk)
        sums = f"Sums over its rows at risk of exp(x'b) and x exp(x'b), by step with an event{strata}"
        ties = "; the same over its events" if plan.efron else ""
        yield StepDisclosure("sums/*", "each", f"{sums}{ties}; one matrix", None, protection, _list_solvable(plan))
    yield StepDisclosure("model/*", "server", "The model after each round")
    yield StepDisclosure("closing", "each", f"Sums at the end: {', '.join(_name_closing(plan))}", None, protection)
    yield StepDisclosure("end", "server", "These sums over all sites")


def _list_solvable(plan: CoxPlan) -> tuple[str, ...]:
    neighbours = "Differences of neighbouring steps are sums over the rows that leave or enter between them."
    if plan.floor <= 1:
        return (neighbours, "No floor is set: a step can show one patient's covariates.")
    floor = (
        f"Each site has none or at least {plan.floor} such rows with each pattern of the covariates with few values, "
        "with the event and without. Their other covariates have more values than there are sums about them."
    )
    return neighbours, floor


def _name_closing(plan: CoxPlan) -> Iterator[str]:
    yield "number of patients"
    if not plan.design.weights:
        yield "concordant and discordant pairs of its patients"
    if plan.transform != "none":
        yield "score and information weighted by time"
    if plan.options.robust:
        yield "squares of score residuals"


def _list_results(plan: CoxPlan) -> str:
    if plan.options.baseline == "site":
        return (
            "Everybody learns the sums over all sites of every round, the model after it, and the pooled numbers of "
            "patients and events. No time leaves a site, and no number at risk."
        )
    whose = "over all sites" if plan.masked else "of each site"
    return (
        f"Everybody learns the sums {whose} of every round, the model after it, and at each step with an event the "
        "numbers of patients at risk and of events, so the baseline hazard and survival for any covariates."
    )
