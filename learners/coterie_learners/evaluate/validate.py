"""External validation: a published model on the patients of several sites, whose rows it has never seen.

The study gives the model: its formula, its coefficients, its link. Nothing is fitted. The author of the study can
choose coefficients that set few patients apart. So under masks the pool's counts of the formula's levels are opened and
judged first, as those of a fit are (`sums.opening`). Then what leaves a site is that of an evaluation
(`evaluation_steps`), of all of the site's patients.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field as Within

from coterie_learners.core.fit import Fit
from coterie_learners.core.masked_sum import MIN_PARTIES
from coterie_learners.core.profile import Profile, Suitability
from coterie_learners.core.protocol import Script, Site, conclude
from coterie_learners.core.registry import Learner, options_of
from coterie_learners.core.study_disclosure import Disclosure, conclude_disclosure
from coterie_learners.errors import StudyError, Withheld
from coterie_learners.evaluate.evaluation_disclosure import disclose_evaluation
from coterie_learners.evaluate.evaluation_plan import ROUNDS, EvaluationPlan, check_evaluation
from coterie_learners.evaluate.evaluation_result import list_measures, write_notes
from coterie_learners.evaluate.evaluation_steps import add_pool, evaluate_model
from coterie_learners.evaluate.site_scores import ScoreModel
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import Frozen, Schedule, Study, Text
from coterie_learners.study.rows import CodedBlocks
from coterie_learners.sums.opening.counts import Opening
from coterie_learners.sums.opening.disclosure import disclose_opening, list_seen_in_opening
from coterie_learners.sums.opening.steps import OpeningMode, open_pool, schedule_opening

_VERSION = "2"
# Names that a message lists.
_SHOWN = 5


class ValidateOptions(Frozen):
    """The learner section of an external validation.

    `coefficients`: of each column of the formula by its name, "(Intercept)" among them, in the variables' own units.
    `model`: what the model is called, or the SHA-256 of the file with its result; for the record alone. `aggregation`
    auto: masked with three sites or more.
    """

    coefficients: dict[Text, float] = Within(default_factory=dict)
    link: Literal["logit", "probit", "cloglog"] = "logit"
    model: Text = ""
    aggregation: Literal["auto", "masked", "plain"] = "auto"


def plan_validation(study: Study) -> EvaluationPlan:
    """The plan of a study."""
    options = options_of(study, ValidateOptions)
    masked = options.aggregation == "masked" or (options.aggregation == "auto" and len(study.sites) >= MIN_PARTIES)
    return EvaluationPlan.of(study, options.link, masked)


def read_coefficients(plan: EvaluationPlan) -> Array:
    """The coefficients (p,) in the order of the design's columns; StudyError if they are of other columns."""
    given, names = options_of(plan.study, ValidateOptions).coefficients, plan.design.names
    missing, foreign = [name for name in names if name not in given], sorted(set(given) - set(names))
    if missing or foreign:
        faults = [f"no coefficient for {', '.join(missing[:_SHOWN])}"] if missing else []
        faults += [f"a coefficient for {', '.join(foreign[:_SHOWN])}, which is no column"] if foreign else []
        message = f"The study gives {' and '.join(faults)}"
        raise StudyError("CO-S363", f"{message}. The columns are {', '.join(names[: 4 * _SHOWN])}.")
    return np.array([given[name] for name in names], dtype=np.float64)


def validate(site: Site) -> Script:
    """The evaluation of the model that the study gives."""
    plan = plan_validation(site.study)
    steps = evaluate_model(ScoreModel(plan, read_coefficients(plan)))
    evaluation = yield from (_open_first(plan, steps) if plan.masked else steps)
    if not evaluation["groups"]:
        message = f"A site has fewer than {plan.floor} patients with the outcome, or without it, so that nothing was"
        raise Withheld("CO-N161", f"{message} counted. Take part with more patients, or agree on another floor.")
    yield from conclude()
    return build_validation(plan, evaluation)


def _open_first(plan: EvaluationPlan, steps: Script) -> Script:
    """The steps after the pool's counts of the formula's levels, which the gate hears of at each of them."""
    pooled = yield from open_pool(_build_opening(plan))
    return (yield from add_pool(steps, pooled))


def _build_opening(plan: EvaluationPlan) -> Opening:
    return Opening(plan.design, plan.floor, True, lambda site: CodedBlocks(plan.design, site.codes), by_rows=True)


def build_validation(plan: EvaluationPlan, evaluation: dict[str, Any]) -> Fit:
    """The result: each measure that does not depend on the grid as a term, and all in the details."""
    terms, group = dict(list_measures(evaluation)), evaluation["groups"][0]
    options = options_of(plan.study, ValidateOptions)
    model = (f"The model is {options.model}.",) if options.model else ()
    return Fit(
        learner="validate",
        family="validation",
        link=options.link,
        terms=tuple(terms),
        estimates=np.array(list(terms.values())),
        covariance=None,
        n=group["n"],
        events=group["events"],
        rounds=2 + ROUNDS,
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=None,
        null_deviance=None,
        log_likelihood=None,
        notes=(*model, *write_notes(evaluation)),
        details={"evaluation": evaluation},
        selected=True,
    )


# Which studies it can run


def _check_study(study: Study) -> None:
    """StudyError for a study that this learner cannot run."""
    plan = plan_validation(study)
    check_evaluation(plan)
    if study.rows.missing == "keep":
        message = "A row with a missing value has no score"
        raise StudyError("CO-S409", f'{message}. Set rows.missing = "drop".')
    read_coefficients(plan)


def _schedule(study: Study) -> Schedule:
    """The steps of an evaluation, and the conclusion."""
    plan = plan_validation(study)
    return Schedule(
        opening=(*schedule_opening(_find_mode(plan), _build_opening(plan)), *plan.steps), closing=("server",)
    )


def _discloses(study: Study) -> Disclosure:
    plan = plan_validation(study)
    own, mode = disclose_evaluation(plan), _find_mode(plan)
    steps = (*disclose_opening(mode), *own.steps, conclude_disclosure())
    return replace(own, steps=steps, everybody=(*own.everybody, *list_seen_in_opening(mode)))


def _find_mode(plan: EvaluationPlan) -> OpeningMode:
    """How the pool's levels are judged before its scores."""
    return "counts" if plan.masked else "none"


def _assess(study: Study, rows: int | None) -> Suitability:
    """For studies that ask for it."""
    if study.learner.name == "validate":
        return Suitability(-1, True, "it evaluates the model that the study gives, and fits nothing.")
    return Suitability(8, False, "it evaluates a model that the study gives; ask for it by its name.")


VALIDATE = Learner(
    "validate",
    _VERSION,
    ValidateOptions,
    _check_study,
    _schedule,
    validate,
    _discloses,
    reads="values",
    profile=Profile(
        _assess,
        alternatives=({"aggregation": "masked"},),
        examples=({"aggregation": "masked"}, {"aggregation": "plain"}),
        method="validation of a published model",
    ),
)
