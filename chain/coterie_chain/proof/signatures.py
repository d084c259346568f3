"""Every entry must be what its site's own key signed: the very call, with the very content.

The contracts hold that on any chain whose blocks were honestly made. Here it is checked once more from the transactions
alone, so that it holds on a development chain too, whose operator can write any block and any log, but cannot sign.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ethereum.calldata import encode_site_name, from_hex, load_codec
from coterie_chain.ethereum.decode import CAUSES
from coterie_chain.ledger.history_check import describe_step
from coterie_chain.ledger.protocol import Event, Record, get_study_number
from coterie_chain.ledger.record_chain import flatten_post
from coterie_chain.ledger.rules import MAX_STEPS
from coterie_chain.ledger.study_state import EACH, SERVER
from coterie_chain.proof.receipts import TransactionCall

LedgerEntry = Record | Event
_Details = Mapping[str, Any]
_CATALOG, _MODEL = load_codec("Catalog"), load_codec("Model")
NOT_CALLED = TransactionCall("", "", b"")


class Signatures:
    """Follows the sites' keys through a history; `catalog` and `models` (by site id) are the addresses called."""

    def __init__(
        self, catalog: str, models: Mapping[int, str], calls: Mapping[str, TransactionCall], advice: str
    ) -> None:
        self._catalog, self._models, self._calls, self._advice = catalog.lower(), models, calls, advice
        self._keys: dict[str, str] = {}
        self._ids: dict[str, int] = {}
        self._hashes: dict[int, bytes] = {}
        self._declined: Mapping[str, tuple[int, ...]] = {}
        self.spoiled: dict[int, LedgerMismatch] = {}

    def check(self, entries: Sequence[LedgerEntry], study: int | None = None) -> None:
        """LedgerMismatch (CO-C357) names the first entry that its site's key did not sign as it stands there.

        With a `study`, such entries of other studies are in `spoiled` instead.
        """
        self._declined = _group_declines(entries)
        for k, entry in enumerate(entries):
            before = entries[k - 1] if k else None
            following = entries[k + 1] if k + 1 < len(entries) else None
            if _is_outcome(entry, before):
                self._learn(entry)
                continue
            if isinstance(entry, Event) and entry.name == "SiteAdmitted":  # a founder: the deployer's call
                self._learn(entry)
                continue
            try:
                self._check_entry(entry, following)
            except LedgerMismatch as fault:
                number = get_study_number(entry)
                if study is None or number in (0, study):
                    raise
                self.spoiled.setdefault(number, fault)
            self._learn(entry)

    def _check_entry(self, entry: LedgerEntry, following: LedgerEntry | None) -> None:
        call = self._calls.get(entry.tx, NOT_CALLED)
        key = self._keys.get(entry.site, "")
        if isinstance(entry, Event) and entry.name == "KeyChanged":
            key = str(dict(entry.details)["key"]).lower()  # the new key accepts its seat itself
        if not call.sender or call.sender != key:
            raise self._explain_fault(entry, f"was signed by {call.sender or 'nobody'}, not by the key of {entry.site}")
        try:
            to, data = self._find_expected_call(entry, following)
        except (KeyError, ValueError, TypeError, OverflowError, AttributeError):
            raise self._explain_fault(entry, "asks for something that no move of the contracts is") from None
        if (call.to, call.data) != (to, data):
            raise self._explain_fault(entry, f"was signed by {entry.site} for another call or another content")

    def _find_expected_call(self, entry: LedgerEntry, following: LedgerEntry | None) -> tuple[str, bytes]:
        if isinstance(entry, Record):
            return self._models[self._ids[entry.site]], from_hex(_MODEL.encode("record", flatten_post(entry.post)))
        details: _Details = {**dict(entry.details), "by": entry.site}
        if entry.name == "StudyProposed":
            joining = dict(following.details) if isinstance(following, Event) else {}
            return self._catalog, self._encode_proposal(details, _read_joining(joining))
        if entry.name == "StudyDeclined":
            details = {**details, "studies": self._declined[entry.tx]}
        if entry.name == "StudyJoined":
            details = {**details, "hash": self._hashes[entry.study]}
        move, values = _MOVES[entry.name]
        return self._catalog, from_hex(_CATALOG.encode(move, *values(entry.study, details, self._ids)))

    def _encode_proposal(self, d: _Details, joining: tuple[bytes, bytes, int]) -> bytes:
        order = bytes(self._ids[name] for name in _split_names(d["sites"]))
        words = [
            bytes(map(self._encode_kind, _split_names(d[p]))).ljust(MAX_STEPS, b"\0")
            for p in ("opening", "loop", "closing")
        ]
        values = (from_hex(d["hash"]), order, words, d["max_rounds"], d["timeout"], d["silence"], d["least"])
        return from_hex(_CATALOG.encode("propose", values, joining))

    def _encode_kind(self, kind: str) -> int:
        return {"each": EACH, "server": SERVER}.get(kind) or self._ids[kind.removeprefix("only:")]

    def _learn(self, entry: LedgerEntry) -> None:
        if not isinstance(entry, Event):
            return
        details = dict(entry.details)
        if entry.name in ("SiteAdmitted", "KeyChanged"):
            self._keys[str(details["name"])] = str(details["key"]).lower()
        if entry.name == "StudyProposed":
            self._hashes[entry.study] = from_hex(str(details["hash"]))
        if entry.name == "SiteAdmitted":
            self._ids[str(details["name"])] = len(self._ids) + 1

    def _explain_fault(self, entry: LedgerEntry, cause: str) -> LedgerMismatch:
        what = f"record {entry.seq}" if isinstance(entry, Record) else entry.name
        place = f"{what} of {entry.site} ({describe_step(entry) or 'membership'}, block {entry.block})"
        return LedgerMismatch(
            "CO-C357", f"The transaction of {place} {cause}. {self._advice}", entry.site, describe_step(entry)
        )


