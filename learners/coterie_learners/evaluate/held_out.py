"""A learner that fits on a part of each site's patients and evaluates its model on the others.

The learner's own steps use the rows of the fit, those of the evaluation the held-out rows (`parts`); the
release gate judges each part as a release of its own. The evaluation's sums are masked where the learner's are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from coterie_learners.core.fit import Fit
from coterie_learners.core.protocol import Script, Site
from coterie_learners.core.registry import Learner
from coterie_learners.core.study_disclosure import Disclosure
from coterie_learners.errors import StudyError, pluralise
from coterie_learners.evaluate.evaluation_disclosure import disclose_evaluated, disclose_evaluation
from coterie_learners.evaluate.evaluation_plan import EvaluationPlan, check_evaluation
from coterie_learners.evaluate.evaluation_result import write_notes
from coterie_learners.evaluate.evaluation_steps import (
    add_pool,
    build_evaluated_opening,
    evaluate_model,
    open_evaluated,
    stand_on_part,
)
from coterie_learners.evaluate.parts import OwnParts, find_seed
from coterie_learners.evaluate.site_scores import ScoreModel
from coterie_learners.study.document import Schedule, Study
from coterie_learners.sums.opening.steps import OpeningMode, schedule_opening

# Whether the study's link and its sums are masked.
ReadChoice = Callable[[Study], tuple[str | None, bool]]
# Options of models whose probabilities do not follow from the coefficients and a row alone, or whose rows weigh.
_OPTIONS = ("weights", "site_intercepts")


def evaluate_after(read_choice: ReadChoice) -> Callable[[Learner], Learner]:
    """What makes the learner with an evaluation on held-out rows after its fit."""

    def extend(learner: Learner) -> Learner:
        def plan_of(study: Study) -> EvaluationPlan:
            return EvaluationPlan.of(study, *read_choice(study))

        def check(study: Study) -> None:
            learner.check(study)
            check_held_out(study)
            check_evaluation(plan_of(study))

        def script(site: Site) -> Script:
            return fit_and_evaluate(site, learner, plan_of(site.study))

        def schedule(study: Study) -> Schedule:
            own = learner.schedule(study)
            plan = plan_of(study)
            opening = (*schedule_opening(find_mode(plan), build_evaluated_opening(plan)), *own.opening)
            closing = (*own.closing[:-1], *plan.steps, own.closing[-1])
            return own.model_copy(update={"opening": opening, "closing": closing})

        def disclose(study: Study) -> Disclosure:
            plan = plan_of(study)
            return open_disclosure(join_disclosures(learner.discloses(study), disclose_evaluation(plan)), plan)

        return replace(learner, check=check, script=script, schedule=schedule, discloses=disclose, reads="codes")

    return extend


def fit_and_evaluate(site: Site, learner: Learner, plan: EvaluationPlan) -> Script:
    """The learner's steps on the rows of the fit, the evaluation on the others, and the learner's conclusion.

    Under masks the pool of the evaluated rows is opened before anything else, so that a small level stops no fit.
    """
    parts = OwnParts(site, plan.design, by_rows=learner.reads == "rows")
    pooled = (yield from stand_on_part(open_evaluated(plan), parts.to_evaluate)) if plan.masked else None
    own = learner.script(parts.to_fit(site))
    step = next(own)
    while not step.concludes:
        step = own.send((yield replace(step, select=parts.to_fit)))
    fit = _end(own)
    model = ScoreModel(plan, np.asarray(fit.estimates, dtype=np.float64))
    steps = evaluate_model(model) if pooled is None else add_pool(evaluate_model(model), pooled)
    evaluation = yield from stand_on_part(steps, parts.to_evaluate)
    yield step
    return replace(
        fit,
        own=(*fit.own, *describe_neither(parts)),
        details={**fit.details, "evaluation": evaluation},
        notes=(*fit.notes, describe_split(plan.study), *write_notes(evaluation)),
    )


def _end(own: Script) -> Fit:
    """What a script returns after its conclusion, of which it reads nothing."""
    try:
        own.send({})
    except StopIteration as stop:
        if isinstance(stop.value, Fit):
            return stop.value
    raise StudyError("CO-S361", "The learner ends without a model that could be evaluated. Choose glore or cola.")


def describe_split(study: Study) -> str:
    """How patients were held out, in a sentence."""
    if study.evaluate.where:
        return f"The evaluation uses rows that fulfil `{study.evaluate.where.strip()}`; the fit has not seen them."
    who = "patients" if study.patient else "rows"
    share = f"{100 * study.evaluate.held_out:g} % of the {who}"
    return f"The fit holds {share} out, by a hash under {find_seed(study)!r}; it has not seen them."


def describe_neither(parts: OwnParts) -> tuple[str, ...]:
    """How many rows of this site are in neither part, for its own people; nothing at an auditor."""
    count = parts.split.neither if parts.site.data is not None else 0
    if not count:
        return ()
    rows = pluralise(count, "row of this site is", "rows of this site are")
    return (f"{rows} not evaluated: the fit has other rows of the same patients.",)


def check_held_out(study: Study) -> None:
    """StudyError for options of models that held-out rows cannot be given a score by."""
    options = study.learner.options
    wrong = [name for name in _OPTIONS if options.get(name)] + ["robust"] * (options.get("robust") == "patient")
    if wrong or options.get("family", "binomial") != "binomial":
        what = f"the option {wrong[0]}" if wrong else f"the family {options.get('family')!r}"
        message = f"The study keeps rows apart for an evaluation, which goes without {what}"
        raise StudyError("CO-S362", f"{message}. Leave the option out, or evaluate.held_out and evaluate.where.")


def find_mode(plan: EvaluationPlan) -> OpeningMode:
    """How the pool of the evaluated rows is judged before anything else."""
    return "counts" if plan.masked else "none"


def open_disclosure(own: Disclosure, plan: EvaluationPlan) -> Disclosure:
    """What the learner discloses, after what the opening of the evaluated rows does."""
    return replace(own, steps=(*disclose_evaluated(plan), *own.steps))


def join_disclosures(own: Disclosure, evaluation: Disclosure) -> Disclosure:
    """What the learner discloses, with the evaluation before its conclusion."""
    *steps, conclusion = own.steps
    collusion = tuple(dict.fromkeys((*own.collusion, *evaluation.collusion)))
    return Disclosure((*steps, *evaluation.steps, conclusion), collusion, (*own.everybody, *evaluation.everybody))
