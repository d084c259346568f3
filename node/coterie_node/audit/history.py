"""The ledger's entries (who did what, and when) as rows for people and machines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from coterie_chain.ledger.protocol import Event, Ledger, Record
from coterie_learners.core.disclosure import Ruling
from coterie_node.run.reasons import describe_reason
from coterie_node.site.statements.joining import format_release

# what has a column of its own, or is nothing that people read
_HIDDEN = ("position", "attempt", "sealing", "peer", "motion")


@dataclass(frozen=True)
class HistoryEntry:
    """One entry: when (block and UTC time), who, what, in which study and at which step; details in words."""

    block: int
    time: str
    study: int
    site: str
    what: str
    kind: str = ""
    round: int | None = None
    position: int | None = None
    attempt: int | None = None
    cid: str = ""
    sha256: str = ""
    size: int | None = None
    details: str = ""
    tx: str = ""
    verdict: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys and CSV columns."""
        return asdict(self)


ENTRY_COLUMNS = tuple(field.name for field in fields(HistoryEntry))


def history(ledger: Ledger, study: int | None = None) -> Iterator[HistoryEntry]:
    """The ledger's entries in order, of one study or of all."""
    return (to_history_entry(entry) for entry in ledger.history(study))


def to_history_entry(entry: Record | Event) -> HistoryEntry:
    """One entry as a row."""
    when = datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _event_line(entry, when) if isinstance(entry, Event) else _record_line(entry, when)


def _event_line(event: Event, when: str) -> HistoryEntry:
    details = dict(event.details)
    return HistoryEntry(
        block=event.block,
        time=when,
        study=event.study,
        site=event.site,
        what=event.name,
        position=int(details["position"]) if "position" in details else None,
        attempt=int(details["attempt"]) if "attempt" in details else None,
        details=_format_details(details),
        tx=event.tx,
    )


def _record_line(record: Record, when: str) -> HistoryEntry:
    post = record.post
    return HistoryEntry(
        block=record.block,
        time=when,
        study=post.study,
        site=record.site,
        what="Recorded",
        kind=record.kind,
        round=record.round,
        position=post.position,
        attempt=post.attempt,
        cid=post.cid,
        sha256=post.sha256.hex(),
        size=post.size,
        details=f"record {record.seq}" + (", converged" if post.converged else ""),
        tx=record.tx,
        verdict=describe_ruling(post.verdict),
    )


def describe_ruling(verdict: bytes) -> str:
    """A record's verdict of the release gate in words, with its digest; empty for a post that no gate judges."""
    if not any(verdict):
        return ""
    ruling_names = {int(ruling): ruling.name.lower().replace("_", " ") for ruling in Ruling}
    return f"{ruling_names.get(verdict[0], f'ruling {verdict[0]}')} {verdict.hex()}"


def _format_details(details: dict[str, str | int]) -> str:
    visible = {k: v for k, v in details.items() if k not in _HIDDEN and v != ""}
    if "reason" in visible:
        visible["reason"] = describe_reason(int(visible["reason"]))
    if "release" in visible:
        visible["release"] = format_release(int(visible["release"]))
    return ", ".join(f"{k}={v}" for k, v in visible.items())
