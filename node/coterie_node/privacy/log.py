"""The privacy log of one site: every release of its rows, for ever, and the decision on the next one.

    key                 secret of all prints
    patients            prints in order of first sight
    column/NAME         the latest value prints by patient, and what they were in former versions
    set/DIGEST          a row set: bits by patient
    values/DIGEST       value prints of one column, row by row, where patients have no identifier
    release/NUMBER      what was released (`Head`)
    cohort/NAME         a declared cohort
    refused/DIGEST      what was refused of the study with this hash
    allowed/DIGEST      a person's yes to that, with the reason

An entry is written before the record is signed, in the state `posted`, and never pruned. Prints never leave the site.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import zlib
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.entries import Head
from coterie_node.privacy.multisets import ValueRows, judge_multisets
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.own_rows import History, RowSet, judge_rows
from coterie_node.privacy.patients import Change, ColumnVersions, Indices, PatientDictionary, PatientMask
from coterie_node.privacy.prints import KEY_BYTES, Fingerprints, PrintedRows
from coterie_node.privacy.storage import LogStorage

COUNTER = "privacy-log/releases"


@dataclass(frozen=True)
class Candidate:
    """Rows that are about to be released, as the log would hold them.

    `at` (n,): the patients' places in the dictionary, and `columns` with these rows in; both empty without identifiers.
    """

    head: Head
    printed: PrintedRows = field(repr=False)
    patients: PatientDictionary = field(repr=False)
    at: Indices = field(repr=False)
    columns: Mapping[str, ColumnVersions] = field(repr=False)

    @property
    def bits(self) -> PatientMask:
        """The row set by place in the dictionary."""
        out = np.zeros(len(self.patients.prints), bool)
        out[self.at] = True
        return out


@dataclass
class PrivacyLog:
    """The log in its storage. `counter` is kept elsewhere in the site's state, so that a lost log is noticed."""

    storage: LogStorage = field(default_factory=lambda: dict[str, bytes]())
    counter: MutableMapping[str, bytes] = field(default_factory=dict)
    _heads: dict[str, Head] = field(default_factory=dict, init=False, repr=False)

    @property
    def key(self) -> bytes:
        """The secret of all prints, made when it is first needed."""
        if "key" not in self.storage:
            self.storage["key"] = secrets.token_bytes(KEY_BYTES)
        return self.storage["key"]

    @property
    def is_lost(self) -> bool:
        """Whether the site's state remembers more releases than the log holds."""
        remembered = int.from_bytes(self.counter.get(COUNTER, b""), "big")
        return len(self._release_names()) < remembered

    def heads(self) -> list[Head]:
        """All releases in order."""
        for name in self._release_names():
            if name not in self._heads:
                self._heads[name] = Head.from_bytes(self.storage[name])
        return [self._heads[name] for name in self._release_names()]

    def others(self, head: Head) -> list[Head]:
        """All releases but those of a session."""
        return [other for other in self.heads() if other.session != head.session]

    def prepare(self, head: Head, printed: PrintedRows) -> Candidate:
        """The rows placed among the site's patients; nothing is written yet."""
        if printed.patients is None:
            digests = {name: _digest(prints.tobytes()) for name, prints in printed.columns.items()}
            rows = _digest("".join(sorted(digests.values())).encode())
            own = replace(head, columns=digests, identified=False, rows=rows, n=printed.n)
            return Candidate(own, printed, PatientDictionary.empty(), np.empty(0, np.uint32), {})
        patients, at = self.patients().place(printed.patients)
        size = len(patients.prints)
        columns = {name: self.column(name).add(at, prints, size) for name, prints in printed.columns.items()}
        versions: dict[str, int | str] = {name: column.version for name, column in columns.items()}
        candidate = Candidate(head, printed, patients, at, columns)
        own = replace(
            head, columns=versions, identified=True, rows=_bits_digest(candidate.bits), n=int(candidate.bits.sum())
        )
        return replace(candidate, head=own)

    def judge(self, candidate: Candidate, floor: int) -> list[Objection]:
        """Objections to a release for the sums over few patients that follow from it and all former ones."""
        past, lacking = self.others(candidate.head), candidate.printed.lacking
        out = [_lost()] if self.is_lost else []
        if candidate.head.identified:
            own = [head for head in past if head.identified]
            size = len(candidate.patients.prints)
            columns = {name: self.column(name) for head in own for name in head.columns} | dict(candidate.columns)
            new = _row_set(candidate.head, candidate.bits)
            history = History([_row_set(head, self.bits(head, size)) for head in own], columns)
            out += judge_rows(new, history, floor, lacking)
            past = [head for head in past if not head.identified]
        values = [ValueRows(head.study, self.values(head, candidate.head.columns)) for head in past]
        values = [rows for rows in values if rows.columns]
        return out + judge_multisets(ValueRows(candidate.head.study, candidate.printed.columns), values, floor, lacking)

    def write(self, candidate: Candidate) -> None:
        """Write a release down, durably, before its record is signed; again for the same key, it is replaced."""
        if candidate.head.identified:
            self.storage["patients"] = candidate.patients.prints.tobytes()
            for name, column in candidate.columns.items():
                self.storage[f"column/{name}"] = _pack_column(column)
            self.storage[f"set/{candidate.head.rows}"] = _pack_bits(candidate.bits)
        else:
            for name, prints in candidate.printed.columns.items():
                self.storage[f"values/{candidate.head.columns[name]}"] = prints.tobytes()
        self.put_head(candidate.head)

    def put_head(self, head: Head) -> None:
        """Write a release's head, in place of the one with its key."""
        name = next((n for n in self._release_names() if self._read_head(n).key == head.key), None)
        number = len(self._release_names())
        name = name or f"release/{number:08d}"
        self.storage[name] = head.as_bytes()
        self._heads[name] = head
        self.counter[COUNTER] = len(self._release_names()).to_bytes(8, "big")

    def note_sum(self, session: str, parties: Sequence[str], missing: Iterable[str]) -> None:
        """Note that a session's masked sum exists, or never did as these sites' shares are missing or false.

        Once a sum over these parties exists it stays known.
        """
        head, names = self.find(session, parties), tuple(sorted(missing))
        if head is not None and head.kind == "masked" and head.state == "posted":
            self.put_head(replace(head, missing=names, state="spoiled" if names else "complete"))

    def find(self, session: str, parties: Sequence[str]) -> Head | None:
        """The release of a session over these parties, if it is in the log."""
        key = (session, tuple(sorted(parties)))
        return next((head for head in self.heads() if head.key == key), None)

    def patients(self) -> PatientDictionary:
        """The site's patients so far."""
        if "patients" not in self.storage:
            return PatientDictionary.empty()
        return PatientDictionary(np.frombuffer(self.storage["patients"], np.uint64))

    def column(self, name: str) -> ColumnVersions:
        """One raw column so far."""
        place = f"column/{name}"
        return _unpack_column(self.storage[place]) if place in self.storage else ColumnVersions()

    def bits(self, head: Head, size: int) -> PatientMask:
        """A release's row set by place, in a dictionary of `size` patients."""
        return _unpack_bits(self.storage[f"set/{head.rows}"], size)

    def values(self, head: Head, names: Iterable[str]) -> dict[str, Fingerprints]:
        """The value prints, row by row, of those of these columns that a release read."""
        common = [name for name in names if name in head.columns]
        if not head.identified:
            return {n: np.frombuffer(self.storage[f"values/{head.columns[n]}"], np.uint32) for n in common}
        patients = np.flatnonzero(self.bits(head, 0)).astype(np.uint32)
        return {n: self.column(n).at_version(int(head.columns[n]), patients) for n in common}

    def note_refusal(self, digest: str, study: str, objection: Objection) -> None:
        """Note that a release of the study with this hash (hex) was refused, or would have been, and why."""
        noted = {"study": study, "kind": objection.kind, "subject": objection.subject, "sentence": objection.sentence}
        noted["earlier"] = objection.study
        place = f"refused/{digest}"
        former = json.loads(self.storage[place]) if place in self.storage else []
        if noted not in former:
            self.storage[place] = json.dumps([*former, noted]).encode()

    def refusals(self) -> dict[str, list[dict[str, str]]]:
        """All refusals by the hash (hex) of the study."""
        names = sorted(name for name in self.storage if name.startswith("refused/"))
        return {name.removeprefix("refused/"): json.loads(self.storage[name]) for name in names}

    def allow(self, digest: str, reason: str) -> list[dict[str, str]]:
        """Note a person's yes, with the reason, to what was refused so far of the study with this hash (hex).

        Returns what was refused; the yes is to these known sets and to nothing else.
        """
        refused = self.refusals().get(digest, [])
        if refused:
            self.storage[f"allowed/{digest}"] = json.dumps({"reason": reason, "refused": refused}).encode()
        return refused

    def allowance(self, digest: str, objection: Objection) -> str:
        """The reason with which a person said yes to just this objection to a study, empty if nobody did."""
        place = f"allowed/{digest}"
        if place not in self.storage:
            return ""
        yes = json.loads(self.storage[place])
        subjects = [(noted["kind"], noted["subject"], noted["earlier"]) for noted in yes["refused"]]
        return str(yes["reason"]) if (objection.kind, objection.subject, objection.study) in subjects else ""

    def _release_names(self) -> list[str]:
        return sorted(name for name in self.storage if name.startswith("release/"))

    def _read_head(self, name: str) -> Head:
        if name not in self._heads:
            self._heads[name] = Head.from_bytes(self.storage[name])
        return self._heads[name]


