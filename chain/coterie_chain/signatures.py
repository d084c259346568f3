"""Every entry must be what its site's own key signed: the very call, with the very content.

The contracts hold that on any chain whose blocks were honestly made. Here it is checked once more from the transactions
alone, so that it holds on a development chain too, whose operator can write any block and any log, but cannot sign.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coterie_chain.calldata import bytes32, codec, unhexed
from coterie_chain.decode import CAUSES
from coterie_chain.errors import LedgerMismatch
from coterie_chain.heads import post_tuple
from coterie_chain.ledger import Event, Record
from coterie_chain.receipts import Call
from coterie_chain.referee import step_of
from coterie_chain.rules import MAX_STEPS
from coterie_chain.study_state import EACH, SERVER

Entry = Record | Event
Details = Mapping[str, Any]
CATALOG, MODEL = codec("Catalog"), codec("Model")
NOT_CALLED = Call("", "", b"")


class Signatures:
    """Follows the sites' keys through a history; `catalog` and `models` (by site id) are the addresses called."""

    def __init__(self, catalog: str, models: Mapping[int, str], calls: Mapping[str, Call], advice: str) -> None:
        self._catalog, self._models, self._calls, self._advice = catalog.lower(), models, calls, advice
        self._keys: dict[str, str] = {}
        self._ids: dict[str, int] = {}
        self._hashes: dict[int, bytes] = {}
        self._declined: Mapping[str, tuple[int, ...]] = {}

    def check(self, entries: Sequence[Entry]) -> None:
        """LedgerMismatch (CO-C357) names the first entry that its site's key did not sign as it stands there."""
        self._declined = _declined_together(entries)
        for k, entry in enumerate(entries):
            before = entries[k - 1] if k else None
            following = entries[k + 1] if k + 1 < len(entries) else None
            if _is_outcome(entry, before):
                self._learn(entry)
                continue
            if isinstance(entry, Event) and entry.name == "SiteAdmitted":  # a founder: the deployer's call
                self._learn(entry)
                continue
            self._check_one(entry, following)
            self._learn(entry)

    def _check_one(self, entry: Entry, following: Entry | None) -> None:
        call = self._calls.get(entry.tx, NOT_CALLED)
        key = self._keys.get(entry.site, "")
        if isinstance(entry, Event) and entry.name == "KeyChanged":
            key = str(dict(entry.details)["key"]).lower()  # the new key accepts its seat itself
        if not call.sender or call.sender != key:
            raise self._fault(entry, f"was signed by {call.sender or 'nobody'}, not by the key of {entry.site}")
        try:
            to, data = self._wanted(entry, following)
        except (KeyError, ValueError, TypeError, OverflowError, AttributeError):
            raise self._fault(entry, "asks for something that no move of the contracts is") from None
        if (call.to, call.data) != (to, data):
            raise self._fault(entry, f"was signed by {entry.site} for another call or another content")

    def _wanted(self, entry: Entry, following: Entry | None) -> tuple[str, bytes]:
        if isinstance(entry, Record):
            return self._models[self._ids[entry.site]], unhexed(MODEL.encode("record", post_tuple(entry.post)))
        details: Details = {**dict(entry.details), "by": entry.site}
        if entry.name == "StudyProposed":
            joining = dict(following.details) if isinstance(following, Event) else {}
            return self._catalog, self._propose(details, _joining(joining))
        if entry.name == "StudyDeclined":
            details = {**details, "studies": self._declined[entry.tx]}
        if entry.name == "StudyJoined":
            details = {**details, "hash": self._hashes[entry.study]}
        move, values = MOVES[entry.name]
        return self._catalog, unhexed(CATALOG.encode(move, *values(entry.study, details, self._ids)))

    def _propose(self, d: Details, joining: tuple[bytes, bytes, int]) -> bytes:
        order = bytes(self._ids[name] for name in _split(d["sites"]))
        words = [bytes(map(self._code, _split(d[p]))).ljust(MAX_STEPS, b"\0") for p in ("opening", "loop", "closing")]
        values = (unhexed(d["hash"]), order, words, d["max_rounds"], d["timeout"], d["silence"], d["least"])
        return unhexed(CATALOG.encode("propose", values, joining))

    def _code(self, kind: str) -> int:
        return {"each": EACH, "server": SERVER}.get(kind) or self._ids[kind.removeprefix("only:")]

    def _learn(self, entry: Entry) -> None:
        if not isinstance(entry, Event):
            return
        details = dict(entry.details)
        if entry.name in ("SiteAdmitted", "KeyChanged"):
            self._keys[str(details["name"])] = str(details["key"]).lower()
        if entry.name == "StudyProposed":
            self._hashes[entry.study] = unhexed(str(details["hash"]))
        if entry.name == "SiteAdmitted":
            self._ids[str(details["name"])] = len(self._ids) + 1

    def _fault(self, entry: Entry, why: str) -> LedgerMismatch:
        what = f"record {entry.seq}" if isinstance(entry, Record) else entry.name
        place = f"{what} of {entry.site} ({step_of(entry) or 'membership'}, block {entry.block})"
        return LedgerMismatch(
            "CO-C357", f"The transaction of {place} {why}. {self._advice}", entry.site, step_of(entry)
        )


