"""Whatever happens to the files of the privacy log: nothing that left is forgotten without a word."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from node.privacy.sites import Archive

from coterie_chain.errors import StoreFault
from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.files.checked_blobs import mark_blob
from coterie_node.privacy.files.packing import unpack_bits, unpack_column, unpack_words
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.storage import FolderStorage

ALL, MORE = np.arange(400), np.arange(401)
STARTS = itertools.count(0, 100)
with_and_without = pytest.mark.parametrize("identified", [True, False], ids=["identifiers", "rows"])


def open_archive(root: Path, counter: dict[str, bytes] | None = None, identified: bool = True) -> Archive:
    """A site with its log in a folder, as after a start; studies of one start have other names than another's."""
    log = PrivacyLog(FolderStorage(root), {} if counter is None else counter)
    return Archive(identified, log=log, count=next(STARTS))


def ask(site: Archive, rows: object = MORE) -> str:
    """Kinds of objections to a release, or the code of the error that stops it."""
    try:
        return ",".join(sorted(site.kinds(rows)))  # type: ignore[arg-type]
    except StoreFault as error:
        return error.code


def cut(path: Path) -> None:
    """Half of a file."""
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def empty(path: Path) -> None:
    """What a disk has of a file that was never flushed."""
    path.write_bytes(b"")


def turn(path: Path) -> None:
    """A few bits of a file turned."""
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 0x55
    path.write_bytes(bytes(raw))


def dangle(path: Path) -> None:
    """A link to a disk that is not there."""
    path.unlink()
    path.symlink_to("/nonexistent/disk")


@with_and_without
@pytest.mark.parametrize(
    ("hurt", "expected"),
    [(cut, "CO-C214"), (empty, "CO-C214"), (turn, "CO-C214"), (Path.unlink, "lost"), (dangle, "lost")],
)
def test_a_file_that_is_damaged_stops_every_release_and_one_that_is_gone_makes_it_ask(
    hurt: Callable[[Path], None], expected: str, identified: bool, tmp_path: Path
) -> None:
    """The site's state remembers nothing here: the folder alone says what it lacks."""
    whole = open_archive(tmp_path / "whole", identified=identified)
    whole.release(ALL)
    whole.release(ALL, ("died", "age"))
    names = [str(path.relative_to(tmp_path / "whole")) for path in (tmp_path / "whole").rglob("[a-z0-9]*")]
    files = [name for name in names if (tmp_path / "whole" / name).is_file() and not name.endswith("00000001")]
    assert len(files) == (7 if identified else 5)
    for name in files:
        root = tmp_path / name.replace("/", "-")
        shutil.copytree(tmp_path / "whole", root)
        hurt(root / name)
        found = ask(open_archive(root, identified=identified))
        assert expected in found, (name, found)


def test_the_error_of_a_damaged_file_names_it_and_the_way_out(tmp_path: Path) -> None:
    open_archive(tmp_path).release(ALL)
    cut(tmp_path / "patients")
    with pytest.raises(StoreFault, match=r"patients is damaged.*backup.*move this file away") as error:
        open_archive(tmp_path).judge(MORE)
    assert error.value.code == "CO-C214"


@pytest.mark.parametrize("name", ["key", "patients", "column/died"])
def test_what_was_lost_and_is_made_anew_stays_lost(name: str, tmp_path: Path) -> None:
    """A new key, or a new dictionary of patients, would otherwise make a log that looks whole and forgot everything."""
    site = open_archive(tmp_path)
    site.release(ALL)
    (tmp_path / name).unlink()
    again = open_archive(tmp_path)
    assert "log lost" in again.kinds(MORE)
    again.log.write(again.candidate(ALL))
    last = open_archive(tmp_path)
    assert (tmp_path / name).exists()
    assert "log lost" in last.kinds(ALL)
    # What left since is compared, and no file is read as if it were of the former one.
    assert "added" in last.kinds(MORE)


