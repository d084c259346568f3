"""What a learner is to the rest of the house, and where learners are found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from coterie_learners.core.profile import Profile
from coterie_learners.errors import StudyError, reword_fault
from coterie_learners.study.document import LearnerChoice, Schedule, Study

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from coterie_learners.core.protocol import Script, Site
    from coterie_learners.core.study_disclosure import Discloses

GROUP = "coterie.learners"
_FUNCTIONS = ("options", "check", "schedule", "script", "discloses")
# What people call a learner elsewhere.
_OTHER_LEARNERS = {
    **dict.fromkeys(("glm", "logistic", "linear", "regression", "poisson", "logit", "ols", "lm"), "glore"),
    **dict.fromkeys(("coxph", "cox_ph", "proportional_hazards"), "cox"),
    **dict.fromkeys(("km", "kaplan_meier", "survival", "survfit"), "survival_curves"),
    **dict.fromkeys(("tableone", "table1", "characteristics"), "table_one"),
    **dict.fromkeys(("iptw", "ipw", "psm", "propensity_score"), "propensity"),
    **dict.fromkeys(("validation", "evaluate", "external_validation"), "validate"),
    "lasso": "secure_lasso",
}
_CLUSTER = 'Clusters are the rows of a patient (robust = "patient") or of a site (robust = "site"). '
# What people call an option elsewhere: the option that the learner must have, and what to write.
_OTHER_OPTIONS = {
    **dict.fromkeys(("cluster", "clusters", "id", "groups"), (("robust", _CLUSTER),)),
    **dict.fromkeys(("vcov", "se", "standard_errors", "cov_type", "sandwich"), (("robust", "Write robust. "),)),
    **dict.fromkeys(("alpha", "lambda", "penalty", "l2"), (("ridge", "Write ridge. "), ("alpha", "Write alpha. "))),
    **dict.fromkeys(("max_iter", "maxit", "iterations", "max_iterations"), (("max_rounds", "Write max_rounds. "),)),
    **dict.fromkeys(("tol", "epsilon", "eps"), (("tolerance", "Write tolerance. "),)),
    **dict.fromkeys(("weight", "case_weights"), (("weights", "Write weights. "),)),
    "offset": (("family", "Write offset(variable) into the formula. "),),
    "strata": (("site_intercepts", "Write site_intercepts = true, or the variable into the formula. "),),
}
Options = TypeVar("Options", bound=BaseModel)
Reads = Literal["rows", "codes", "values"]


@dataclass(frozen=True)
class Learner:
    """A protocol with a name and a version; replay with another version is refused.

    `options` validates the study's learner section. `check` raises StudyError for a study that this learner cannot run.
    `schedule` gives the step kinds that the contract enforces. `script` is the protocol itself; it returns the Fit of
    what its site may know, or None. `discloses` states for a study with its options: the readers of each step, what
    they can work out, and who must not collude. `splits`: how its studies may be split over sites. `reads`: what a
    site's data are to the script where rows are split: rows of the design matrix (`site.rows`), the variables' values
    (`site.codes`), or "values": these with missing ones (NaN) among them, and without the checks of a model's columns.
    If columns are split, they are in `site.columns`. `reads_if`: what they are in studies of another form. `talks`: a
    step is interactive, for which the sites must reach each other; `talks_if`: in some studies one is. `evaluate` makes
    the learner that fits a part of the rows and evaluates its model on the others; None where that is not possible.
    `several` gives the learner that runs a study of several models ([[models]]) in its place; None where it fits one at
    a time. `by_blocks`: whether it asks for sums of blocks alone in a study, so that rows may lie on other machines.
    `profile`: what it says of itself to people who choose, and to lists of all learners.
    """

    name: str
    version: str
    options: type[BaseModel]
    check: Callable[[Study], None]
    schedule: Callable[[Study], Schedule]
    script: Callable[[Site], Script]
    discloses: Discloses
    reads: Reads = "rows"
    splits: tuple[Literal["rows", "columns"], ...] = ("rows",)
    talks: bool = False
    profile: Profile = field(default_factory=Profile)
    helpers: bool = False
    talks_if: Callable[[Study], bool] = lambda _: False
    reads_if: Callable[[Study], Reads | None] = lambda _: None
    several: Callable[[], Learner] | None = None
    evaluate: Callable[[Learner], Learner] | None = None
    by_blocks: Callable[[Study], bool] = lambda _: False

    def needs_channel(self, study: Study) -> bool:
        """Whether the sites must reach each other in a step of this study."""
        return self.talks or self.talks_if(study)


def learner_of(study: Study) -> Learner:
    """The installed learner that the study names; StudyError if it is missing or of another version."""
    learner = find_learner(study.learner.name)
    if study.learner.version != learner.version:
        raise StudyError(
            "CO-S402",
            f"The study pins {learner.name} {study.learner.version or '(no version)'}; installed is {learner.version}. "
            "Install the pinned version of coterie, or propose the study again with the installed version.",
        )
    reads = learner.reads_if(study)
    if reads is not None:
        learner = replace(learner, reads=reads)
    if study.models:
        learner = _of_several_models(learner)
    if study.evaluate.apart:
        learner = _evaluate_after(learner, study)
    if study.rows.shared_patients == "ignore":
        return learner
    from coterie_learners.core.shared_patients import count_first  # only studies that count need what it imports

    return count_first(learner)


def _of_several_models(learner: Learner) -> Learner:
    if learner.several is None:
        message = f"The study has several models, of which {learner.name} fits one at a time"
        raise StudyError("CO-S420", f"{message}. Propose a study for each, or choose glore.")
    return learner.several()


def _evaluate_after(learner: Learner, study: Study) -> Learner:
    """The learner with the evaluation on held-out rows; StudyError if it has none."""
    if learner.evaluate is None:
        several = " of several models" if study.models else ""
        message = f"The study{several} keeps rows apart for an evaluation, which {learner.name} does not make"
        raise StudyError(
            "CO-S364",
            f"{message}. Leave evaluate.held_out and evaluate.where out, or choose glore or cola with one model.",
        )
    return learner.evaluate(learner)


def list_learners() -> list[str]:
    """The names of all installed learners."""
    return sorted(_find_entries(tuple(sys.path)))


@lru_cache(maxsize=4)
def _find_entries(path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    """The entry points of learners by name.

    A search reads the metadata of every package on the path, and a daemon asks for its learner at each turn: a path is
    searched once in a process. After the installation of a learner, processes must be started again.
    """
    return {e.name: e for e in entry_points(group=GROUP)}


def find_learner(name: str) -> Learner:
    """An installed learner by name, from the entry points in the group coterie.learners."""
    entries = _find_entries(tuple(sys.path))
    if name not in entries:
        near = _OTHER_LEARNERS.get(name.lower(), "")
        wish = f" Write {near!r}." if near in entries else ""
        message = f"There is no learner {name!r} here. Installed: {', '.join(sorted(entries))}.{wish}"
        raise StudyError("CO-S401", message)
    learner = entries[name].load()
    if not isinstance(learner, Learner):
        raise StudyError(
            "CO-S403",
            f"The entry point {name!r} leads to {learner!r:.80}, which is not a Learner. Correct the package.",
        )
    _check_parts(learner)
    return learner


def _check_parts(learner: Learner) -> None:
    """StudyError for a learner that lacks a part, because nobody could run it, check it, or consent to it."""
    missing = [part for part in _FUNCTIONS if not callable(getattr(learner, part))]
    if missing:
        raise StudyError(
            "CO-S407",
            f"The learner {learner.name!r} has no function {' and no '.join(missing)}. Correct the package; "
            "without `discloses` nobody can know what a study discloses.",
        )


def complete_study(study: Study) -> Study:
    """The study with its learner's version and all of its options written out, checked by the learner."""
    learner = find_learner(study.learner.name)
    supplied_options = study.learner
    chosen = LearnerChoice(
        name=supplied_options.name,
        version=supplied_options.version or learner.version,
        **options_of(study, learner.options).model_dump(),
    )
    models = [_complete_model(study, name, learner.options) for name in study.by_model]
    completed = Study.model_validate({**study.model_dump(), "learner": chosen.model_dump(), "models": models})
    check_choice(completed)
    return completed