def list_founders(entries: Sequence[LedgerEntry]) -> list[Event]:
    """The admissions that no vote brought about: the Catalog's constructor logs them."""
    return [
        entry
        for k, entry in enumerate(entries)
        if isinstance(entry, Event)
        and entry.name == "SiteAdmitted"
        and not _is_outcome(entry, entries[k - 1] if k else None)
    ]


def _is_outcome(entry: LedgerEntry, before: LedgerEntry | None) -> bool:
    """Whether the contract wrote this entry because of the one before, in the same transaction."""
    if not isinstance(entry, Event):
        return False
    if entry.name in ("StudyStarted", "StudyCompleted"):
        return True
    causes = {**CAUSES, "StudyJoined": ("StudyProposed",)}.get(entry.name, ())
    return isinstance(before, Event) and before.name in causes and before.tx == entry.tx


def _read_joining(d: _Details) -> tuple[bytes, bytes, int]:
    return from_hex(d["snapshot"]), from_hex(d["approvals"]), d["release"]


def _group_declines(entries: Sequence[LedgerEntry]) -> dict[str, tuple[int, ...]]:
    """The studies that each transaction declined, in order."""
    studies: defaultdict[str, tuple[int, ...]] = defaultdict(tuple)
    for entry in entries:
        if isinstance(entry, Event) and entry.name == "StudyDeclined":
            studies[entry.tx] += (entry.study,)
    return studies


def _split_names(names: object) -> list[str]:
    return str(names).split(",") if names else []


_CallValues = Callable[[int, _Details, Mapping[str, int]], tuple[object, ...]]

# Each move's name in the contract, and its arguments from its event's details.
_MOVES: dict[str, tuple[str, _CallValues]] = {
    "StudyJoined": ("join", lambda s, d, ids: (s, d["hash"], _read_joining(d))),
    "StudyDeclined": ("decline", lambda s, d, ids: (d["studies"], d["reason"])),
    "ServerSkipped": ("skip", lambda s, d, ids: (s,)),
    "ExclusionVoted": ("exclude", lambda s, d, ids: (s, ids[d["silent"]])),
    "UnavailabilityVoted": (
        "unavailable", lambda s, d, ids: (s, d["position"], d["attempt"], ids[d["culprit"]], d["reason"]),
    ),
    "Disputed": (
        "dispute", lambda s, d, ids: (s, d["position"], d["attempt"], ids[d["poster"]], from_hex(d["recomputed"])),
    ),
    "StudyPaused": ("pause", lambda s, d, ids: (s, d["reason"])),
    "ResumeVoted": ("resume", lambda s, d, ids: (s,)),
    "SiteLeft": ("abort", lambda s, d, ids: (s, d["reason"], ids[d["by"]])),
    "AbortVoted": ("abort", lambda s, d, ids: (s, d["reason"], ids[d["culprit"]] if d["culprit"] else 0)),
    "StudyAborted": ("abort", lambda s, d, ids: (s, d["reason"], ids[d["culprit"]] if d["culprit"] else 0)),
    "SupersessionVoted": ("supersede", lambda s, d, ids: (s, d["successor"], from_hex(d["reason_sha256"]))),
    "SiteAttested": ("attest", lambda s, d, ids: (s, from_hex(d["snapshot"]), d["verdict"])),
    "SuccessionVoted": ("succeed", lambda s, d, ids: (d["successor"],)),
    "VoteWithdrawn": ("withdraw", lambda s, d, ids: (from_hex(d["motion"]),)),
    "AdmissionVoted": (
        "admit", lambda s, d, ids: (encode_site_name(d["name"]), d["key"], from_hex(d["sealing"]), from_hex(d["peer"])),
    ),
    "RevocationVoted": ("revoke", lambda s, d, ids: (ids[d["name"]],)),
    "RecoveryVoted": ("recover", lambda s, d, ids: (ids[d["name"]], d["key"], from_hex(d["sealing"]))),
    "KeyOffered": ("offer", lambda s, d, ids: (d["key"], from_hex(d["sealing"]))),
    "KeyChanged": ("accept", lambda s, d, ids: (ids[d["name"]],)),
}  # fmt: skip
