"""What a result says of its model beside the numbers, so that a prediction needs the result alone."""

from __future__ import annotations

from typing import Any

from coterie_learners.study.design import Design
from coterie_learners.study.document import Study


def make_model_card(study: Study) -> dict[str, Any]:
    """Formula, the declarations of the variables that it reads, and the cohort where one is named, as JSON has them.

    Of a study of several models a card for each.
    """
    if study.models:
        return {"models": {name: make_model_card(part) for name, part in study.by_model.items()}}
    names = Design(study).inputs if not study.columns else tuple(study.variables)
    used = [name for name in study.variables if name in names]
    named = {"name": study.cohort.name, "complete": sorted(study.cohort.complete)}
    named |= {"where": list(study.cohort.where)} if study.cohort.where else {}
    derived = {name: study.derive[name] for name in used if name in study.derive}
    return {
        "formula": study.formula,
        "variables": {name: study.variables[name].model_dump(mode="json", exclude_defaults=True) for name in used},
        **({"cohort": named} if study.cohort.name or study.cohort.where else {}),
        **({"derived": derived} if derived else {}),
    }