def _is_outcome(entry: Entry, before: Entry | None) -> bool:
    """Whether the contract wrote this entry because of the one before, in the same transaction."""
    if not isinstance(entry, Event):
        return False
    if entry.name in ("StudyStarted", "StudyCompleted"):
        return True
    causes = {**CAUSES, "StudyJoined": ("StudyProposed",)}.get(entry.name, ())
    return isinstance(before, Event) and before.name in causes and before.tx == entry.tx


def _joining(d: Details) -> tuple[bytes, bytes, int]:
    return unhexed(d["snapshot"]), unhexed(d["approvals"]), d["release"]


def _declined_together(entries: Sequence[Entry]) -> dict[str, tuple[int, ...]]:
    """The studies that each transaction declined, in order."""
    studies: defaultdict[str, tuple[int, ...]] = defaultdict(tuple)
    for entry in entries:
        if isinstance(entry, Event) and entry.name == "StudyDeclined":
            studies[entry.tx] += (entry.study,)
    return studies


def _split(names: object) -> list[str]:
    return str(names).split(",") if names else []


Values = Callable[[int, Details, Mapping[str, int]], tuple[object, ...]]

# Each move's name in the contract, and its arguments from what its event tells.
MOVES: dict[str, tuple[str, Values]] = {
    "StudyJoined": ("join", lambda s, d, ids: (s, d["hash"], _joining(d))),
    "StudyDeclined": ("decline", lambda s, d, ids: (d["studies"], d["reason"])),
    "ServerSkipped": ("skip", lambda s, d, ids: (s,)),
    "ExclusionVoted": ("exclude", lambda s, d, ids: (s, ids[d["silent"]])),
    "UnavailabilityVoted": (
        "unavailable", lambda s, d, ids: (s, d["position"], d["attempt"], ids[d["culprit"]], d["reason"]),
    ),
    "Disputed": (
        "dispute", lambda s, d, ids: (s, d["position"], d["attempt"], ids[d["poster"]], unhexed(d["recomputed"])),
    ),
    "StudyPaused": ("pause", lambda s, d, ids: (s, d["reason"])),
    "ResumeVoted": ("resume", lambda s, d, ids: (s,)),
    "SiteLeft": ("abort", lambda s, d, ids: (s, d["reason"], ids[d["by"]])),
    "AbortVoted": ("abort", lambda s, d, ids: (s, d["reason"], ids[d["culprit"]] if d["culprit"] else 0)),
    "StudyAborted": ("abort", lambda s, d, ids: (s, d["reason"], ids[d["culprit"]] if d["culprit"] else 0)),
    "SupersessionVoted": ("supersede", lambda s, d, ids: (s, d["successor"], unhexed(d["reason_sha256"]))),
    "SiteAttested": ("attest", lambda s, d, ids: (s, unhexed(d["snapshot"]), d["verdict"])),
    "SuccessionVoted": ("succeed", lambda s, d, ids: (d["successor"],)),
    "VoteWithdrawn": ("withdraw", lambda s, d, ids: (unhexed(d["motion"]),)),
    "AdmissionVoted": (
        "admit", lambda s, d, ids: (bytes32(d["name"]), d["key"], unhexed(d["sealing"]), unhexed(d["peer"])),
    ),
    "RevocationVoted": ("revoke", lambda s, d, ids: (ids[d["name"]],)),
    "RecoveryVoted": ("recover", lambda s, d, ids: (ids[d["name"]], d["key"], unhexed(d["sealing"]))),
    "KeyOffered": ("offer", lambda s, d, ids: (d["key"], unhexed(d["sealing"]))),
    "KeyChanged": ("accept", lambda s, d, ids: (ids[d["name"]],)),
}  # fmt: skip
