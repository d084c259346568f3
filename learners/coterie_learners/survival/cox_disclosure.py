"""What a Cox study discloses."""

from __future__ import annotations

from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure, conclude_disclosure
from coterie_learners.sums.opening_disclosure import DISCLOSED_COUNTS, disclose_opening
from coterie_learners.survival.cox_plan import CoxPlan

_SUMS = (
    "Score, information and logarithm of the partial likelihood over its own risk sets; numbers of patients and events"
)


def disclose_cox(plan: CoxPlan) -> Disclosure:
    """Who reads which sums, and what everybody learns."""
    opens = plan.options.opening == "counts"
    steps = (
        *(disclose_opening() if opens else ()),
        StepDisclosure("stats/*", "each", _SUMS, None, "masked"),
        StepDisclosure("model/*", "server", "The model after each round"),
        conclude_disclosure(),
    )
    others = len(plan.study.sites) - 1
    together = f"All {others} other sites together can compute the sums of the last one. They must not collude."
    pool = (
        "Everybody learns the sums over all sites of every round, the model after it, and the pooled numbers of "
        "patients and events. No time leaves a site, and no number at risk."
    )
    return Disclosure(steps, (together,), (pool, *((DISCLOSED_COUNTS,) if opens else ())))
