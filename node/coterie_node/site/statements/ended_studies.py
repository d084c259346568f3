"""A site's statements about an ended study: that another result replaces it, and that its rows were inspected.

The ledger takes a supersession with the SHA-256 of its reason. The reason is one raw block of that digest in the store,
so that every reader of the ledger finds the text.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Annotated, Any

from pydantic import Field

from coterie_chain.errors import ChainError
from coterie_chain.ledger.protocol import Event, Ledger, Record
from coterie_chain.store.cid import RAW, Cid
from coterie_chain.store.protocol import BlobStore
from coterie_learners.study.document import Frozen, Text
from coterie_node.data.findings import printable

# Bytes of the longest reason: a Text of 200 characters.
MAX_REASON_BYTES = 800
StudyNumber = Annotated[int, Field(ge=1, lt=1 << 64)]


class InspectionVerdict(IntEnum):
    """The outcome when a site computed its own posts again; the number goes on the ledger."""

    PASSED = 1
    FAILED = 2
    PASSED_IN_PART = 3


VERDICT_WORDS = {
    InspectionVerdict.PASSED: "all its posts follow from these rows",
    InspectionVerdict.FAILED: "its posts or its rows differ",
    InspectionVerdict.PASSED_IN_PART: "those of its posts that can be repeated follow from these rows",
}


class Supersession(Frozen):
    """States that a completed study's result is superseded, by which other (0: none), with a reason for all to read."""

    study: StudyNumber
    reason: Annotated[Text, Field(min_length=1)]
    successor: Annotated[int, Field(ge=0, lt=1 << 64)] = 0

    def cast(self, ledger: Ledger, blobs: BlobStore) -> None:
        """Publish the reason and put the vote on the ledger; PostRejected if the contract does not take it."""
        text = self.reason.encode()
        blobs.put(text)
        ledger.supersede(self.study, self.successor, hashlib.sha256(text).digest())


class Attestation(Frozen):
    """States that this site computed its posts of an ended study again: the digest of the rows, and the outcome."""

    study: StudyNumber
    snapshot: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    verdict: InspectionVerdict

    def cast(self, ledger: Ledger, blobs: BlobStore) -> None:
        """Put the attestation on the ledger; PostRejected if the contract does not take it."""
        ledger.attest(self.study, bytes.fromhex(self.snapshot), self.verdict)


@dataclass(frozen=True)
class RecordedSupersession:
    """A supersession on the ledger; `reason` is empty if no store within reach holds its text."""

    study: int
    successor: int
    time: int
    reason_sha256: str
    reason: str = ""

    @property
    def sentence(self) -> str:
        """The same in words."""
        by = f"by study {self.successor}" if self.successor else "by no other study"
        why = printable(self.reason) or f"the text with SHA-256 {self.reason_sha256}"
        return f"The result of study {self.study} is superseded {by} since {_format_time(self.time)}: {why}"

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return asdict(self)


@dataclass(frozen=True)
class RecordedInspection:
    """An attestation on the ledger; `same_rows`: the site inspected the rows to which it committed when it joined."""

    site: str
    time: int
    snapshot: str
    verdict: int
    same_rows: bool

    @property
    def sentence(self) -> str:
        """The same in words."""
        known = self.verdict in set(InspectionVerdict)
        words = VERDICT_WORDS[InspectionVerdict(self.verdict)] if known else f"verdict {self.verdict}"
        rows = "the rows to which it committed" if self.same_rows else "OTHER rows than those to which it committed"
        return f"{self.site} on {_format_time(self.time)}, with {rows}: {words}"

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return asdict(self)


def find_supersession(
    entries: Iterable[Record | Event], study: int, blobs: BlobStore | None = None
) -> RecordedSupersession | None:
    """The supersession of a study among entries of the ledger, with its reason if the store has it."""
    for event in _list_events(entries, study, "StudySuperseded"):
        details = dict(event.details)
        digest = str(details["reason_sha256"]).removeprefix("0x")
        reason = "" if blobs is None else _read_reason(blobs, bytes.fromhex(digest))
        return RecordedSupersession(study, int(details["successor"]), event.time, digest, reason)
    return None


def list_reason_cids(entries: Iterable[Record | Event], study: int) -> Iterator[str]:
    """CIDs of the reasons for which a study's result was superseded, or was voted to be."""
    for name in ("SupersessionVoted", "StudySuperseded"):
        for event in _list_events(entries, study, name):
            yield str(Cid(1, RAW, bytes.fromhex(str(dict(event.details)["reason_sha256"]).removeprefix("0x"))))


def list_inspections(entries: Iterable[Record | Event], study: int) -> list[RecordedInspection]:
    """The newest attestation of each site with each verdict, the oldest first.

    A site may attest any number of times. Verdicts that nobody knows count as one.
    """
    study_entries = list(entries)
    joined = _list_events(study_entries, study, "StudyJoined")
    commitments = {event.site: str(dict(event.details)["snapshot"]) for event in joined}
    inspections: dict[tuple[str, int], RecordedInspection] = {}
    for event in _list_events(study_entries, study, "SiteAttested"):
        details = dict(event.details)
        snapshot, verdict = str(details["snapshot"]), int(details["verdict"])
        same = commitments.get(event.site) == snapshot
        key = event.site, verdict if verdict in set(InspectionVerdict) else 0
        inspections.pop(key, None)  # the newest stands at its own place in time
        inspections[key] = RecordedInspection(event.site, event.time, snapshot.removeprefix("0x"), verdict, same)
    return list(inspections.values())


def _list_events(entries: Iterable[Record | Event], study: int, name: str) -> list[Event]:
    return [e for e in entries if isinstance(e, Event) and (e.study, e.name) == (study, name)]


def _read_reason(blobs: BlobStore, digest: bytes) -> str:
    """The text of a reason; empty if no store has it, or if it is no text."""
    with suppress(ChainError, UnicodeDecodeError):
        return blobs.get(str(Cid(1, RAW, digest)), MAX_REASON_BYTES).decode()
    return ""


def _format_time(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
