"""Logs of the Catalog and the Models as the ledger's entries, with site ids turned into names.

All events but one hold only words of 32 bytes, so they are cut out of the data without an ABI decoder: a table says
which word is what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address

from coterie_chain.errors import BlobCorrupt, LedgerMismatch
from coterie_chain.ethereum.calldata import load_codec, to_hex
from coterie_chain.ledger.memory import describe_terms
from coterie_chain.ledger.protocol import Event, Post, Record, Silence, Terms
from coterie_chain.ledger.record_chain import format_cid
from coterie_chain.ledger.study_state import EACH, SERVER

Log = dict[str, Any]
Words = tuple[bytes, ...]
Detail = tuple[str, str | int]
# ICatalog's struct Terms, and its values
TERMS_TYPE = "(bytes32,bytes,bytes32[3],uint16,uint32,uint8,uint8)"
TermsTuple = tuple[bytes, bytes, Sequence[bytes], int, int, int, int]


@dataclass(frozen=True)
class EventLayout:
    """The places in an event of its study, of the site that acted (or that the event is about), and of its details.

    Places count the indexed words (topics) first and the data's words after them. A detail is (name, place, reader).
    """

    study: int | None
    site: int | None
    details: tuple[tuple[str, int, str], ...] = ()


SEAT = ("key", 1, "address"), ("sealing", 2, "hex")
_STEP = ("position", 2, "int"), ("attempt", 3, "int")
LAYOUTS = {
    "SiteAdmitted": EventLayout(
        None, 0, (("name", 1, "text"), ("key", 2, "address"), ("sealing", 3, "hex"), ("peer", 4, "hex"))
    ),
    "AdmissionVoted": EventLayout(
        None,
        0,
        (("name", 1, "text"), ("key", 2, "address"), ("sealing", 3, "hex"), ("peer", 4, "hex"), ("motion", 5, "hex")),
    ),
    "SiteRevoked": EventLayout(None, 0, (("name", 0, "site"),)),
    "RevocationVoted": EventLayout(None, 0, (("name", 1, "site"), ("motion", 2, "hex"))),
    "KeyOffered": EventLayout(None, 0, (("name", 0, "site"), *SEAT)),
    "KeyChanged": EventLayout(None, 0, (("name", 0, "site"), *SEAT)),
    "RecoveryVoted": EventLayout(
        None, 0, (("name", 1, "site"), ("key", 2, "address"), ("sealing", 3, "hex"), ("motion", 4, "hex"))
    ),
    "SuccessionVoted": EventLayout(None, 0, (("successor", 1, "address"), ("motion", 2, "hex"))),
    "CatalogSucceeded": EventLayout(None, None, (("successor", 0, "address"),)),
    "VoteWithdrawn": EventLayout(None, 0, (("motion", 1, "hex"),)),
    "StudyJoined": EventLayout(0, 1, (("snapshot", 2, "hex"), ("approvals", 3, "hex"), ("release", 4, "int"))),
    "StudyDeclined": EventLayout(0, 1, (("reason", 2, "int"),)),
    "StudyStarted": EventLayout(0, None),
    "StudyCompleted": EventLayout(0, None),
    "ServerSkipped": EventLayout(0, 1, (*_STEP, ("server", 4, "site"))),
    "ExclusionVoted": EventLayout(0, 1, (*_STEP, ("silent", 4, "site"), ("motion", 5, "hex"))),
    "SiteExcluded": EventLayout(0, 1, (*_STEP, ("silent", 1, "site"))),
    "SiteLeft": EventLayout(0, 1, (("reason", 2, "int"), ("position", 3, "int"), ("attempt", 4, "int"))),
    "UnavailabilityVoted": EventLayout(
        0, 1, (*_STEP, ("culprit", 4, "site"), ("reason", 5, "int"), ("motion", 6, "hex"))
    ),
    "StepReopened": EventLayout(0, 1, (*_STEP, ("culprit", 1, "site"))),
    "Disputed": EventLayout(0, 1, (*_STEP, ("poster", 4, "site"), ("posted", 5, "hex"), ("recomputed", 6, "hex"))),
    "StudyPaused": EventLayout(0, 1, (("reason", 2, "int"),)),
    "ResumeVoted": EventLayout(0, 1, (("motion", 2, "hex"),)),
    "StudyResumed": EventLayout(0, None),
    "AbortVoted": EventLayout(0, 1, (("reason", 2, "int"), ("culprit", 3, "culprit"), ("motion", 4, "hex"))),
    "StudyAborted": EventLayout(0, 1, (("reason", 2, "int"), ("culprit", 3, "culprit"))),
    "SupersessionVoted": EventLayout(
        0, 1, (("successor", 2, "int"), ("reason_sha256", 3, "hex"), ("motion", 4, "hex"))
    ),
    "StudySuperseded": EventLayout(0, None, (("successor", 1, "int"), ("reason_sha256", 2, "hex"))),
    "SiteAttested": EventLayout(0, 1, (("snapshot", 2, "hex"), ("verdict", 3, "int"))),
}
# An outcome's log does not say who brought it about: the vote (or joining) logged just before it does.
CAUSES: dict[str, tuple[str, ...]] = {
    "SiteAdmitted": ("AdmissionVoted",),
    "SiteRevoked": ("RevocationVoted",),
    "KeyChanged": ("RecoveryVoted",),
    "CatalogSucceeded": ("SuccessionVoted",),
    "StudyStarted": ("StudyJoined",),
    "SiteExcluded": ("ExclusionVoted", "UnavailabilityVoted"),
    "StepReopened": ("UnavailabilityVoted",),
    "StudyResumed": ("ResumeVoted",),
    "StudyAborted": ("AbortVoted", "UnavailabilityVoted"),
    "StudySuperseded": ("SupersessionVoted",),
}
MEMBERSHIP = frozenset({"SiteAdmitted", "SiteRevoked", "KeyChanged"})
MODEL_WORD = 5
# The contracts count with 64 bits at most, and the history on disk with 63.
_MAX_COUNT = 1 << 63
# Letters of a cause in an error message.
_MAX_CAUSE = 200
_MALFORMED_LOG = (
    KeyError,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    OverflowError,
    BlobCorrupt,
    DecodingError,
)


class Decoder:
    """Turns logs into entries; learns sites' names and Models from the admissions that it passes."""

    def __init__(self, catalog: str, source: str = "The node") -> None:
        self._catalog, self._source = catalog.lower(), source
        self._topics = load_codec("Catalog").topics | load_codec("Model").topics
        self._readers: dict[str, Callable[[bytes], str | int]] = {
            "int": decode_integer,
            "hex": to_hex,
            "text": decode_name,
            "address": _decode_address,
            "site": lambda word: self.names[decode_integer(word)],
            "culprit": lambda word: self.names[decode_integer(word)] if decode_integer(word) else "",
        }
        self.names: dict[int, str] = {}
        self.models: dict[str, int] = {}

    @property
    def addresses(self) -> list[str]:
        """Emitters known so far."""
        return [self._catalog, *self.models]

    def entries(self, logs: Iterable[Log], times: Callable[[Log], int]) -> list[Record | Event]:
        """Entries of logs in chain order; LedgerMismatch for a log that no contract of this version writes."""
        entries: list[Record | Event] = []
        previous: Log | None = None
        for log in logs:
            try:
                entry = self._decode_entry(log, times(log), entries, previous)
            except _MALFORMED_LOG as e:
                cause = f"{self._source} sent a log that no contract of this version writes ({repr(e)[:_MAX_CAUSE]})"
                raise LedgerMismatch("CO-C312", f"{cause}: {describe_log(log)}. Do not rely on it.") from None
            entries.append(entry)
            previous = log
        return _name_completions(entries)

    def forget(self, admitted: int) -> None:
        """Keep only the first sites, after a reorganisation."""
        self.names = {site: name for site, name in self.names.items() if site <= admitted}
        self.models = {model: site for model, site in self.models.items() if site <= admitted}

    def kind(self, code: int) -> str:
        """A step's kind in words."""
        return {EACH: "each", SERVER: "server"}.get(code) or f"only:{self.names[code]}"

    def terms(self, values: TermsTuple) -> Terms:
        """A study's terms from the values that the Catalog holds."""
        hash_, order, schedule, rounds, timeout, silence, least = values
        opening, loop, closing = (tuple(map(self.kind, word.rstrip(b"\0"))) for word in schedule)
        sites = tuple(self.names[i] for i in order)
        return Terms(hash_, sites, opening, loop, closing, rounds, timeout, Silence(silence), least)

    def _decode_entry(self, log: Log, time: int, entries: list[Record | Event], previous: Log | None) -> Record | Event:
        name = self._topics[log["topics"][0]]
        data = bytes.fromhex(log["data"][2:])
        topics = tuple(bytes.fromhex(topic[2:]) for topic in log["topics"][1:])
        if name != "Recorded" and log["address"].lower() != self._catalog:
            raise ValueError("another contract wrote it than the Catalog")
        if name == "Recorded":
            return self._decode_record(log, topics, data, time)
        if name == "StudyProposed":
            return self._decode_proposal(log, topics, data, time)
        words = topics + tuple(data[at : at + 32] for at in range(0, len(data), 32))
        if name == "SiteAdmitted":
            self.names[decode_integer(words[0])] = decode_name(words[1])
            self.models[_slice_address(words[MODEL_WORD])] = decode_integer(words[0])
        layout = LAYOUTS[name]
        study = 0 if layout.study is None else decode_count(words[layout.study])
        site = "" if layout.site is None else self.names[decode_integer(words[layout.site])]
        cause = _find_cause(name, log, entries, previous)
        details = tuple((key, self._readers[reader](words[place])) for key, place, reader in layout.details)
        return Event(
            name, study, cause or site, details, parse_quantity(log["blockNumber"]), time, log["transactionHash"]
        )

    def _decode_record(self, log: Log, topics: Words, data: bytes, time: int) -> Record:
        # data: kind, round, then the post's ten words, then the head
        word = [data[at : at + 32] for at in range(0, 416, 32)]
        study, position, seq = map(decode_count, topics)
        if (decode_integer(word[2]), decode_integer(word[3])) != (study, position):
            raise ValueError("indexed words differ from the post")
        post = Post(
            study=study,
            position=position,
            attempt=decode_count(word[4]),
            cid=format_cid(decode_integer(word[5]), word[8]),
            sha256=word[9],
            size=decode_count(word[6]),
            converged=(False, True)[decode_integer(word[7])],
            basis=word[10],
            verdict=word[11],
        )
        site = self.names[self.models[log["address"].lower()]]
        kind, round_ = self.kind(decode_integer(word[0])), decode_count(word[1])
        block = parse_quantity(log["blockNumber"])
        return Record(site, seq, kind, round_, post, word[12], block, time, log["transactionHash"])

    def _decode_proposal(self, log: Log, topics: Words, data: bytes, time: int) -> Event:
        (values,) = decode([TERMS_TYPE], data)
        terms = self.terms(values)
        study, by = map(decode_count, topics)
        details = tuple(describe_terms(terms).items())
        block = parse_quantity(log["blockNumber"])
        return Event("StudyProposed", study, self.names[by], details, block, time, log["transactionHash"])


