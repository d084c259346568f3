"""What COLA-GLM discloses, by what its table holds and which patterns it leaves out."""

from __future__ import annotations

from coterie_learners.cola.plan import TablePlan
from coterie_learners.cola.table_disclosure import list_table_kinds
from coterie_learners.core.study_disclosure import Disclosure, StepDisclosure, conclude_disclosure, describe_patients

_SUPPRESSION = {
    "drop": "Patterns with fewer than {floor} rows at a site are not in its table.",
    "impute": "Patterns with fewer than {floor} rows at a site count as half of that; the outcome's sums hold them.",
    "none": "No pattern is left out; the release gate alone checks the floor.",
}


def disclose_cola(plan: TablePlan) -> Disclosure:
    """What a study of plain tables discloses."""
    kinds = list_table_kinds(plan.design)
    step = StepDisclosure("table", "each", describe_table(plan), None, "plain", list_solvable(plan), cells=kinds)
    fit = StepDisclosure("fit", "server", "The fit of all tables together")
    collusion = ("No site has to be trusted not to collude: every member already reads each site's table.",)
    steps = (step, fit, conclude_disclosure())
    return Disclosure(
        steps,
        collusion,
        ("Everybody learns each site's table, and the fit of all of them.", *describe_patients(plan.study)),
    )


def describe_table(plan: TablePlan) -> str:
    """What a table holds, in words."""
    counts = "exposure" if plan.tally.exposure else "rows"
    return f"The table of covariate patterns with the {counts} of each, and {_describe_outcome(plan)}"


def _describe_outcome(plan: TablePlan) -> str:
    if not plan.cells:
        return "the outcome's sum over all rows and by column of the model"
    return "the outcome's sum in each pattern"


def list_solvable(plan: TablePlan) -> tuple[str, ...]:
    """What readers of a table can solve from it, in sentences."""
    return (
        "Readers see how many patients have each pattern of covariates."
        if not plan.tally.exposure
        else "Readers see which patterns of covariates occur.",
        "Readers see the outcome of each pattern."
        if plan.cells
        else "Readers can solve the outcome's sum of each level, and of patterns that the columns determine.",
        describe_suppression(plan),
    )


def describe_suppression(plan: TablePlan) -> str:
    """Which patterns are left out."""
    chosen = plan.options.suppress if plan.floor else "none"
    return _SUPPRESSION[chosen].format(floor=plan.floor)
