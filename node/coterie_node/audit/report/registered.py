"""What was registered of a study before it began, against what was done: the report's table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from coterie_chain.ledger.protocol import Record
from coterie_learners.study.document import Registration, Study


@dataclass(frozen=True)
class RegisteredItem:
    """One line of the table: what it is about, what was planned, what was done."""

    item: str
    planned: str
    done: str


def compare_registration(
    study: Study, predecessor: Study | None, records: Iterable[Record], contributors: tuple[str, ...]
) -> list[RegisteredItem]:
    """Planned against done; empty for a study that registered nothing."""
    registration = study.registration
    if registration == Registration():
        return []
    last = max((record.time for record in records), default=0)
    items = [
        RegisteredItem("title", registration.title, study.title or study.name),
        RegisteredItem("objectives", "; ".join(registration.objectives), "stated by the sites, not computed"),
        RegisteredItem("primary outcome", registration.primary_outcome, _name_outcomes(study)),
        RegisteredItem("sites", ", ".join(study.sites), ", ".join(contributors) or "no result"),
        RegisteredItem("analysis plan (SHA-256)", registration.analysis_plan, f"learner {_name_learner(study)}"),
        RegisteredItem("ethics approval", _join(registration.ethics_approval, registration.ethics_letter), "see there"),
        RegisteredItem("data permit", _join(registration.data_permit, registration.permit_expires), _date(last, study)),
        RegisteredItem("registration number", registration.registration_number, "see there"),
    ]
    return [item for item in items if item.planned] + _describe_amendment(study, predecessor)


def _describe_amendment(study: Study, predecessor: Study | None) -> list[RegisteredItem]:
    registration = study.registration
    if not registration.amends:
        return []
    if predecessor is None:
        changes = "its document is not here"
    else:
        names = [n for n in Study.model_fields if n != "registration" and getattr(study, n) != getattr(predecessor, n)]
        changes = f"changed: {', '.join(names)}" if names else "changed: the registration alone"
    return [RegisteredItem(f"amends study {registration.amends[:16]}", changes, registration.amendment_reason)]


def _name_outcomes(study: Study) -> str:
    formulas = [model.formula for model in study.models] or [study.formula]
    return "; ".join(dict.fromkeys(formula.partition("~")[0].strip() for formula in formulas))


def _name_learner(study: Study) -> str:
    return f"{study.learner.name} {study.learner.version}"


def _date(last: int, study: Study) -> str:
    """Day of the last record, and whether it is in the time of the permit."""
    if not last:
        return "no record"
    day = datetime.fromtimestamp(last, UTC).date().isoformat()
    limit = study.registration.last_day
    late = limit is not None and last // 86400 > limit
    return f"last record on {day}{', AFTER the permit expired' if late else ''}"


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)
