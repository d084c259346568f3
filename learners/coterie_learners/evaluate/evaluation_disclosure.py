"""What an evaluation discloses, under masks and in the clear."""

from __future__ import annotations

from coterie_learners.core.study_disclosure import Disclosure, Protection, StepDisclosure
from coterie_learners.evaluate.evaluation_plan import PREFIX, EvaluationPlan
from coterie_learners.sums.opening.labels import disclose_labels

_LOGITS = ("Readers can solve how many patients have the outcome, and mean and spread of the score by outcome.",)


def disclose_evaluation(plan: EvaluationPlan) -> Disclosure:
    """The readers of each count, and what everybody learns, for the steps of an evaluation only."""
    protection: Protection = "masked" if plan.masked else "plain"
    steps = (
        *_disclose_spread(plan, protection),
        StepDisclosure("evaluation/halves", "each", _describe_halves(plan), None, protection),
        StepDisclosure("evaluation/scores", "each", _describe_counts(plan), None, protection, _list_solvable(plan)),
        StepDisclosure("evaluation/pool", "server", "These counts and sums over all sites"),
        StepDisclosure("evaluation/calibration/*", "each", _describe_calibration(plan), None, protection),
        StepDisclosure("evaluation/calibrated/*", "server", "The next estimate of the calibration"),
    )
    return Disclosure(steps, _list_collusion(plan), _list_results(plan))


def disclose_evaluated(plan: EvaluationPlan) -> tuple[StepDisclosure, ...]:
    """What the opening of the evaluated rows discloses; nothing in the clear."""
    if not plan.masked:
        return ()
    what = f"For {_name_patients(plan)}: how many have each level, and the outcome, and whether it has any"
    stop = (
        "The study stops before its fit, and names the level, if the evaluated patients of the pool that have it, or "
        "the outcome, are fewer than the floor, or at one or two sites."
    )
    return disclose_labels(PREFIX), StepDisclosure(f"{PREFIX}opening*", "each", what, None, "masked", (stop,))


def _disclose_spread(plan: EvaluationPlan, protection: Protection) -> tuple[StepDisclosure, ...]:
    if plan.grid.scale != "spread":
        return ()
    what = f"The number of {_name_patients(plan)} by outcome, the sum of the model's logits, and of their squares"
    return (
        StepDisclosure("evaluation/logits", "each", what, None, protection, _LOGITS),
        StepDisclosure("evaluation/spread", "server", "Centre and width of the grid of scores"),
    )


def _name_groups(plan: EvaluationPlan) -> str:
    by = "".join(f", and by {name}" for name in plan.study.evaluate.by)
    return f"all patients{by}{', and by site' if plan.study.evaluate.per_site else ''}"


def _name_patients(plan: EvaluationPlan) -> str:
    rules = plan.study.evaluate
    if rules.where:
        return f"the patients of the rows that fulfil `{rules.where.strip()}`"
    share = rules.held_out
    return f"the held-out patients ({100 * share:g} %)" if share else "the patients"


def _describe_halves(plan: EvaluationPlan) -> str:
    allowed = f"all counts are 0 or at least {plan.floor}, and nobody's outcome follows from the score"
    return f"How far the grid of scores can be halved so that {allowed}"


def _describe_counts(plan: EvaluationPlan) -> str:
    what = "patients with and without the outcome, and sums of scores, by range of the score; squares of score minus"
    return f"For {_name_patients(plan)}: {what} outcome ({_name_groups(plan)})"


def _describe_calibration(plan: EvaluationPlan) -> str:
    return f"Score and information of the model's calibration ({_name_groups(plan)})"


def _list_solvable(plan: EvaluationPlan) -> tuple[str, ...]:
    pure = "with the outcome alone, or without it alone" if plan.sensitive else "with the outcome alone"
    floor = f"No count of a site is from 1 to {plan.floor - 1}, and no range of a site has patients {pure}."
    read = "Readers can solve the table of the score's ranges by the outcome."
    return (read, floor if plan.floor > 1 else "No floor is set: a count can be of one patient.")


def _list_collusion(plan: EvaluationPlan) -> tuple[str, ...]:
    if not plan.masked:
        return ("The counts by score: every member already reads each site's.",)
    small = f", none of which is from 1 to {plan.floor - 1}" if plan.floor > 1 else ""
    others = len(plan.study.sites) - 1
    return (f"The counts by score: all {others} other sites together can compute those of the last one{small}.",)


def _list_results(plan: EvaluationPlan) -> tuple[str, ...]:
    whose = "of all sites together" if plan.masked else "of each site"
    return (
        f"Everybody learns how {_name_patients(plan)} {whose} are spread over the score, with and without the outcome, "
        "so discrimination, calibration and net benefit of the model.",
    )