def test_a_log_that_is_put_back_whole_is_not_lost_any_more(tmp_path: Path) -> None:
    site = open_archive(tmp_path / "log")
    site.release(ALL)
    shutil.copytree(tmp_path / "log", tmp_path / "backup")
    (blob,) = (tmp_path / "log" / "set").iterdir()
    blob.unlink()
    assert site.kinds(MORE) == {"log lost"}  # although it was here when the node started
    shutil.copytree(tmp_path / "backup", tmp_path / "log", dirs_exist_ok=True)
    assert site.kinds(MORE) == {"added"}


def test_another_site_s_folder_or_an_older_one_is_not_taken_for_this_log(tmp_path: Path) -> None:
    counter: dict[str, bytes] = {}
    site, other = open_archive(tmp_path / "own", counter), open_archive(tmp_path / "other")
    site.release(ALL)
    other.release(np.arange(200))
    other.release(np.arange(300))
    assert "log lost" in open_archive(tmp_path / "other", dict(counter)).kinds(ALL)
    shutil.copytree(tmp_path / "own", tmp_path / "older")
    site.release(ALL, ("died", "age"))
    assert "log lost" in open_archive(tmp_path / "older", dict(counter)).kinds(ALL)
    # The state may be lost as well: a folder that is whole is no lost log.
    assert open_archive(tmp_path / "own", {}).kinds(MORE) == {"added"}


def test_files_of_two_moments_are_noticed(tmp_path: Path) -> None:
    site = open_archive(tmp_path / "now")
    site.release(np.arange(200))
    shutil.copytree(tmp_path / "now", tmp_path / "then")
    site.values["died"] = site.values["died"].copy()
    site.values["died"][:30] = 1 - site.values["died"][:30]
    site.release(ALL)
    for name in ("patients", "column/died"):
        shutil.copytree(tmp_path / "now", tmp_path / name.replace("/", "-"))
        shutil.copy(tmp_path / "then" / name, tmp_path / name.replace("/", "-") / name)
        assert ask(open_archive(tmp_path / name.replace("/", "-"))) == "CO-C214"


@pytest.mark.parametrize("name", ["00000007", "99999999"])
def test_a_release_under_another_number_is_damaged_and_nothing_is_written_over_it(name: str, tmp_path: Path) -> None:
    open_archive(tmp_path).release(ALL)
    (tmp_path / "release" / "00000000").rename(tmp_path / "release" / name)
    site = open_archive(tmp_path)
    assert ask(site) == "CO-C214"
    with pytest.raises(StoreFault):
        site.log.put_head(site.candidate(MORE).head)
    assert [path.name for path in (tmp_path / "release").iterdir()] == [name]


def test_a_gap_in_the_numbers_is_a_lost_release_although_the_state_remembers_none(tmp_path: Path) -> None:
    site = open_archive(tmp_path)
    for rows in (ALL, ALL[:300], ALL[:200]):
        site.release(rows)
    (tmp_path / "release" / "00000001").unlink()
    assert "log lost" in open_archive(tmp_path).kinds(ALL)


@pytest.mark.parametrize("field", ["matched", "ranges", "tables"])
def test_all_that_an_entry_names_must_be_there(field: str, tmp_path: Path) -> None:
    site, digest = open_archive(tmp_path), "ab" * 32
    site.release(ALL)
    named = {"matched": digest, "ranges": f"ranges/{digest}", "tables": {"old": digest}}[field]
    site.log.put_head(replace(site.log.heads()[0], **{field: named}))  # type: ignore[arg-type]
    (missing,) = open_archive(tmp_path).log.list_losses()
    assert missing.endswith(digest)
    site.log.storage[missing] = b"something"
    assert not open_archive(tmp_path).log.is_lost


