"""A local index of the ledger's history, for questions over a hundred thousand records.

It is a copy and proves nothing by itself: it is built from the ledger, can be thrown away, and every record in it
extends its site's hash chain, which `check` follows again and compares with the heads in the contracts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from coterie_chain.errors import BlobCorrupt, LedgerMismatch
from coterie_chain.ledger.history_check import check_history
from coterie_chain.ledger.protocol import Event, Head, Ledger, Post, Record
from coterie_chain.ledger.record_chain import compute_next_head
from coterie_learners.errors import pluralise
from coterie_node.audit.history import ENTRY_COLUMNS, HistoryEntry, to_history_entry
from coterie_node.audit.replay import SNAPSHOT_TRIES
from coterie_node.audit.sources import MOST_DIGITS
from coterie_node.errors import AuditFailed, ConfigError

FORMAT = 1
# What a record adds to its line: all that its hash chain covers, and the chain itself.
_CHAIN_COLUMNS = ("seq", "code", "converged", "basis", "gate", "head")
SCHEMA = f"""
CREATE TABLE entries (id INTEGER PRIMARY KEY, {", ".join(ENTRY_COLUMNS)}, {", ".join(_CHAIN_COLUMNS)});
CREATE INDEX by_study ON entries (study, round, id);
CREATE INDEX by_site ON entries (site, study, id);
CREATE INDEX by_kind ON entries (kind, study, id);
CREATE INDEX by_time ON entries (time, id);
CREATE TABLE heads (site TEXT PRIMARY KEY, genesis BLOB, seq INTEGER, head BLOB);
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT);
"""
INSERT = f"INSERT INTO entries VALUES ({', '.join('?' * (1 + len(ENTRY_COLUMNS) + len(_CHAIN_COLUMNS)))})"
KINDS = "(what = :kind OR kind = :kind OR kind LIKE :kind || ':%')"


@dataclass(frozen=True)
class HistoryQuery:
    """Which entries: of a study, site, kind (each, server, only or an event), round; from and before a UTC time."""

    study: int | None = None
    site: str | None = None
    kind: str | None = None
    round: int | None = None
    since: str | None = None
    until: str | None = None

    def where(self) -> tuple[str, dict[str, Any]]:
        """The condition in SQL, and its values."""
        tests = {
            "study": "study = :study", "site": "site = :site", "kind": KINDS, "round": "round = :round",
            "since": "time >= :since", "until": "time < :until",
        }  # fmt: skip
        conditions = {name: value for name, value in vars(self).items() if value is not None}
        return " AND ".join(tests[name] for name in conditions) or "1", conditions


class HistoryIndex:
    """The history in SQLite, in a file or in memory (None)."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        try:
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None)
            self._prepare()
        except sqlite3.Error as error:
            message = f"{path} cannot be used as an index of the history: {error}"
            raise ConfigError("CO-F207", f"{message}. Delete it; it is built again from the ledger.") from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def refresh(self, ledger: Ledger) -> int:
        """Compare the index with the ledger, row by row; if they differ, check the whole history and build it again.

        Returns the number of entries. LedgerMismatch if the history breaks the rules or is not whole.
        """
        entries, heads = _read_snapshot(ledger)
        if self.heads() != heads or not self._matches_ledger(entries, heads):
            judge = check_history(entries, {site: head.genesis for site, head in heads.items()})
            if judge.heads != heads:
                raise LedgerMismatch(
                    "CO-C340",
                    "The history does not lead to the heads of the sites' hash chains."
                    " Replay the study: it names the first wrong record.",
                )
            self._build(entries, heads)
        return len(entries)

    def lines(self, question: HistoryQuery, first: int = 0, most: int = -1) -> Iterator[HistoryEntry]:
        """The entries that fit, in the order of the ledger, `most` of them from the `first` on (from 0)."""
        where, values = question.where()
        query = f"SELECT {', '.join(ENTRY_COLUMNS)} FROM entries WHERE {where} ORDER BY id LIMIT :most OFFSET :first"
        for row in self._db.execute(query, {**values, "most": most, "first": first}):
            yield HistoryEntry(*row)

    def pages(self, question: HistoryQuery, size: int) -> Iterator[list[HistoryEntry]]:
        """The entries that fit in pages of `size`, each found at once, however far in it is."""
        where, values = question.where()
        columns = ", ".join(ENTRY_COLUMNS)
        query = f"SELECT id, {columns} FROM entries WHERE id > :last AND ({where}) ORDER BY id LIMIT :size"
        last = -1
        while rows := self._db.execute(query, {**values, "last": last, "size": size}).fetchall():
            yield [HistoryEntry(*row[1:]) for row in rows]
            last = rows[-1][0]

    def count(self, question: HistoryQuery) -> int:
        """How many entries fit."""
        where, values = question.where()
        (number,) = self._db.execute(f"SELECT count(*) FROM entries WHERE {where}", values).fetchone()
        return int(number)

    def find_study(self, text: str) -> int:
        """A study's number as people write it; ConfigError (CO-F304) if the index has no such study."""
        short = text.isdecimal() and len(text) <= MOST_DIGITS
        if not short or self.count(HistoryQuery(study=int(text))) == 0:
            message = f"The index {self.path} has no study {text[:80]!r}; it has studies by number"
            raise ConfigError("CO-F304", f"{message}. Give the number, or name a ledger besides --index.")
        return int(text)

    def heads(self) -> dict[str, Head]:
        """The sites' hash chains as they were when the index was built."""
        return {site: Head(*rest) for site, *rest in self._db.execute("SELECT site, genesis, seq, head FROM heads")}

    def check(self, heads: Mapping[str, Head] | None = None) -> int:
        """Follow every hash chain through the index's own rows, to the heads given or kept; returns the records.

        AuditFailed (CO-A108) names the site and the first record that does not hold.
        """
        wanted = self.heads() if heads is None else dict(heads)
        chain_heads = {site: Head(head.genesis, 0, head.genesis) for site, head in wanted.items()}
        query = (
            f"SELECT {', '.join((*ENTRY_COLUMNS, *_CHAIN_COLUMNS))} FROM entries WHERE what = 'Recorded' ORDER BY id"
        )
        count = 0
        for row in self._db.execute(query):
            count += 1
            self._follow(dict(zip((*ENTRY_COLUMNS, *_CHAIN_COLUMNS), row, strict=True)), chain_heads)
        for site, head in wanted.items():
            if chain_heads[site] != head:
                message = f"The index has {pluralise(chain_heads[site].seq, 'record')} of {site}; "
                message += f"its hash chain on the ledger has {head.seq}"
                raise AuditFailed("CO-A108", f"{message}. Delete the index; it is built again.", site)
        return count

    def _follow(self, row: Mapping[str, Any], heads: dict[str, Head]) -> None:
        site = row["site"]
        before = heads.get(site)
        try:
            post = Post(
                row["study"], row["position"], row["attempt"], row["cid"], bytes.fromhex(row["sha256"]), row["size"],
                bool(row["converged"]), row["basis"], row["gate"],
            )  # fmt: skip
            head = compute_next_head(before.head, row["seq"], row["code"], row["round"], post) if before else b""
        except (ValueError, TypeError, AttributeError, OverflowError, BlobCorrupt):
            head = b""
        if before is None or row["seq"] != before.seq + 1 or head != row["head"]:
            step = f"study {row['study']}, position {row['position']}"
            message = f"Record {row['seq']} of {site} ({step}) in the index does not extend the site's hash chain"
            raise AuditFailed("CO-A108", f"{message}. Delete the index; it is built again.", str(site), step)
        heads[site] = Head(before.genesis, row["seq"], head)

    def _prepare(self) -> None:
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and tables != {"entries", "heads", "about"}:
            raise sqlite3.DatabaseError("it is a database of something else")
        if not tables:
            self._db.executescript(SCHEMA)
            self._db.execute("INSERT INTO about VALUES ('format', ?)", (str(FORMAT),))
        version_row = self._db.execute("SELECT value FROM about WHERE name = 'format'").fetchone()
        columns = [name for _, name, *_ in self._db.execute("PRAGMA table_info(entries)")]
        if version_row != (str(FORMAT),) or columns != ["id", *ENTRY_COLUMNS, *_CHAIN_COLUMNS]:
            raise sqlite3.DatabaseError("another version of Coterie wrote it")

    def _matches_ledger(self, entries: Sequence[Record | Event], heads: Mapping[str, Head]) -> bool:
        if self.count(HistoryQuery()) != len(entries):
            return False
        rows, ids = self._db.execute("SELECT * FROM entries ORDER BY id"), _ids(heads)
        return all(row == _row(k, entry, ids) for k, (row, entry) in enumerate(zip(rows, entries, strict=True)))

    def _build(self, entries: Iterable[Record | Event], heads: Mapping[str, Head]) -> None:
        ids = _ids(heads)
        self._db.execute("BEGIN")
        self._db.execute("DELETE FROM entries")
        self._db.execute("DELETE FROM heads")
        self._db.executemany(INSERT, (_row(k, entry, ids) for k, entry in enumerate(entries)))
        rows = [(site, head.genesis, head.seq, head.head) for site, head in heads.items()]
        self._db.executemany("INSERT INTO heads VALUES (?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")


def _ids(heads: Mapping[str, Head]) -> dict[str, int]:
    return {site: number for number, site in enumerate(heads, start=1)}


def _row(k: int, entry: Record | Event, ids: Mapping[str, int]) -> tuple[Any, ...]:
    line = tuple(vars(to_history_entry(entry)).values())
    if isinstance(entry, Event):
        return (k, *line, *(None,) * len(_CHAIN_COLUMNS))
    post = entry.post
    code = {"each": 0xFF, "server": 0xFE}.get(entry.kind) or ids[entry.kind.removeprefix("only:")]
    return (k, *line, entry.seq, code, post.converged, post.basis, post.verdict, entry.head)


def _read_snapshot(ledger: Ledger) -> tuple[list[Record | Event], dict[str, Head]]:
    """The whole history and the heads as of one moment."""
    for _ in range(SNAPSHOT_TRIES):
        heads = ledger.heads()
        entries = list(ledger.history())
        if ledger.heads() == heads:
            return entries, heads
    raise AuditFailed("CO-A106", "The ledger changed during each of many reads. Read it again later.")
