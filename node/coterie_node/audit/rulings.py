"""What each site's release gate ruled on each record, with the study's floors: public, and without any count.

A record holds the ruling and a digest; the floors, what the steps disclose, and the kinds of cells that can be solved
from it follow from the study's document. So anybody with the record can compute the file again, and `audit verify`
does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coterie_chain.ledger.protocol import Record
from coterie_learners.core.disclosure import FLOOR_RULES, Ruling
from coterie_learners.core.registry import learner_of
from coterie_learners.core.study_disclosure import StepDisclosure
from coterie_learners.errors import LearnerError
from coterie_learners.study.document import Study

_RULINGS = {int(ruling): ruling.name.lower().replace("_", " ") for ruling in Ruling}


def list_rulings(study: Study, records: Iterable[Record]) -> dict[str, Any]:
    """The stable JSON keys: the rules, the study's floors, what each step discloses, and the ruling on each record."""
    return {
        "rules": dict(FLOOR_RULES),
        "floors": study.disclosure.model_dump(mode="json"),
        "steps": _describe_steps(study),
        "rulings": [_describe_ruling(record) for record in records if record.kind != "server"],
    }


def _describe_ruling(record: Record) -> dict[str, Any]:
    post = record.post
    ruling = _RULINGS.get(post.verdict[0], f"ruling {post.verdict[0]}")
    place = {"site": record.site, "position": post.position, "attempt": post.attempt, "round": record.round}
    return {**place, "ruling": ruling, "digest": post.verdict.hex()}


def _describe_steps(study: Study) -> list[dict[str, Any]]:
    """What the learner says that each step discloses; nothing where that learner is not installed."""
    try:
        steps = learner_of(study).discloses(study).from_rows
    except LearnerError:
        return []
    return [_describe_step(step) for step in steps]


def _describe_step(step: StepDisclosure) -> dict[str, Any]:
    """One step with the kinds of cells that the gate compares with the floor: of a site, or of the pool under masks."""
    owner = "all sites together" if step.protection == "masked" else "each site"
    place = {"topic": step.topic, "what": step.what, "protection": step.protection}
    return {**place, "cells": list(step.cells), "cells_of": owner}
