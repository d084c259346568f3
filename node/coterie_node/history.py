"""Who did what, when: the ledger's entries as rows for people and machines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from coterie_chain.ledger import Event, Ledger, Record
from coterie_learners.disclosure import Ruling
from coterie_node.reasons import words_of


@dataclass(frozen=True)
class Line:
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


def history(
    ledger: Ledger, study: int | None = None, site: str | None = None, kind: str | None = None, turn: int | None = None
) -> Iterator[Line]:
    """The ledger's entries in order, of one study, site, kind of step or event, and round, or of all."""
    for entry in ledger.history(study):
        line = line_of(entry)
        kinds = (line.what, line.kind, line.kind.partition(":")[0])
        if site in (None, line.site) and (kind is None or kind in kinds) and turn in (None, line.round):
            yield line


def line_of(entry: Record | Event) -> Line:
    """One entry as a row."""
    when = datetime.fromtimestamp(entry.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return _event_line(entry, when) if isinstance(entry, Event) else _record_line(entry, when)


def _event_line(event: Event, when: str) -> Line:
    details = dict(event.details)
    return Line(
        block=event.block,
        time=when,
        study=event.study,
        site=event.site,
        what=event.name,
        position=int(details["position"]) if "position" in details else None,
        attempt=int(details["attempt"]) if "attempt" in details else None,
        details=_details(details),
        tx=event.tx,
    )


def _record_line(record: Record, when: str) -> Line:
    post = record.post
    return Line(
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
        verdict=ruling_of(post.verdict),
    )


def ruling_of(verdict: bytes) -> str:
    """A record's verdict of the release gate in words, with its digest; empty for a post that no gate judges."""
    if not any(verdict):
        return ""
    known = {int(ruling): ruling.name.lower().replace("_", " ") for ruling in Ruling}
    return f"{known.get(verdict[0], f'ruling {verdict[0]}')} {verdict.hex()}"


def as_csv(lines: Iterable[Line]) -> str:
    """The rows as CSV; site names are restricted by the study, so no cell can be a formula."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(Line.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(line.as_dict() for line in lines)
    return out.getvalue()


def as_text(lines: Iterable[Line]) -> str:
    """The rows as an aligned table."""
    head = ("block", "time", "study", "site", "what", "step", "round", "bytes", "cid / details")
    body = [
        (
            str(line.block),
            line.time,
            str(line.study or ""),
            line.site,
            line.what,
            "" if line.position is None else f"{line.position}.{line.attempt} {line.kind}".rstrip(),
            "" if line.round is None else str(line.round),
            "" if line.size is None else str(line.size),
            line.cid or line.details,
        )
        for line in lines
    ]
    widths = [max(len(row[k]) for row in [head, *body]) for k in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in [head, *body]
    )


def _details(details: dict[str, str | int]) -> str:
    shown = {k: v for k, v in details.items() if k not in ("position", "attempt", "sealing", "peer")}
    if "reason" in shown:
        shown["reason"] = words_of(int(shown["reason"]))
    return ", ".join(f"{k}={v}" for k, v in shown.items())