def list_new_models(logs: Iterable[Log], catalog: str) -> set[str]:
    """Models that the Catalog announces in these logs."""
    topic = next(topic for topic, name in load_codec("Catalog").topics.items() if name == "SiteAdmitted")
    # a contract of somebody else may log without a topic
    own = (log for log in logs if log["address"].lower() == catalog.lower() and log["topics"][:1] == [topic])
    # a word too many or too few is for the decoder to refuse
    return {"0x" + log["data"][-40:] for log in own if len(log["data"]) == 2 + 64 * MODEL_WORD}


def find_log(logs: Iterable[Log], address: str, name: str) -> Log | None:
    """The last log with which a contract says that this has happened; None if there is none."""
    topics = load_codec("Catalog").topics | load_codec("Model").topics
    own = (log for log in logs if log["address"].lower() == address.lower() and log["topics"])
    return next(iter([log for log in own if topics.get(log["topics"][0]) == name][-1:]), None)


def find_stray_log(logs: Iterable[Log], addresses: Iterable[str], blocks: range) -> Log | None:
    """The first log, in chain order, of other contracts or blocks than these, or that came twice; None without one."""
    wanted, seen = {address.lower() for address in addresses}, (-1, -1)
    for log in logs:
        place = locate_log(log)
        is_own = log["address"].lower() in wanted and place[0] in blocks and place > seen
        if not is_own or log.get("transactionHash") is None:
            return log
        seen = place
    return None


