"""The facts about the model in a result, so that a prediction needs only the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coterie_learners.study.design import design_of
from coterie_learners.study.document import IN_EVALUATION, Study
from coterie_learners.study.preparation.plan import list_sources


def make_model_card(study: Study) -> dict[str, Any]:
    """Formula, the declarations of the variables that it reads, and the cohort where one is named, as JSON has them.

    A study of several models has a card for each.
    """
    if study.models:
        return {"models": {name: make_model_card(part) for name, part in study.by_model.items()}}
    names = design_of(study).inputs if not study.columns else tuple(study.variables)
    mark = IN_EVALUATION if study.evaluate.where else ""  # no prediction reads it
    used = [name for name in study.variables if name in names and name != mark]
    named = {"name": study.cohort.name, "complete": sorted(study.cohort.complete)}
    named |= {"where": list(study.cohort.where)} if study.cohort.where else {}
    derived, sources = _list_derived(study, used)
    return {
        "formula": study.formula,
        "variables": {name: study.variables[name].model_dump(mode="json", exclude_defaults=True) for name in used},
        **({"cohort": named} if study.cohort.name or study.cohort.where else {}),
        **({"derived": derived} if derived else {}),
        **({"sources": sources} if sources else {}),
    }


def _list_derived(study: Study, used: Sequence[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """How the derived variables come, and the declarations of the columns behind them; none of those of patients."""
    plan = study.preparation
    if plan is None:
        return {}, {}
    if any(name in plan.patient_derived for name in used):
        return {name: study.derive[name] for name in used if name in study.derive}, {}
    behind = list_sources(study, used)
    derived = {name: text for name, text in study.derive.items() if name in behind}
    raw = {name: declared for name, declared in study.variables.items() if name in behind and name not in derived}
    return derived, {name: declared.model_dump(mode="json", exclude_defaults=True) for name, declared in raw.items()}
