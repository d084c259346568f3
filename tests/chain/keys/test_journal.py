"""Both journals remember alike, and the one in a file survives whatever happens to the process."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from coterie_chain.errors import KeyFault, StoreFault
from coterie_chain.keys.journal import MAX_MINED, Journal, MemoryJournal, Signed, SqliteJournal

_WRITER = """
import sys
from coterie_chain.keys.journal import Signed, SqliteJournal
journal = SqliteJournal(sys.argv[1])
for nonce in range(10**9):
    journal.save("net", Signed(nonce, f"record {nonce}", bytes([nonce % 256]) * 300, hex(nonce)))
    journal.vault["last"] = str(nonce).encode()
    print(nonce, flush=True)
"""


def build_signed(nonce: int, purpose: str = "record 1/0/0") -> Signed:
    return Signed(nonce, purpose, bytes([nonce]) * 10, f"0x{nonce:02x}")


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Journal]:
    """Opens the journal under test, again and again."""
    if request.param == "sqlite":
        return lambda: SqliteJournal(tmp_path / "journal.db")
    journal = MemoryJournal()
    return lambda: journal


def test_a_transaction_is_remembered_until_it_is_mined_and_after(reopen: Callable[[], Journal]) -> None:
    journal = reopen()
    journal.save("net", build_signed(5))
    journal.save("net", build_signed(4))
    journal.save("other", build_signed(0))
    journal.mark_mined("net", 4)
    journal.close()
    journal = reopen()
    assert journal.list_sent("net") == ((build_signed(4), True), (build_signed(5), False))
    assert journal.list_sent("other") == ((build_signed(0), False),)
    assert journal.list_sent("nobody") == ()
    journal.close()


def test_a_nonce_is_held_by_its_last_transaction(reopen: Callable[[], Journal]) -> None:
    journal = reopen()
    journal.save("net", build_signed(1, "a"))
    journal.mark_mined("net", 1)
    journal.save("net", build_signed(1, "b"))
    assert journal.list_sent("net") == ((build_signed(1, "b"), False),)
    journal.forget("net", 1)
    journal.forget("net", 1)
    journal.mark_mined("net", 1)
    assert journal.list_sent("net") == ()
    journal.close()


def test_unmined_ones_are_kept_for_ever_and_mined_ones_for_a_while(reopen: Callable[[], Journal]) -> None:
    journal = reopen()
    for nonce in range(MAX_MINED + 10):
        journal.save("net", build_signed(nonce))
        if nonce != 3:
            journal.mark_mined("net", nonce)
    nonces = [signed.nonce for signed, _ in journal.list_sent("net")]
    assert nonces == [3, *range(9, MAX_MINED + 10)]
    journal.close()


def test_the_vault_is_a_mapping(reopen: Callable[[], Journal]) -> None:
    journal = reopen()
    vault = journal.vault
    vault["a"] = b"1"
    vault["b"] = bytes(range(256)) * 100
    vault["a"] = b"2"
    journal.close()
    vault = (journal := reopen()).vault
    assert dict(vault) == {"a": b"2", "b": bytes(range(256)) * 100}
    assert (len(vault), "a" in vault, vault.get("c")) == (2, True, None)
    del vault["a"]
    with pytest.raises(KeyError):
        vault["a"]
    with pytest.raises(KeyError):
        del vault["a"]
    assert list(vault) == ["b"]
    journal.close()


def test_what_is_deleted_from_the_vault_leaves_no_trace_in_the_files(tmp_path: Path) -> None:
    secret = bytes(range(65, 97))
    with SqliteJournal(tmp_path / "journal.db") as journal:
        journal.vault["other"] = bytes(3000)
        journal.vault["key"] = secret
        assert any(secret in file.read_bytes() for file in tmp_path.iterdir())
        del journal.vault["key"]
        assert not any(secret in file.read_bytes() for file in tmp_path.iterdir())


def test_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with SqliteJournal(path) as journal:
        journal.save("net", build_signed(1))
        assert {f.name: f.stat().st_mode & 0o777 for f in tmp_path.iterdir()} == dict.fromkeys(
            ("journal.db", "journal.db-wal"), 0o600
        )
    path.chmod(0o644)
    with pytest.raises(KeyFault, match="Others can reach the journal"):
        SqliteJournal(path)


def test_nothing_that_was_saved_is_lost_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, path], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(40)]
        os.kill(process.pid, signal.SIGKILL)
        rest = process.communicate()[0].splitlines()
        last = int((rest or lines)[-1])
        with SqliteJournal(path) as journal:
            saved = {signed.nonce: signed for signed, _ in journal.list_sent("net")}
            assert set(range(last + 1)) <= set(saved)
            assert all(saved[n].raw == bytes([n % 256]) * 300 for n in range(last + 1))
            assert int(journal.vault["last"]) >= last


def test_a_crash_may_forget_that_a_transaction_was_mined_and_never_the_transaction(tmp_path: Path) -> None:
    def crash() -> tuple[tuple[Signed, bool], ...]:
        """What a second journal finds that is made of the files as they lie on the disk."""
        for file in tmp_path.glob("journal.db*"):
            shutil.copy(file, tmp_path / file.name.replace("journal", "after"))
        with SqliteJournal(tmp_path / "after.db") as after:
            return after.list_sent("net")

    with SqliteJournal(tmp_path / "journal.db") as journal:
        journal.save("net", build_signed(1))
        journal.mark_mined("net", 1)
        assert journal.list_sent("net") == ((build_signed(1), True),)
        assert crash() == ((build_signed(1), False),)
        journal.save("net", build_signed(2))
        journal.mark_mined("net", 2)
        assert crash() == ((build_signed(1), True), (build_signed(2), False))
        journal.copy_to(tmp_path / "copy.db")
    for name in ("journal.db", "copy.db"):
        with SqliteJournal(tmp_path / name) as journal:
            assert journal.list_sent("net") == ((build_signed(1), True), (build_signed(2), True))


def test_two_processes_cannot_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    program = "import sys; from coterie_chain.keys.journal import *; SqliteJournal(sys.argv[1])"
    second = [sys.executable, "-c", program, str(path)]
    with SqliteJournal(path) as journal:
        with pytest.raises(StoreFault, match="Another process holds the journal") as caught:
            SqliteJournal(path)
        assert caught.value.code == "CO-C320"
        journal.save("net", build_signed(1))
        refused = subprocess.run(second, capture_output=True, text=True, check=False)
        assert "Another process holds the journal" in refused.stderr
        journal.save("net", build_signed(2))
    assert subprocess.run(second, check=False).returncode == 0


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"something else entirely, long enough to be looked at" * 100)
    path.chmod(0o600)
    with pytest.raises(StoreFault, match="is not a journal") as caught:
        SqliteJournal(path)
    assert caught.value.code == "CO-C321"
    path.unlink()
    SqliteJournal(path).close()


# As release 0.2.0 made it; never changed here.
SCHEMA_1 = """
CREATE TABLE sent (
  scope TEXT NOT NULL, nonce INTEGER NOT NULL, purpose TEXT NOT NULL, raw BLOB NOT NULL, hash TEXT NOT NULL,
  mined INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (scope, nonce)
) WITHOUT ROWID;
CREATE TABLE vault (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
PRAGMA user_version = 1;
INSERT INTO sent VALUES ('net', 4, 'record 1/0/0', x'0404', '0x04', 1), ('net', 5, 'record 1/1/0', x'05', '0x05', 0);
INSERT INTO vault VALUES ('run key', x'00ff');
"""
WIDER = "ALTER TABLE sent ADD COLUMN note TEXT NOT NULL DEFAULT ''; UPDATE sent SET note = purpose"


def make_old(path: Path) -> Path:
    old = sqlite3.connect(path)
    old.executescript(SCHEMA_1)
    old.close()
    path.chmod(0o600)
    return path


def read_contents(journal: SqliteJournal) -> object:
    return journal.list_sent("net"), dict(journal.vault)


def test_a_journal_of_release_0_2_0_is_read(tmp_path: Path) -> None:
    with SqliteJournal(make_old(tmp_path / "journal.db")) as journal:
        sent = (Signed(4, "record 1/0/0", b"\4\4", "0x04"), True), (Signed(5, "record 1/1/0", b"\5", "0x05"), False)
        assert read_contents(journal) == (sent, {"run key": b"\0\xff"})


def test_an_older_journal_is_brought_forward_after_a_copy_of_it(tmp_path: Path) -> None:
    path = make_old(tmp_path / "journal.db")
    with SqliteJournal(path) as journal:
        before = read_contents(journal)
    with SqliteJournal(path, [WIDER, "CREATE TABLE more (x)"]) as journal:
        assert read_contents(journal) == before
        assert journal.ask("SELECT note FROM sent ORDER BY nonce") == [("record 1/0/0",), ("record 1/1/0",)]
        assert journal.ask("PRAGMA user_version") == [(3,)]
        journal.save("net", build_signed(6))
    copy = tmp_path / "journal.db.v1"
    assert copy.stat().st_mode & 0o777 == 0o600
    with SqliteJournal(copy) as journal:
        assert read_contents(journal) == before
        assert journal.ask("PRAGMA user_version") == [(1,)]


def test_a_new_journal_is_of_the_newest_version_and_leaves_no_copy(tmp_path: Path) -> None:
    with SqliteJournal(tmp_path / "journal.db", [WIDER]) as journal:
        assert journal.ask("PRAGMA user_version") == [(2,)]
    assert not (tmp_path / "journal.db.v1").exists()


def test_a_change_that_fails_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    path = make_old(tmp_path / "journal.db")
    with pytest.raises(StoreFault):
        SqliteJournal(path, [WIDER, "CREATE TABLE sent (x)"])
    with SqliteJournal(path) as journal:
        assert journal.ask("PRAGMA user_version") == [(1,)]
        assert journal.list_sent("net")[0][0].purpose == "record 1/0/0"


def test_a_journal_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    path = make_old(tmp_path / "journal.db")
    SqliteJournal(path, [WIDER]).close()
    with pytest.raises(StoreFault, match="is of version 2, and this release knows 1") as caught:
        SqliteJournal(path)
    assert caught.value.code == "CO-C324"


def test_a_place_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreFault, match="Cannot create the journal") as caught:
        SqliteJournal(tmp_path / "missing" / "journal.db")
    assert caught.value.code == "CO-C322"
