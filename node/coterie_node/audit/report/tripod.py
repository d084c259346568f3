"""The items of TRIPOD+AI that the record of a study answers; the others are the authors'.

Collins et al., "TRIPOD+AI statement", BMJ 2024;385:e078378 (doi:10.1136/bmj-2023-078378), table 2: numbers
and topics are those of the checklist, and an item for developments alone is left out of an external validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from coterie_learners.core.fit import Fit, coefficient_table
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_node.audit.printed.evaluation import find_evaluation
from coterie_node.audit.printed.printed_table import PrintedTable

_MISSING = {"drop": "Rows with missing values were left out.", "refuse": "Rows with missing values were not accepted."}


@dataclass(frozen=True)
class TripodItem:
    """One item by its number: what it asks for, and what the record says."""

    number: str
    topic: str
    answer: str


def list_items(study: Study, fit: Fit) -> tuple[TripodItem, ...]:
    """The items that the study and its result answer; nothing for a study without an evaluation."""
    evaluation = find_evaluation(fit.details)
    return () if evaluation is None else tuple(_list_items(study, fit, evaluation))


def _list_items(study: Study, fit: Fit, evaluation: Mapping[str, Any]) -> Iterator[TripodItem]:
    """The items in the checklist's order; 12a, 12c, 15 and 22 are of a development, 12g of an evaluation."""
    external = fit.learner == "validate"
    apart = f"rows that fulfil `{evaluation['where']}`" if "where" in evaluation else "held-out rows"
    kind = "External validation of a published model." if external else f"Development, with evaluation on {apart}."
    yield TripodItem("1", "Title", kind)
    yield TripodItem("6a", "Participants: setting", f"{len(study.sites)} centres: {', '.join(study.sites)}.")
    yield TripodItem("8a", "Outcome", _describe_outcome(study))
    yield TripodItem("9b", "Predictors: definition", _describe_predictors(study))
    yield TripodItem("11", "Missing data", _MISSING.get(study.rows.missing, "Missing values were counted."))
    yield from _list_methods(study, fit, external)
    yield TripodItem("14", "Fairness", _describe_groups(study))
    if not external:
        yield TripodItem("15", "Model output", "The probability of the outcome; no threshold classifies.")
    yield TripodItem("18c", "Protocol", f"Approved by all sites before the first step, SHA-256 {study.hash.hex()}.")
    yield TripodItem("21", "Model development: participants and events", _describe_size(fit, evaluation))
    if not external:
        yield TripodItem("22", "Model specification", _describe_model(study, fit))
    yield TripodItem("23a", "Model performance: estimates", _describe_performance(evaluation["groups"][0]))
    yield TripodItem("23b", "Model performance: heterogeneity", _describe_heterogeneity(evaluation))


def _list_methods(study: Study, fit: Fit, external: bool) -> Iterator[TripodItem]:
    """The items on analytical methods."""
    if not external:
        model = f"{study.formula} ({fit.link} link); learner {study.learner.name}."
        yield TripodItem("12a", "Analytical methods: use of the data", _describe_partition(study))
        yield TripodItem("12c", "Analytical methods: model", model)
    by_site = "quantified by site" if study.evaluate.per_site else "not quantified by site (evaluate.per_site)"
    yield TripodItem("12d", "Analytical methods: heterogeneity", f"Performance was {by_site}.")
    yield TripodItem("12e", "Analytical methods: measures", _MEASURES)
    if external:
        coefficients = study.learner.options["coefficients"].items()
        terms = "; ".join(f"{name} {value:.6g}" for name, value in coefficients)
        text = f"{study.formula} ({fit.link} link): {terms}."
        yield TripodItem("12g", "Analytical methods: predictions", text)


_MEASURES = (
    "Area under the ROC curve with DeLong's limits, Brier score, calibration in the large, intercept and slope, "
    "calibration by range of the score, net benefit."
)


def _describe_outcome(study: Study) -> str:
    name = study.formula.partition("~")[0].strip()
    label = study.variables[name].label
    return f"{name}{f' ({label})' if label else ''}, binary."


def _describe_predictors(study: Study) -> str:
    design = Design(study)
    names = dict.fromkeys(source for name in design.list_covariates() for source in design.sources_of(name))
    used = [f"{name} ({study.variables[name].unit or study.variables[name].type})" for name in names]
    return f"{', '.join(used)}."


def _describe_size(fit: Fit, evaluation: Mapping[str, Any]) -> str:
    group = evaluation["groups"][0]
    rows = f"{group['n']} patients evaluated, {group['events']} with the outcome"
    return f"{rows}." if fit.learner == "validate" else f"{fit.n} patients in the fit; {rows}."


def _describe_partition(study: Study) -> str:
    if study.evaluate.where:
        return f"Rows that fulfil `{study.evaluate.where.strip()}` are evaluated, and the others are fitted."
    share = 100 * study.evaluate.held_out
    return f"{share:g} % held out at each site by a keyed hash of the {'patient' if study.patient else 'row'}."


def _describe_groups(study: Study) -> str:
    by = study.evaluate.by
    return f"Performance by {', '.join(by)}." if by else "No subgroups were declared (evaluate.by)."


def _describe_model(study: Study, fit: Fit) -> str:
    return "; ".join(f"{row.term} {row.estimate:.6g}" for row in coefficient_table(fit)) + "."


def _describe_performance(group: Mapping[str, Any]) -> str:
    area, slope = group["auc"], group.get("slope")
    parts = [] if area is None else [f"AUC {area['value']:.3f} ({area['low']:.3f} to {area['high']:.3f})"]
    parts += [f"Brier score {group['brier']:.4f}"]
    parts += [] if slope is None else [f"calibration slope {slope['estimate']:.3f} (SE {slope['std_error']:.3f})"]
    return f"{'; '.join(parts)}."


def _describe_heterogeneity(evaluation: Mapping[str, Any]) -> str:
    parts = [f"{g['name']} {g['auc']['value']:.3f}" for g in evaluation["groups"][1:] if g["auc"] is not None]
    return f"AUC: {'; '.join(parts)}." if parts else "Not shown by group."


def print_tripod(items: tuple[TripodItem, ...]) -> PrintedTable:
    """The items as a table."""
    lines = ((item.number, item.topic, item.answer) for item in items)
    return PrintedTable(("TRIPOD+AI item", "Topic", "From the record"), tuple(lines))


def items_to_json(items: tuple[TripodItem, ...]) -> list[dict[str, str]]:
    """The items as JSON has them."""
    return [asdict(item) for item in items]