def locate_log(log: Log) -> tuple[int, int]:
    """A log's place in the chain: its block, and its number among the block's logs."""
    return parse_quantity(log["blockNumber"]), parse_quantity(log["logIndex"])


def describe_log(log: Log) -> str:
    """A log for an error message: its contract and its place, without its content."""
    named = {
        name: str(log.get(name))[:_MAX_CAUSE] for name in ("address", "blockNumber", "logIndex", "transactionHash")
    }
    return ", ".join(f"{name} {value}" for name, value in named.items())


def read_digest(log: Log) -> bytes:
    """SHA-256 of the payload in a Model's log."""
    return bytes.fromhex(log["data"][2:])[9 * 32 : 10 * 32]


def decode_count(word: bytes) -> int:
    """A count; ValueError for a number that no contract reaches."""
    number = decode_integer(word)
    if number >= _MAX_COUNT:
        raise ValueError(f"{number} is no count")
    return number


def decode_integer(word: bytes) -> int:
    """A number in a word."""
    return int.from_bytes(word)


def parse_quantity(text: str) -> int:
    """A number in JSON-RPC's hex."""
    return int(text, 16)


def _find_cause(name: str, log: Log, entries: list[Record | Event], previous: Log | None) -> str | None:
    """Acting site of the entry just before, if that one brought this one about."""
    if previous is None or previous["transactionHash"] != log["transactionHash"]:
        return None
    last = entries[-1]
    return last.site if isinstance(last, Event) and last.name in CAUSES.get(name, ()) else None


def _name_completions(entries: list[Record | Event]) -> list[Record | Event]:
    """Name the site that completed a study: its record follows, since the Catalog speaks before the Model does."""
    for i, entry in enumerate(entries[:-1]):
        after = entries[i + 1]
        if isinstance(entry, Event) and entry.name == "StudyCompleted" and isinstance(after, Record):
            entries[i] = Event(entry.name, entry.study, after.site, (), entry.block, entry.time, entry.tx)
    return entries


def decode_name(word: bytes) -> str:
    """A name in a word."""
    # Any bytes can be voted in as a name; what is no UTF-8 must not stop everybody's reading.
    return word.rstrip(b"\0").decode(errors="backslashreplace")


def _slice_address(word: bytes) -> str:
    return "0x" + word[12:].hex()


@lru_cache(maxsize=1024)
def _decode_address(word: bytes) -> str:
    return to_checksum_address(word[12:])
