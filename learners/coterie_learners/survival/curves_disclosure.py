"""What a study of survival curves discloses, under masks and in the clear."""

from __future__ import annotations

from coterie_learners.core.study_disclosure import (
    Disclosure,
    Protection,
    StepDisclosure,
    conclude_disclosure,
    describe_patients,
)
from coterie_learners.sums.opening.labels import SEEN_IN_LABELS, disclose_labels
from coterie_learners.survival.plan import CurvePlan


def disclose_curves(plan: CurvePlan) -> Disclosure:
    """The readers of each count, and what everybody learns."""
    protection: Protection = "masked" if plan.masked else "plain"
    late = " and entries" if plan.options.entry is not None else ""
    causes = " of each cause" if plan.causes else ""
    counts = f"Numbers of events{causes}{late} and of censored patients, by step of time{_name_tables(plan)}"
    steps = (
        StepDisclosure("grid", "each", _describe_widths(plan), None, protection),
        StepDisclosure("counts", "each", counts, None, protection, _list_solvable(plan)),
        StepDisclosure("curves", "server", "These numbers over all sites"),
        conclude_disclosure(),
    )
    labels = (disclose_labels(),) if plan.masked else ()
    return Disclosure((*labels, *steps), _list_collusion(plan), _list_results(plan))


def _describe_widths(plan: CurvePlan) -> str:
    return f"Whether each of its counts is 0 or at least {plan.floor}, by width of the steps"


def _name_tables(plan: CurvePlan) -> str:
    names = [name for name in (plan.options.group, plan.options.strata) if name is not None]
    return f", by {' and '.join(names)}" if names else ""


def _list_solvable(plan: CurvePlan) -> tuple[str, ...]:
    risk = "Readers can solve how many patients are at risk at each step, and all curves and tests."
    floor = f"No count of a site is from 1 to {plan.floor - 1}, and nowhere have all patients at risk an event."
    return (risk, floor if plan.floor > 1 else "No floor is set: a step can show one patient's time.")


def _list_collusion(plan: CurvePlan) -> tuple[str, ...]:
    if not plan.masked:
        return ("No site has to be trusted not to collude: every member already reads each site's counts.",)
    others = len(plan.study.sites) - 1
    small = f", none of them from 1 to {plan.floor - 1}" if plan.floor > 1 else ""
    return (f"The other {others} sites together can compute the counts of the last one{small}.",)


def _list_results(plan: CurvePlan) -> tuple[str, ...]:
    whose = "of all sites together" if plan.masked else "of each site"
    widths = "how many sites pass the floor at each width of steps" if plan.masked else "which widths each site passes"
    event = "each of the causes" if plan.causes else "the event"
    return (
        f"Everybody learns the numbers {whose} who have {event}, who are censored and who are at risk at each step"
        f"{_name_tables(plan)}, so the curves and tests, and {widths}.",
        "A site's gate compares these counts with those of its earlier studies: on two grids of time, or of some "
        "patients more, the counts that follow from both must keep the floor too.",
        *((SEEN_IN_LABELS,) if plan.masked else ()),
        *describe_patients(plan.study),
    )