def _row_set(head: Head, bits: PatientMask) -> RowSet:
    return RowSet(head.study, bits, {name: int(version) for name, version in head.columns.items()})


def _lost() -> Objection:
    sentence = (
        "The privacy log of this site has fewer releases than its node remembers (log lost), so that nobody can say "
        "what follows from this one. Restore the log from a backup, or let a person say yes with a reason (coterie "
        "release allow)."
    )
    return Objection(Grade.ASK, "log lost", sentence)


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _bits_digest(bits: PatientMask) -> str:
    return _digest(np.flatnonzero(bits).astype("<u4").tobytes())


def _pack_bits(bits: PatientMask) -> bytes:
    return len(bits).to_bytes(8, "big") + zlib.compress(np.packbits(bits).tobytes(), 1)


def _unpack_bits(raw: bytes, size: int) -> PatientMask:
    count = int.from_bytes(raw[:8], "big")
    out = np.zeros(max(count, size), bool)
    out[:count] = np.unpackbits(np.frombuffer(zlib.decompress(raw[8:]), np.uint8), count=count)
    return out


def _pack_column(column: ColumnVersions) -> bytes:
    at = [change.at for change in column.changes]
    former = [change.former for change in column.changes]
    arrays: dict[str, NDArray[Any]] = {
        "latest": column.latest,
        "lengths": np.array([len(part) for part in at], dtype=np.int64),
        "at": np.concatenate(at) if at else np.empty(0, np.uint32),
        "former": np.concatenate(former) if former else np.empty(0, np.uint32),
    }
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def _unpack_column(raw: bytes) -> ColumnVersions:
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        latest, lengths = arrays["latest"], arrays["lengths"]
        cuts = np.cumsum(lengths)[:-1]
        parts = zip(np.split(arrays["at"], cuts), np.split(arrays["former"], cuts), strict=True)
        changes = tuple(Change(at, former) for at, former in parts) if len(lengths) else ()
    return ColumnVersions(latest, changes)