def test_files_that_are_no_blobs_are_none_of_the_log(tmp_path: Path) -> None:
    site = open_archive(tmp_path)
    site.release(ALL)
    for name in (b".DS_Store", b"00000000~", b"._00000000", b"00000000 (copy)", b"notes.txt", b"\xff\xfe"):
        Path(os.fsdecode(os.fsencode(tmp_path / "release") + b"/" + name)).write_bytes(b"no JSON")
    again = open_archive(tmp_path)
    assert again.kinds(MORE) == {"added"}
    again.release(ALL)
    assert len(again.log.heads()) == 2
    (tmp_path / "release" / "backup").write_bytes(b"no JSON")
    with pytest.raises(StoreFault, match="no release has such a name"):
        open_archive(tmp_path).log.heads()


def test_an_entry_of_a_release_before_the_marks_is_read(tmp_path: Path) -> None:
    site = open_archive(tmp_path)
    site.release(ALL)
    for name in list(site.log.storage):
        (tmp_path / name).write_bytes(site.log.storage[name])
    again = open_archive(tmp_path)
    assert again.kinds(MORE) == {"added"}
    again.release(ALL)
    assert (tmp_path / "release" / "00000001").read_bytes().startswith(mark_blob("", b"")[:10])


# Entries and arrays that are not what was written


