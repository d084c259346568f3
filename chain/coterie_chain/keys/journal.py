"""What a site must not forget: signed transactions before they are sent, and its learners' private memory.

A transaction is written down before the first byte of it leaves, so that after a crash the same bytes are sent again
instead of a second transaction. One process at a time may hold a journal.

A journal of an older release is brought forward when it is opened, after a copy of it was made beside it. One of a
newer release is refused: what that release wrote down could be lost.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from coterie_chain.errors import StoreFault
from coterie_chain.keys.private_files import check_mode

# What makes a journal of version k one of version k + 1, for k = 1, 2, ...; version 1 is that of release 0.2.0.
MIGRATIONS: tuple[str, ...] = ()
# Mined transactions are kept for a while: a reorganisation can drop them from the chain and from the node's memory.
MAX_MINED = 64

SCHEMA = """
CREATE TABLE sent (
  scope TEXT NOT NULL, nonce INTEGER NOT NULL, purpose TEXT NOT NULL, raw BLOB NOT NULL, hash TEXT NOT NULL,
  mined INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (scope, nonce)
) WITHOUT ROWID;
CREATE TABLE vault (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Signed:
    """A signed transaction: its nonce, what it is for, its bytes and their hash (0x-hex)."""

    nonce: int
    purpose: str
    raw: bytes
    hash: str


class Journal(Protocol):
    """Durable memory of one site. `scope` names a network and an account, so that nonces cannot be confused."""

    @property
    def vault(self) -> MutableMapping[str, bytes]:
        """Small private values, durable when the assignment returns."""

    def save(self, scope: str, tx: Signed) -> None:
        """Write a transaction down, durably, before it is sent; one with the same nonce is replaced."""

    def mark_mined(self, scope: str, nonce: int) -> None:
        """Note that a transaction is on the chain; of those only the last 64 are kept."""

    def forget(self, scope: str, nonce: int) -> None:
        """Strike a transaction that can never be mined."""

    def list_sent(self, scope: str) -> tuple[tuple[Signed, bool], ...]:
        """All transactions kept, by nonce, each with whether it was mined."""

    def copy_to(self, path: Path) -> None:
        """Write all of it, as of one moment, into a new file that `SqliteJournal` opens."""

    def close(self) -> None:
        """Let another process have it."""


class MemoryJournal:
    """A journal that forgets at the end of the process."""

    def __init__(self) -> None:
        self._sent: dict[tuple[str, int], tuple[Signed, bool]] = {}
        self._vault: dict[str, bytes] = {}

    @property
    def vault(self) -> MutableMapping[str, bytes]:
        """Small private values."""
        return self._vault

    def save(self, scope: str, tx: Signed) -> None:
        """Write a transaction down."""
        self._sent[scope, tx.nonce] = tx, False
        for other_scope, nonce in [k for k, (_, mined) in self._sent.items() if mined]:
            if other_scope == scope and nonce < tx.nonce - MAX_MINED:
                del self._sent[other_scope, nonce]

    def mark_mined(self, scope: str, nonce: int) -> None:
        """Note that a transaction is on the chain."""
        if (scope, nonce) in self._sent:
            self._sent[scope, nonce] = self._sent[scope, nonce][0], True

    def forget(self, scope: str, nonce: int) -> None:
        """Strike a transaction."""
        self._sent.pop((scope, nonce), None)

    def list_sent(self, scope: str) -> tuple[tuple[Signed, bool], ...]:
        """All transactions kept, by nonce."""
        return tuple(self._sent[k] for k in sorted(self._sent) if k[0] == scope)

    def copy_to(self, path: Path) -> None:
        """Write all of it into a new file."""
        with SqliteJournal(path) as journal:
            journal.vault.update(self._vault)
            for (scope, nonce), (tx, mined) in sorted(self._sent.items()):
                journal.save(scope, tx)
                if mined:
                    journal.mark_mined(scope, nonce)

    def close(self) -> None:
        """Nothing to close."""


class SqliteJournal:
    """A journal in a file (mode 0600), safe after a crash of the process or the machine.

    StoreFault (CO-C320) if another process holds it, (CO-C321) if the file is no journal, or (CO-C324) if it is one of
    a newer release.
    """

    def __init__(self, path: str | Path, migrations: Sequence[str] = MIGRATIONS) -> None:
        self._path, self._migrations = Path(path), migrations
        self._lock = threading.RLock()
        # Noted as mined and not written yet: that goes with the next transaction that is saved.
        self._mined: set[tuple[str, int]] = set()
        _create_private(self._path)
        self._db = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with self._translate_sqlite_errors():
                self._open()
        except BaseException:
            self._db.close()
            raise
        self._vault = _Vault(self)

    @property
    def vault(self) -> MutableMapping[str, bytes]:
        """Small private values."""
        return self._vault

    def save(self, scope: str, tx: Signed) -> None:
        """Write a transaction down, durably."""
        with self._writing_marks():
            self.ask("DELETE FROM sent WHERE scope = ? AND mined AND nonce < ?", scope, tx.nonce - MAX_MINED)
            row = (scope, tx.nonce, tx.purpose, tx.raw, tx.hash)
            self.ask("INSERT OR REPLACE INTO sent (scope, nonce, purpose, raw, hash) VALUES (?, ?, ?, ?, ?)", *row)

    def mark_mined(self, scope: str, nonce: int) -> None:
        """Note that a transaction is on the chain."""
        # Not written at once: after a crash the receipt shows the same.
        with self._lock:
            self._mined.add((scope, nonce))

    def forget(self, scope: str, nonce: int) -> None:
        """Strike a transaction."""
        with self._writing_marks():
            self.ask("DELETE FROM sent WHERE scope = ? AND nonce = ?", scope, nonce)

    def list_sent(self, scope: str) -> tuple[tuple[Signed, bool], ...]:
        """All transactions kept, by nonce."""
        with self._lock:
            rows = self.ask("SELECT nonce, purpose, raw, hash, mined FROM sent WHERE scope = ? ORDER BY nonce", scope)
            marks = set(self._mined)
        return tuple(
            (Signed(n, purpose, raw, hash_), bool(mined) or (scope, n) in marks)
            for n, purpose, raw, hash_, mined in rows
        )

    def copy_to(self, path: Path) -> None:
        """Write all of it, as of one moment, into a new file of mode 0600."""
        _create_private(path)
        with self._lock, self._translate_sqlite_errors(), closing(sqlite3.connect(path)) as copy:
            self._write_marks("FULL")
            self._db.backup(copy)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            # Not forced to the disk: the receipts would show the same.
            with suppress(StoreFault):
                self._write_marks("NORMAL")
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(self, statement: str, *values: object) -> list[Any]:
        """Rows that a statement returns."""
        with self._lock, self._translate_sqlite_errors():
            return self._db.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All statements inside or none, durable at the end."""
        with self._lock:
            self.ask("BEGIN IMMEDIATE")
            try:
                yield
                self.ask("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _writing_marks(self) -> Iterator[None]:
        """A transaction that first writes down what was noted as mined since the last one."""
        with self._lock:
            with self.transaction():
                for mark in self._mined:
                    self.ask("UPDATE sent SET mined = 1 WHERE scope = ? AND nonce = ?", *mark)
                yield
            self._mined.clear()

    def _write_marks(self, synchronous: str) -> None:
        """Write down what was noted as mined, if anything was."""
        if self._mined:
            self.ask(f"PRAGMA synchronous = {synchronous}")
            with self._writing_marks():
                pass

    def _open(self) -> None:
        # The lock is taken at the first write and kept until close or death, by whatever means.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.execute("BEGIN EXCLUSIVE")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._change(SCHEMA, 1)
        self._db.execute("COMMIT")
        self._migrate(version or 1, is_new=version == 0)

    def _migrate(self, version: int, *, is_new: bool) -> None:
        """Convert the journal to this release's form, whole or not at all; a copy of the old one stays beside it."""
        newest = 1 + len(self._migrations)
        if version > newest:
            message = f"The journal {self._path} is of version {version}, and this release knows {newest}"
            remedy = "Use the newer release again; to go back, restore a backup that the older release made"
            raise StoreFault("CO-C324", f"{message}. {remedy}.")
        if version == newest:
            return
        if not is_new:
            # The lock of the first write is kept, so nobody changes the journal between the copy and the change.
            copy = self._path.with_name(f"{self._path.name}.v{version}")
            copy.unlink(missing_ok=True)
            self.copy_to(copy)
        self._db.execute("BEGIN EXCLUSIVE")
        try:
            for number in range(version, newest):
                self._change(self._migrations[number - 1], number + 1)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _change(self, script: str, version: int) -> None:
        for statement in script.split(";"):
            self._db.execute(statement)
        self._db.execute(f"PRAGMA user_version = {version}")

    @contextmanager
    def _translate_sqlite_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as e:
            if "locked" in str(e) or "busy" in str(e):
                raise StoreFault(
                    "CO-C320",
                    f"Another process holds the journal {self._path}. One node only may sign with a site's key: "
                    "stop the other one first.",
                ) from None
            raise StoreFault(
                "CO-C322", f"The journal {self._path} cannot be used: {e}. Check its permissions and the disk."
            ) from e
        except sqlite3.DatabaseError as e:
            raise _explain_alien(self._path, str(e)) from e


class _Vault(MutableMapping[str, bytes]):
    """The journal's key-value part."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._journal = journal

    def __getitem__(self, key: str) -> bytes:
        rows = self._journal.ask("SELECT value FROM vault WHERE key = ?", key)
        if not rows:
            raise KeyError(key)
        return bytes(rows[0][0])

    def __setitem__(self, key: str, value: bytes) -> None:
        with self._journal.transaction():
            self._journal.ask("INSERT OR REPLACE INTO vault VALUES (?, ?)", key, value)

    def __delitem__(self, key: str) -> None:
        self[key]
        with self._journal.transaction():
            self._journal.ask("DELETE FROM vault WHERE key = ?", key)
        # What is deleted here are secrets: they shall not stay in the log that precedes the file.
        self._journal.ask("PRAGMA wal_checkpoint(TRUNCATE)")

    def __iter__(self) -> Iterator[str]:
        return (str(key) for (key,) in self._journal.ask("SELECT key FROM vault ORDER BY key"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _create_private(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        # Not opened: closing it again would undo SQLite's lock if this process holds it already.
        check_mode(path, path.stat().st_mode, "the journal", "600")
    except OSError as e:
        raise StoreFault(
            "CO-C322", f"Cannot create the journal {path}: {e.strerror or e}. Check the path and its permissions."
        ) from e


def _explain_alien(path: Path, cause: str) -> StoreFault:
    return StoreFault(
        "CO-C321",
        f"{path} is not a journal ({cause}). Move it away only if no study of this site runs.",
    )
