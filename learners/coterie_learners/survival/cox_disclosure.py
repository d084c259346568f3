"""What a Cox study discloses."""

from __future__ import annotations

from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure, conclude_disclosure, describe_patients
from coterie_learners.sums.opening.disclosure import (
    disclose_opening,
    list_opening_collusion,
    list_seen_in_opening,
)
from coterie_learners.survival.cox_plan import CoxPlan

_SUMS = (
    "Score, information and logarithm of the partial likelihood over its own risk sets; numbers of patients and events"
)


def disclose_cox(plan: CoxPlan) -> Disclosure:
    """Who reads which sums, and what everybody learns."""
    opens = plan.options.opening
    steps = (
        *disclose_opening(opens),
        StepDisclosure("stats/*", "each", _SUMS, None, "masked"),
        StepDisclosure("model/*", "server", "The model after each round"),
        conclude_disclosure(),
    )
    others = len(plan.study.sites) - 1
    together = f"The other {others} sites together can compute the sums of the last one. They must not collude."
    pool = (
        "Everybody learns the sums over all sites of every round, the model after it, and the pooled numbers of "
        "patients and events. No time leaves a site, and no number at risk."
    )
    collusion = (together, *list_opening_collusion(opens, plan.study.sites))
    return Disclosure(steps, collusion, (pool, *list_seen_in_opening(opens), *describe_patients(plan.study)))