def _complete_model(study: Study, name: str, options: type[BaseModel]) -> dict[str, Any]:
    """A model with the options that it sets itself, in the learner's own types."""
    model = next(model for model in study.models if model.name == name)
    checked = options_of(study.by_model[name], options)
    values = checked.model_dump(mode="json") | {key: getattr(checked, key) for key in model.options}
    return {"name": name, "formula": model.formula, **{key: values[key] for key in model.options}}


def check_choice(study: Study) -> None:
    """StudyError for a study that its learner cannot run."""
    learner = learner_of(study)
    if study.split not in learner.splits:
        message = f"The study splits {study.split} over its sites; {learner.name} takes {' or '.join(learner.splits)}"
        raise StudyError("CO-S405", f"{message}. Choose another learner, or correct [columns].")
    if study.rows.missing == "keep" and learner.reads != "values":
        message = f"The study keeps rows with missing values, which {learner.name} cannot take"
        raise StudyError("CO-S409", f'{message}. Set rows.missing = "drop", or choose table_one, which counts them.')
    if study.helpers and not learner.helpers:
        names = ", ".join(study.helpers)
        message = f"{names} would take part without data, which {learner.name} has no use for where rows are split"
        raise StudyError("CO-S408", f"{message}. Remove `helpers` and these sites, or choose another learner.")
    learner.check(study)


def options_of(study: Study, model: type[Options]) -> Options:
    """The study's learner options in the learner's own type."""
    try:
        return model.model_validate(study.learner.options)
    except ValidationError as error:
        raise StudyError("CO-S404", _explain_option(error, study.learner.name, model)) from None


def _explain_option(error: ValidationError, learner: str, model: type[BaseModel]) -> str:
    """The first option that is wrong, and what it takes; of an option of several forms, each form."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    where = str(faults[0]["loc"][0]) if faults[0]["loc"] else "learner"
    if faults[0]["type"] == "extra_forbidden":
        advice = next(
            (text for needs, text in _OTHER_OPTIONS.get(where.lower(), ()) if needs in model.model_fields), ""
        )
        names = ", ".join(sorted(model.model_fields))
        return f"{learner} has no option {where!r}. {advice}Its options are {names}."
    forms = [f for f in faults if f["loc"][:1] == faults[0]["loc"][:1]]
    depth = 2 if len(forms) > 1 else 1
    inner = [".".join(map(str, f["loc"][depth:])) for f in forms]
    said = [f"{k}: {text}" if k else text for k, text in zip(inner, map(_reword, forms), strict=True)]
    return f"The learner option {where!r}: {', or '.join(dict.fromkeys(said))}."


def _reword(fault: ErrorDetails) -> str:
    return reword_fault(fault["type"], str(fault["loc"][-1]) if fault["loc"] else "", fault["msg"])
