"""The privacy log of one site: every release of its rows, for ever, and the decision on the next one.

    key                 secret of all prints
    patients            prints in order of first sight
    column/NAME         the latest value prints by patient, and what they were in former versions
    hashed              the last file's identifiers: a digest of them, and their prints
    judged/DIGEST       what the values of a release were found to show
    set/DIGEST          a row set: bits by patient
    values/DIGEST       value prints of one column, row by row, where patients have no identifier; by one of the values
    table/DIGEST        prints of a derived column that is a table
    release/NUMBER      what was released (`ReleaseHead`)
    cohort/NAME         a declared cohort
    refused/DIGEST      what was refused of the study with this hash
    allowed/DIGEST      a person's yes to that, with the reason
    lost                what was lost of these, and before which release

An entry is written before the record is signed, in the state `posted`, and never pruned. Prints never leave the site.

A log that lacks what its entries name, or what the site's state remembers, is lost: every release asks a person. It is
lost for good once the next release was written. A blob that is there and cannot be read stops every release (CO-C214).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
from pydantic_core import from_json

from coterie_chain.errors import StoreFault
from coterie_node.privacy.entries import ReleaseHead, ReleaseIndex
from coterie_node.privacy.files.packing import pack_bits, pack_column, unpack_bits, unpack_column
from coterie_node.privacy.multisets import ValueRows, judge_multisets
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.own_rows import History, RowSet, judge_rows
from coterie_node.privacy.patients import Change, ColumnVersions, Indices, PatientDictionary, PatientMask
from coterie_node.privacy.prints import (
    KEY_BYTES,
    Fingerprints,
    PatientPrints,
    PrintedRows,
    RawRows,
    digest_identifiers,
)
from coterie_node.privacy.storage import (
    LogStorage,
    hold_storage,
    list_names,
    look_into,
    read_blob,
    report_damage,
)

COUNTER, KEY_MARK = "privacy-log/releases", "privacy-log/key"
# Bytes of prints that wait in memory to be written side by side.
WRITTEN_AT_ONCE = 1 << 24
# A release's number has so many digits at most.
_MOST_DIGITS = 18
# Blobs that are made again with the same content.
_NAMED_BY_CONTENT = ("set/", "values/", "table/")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Candidate:
    """Rows before their release, in the form of the log.

    `at` (n,): the patients' places in the dictionary, and `columns` with these rows in; both empty without identifiers.
    A column is made when it is asked for, so that a large file's are not all in memory.
    """

    head: ReleaseHead
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
    _names: tuple[str, ...] = field(default=(), init=False, repr=False)
    _index: ReleaseIndex = field(default_factory=ReleaseIndex, init=False, repr=False)

    _next: int = field(default=0, init=False, repr=False)
    _changes: int = field(default=-1, init=False, repr=False)
    _found: set[str] = field(default_factory=set, init=False, repr=False)
    _gone: set[str] = field(default_factory=set, init=False, repr=False)

    @property
    def key(self) -> bytes:
        """The secret of all prints, made when it is first needed."""
        if "key" not in self.storage:
            with self.hold():
                if "key" not in self.storage:
                    self._note_losses(["key"] if self._list_releases() else [])
                    self.storage["key"] = secrets.token_bytes(KEY_BYTES)
        return read_blob(self.storage, "key", _check_key)

    @property
    def is_lost(self) -> bool:
        """Whether the log lacks a release or a file that one needs, or is not the log that the site remembers."""
        names = self._list_releases()
        if self._next > len(names) or len(names) < self._count_remembered() or self.list_losses():
            return True
        return self.counter.get(KEY_MARK, mark := _mark_key(self.key)) != mark

    def list_losses(self) -> list[str]:
        """The names of the blobs that releases read and that are gone."""
        self._list_releases()
        self._gone = {name for name in self._gone if name not in self.storage}
        return sorted(self._gone.union(self._read_losses()))

    def hold(self) -> AbstractContextManager[None]:
        """Keep other programs from writing into the log, so that a judgement meanwhile sees all that left."""
        return hold_storage(self.storage)

    def count_releases(self) -> int:
        """The number of releases."""
        return len(self._list_releases())

    def heads(self) -> list[ReleaseHead]:
        """All releases in order."""
        return self._index.list_all(self._list_releases())

    def others(self, head: ReleaseHead) -> list[ReleaseHead]:
        """The releases of other sessions, the first of those that show the same."""
        self._list_releases()
        return self._index.list_differing(head.session, self._is_usable if self.list_losses() else None)

    def prepare(self, head: ReleaseHead, printed: PrintedRows) -> Candidate:
        """The rows placed among the site's patients; nothing is written yet."""
        if printed.patients is None:
            digests = printed.columns.digests
            rows = _digest("".join(sorted(digests.values())).encode())
            own = replace(head, columns=digests, identified=False, rows=rows, n=printed.n)
            return Candidate(own, printed, PatientDictionary.empty(), np.empty(0, np.uint32), {})
        patients, at = self.patients().place(printed.patients)
        columns = ColumnsWithRows(self, printed, at, len(patients.prints))
        versions: dict[str, int | str] = {name: column.version for name, column in columns.items()}
        candidate = Candidate(head, printed, patients, at, columns)
        own = replace(
            head, columns=versions, identified=True, rows=_bits_digest(candidate.bits), n=int(candidate.bits.sum())
        )
        return replace(candidate, head=own)

    def print_rows(self, raw: RawRows) -> PrintedRows:
        """The rows as prints; those of the last file's identifiers are kept under the digest of these."""
        if raw.identifiers is None:
            return raw.prints(self.key)
        digest = digest_identifiers(raw.identifiers, self.key)
        size = len(digest) + len(raw.identifiers) * np.dtype(np.uint64).itemsize
        if "hashed" in self.storage and (last := self.storage["hashed"]).startswith(digest) and len(last) == size:
            return raw.prints(self.key, np.frombuffer(last, np.uint64, offset=len(digest)))
        printed = raw.prints(self.key)
        assert printed.patients is not None
        self.storage["hashed"] = digest + printed.patients.tobytes()
        return printed

    def judge(self, candidate: Candidate, floor: int, near: bool = False) -> list[Objection]:
        """Objections to a release if sums over few patients follow from it and all former ones.

        `near`: a person is asked about nearly the same patients without a column in common.
        """
        self._look_for(blob for head in self.others(candidate.head) for blob in head.list_blobs())
        past, lacking = self.others(candidate.head), candidate.printed.lacking
        out = [_lost()] if self.is_lost else []
        if any(other.covers(candidate.head) for other in past):
            return out
        own = [head for head in past if head.identified and candidate.head.identified]
        size = len(candidate.patients.prints)
        new = _row_set(candidate.head, candidate.bits)
        known = len(self.patients().prints)
        sets = [_row_set(head, _pad(self.bits(head, known), size)) for head in own]
        out += judge_rows(new, History(sets, candidate.columns), floor, lacking) if own else []
        renamed = {head.key for head, row_set in zip(own, sets, strict=True) if _hardly_overlap(row_set, new)}
        if len(own) < len(past) or renamed:
            rows = ValueRows(candidate.head.study, candidate.printed.columns, candidate.head.n)
            distinct = {(head.identified, head.rows, tuple(sorted(head.columns.items()))): head for head in past}
            values = [self._value_rows(head, candidate.head, renamed) for head in distinct.values()]
            out += judge_multisets(rows, [rows for rows in values if rows.columns], floor, lacking)
        return out + (self._judge_apart(candidate.head, past, new, floor) if near else [])

    def _value_rows(
        self, head: ReleaseHead, new: ReleaseHead, renamed: Collection[tuple[str, tuple[str, ...]]]
    ) -> ValueRows:
        columns, known = self.values(head, new.columns), head.identified and new.identified
        return ValueRows(head.study, columns, head.n, known and head.key not in renamed, known and head.key in renamed)

    def _judge_apart(self, head: ReleaseHead, past: Sequence[ReleaseHead], new: RowSet, floor: int) -> list[Objection]:
        """Questions about releases of nearly these patients, or of nearly so many rows, without a column in common."""
        out = []
        for other in past:
            if set(other.columns).isdisjoint(head.columns):
                named = head.identified and other.identified
                apart = np.count_nonzero(self.bits(other, len(new.bits)) ^ new.bits) if named else other.n - head.n
                out += [_ask_near(other.study, floor)] if 0 < abs(int(apart)) < floor else []
        return out

    def write(self, candidate: Candidate) -> None:
        """Write a release down, durably, before its record is signed; again for the same key, it is replaced.

        StoreFault (CO-C216) if another release was written since this one was placed among the patients.
        """
        with self.hold():
            self._write(candidate)

    def _write(self, candidate: Candidate) -> None:
        self._note_losses([name for name in self.list_losses() if not name.startswith(_NAMED_BY_CONTENT)])
        if any(head.covers(candidate.head) for head in self.others(candidate.head)):
            self.put_head(candidate.head)
            return
        if candidate.head.identified:
            self._write_patients(candidate.patients.prints)
            for name, column in candidate.columns.items():
                if column.version != candidate.head.columns[name]:
                    raise _report_stale()
                if not column.equals(self.column(name)):
                    self.storage[f"column/{name}"] = pack_column(column)
            self._put_new(f"set/{candidate.head.rows}", partial(pack_bits, candidate.bits))
        else:
            self._write_values(candidate)
        self.put_head(candidate.head)

    def _write_patients(self, prints: PatientPrints) -> None:
        former = self.patients().prints
        known = min(len(former), len(prints))
        if not np.array_equal(former[:known], prints[:known]):
            raise _report_stale()
        if len(prints) > len(former):
            self.storage["patients"] = prints.tobytes()

    def _write_values(self, candidate: Candidate) -> None:
        """Write the prints of the columns that no release had: as many at once as are small together."""
        places = {f"values/{digest}": name for name, digest in candidate.head.columns.items()}
        new = [(place, name) for place, name in places.items() if place not in self.storage]
        size = max(1, WRITTEN_AT_ONCE // max(candidate.head.n * np.dtype(np.uint32).itemsize, 1))
        for start in range(0, len(new), size):
            part = new[start : start + size]
            self.storage.update({place: _pack_prints(candidate.printed.columns, name) for place, name in part})

    def judge_matched(self, head: ReleaseHead, matched: Indices, floor: int) -> list[Objection]:
        """Objections to sums over the patients that all sites have in common, by those of former joins.

        `matched`: the places of these patients in the dictionary. Another site chooses its own patients: one that
        leaves a patient out of a second study would learn that patient's part of this site's sums.
        """
        past = [other for other in self.others(head) if other.matched]
        versions = {name: version for name, version in head.columns.items() if isinstance(version, int)}
        bits = self._set_bits(matched)
        sets = [replace(_row_set(other, bits), bits=self._read_matched(other, len(bits))) for other in past]
        history = History(sets, {name: self.column(name) for name in versions})
        return judge_rows(RowSet(head.study, bits, versions), history, floor) if sets else []

    def note_matched(self, head: ReleaseHead, matched: Indices) -> None:
        """Keep the set of a release's patients that all sites have in common."""
        bits = self._set_bits(matched)
        digest = _bits_digest(bits)
        self._put_new(f"set/{digest}", partial(pack_bits, bits))
        self.put_head(replace(head, matched=digest))

    def _set_bits(self, places: Indices) -> PatientMask:
        bits = np.zeros(len(self.patients().prints), bool)
        bits[places] = True
        return bits

    def _read_matched(self, head: ReleaseHead, size: int) -> PatientMask:
        return self._read_bits(head.matched, size)

    def _put_new(self, place: str, make: Callable[[], bytes]) -> None:
        """Write a blob that is named by its content, unless it is there."""
        if place not in self.storage:
            self.storage[place] = make()

    def put_head(self, head: ReleaseHead) -> None:
        """Write a release's head, in place of the one with its key."""
        with self.hold():
            names = self._list_releases()
            former = self._index.find_name(head.key)
            name = former or f"release/{self._next:08d}"
            self.storage[name] = raw = head.as_bytes()
            self._take_in(name, raw)
            if former is None:
                self._names, self._next = (*names, name), self._next + 1
            # A release that was remembered and is gone stays lost. A durable write: only where the number changes.
            count = max(len(names), self._count_remembered()) + (former is None)
            if self.counter.get(COUNTER) != (counted := count.to_bytes(8, "big")):
                self.counter[COUNTER] = counted
            if KEY_MARK not in self.counter:
                self.counter[KEY_MARK] = _mark_key(self.key)

    def note_sum(self, session: str, parties: Sequence[str], missing: Iterable[str]) -> None:
        """Note that a session's masked sum exists, or never did because shares of these sites are missing or false.

        Once a sum over these parties exists it stays known. A sum that was spoiled in two attempts is known to the
        sites that were missing in both, and counts as known to all if there are none.
        """
        with self.hold():
            head, lacking = self.find(session, parties), set(missing)
            if head is None or head.kind != "masked" or head.state == "complete":
                return
            lacking &= set(head.missing) if head.state == "spoiled" else lacking
            names = tuple(sorted(lacking))
            self.put_head(replace(head, missing=names, state="spoiled" if names else "complete"))

    def find(self, session: str, parties: Sequence[str]) -> ReleaseHead | None:
        """The release of a session over these parties, if it is in the log."""
        self._list_releases()
        return self._index.find((session, tuple(sorted(parties))))

    def is_grown(self, head: ReleaseHead, former: ReleaseHead) -> bool:
        """Whether a release's rows are those of a former one with some more, or some fewer, as far as is known."""
        if not (head.identified and former.identified) or f"set/{head.rows}" not in self.storage:
            return bool(set(head.columns) & set(former.columns))
        size = len(self.patients().prints)
        new, old = self.bits(head, size), self.bits(former, size)
        common = int(np.count_nonzero(new & old))
        return common in (head.n, former.n)

    def patients(self) -> PatientDictionary:
        """The site's patients so far."""
        if "patients" not in self.storage:
            return PatientDictionary.empty()
        return PatientDictionary(read_blob(self.storage, "patients", _read_prints))

    def column(self, name: str) -> ColumnVersions:
        """One raw column so far; StoreFault (CO-C214) if it is older than what releases read."""
        place, version = f"column/{name}", self._index.versions.get(name)
        if place in self.storage:
            column = read_blob(self.storage, place, unpack_column)
            if version is not None and column.version < version:
                raise report_damage(place, "it is older than the releases that read it")
            return column
        # Lost versions are unknown, and none of them counts as the next one.
        nobody = Change(np.empty(0, np.uint32), np.empty(0, np.uint32))
        return ColumnVersions() if version is None else ColumnVersions(changes=(nobody,) * (version + 1))

    def bits(self, head: ReleaseHead, size: int) -> PatientMask:
        """A release's row set by place, in a dictionary of `size` patients."""
        return self._read_bits(head.rows, size)

    def _read_bits(self, digest: str, size: int) -> PatientMask:
        bits = self._read(f"set/{digest}", unpack_bits)
        if 0 < size < len(bits):
            raise report_damage("patients", "it is older than the releases of its patients")
        return _pad(bits, size)

    def _read(self, name: str, make: Callable[[bytes], _T]) -> _T:
        """A blob that a release names; without it the log is lost from now on (CO-C214)."""
        try:
            return read_blob(self.storage, name, make)
        except KeyError:
            self._gone.add(name)
            raise report_damage(name, "it is not there any more") from None

    def values(self, head: ReleaseHead, names: Iterable[str]) -> Mapping[str, Fingerprints]:
        """The value prints, row by row, of those of these columns that a release read."""
        common = [name for name in names if name in head.columns]
        return LoggedValues(self, head, common)

    def read_values(self, head: ReleaseHead, name: str) -> Fingerprints:
        """The value prints (n,) of a column of rows without identifiers."""
        prints = self._read(f"values/{head.columns[name]}", _read_values)
        if len(prints) != head.n:
            raise report_damage(f"values/{head.columns[name]}", f"it has {len(prints)} rows of {head.n}")
        return prints

    def note_refusal(self, digest: str, study: str, objection: Objection) -> None:
        """Note that a release of the study with this hash (hex) was refused, or would have been, and why."""
        noted = {"study": study, "kind": objection.kind, "subject": objection.subject, "sentence": objection.sentence}
        noted["earlier"] = objection.study
        place = f"refused/{digest}"
        with self.hold():
            former = read_blob(self.storage, place, _read_notes) if place in self.storage else []
            if noted not in former:
                self.storage[place] = json.dumps([*former, noted]).encode()

    def refusals(self) -> dict[str, list[dict[str, str]]]:
        """All refusals by the hash (hex) of the study."""
        names = list_names(self.storage, "refused")
        return {name.removeprefix("refused/"): read_blob(self.storage, name, _read_notes) for name in names}

    def allow(self, digest: str, reason: str) -> list[dict[str, str]]:
        """Note a person's yes, with the reason, to what was refused so far of the study with this hash (hex).

        Returns what was refused; the yes is to these known sets and to nothing else.
        """
        with self.hold():
            refused = self.refusals().get(digest, [])
            if refused:
                self.storage[f"allowed/{digest}"] = json.dumps({"reason": reason, "refused": refused}).encode()
            return refused

    def allowance(self, digest: str, objection: Objection) -> str:
        """The reason with which a person said yes to just this objection to a study, empty if nobody did."""
        place = f"allowed/{digest}"
        if place not in self.storage:
            return ""
        reason, refused = read_blob(self.storage, place, _read_yes)
        subjects = [(noted["kind"], noted["subject"], noted["earlier"]) for noted in refused]
        return reason if (objection.kind, objection.subject, objection.study) in subjects else ""

    def list_open(self, digest: str, objections: Iterable[Objection]) -> tuple[list[Objection], str]:
        """The objections to the study with this hash (hex) that nobody said yes to, and the reasons of the others."""
        reasons = [(objection, self.allowance(digest, objection)) for objection in objections]
        said = dict.fromkeys(reason for _, reason in reasons if reason)
        return [objection for objection, reason in reasons if not reason], "; ".join(said)

    def _count_remembered(self) -> int:
        return int.from_bytes(self.counter.get(COUNTER, b""), "big")

    def _list_releases(self) -> tuple[str, ...]:
        """The names of the releases, which are in memory then."""
        listing = look_into(self.storage, "release")
        names, changes = listing.names, listing.seen
        again = changes != self._changes
        if not again and (names is self._names or names == self._names):
            self._names = names
            return names
        numbers = [_read_number(name) for name in names]
        for gone in set(self._names).difference(names):
            self._index.drop(gone)
        for name in names:
            if again or name not in self._index:
                self._take_in(name, self.storage[name])
        self._names, self._changes, self._next = names, changes, max(numbers, default=-1) + 1
        return names

    def _look_for(self, blobs: Iterable[str]) -> None:
        """Note which of these blobs are gone since they were found."""
        gone = {blob for blob in set(blobs) if blob not in self.storage}
        self._gone |= gone
        self._found -= gone

    def _take_in(self, name: str, raw: bytes) -> None:
        """Take a release into memory, and note the blobs that it names and that are gone."""
        try:
            head = self._index.put(name, raw)
        except ValueError as error:
            raise report_damage(name, str(error)[:200]) from None
        for blob in head.list_blobs() if head is not None else ():
            if blob not in self._found:
                (self._found if blob in self.storage else self._gone).add(blob)

    def _is_usable(self, name: str, head: ReleaseHead) -> bool:
        """Whether a release can be compared: its prints are of this key and these patients, and none is lost."""
        losses, former = self._read_losses(), _read_number(name)
        if former < losses.get("key", 0) or (head.identified and former < losses.get("patients", 0)):
            return False
        needed = [blob for blob in head.list_blobs() if blob.startswith(("set/", "values/", "patients"))]
        return self._gone.isdisjoint(needed)

    def _read_losses(self) -> Mapping[str, int]:
        """The lost blobs that are made again, each with the release before which it was lost."""
        return read_blob(self.storage, "lost", _read_counts) if "lost" in self.storage else {}

    def _note_losses(self, names: Collection[str]) -> None:
        """Note durably which blobs are lost, before they are made again."""
        known = self._read_losses()
        noted = {**known, **dict.fromkeys(names, self._next)}
        if noted != known:
            self.storage["lost"] = json.dumps(noted).encode()


def _row_set(head: ReleaseHead, bits: PatientMask) -> RowSet:
    versions = {name: version for name, version in head.columns.items() if isinstance(version, int)}
    return RowSet(head.study, bits, versions)


def _pad(bits: PatientMask, size: int) -> PatientMask:
    """The set in a dictionary of `size` patients, or more."""
    return bits if len(bits) >= size else np.concatenate([bits, np.zeros(size - len(bits), bool)])


def _hardly_overlap(a: RowSet, b: RowSet) -> bool:
    """Whether fewer than half of the smaller set's patients are in the other one."""
    return bool(2 * np.count_nonzero(a.bits & b.bits) < min(a.n, b.n))


def _ask_near(study: str, floor: int) -> Objection:
    sentence = (
        f"Its patients are those of the study {study!r} except for fewer than {floor}, and the two have no column in "
        "common (near): a column under another name would show these patients' values. A person of this site decides, "
        "with a reason (coterie release allow)."
    )
    return Objection(Grade.ASK, "near", sentence, study, subject=study)


def count_as_lost(counter: MutableMapping[str, bytes], releases: int) -> None:
    """Remember so many releases more than the log holds: it counts as lost from now on."""
    remembered = int.from_bytes(counter.get(COUNTER, b""), "big") + releases
    counter[COUNTER] = remembered.to_bytes(8, "big")


def _lost() -> Objection:
    sentence = (
        "The privacy log of this site has fewer releases than its node remembers (log lost), so that nobody can say "
        "what follows from this one. Restore the log from a backup, or let a person say yes with a reason (coterie "
        "release allow)."
    )
    return Objection(Grade.ASK, "log lost", sentence)


class ColumnsWithRows(Mapping[str, ColumnVersions]):
    """The log's columns with the values of a new release in those that it reads; each is made when it is asked for."""

    def __init__(self, log: PrivacyLog, printed: PrintedRows, at: Indices, size: int) -> None:
        self._log = log
        self._printed = printed
        self._at = at
        self._size = size

    def __getitem__(self, name: str) -> ColumnVersions:
        return self._log.column(name).add(self._at, self._printed.columns[name], self._size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._printed.columns)

    def __len__(self) -> int:
        return len(self._printed.columns)


class LoggedValues(Mapping[str, Fingerprints]):
    """Value prints (n,) of some columns of a release, row by row; each is read when it is asked for."""

    def __init__(self, log: PrivacyLog, head: ReleaseHead, names: Sequence[str]) -> None:
        self._log = log
        self._head = head
        self._names = names

    def __getitem__(self, name: str) -> Fingerprints:
        if not self._head.identified:
            return self._log.read_values(self._head, name)
        bits = self._log.bits(self._head, 0)
        column = self._log.column(name).extend(len(bits))
        return column.at_version(int(self._head.columns[name]), np.flatnonzero(bits).astype(np.uint32))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _bits_digest(bits: PatientMask) -> str:
    return _digest(np.flatnonzero(bits).astype("<u4").tobytes())


def _pack_prints(columns: Mapping[str, Fingerprints], name: str) -> bytes:
    return columns[name].tobytes()


def _mark_key(key: bytes) -> bytes:
    """The mark by which the site's state recognises the log's key."""
    return hashlib.blake2b(key, digest_size=16, person=b"privacy log key").digest()


def _check_key(raw: bytes) -> bytes:
    if len(raw) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, and it has {len(raw)}")
    return raw


def _read_prints(raw: bytes) -> PatientPrints:
    return np.frombuffer(raw, np.uint64)


def _read_values(raw: bytes) -> Fingerprints:
    return np.frombuffer(raw, np.uint32)


def _read_number(name: str) -> int:
    """A release's number; StoreFault (CO-C214) for any other file."""
    number = name.rpartition("/")[2]
    if not number.isdecimal() or len(number) > _MOST_DIGITS:
        raise report_damage(name, "no release has such a name")
    return int(number)


def _read_notes(raw: bytes) -> list[dict[str, str]]:
    return [{str(key): str(value) for key, value in noted.items()} for noted in from_json(raw)]


def _read_yes(raw: bytes) -> tuple[str, list[dict[str, str]]]:
    """The reason of a person's yes, and the objections that it covers."""
    yes = from_json(raw)
    return str(yes["reason"]), [dict(noted) for noted in yes["refused"]]


def _read_counts(raw: bytes) -> dict[str, int]:
    return {str(name): int(number) for name, number in from_json(raw).items()}


def _report_stale() -> StoreFault:
    message = "The privacy log has another release since this one was judged"
    return StoreFault("CO-C216", f"{message}. Nothing has left: the release is judged again.")