@pytest.fixture
def lifted_recursion() -> Iterator[None]:
    """Python's limit as a library lifts it: nested brackets then end the process of a parser that follows them."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10**7)
    yield
    sys.setrecursionlimit(limit)


ENTRY = json.loads(ReleaseHead("one", "s", "00", 0, 0, ("a",), "plain", 3, {"age": 1}, rows="ab" * 32).as_bytes())


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000,
        b'{"n":' + b"9" * 5000 + b"}",
        b"[]",
        b"\xff\xfe",
        *(
            json.dumps({**ENTRY, **wrong}).encode()
            for wrong in (
                {"n": float("nan")},
                {"n": 1e300},
                {"n": -1},
                {"n": True},
                {"parties": 5},
                {"parties": "abc"},
                {"columns": ["age"]},
                {"columns": {"age": 10**12}},
                {"columns": {"age": "../key"}},
                {"rows": "../../etc/passwd"},
                {"kind": "other"},
                {"state": "unknown"},
                {"newer": 1},
            )
        ),
        json.dumps({name: value for name, value in ENTRY.items() if name != "parties"}).encode(),
    ],
)
def test_an_entry_that_is_none_is_a_clear_error(raw: bytes, lifted_recursion: None) -> None:
    assert ReleaseHead.from_bytes(json.dumps(ENTRY).encode()).n == 3
    with pytest.raises(ValueError, match=r"\w"):
        ReleaseHead.from_bytes(raw)
    log = PrivacyLog({"release/00000000": raw})
    with pytest.raises(StoreFault) as error:
        log.heads()
    assert error.value.code == "CO-C214"


BOMB = zlib.compress(bytes(1 << 24), 9)


@pytest.mark.parametrize(
    ("read", "raw"),
    [
        (unpack_bits, (1 << 60).to_bytes(8, "big") + BOMB),
        (unpack_bits, (1 << 31).to_bytes(8, "big") + BOMB),
        (unpack_bits, (80).to_bytes(8, "big") + BOMB),
        (unpack_bits, b"\0\0"),
        (unpack_words, b"no zlib"),
        (unpack_words, BOMB[:-9]),
        (unpack_column, b"[1152921504606846976]\n"),
        (unpack_column, b"[-5, 5]\n" + bytes(20)),
        (unpack_column, b"[1, 1]\n" + bytes(4) + b"\x09\0\0\0" + bytes(4)),
        (unpack_column, b"[[1]]\n"),
        (unpack_column, b""),
    ],
)
def test_arrays_that_say_something_else_than_they_hold_are_refused(read: Callable[[bytes], object], raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read(raw)


# The disk


class Stop(BaseException):
    """The machine stops."""


@contextlib.contextmanager
def failing(at: int, error: BaseException) -> Iterator[list[int]]:
    """The call of this number that opens, flushes or renames a file fails; the list holds how many are left before."""
    left = [at]
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((os, "open"), (os, "fsync"), (Path, "replace")):
            call = getattr(owner, name)

            def fail(*values: object, _call: Callable[..., object] = call, **named: object) -> object:
                left[0] -= 1
                if left[0] == -1:
                    raise error
                return _call(*values, **named)

            patch.setattr(owner, name, fail)
        yield left


FULL, READ_ONLY = OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EROFS, "Read-only file system")


@pytest.mark.parametrize(
    ("error", "identified"),
    [
        pytest.param(Stop(), False, id="crash-rows", marks=pytest.mark.long),
        pytest.param(Stop(), True, id="crash-identifiers", marks=pytest.mark.long),
        pytest.param(FULL, True, id="full-identifiers", marks=pytest.mark.long),
        pytest.param(READ_ONLY, True, id="read-only-identifiers", marks=pytest.mark.long),
    ],
)
def test_a_write_that_ends_at_any_call_forgets_nothing_and_is_made_again(
    error: BaseException, identified: bool, tmp_path: Path
) -> None:
    columns = ("died", "age", "sex", "lab")
    for at in range(100):
        root = tmp_path / str(at)
        site = open_archive(root, identified=identified)
        site.release(ALL)
        second = site.candidate(np.arange(450), columns)
        with failing(at, error) as left, contextlib.suppress(Stop, StoreFault):
            site.log.write(second)
        if isinstance(error, OSError):
            assert not list(root.rglob("*.part"))
        if left[0] >= 0:
            break
        again = open_archive(root, identified=identified)
        again.count += 50
        assert "added" in again.kinds(MORE)
        again.log.write(second)
        assert len(again.log.heads()) == 2
        assert again.kinds(np.arange(450), columns) == set()
        assert "dropped" in again.kinds(np.arange(449), columns)
    assert at > 10


def test_a_disk_that_does_not_answer_is_no_empty_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network disk that fails for a moment must not make the node begin a new log, with a new key."""
    open_archive(tmp_path).release(ALL)
    key, look = (tmp_path / "key").read_bytes(), Path.stat

    def fail(path: Path, **options: bool) -> os.stat_result:
        if path == tmp_path / "key":
            raise OSError(errno.ESTALE, "Stale file handle")
        return look(path, **options)

    site = open_archive(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", fail)
        assert ask(site) == "CO-C204"
    assert (tmp_path / "key").read_bytes() == key
    assert site.kinds(MORE) == {"added"}


def test_links_are_followed_to_folders_and_never_written_through(tmp_path: Path) -> None:
    """A folder on another disk is part of the log; what a crash left, or a link in its place, is removed."""
    site = open_archive(tmp_path / "log")
    site.release(ALL)
    for name in ("release", "set"):
        shutil.move(tmp_path / "log" / name, tmp_path / name)
        (tmp_path / "log" / name).symlink_to(tmp_path / name)
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "log" / ".patients.part").symlink_to(tmp_path / "victim")
    again = open_archive(tmp_path / "log")
    assert again.kinds(MORE) == {"added"}
    assert any(name.startswith("set/") for name in again.log.storage)
    again.release(np.arange(450))
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (tmp_path / "release" / "00000001").exists()


def test_a_new_folder_is_private_and_flushed_with_the_one_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = [], os.fsync

    def note(handle: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        sync(handle)

    monkeypatch.setattr(os, "fsync", note)
    FolderStorage(tmp_path / "x" / "log")["release/00000000"] = b"1"
    folders = [tmp_path, tmp_path / "x", tmp_path / "x" / "log", tmp_path / "x" / "log" / "release"]
    assert {str(folder) for folder in folders} <= set(synced)
    assert {folder.stat().st_mode & 0o777 for folder in folders[1:]} == {0o700}


@pytest.mark.parametrize("shift", [-3600, 3600])
def test_a_clock_that_was_set_hides_no_release(shift: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + shift * 10**9)
    here, there = open_archive(tmp_path), open_archive(tmp_path)
    here.release(ALL)
    there.count = 50
    assert "added" in there.kinds(MORE)
    there.release(ALL, ("died", "age"))
    assert len(here.log.heads()) == 2
