"""Entries in a SQLite file, so that a daemon's memory does not grow with the history, and its start reads little.

The file is a copy of what the chain says. It may be deleted at any time. It is used only if it is whole: each row has
the SHA-256 of all rows up to it, and the last one is sealed together with the place that the log has reached. A file
that is damaged, of another network or of another format is emptied, and everything is read from the chain again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from coterie_chain.errors import StoreFault
from coterie_chain.ethereum.entries.entry_log import Entry, Extent, Tip
from coterie_chain.keys.private_files import check_mode
from coterie_chain.ledger.protocol import Event, Post, Record

FORMAT = 1
# `place` is a step's position, -1 for an event; `number` a record's number at its site, 0 for an event.
_SCHEMA = """
CREATE TABLE entries (
  id INTEGER PRIMARY KEY, block INTEGER NOT NULL, study INTEGER NOT NULL, place INTEGER NOT NULL, site TEXT NOT NULL,
  number INTEGER NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, digest BLOB NOT NULL
);
CREATE INDEX by_study ON entries (study, place);
CREATE INDEX by_site ON entries (site, number);
CREATE INDEX by_name ON entries (name, study);
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_INSERT = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ROW = "id, block, study, place, site, number, name, body"


class EntryFile:
    """The entries of the network that `scope` names, in a file of mode 0600; one process at a time writes it."""

    def __init__(self, path: Path, scope: str) -> None:
        self.path, self._scope = path, scope
        self._lock = threading.RLock()
        self._db = self._open()
        with suppress(sqlite3.Error, ValueError, KeyError, TypeError):
            if self._verify():
                return
        self._renew()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @property
    def place(self) -> Extent:
        """How far the log reaches."""
        return self._place

    def extend(self, entries: Sequence[Entry], place: Extent) -> None:
        """Append entries."""
        with self._change() as digest:
            last = digest
            (number,) = self._db.execute("SELECT coalesce(max(id), 0) FROM entries").fetchone()
            for row in (_encode(number + k, entry) for k, entry in enumerate(entries, start=1)):
                last = _chain(last, row)
                self._db.execute(_INSERT, (*row, last))
            self._seal(place, last)
        self._place = place

    def drop_above(self, block: int, place: Extent) -> None:
        """Forget the entries of all blocks above this one."""
        with self._change():
            self._db.execute("DELETE FROM entries WHERE block > ?", (block,))
            self._seal(place, self._last_digest())
        self._place = place

    def clear(self) -> None:
        """Forget everything."""
        with self._change():
            self._db.execute("DELETE FROM entries")
            self._seal(Extent(), bytes(32))
        self._place = Extent()

    def read(self, study: int | None = None) -> Iterator[Entry]:
        """All entries as of now, or those of one study (0: of the membership)."""
        if study is not None:
            rows = self._ask("SELECT body FROM entries WHERE study = ? ORDER BY id", study)
            return (_decode(body) for (body,) in rows)
        return self._read_all()

    def list_after(self, count: int) -> tuple[Entry, ...]:
        """All entries but the first `count`."""
        rows = self._ask("SELECT body FROM entries WHERE id > ? ORDER BY id", count)
        return tuple(_decode(body) for (body,) in rows)

    def list_records(self, study: int, position: int) -> tuple[Record, ...]:
        """The records of a step, of all attempts."""
        rows = self._ask("SELECT body FROM entries WHERE study = ? AND place = ? ORDER BY id", study, position)
        return tuple(entry for (body,) in rows if isinstance(entry := _decode(body), Record))

    def list_proposals(self, after: int) -> tuple[Event, ...]:
        """The proposals of studies with a number above `after`."""
        query = "SELECT body FROM entries WHERE name = 'StudyProposed' AND study > ? ORDER BY id"
        return tuple(entry for (body,) in self._ask(query, after) if isinstance(entry := _decode(body), Event))

    def count_records(self) -> dict[str, int]:
        """The number of each site's last record."""
        rows = self._ask("SELECT site, max(number) FROM entries WHERE number > 0 GROUP BY site")
        return {str(site): int(number) for site, number in rows}

    def count_events(self, names: Sequence[str], until: int) -> int:
        """How many events of the blocks up to `until` have one of these names."""
        query = "SELECT count(*) FROM entries WHERE name = ? AND block <= ?"
        return sum(int(count) for name in names for ((count,),) in [self._ask(query, name, until)])

    # The file

    def _open(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            check_mode(self.path, self.path.stat().st_mode, "the history", "600")
        except OSError as error:
            raise self._explain(str(error.strerror or error)) from None
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        # A power cut may cost the last pages read, never the file: it is a copy, so nothing waits for the disk.
        with suppress(sqlite3.Error):
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
        return db

    def _verify(self) -> bool:
        """Whether the file holds this network's entries, whole, in this format."""
        about = dict(self._db.execute("SELECT name, value FROM about"))
        if about["format"] != str(FORMAT) or about["scope"] != self._scope:
            return False
        last = bytes(32)
        for *row, digest in self._db.execute(f"SELECT {_ROW}, digest FROM entries ORDER BY id"):
            last = _chain(last, row)
            if last != digest:
                return False
        self._place = _decode_place(about["place"])
        return bool(about["seal"] == _seal_of(last, self._scope, about["place"]))

    def _renew(self) -> None:
        """Begin with an empty file, whatever was in it."""
        self._db.close()
        for end in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        self._db = self._open()
        try:
            self._db.executescript(_SCHEMA)
            about = {"format": str(FORMAT), "scope": self._scope}
            self._db.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        except sqlite3.Error as error:
            raise self._explain(str(error)) from None
        self.clear()

    @contextmanager
    def _change(self) -> Iterator[bytes]:
        """All statements inside or none; gives the digest of the last row."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._last_digest()
                self._db.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._explain(str(error)) from None
                raise

    def _last_digest(self) -> bytes:
        row = self._db.execute("SELECT digest FROM entries ORDER BY id DESC LIMIT 1").fetchone()
        return bytes(32) if row is None else bytes(row[0])

    def _seal(self, place: Extent, last: bytes) -> None:
        text = _encode_place(place)
        values = {"place": text, "seal": _seal_of(last, self._scope, text)}
        self._db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", values.items())

    def _ask(self, query: str, *values: object) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._explain(str(error)) from None

    def _read_all(self) -> Iterator[Entry]:
        # A connection of its own sees the file as of one moment, while the follower goes on writing.
        with closing(sqlite3.connect(self.path, check_same_thread=False)) as db:
            try:
                for (body,) in db.execute("SELECT body FROM entries ORDER BY id"):
                    yield _decode(body)
            except sqlite3.Error as error:
                raise self._explain(str(error)) from None

    def _explain(self, cause: str) -> StoreFault:
        message = f"The history {self.path} cannot be used: {cause}. Check the free space and its permissions"
        return StoreFault("CO-C323", f"{message}; you may delete it, and it is read from the chain again.")


def _chain(last: bytes, row: Sequence[object]) -> bytes:
    """The digest of a row and of all before it."""
    return hashlib.sha256(last + json.dumps(list(row)).encode()).digest()


def _seal_of(last: bytes, scope: str, place: str) -> str:
    return hashlib.sha256(last + json.dumps([FORMAT, scope, place]).encode()).hexdigest()


def _encode(number: int, entry: Entry) -> tuple[object, ...]:
    if isinstance(entry, Event):
        body = [entry.name, entry.study, entry.site, entry.details, entry.block, entry.time, entry.tx]
        return (number, entry.block, entry.study, -1, entry.site, 0, entry.name, json.dumps(body))
    post = entry.post
    line: list[object] = [entry.site, entry.seq, entry.kind, entry.round, entry.head.hex(), entry.block, entry.time]
    line += [entry.tx, post.study, post.position, post.attempt, post.cid, post.sha256.hex(), post.size]
    line += [post.converged, post.basis.hex(), post.verdict.hex()]
    return (number, entry.block, post.study, post.position, entry.site, entry.seq, "", json.dumps(line))


def _decode(body: str) -> Entry:
    values = json.loads(body)
    if len(values) == _EVENT_FIELDS:
        name, study, site, details, *when = values
        return Event(name, study, site, tuple((key, value) for key, value in details), *when)
    site, seq, kind, round_, head, block, time, tx, study, position, attempt, cid, sha256, size, done, *last = values
    basis, verdict = map(bytes.fromhex, last)
    post = Post(study, position, attempt, cid, bytes.fromhex(sha256), size, done, basis, verdict)
    return Record(site, seq, kind, round_, post, bytes.fromhex(head), block, time, tx)


_EVENT_FIELDS = 7


def _encode_place(place: Extent) -> str:
    tip = None if place.tip is None else [place.tip.number, place.tip.hash, place.tip.parent, place.tip.time]
    parts = [list(mapping.items()) for mapping in (place.landmarks, place.names, place.models)]
    return json.dumps([tip, *parts])


def _decode_place(text: str) -> Extent:
    tip, landmarks, names, models = json.loads(text)
    return Extent(None if tip is None else Tip(*tip), dict(landmarks), dict(names), dict(models))
