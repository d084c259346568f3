"""What a table of characteristics discloses, under masks and in the clear."""

from __future__ import annotations

from coterie_learners.core.study_disclosure import Disclosure, Protection, StepDisclosure, conclude_disclosure
from coterie_learners.sums.opening.labels import SEEN_IN_LABELS, disclose_labels
from coterie_learners.table_one.table_plan import CharacteristicsPlan


def disclose_table(plan: CharacteristicsPlan) -> Disclosure:
    """The readers of each count, and what everybody learns."""
    protection: Protection = "masked" if plan.masked else "plain"
    steps = (
        StepDisclosure("floors", "each", _describe_floors(plan), None, protection),
        StepDisclosure("counts", "each", _describe_counts(plan), None, protection, _list_solvable(plan)),
        StepDisclosure("means", "server", "These counts and sums over all sites"),
        StepDisclosure("squares", "each", "Sums of squares of numbers about the pooled means", None, protection),
        *_list_columns(plan),
        StepDisclosure("table", "server", "All of these over all sites"),
        conclude_disclosure(),
    )
    labels = (disclose_labels(),) if plan.masked else ()
    return Disclosure((*labels, *steps), _list_collusion(plan), _list_results(plan))


def _describe_floors(plan: CharacteristicsPlan) -> str:
    by = " by group and" if plan.groups else ""
    return f"For each variable whether its counts{by} for all patients are 0 or at least {plan.floor}"


def _describe_counts(plan: CharacteristicsPlan) -> str:
    lacking = ", and of missing values" if plan.lacks else ""
    rate = f", events and person-time ({plan.options.event}, {plan.options.time})" if plan.has_rate else ""
    by = f", by {plan.group.name}" if plan.group is not None else ""
    return f"Counts of patients by level and by bin{lacking}, sums of numbers{rate}{by}"


def _list_columns(plan: CharacteristicsPlan) -> tuple[StepDisclosure, ...]:
    if not plan.options.by_site:
        return ()
    what = (
        "A column of its own patients in the clear, without groups: what the table shows, as far as every site passes "
        "the floor with it"
    )
    return (StepDisclosure("columns", "each", what, None, "plain"),)


def _list_solvable(plan: CharacteristicsPlan) -> tuple[str, ...]:
    pairs = f"each variable with {plan.group.name}" if plan.group is not None else "single variables"
    what = f"Readers can solve the table of {pairs}, and of numbers mean and standard deviation."
    floor = f"No count of a site is from 1 to {plan.floor - 1}; what would have such a count is not shown."
    return (what, floor if plan.floor > 1 else "No floor is set: a count can be of one patient.")


def _list_collusion(plan: CharacteristicsPlan) -> tuple[str, ...]:
    if not plan.masked:
        return ("No site has to be trusted not to collude: every member already reads each site's counts.",)
    others = len(plan.study.sites) - 1
    small = f", none of which is from 1 to {plan.floor - 1}" if plan.floor > 1 else ""
    return (f"The other {others} sites together can compute the counts and sums of the last one{small}.",)


def _list_results(plan: CharacteristicsPlan) -> tuple[str, ...]:
    whose = "of all sites together" if plan.masked else "of each site"
    passes = "how many sites pass the floor with each variable" if plan.masked else "which variables each site passes"
    seen = (SEEN_IN_LABELS,) if plan.masked else ()
    site = (
        ("Everybody learns each site's own column: its counts, means and deviations.",) if plan.options.by_site else ()
    )
    return (f"Everybody learns the counts, sums and squares {whose}, so the table, and {passes}.", *site, *seen)
