"""What a study does with a site's rows before its model reads them, in words: for approval, disclosure and report."""

from __future__ import annotations

from coterie_learners.study.document import Study, Variable
from coterie_learners.study.preparation.plan import Preparation

# More derived variables than this are counted, not listed, in a paragraph.
_MOST = 12


def list_preparation(study: Study) -> tuple[str, ...]:
    """A sentence for conditions, patients and each derived variable; nothing if a site takes its rows as they are."""
    plan = study.preparation
    if plan is None:
        return ()
    rules = [rule.text for rule in plan.row_rules]
    out = [f"A site uses only rows that fulfil {_join_rules(rules)}."] if rules else []
    if plan.by_patient:
        order = f", in the order of {plan.order!r}" if plan.order else ""
        out.append(f"The rows of one patient ({study.patient!r}) are taken together{order}.")
    if plan.patient_rules:
        out.append(f"It uses only patients that fulfil {_join_rules([rule.text for rule in plan.patient_rules])}.")
    derived = [f"{name} = {text} ({_describe(study.variables[name])})." for name, text in _list_derived(study, plan)]
    out += [f"Derived at the site: {text}" for text in derived]
    if study.evaluate.where:
        out.append(
            f"The model is evaluated on rows that fulfil `{study.evaluate.where.strip()}`, and fitted on the others."
        )
    return tuple(out)


def _list_derived(study: Study, plan: Preparation) -> list[tuple[str, str]]:
    return [(name, study.derive[name]) for name in plan.derived if name in study.derive]


def describe_preparation(study: Study) -> str:
    """The same as a paragraph, with a blank before it; empty if a site takes rows as they are."""
    sentences = list_preparation(study)
    more = f" {len(sentences) - _MOST} more variables are derived." if len(sentences) > _MOST else ""
    return "".join(f" {sentence}" for sentence in sentences[:_MOST]) + more


def _join_rules(rules: list[str]) -> str:
    return ", then ".join(f"`{text.strip()}`" for text in rules)


def _describe(variable: Variable) -> str:
    if variable.type == "category":
        return f"category: {', '.join(variable.levels[:12])}"
    if variable.type in ("number", "count"):
        low, high = variable.bounds
        return f"{variable.type}, {low:.6g} to {high:.6g} {variable.unit}".rstrip()
    return variable.type
