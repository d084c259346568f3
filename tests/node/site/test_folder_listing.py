"""The names of a folder: what comes, goes or is written anew is seen at the next look."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from coterie_node.data.files.folder_listing import FINE_SETTLED_NS, SETTLED_NS, FolderListing, is_settled
from coterie_node.errors import ConfigError
from coterie_node.site.decisions import DecisionFolder, make_decision

STUDY, OTHER = bytes(31) + b"\1", bytes(31) + b"\2"
LONG_AGO = (time.time_ns() - 10 * SETTLED_NS) // 1_000_000_000 * 1_000_000_000


def settle(place: Path, at: int = LONG_AGO) -> None:
    """Let a file or a folder have changed long ago."""
    os.utime(place, ns=(at, at))


def test_a_name_that_comes_or_goes_is_seen_and_the_others_are_the_same_objects(tmp_path: Path) -> None:
    listing = FolderListing(tmp_path)
    for name in ("a.0.json", "a.1.json", "b.0.json"):
        (tmp_path / name).touch()
    settle(tmp_path)
    first = listing.read()
    assert first == {"a": {"a.0.json", "a.1.json"}, "b": {"b.0.json"}}
    assert listing.read() is first
    (tmp_path / "b.1.json").touch()
    (tmp_path / "a.0.json").unlink()
    second = listing.read()
    assert second == {"a": {"a.1.json"}, "b": {"b.0.json", "b.1.json"}}
    (tmp_path / "a.1.json").unlink()
    third = listing.read()
    assert "a" not in third
    assert third["b"] is second["b"]


def test_a_change_within_the_same_tick_of_the_disks_clock_is_seen(tmp_path: Path) -> None:
    listing, now = FolderListing(tmp_path), time.time_ns()
    settle(tmp_path, now)
    assert not listing.read()
    (tmp_path / "a.json").touch()
    settle(tmp_path, now)  # as if both had the same time
    assert "a" in listing.read()


def test_a_folder_that_is_not_there_is_empty_until_it_comes(tmp_path: Path) -> None:
    listing = FolderListing(tmp_path / "later")
    assert not listing.read()
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "a.json").touch()
    assert "a" in listing.read()


def test_a_clock_of_whole_seconds_settles_later_than_a_fine_one() -> None:
    assert not is_settled(5_000_000_000, 5_000_000_000 + FINE_SETTLED_NS + 1)
    assert is_settled(5_000_000_000, 5_000_000_000 + SETTLED_NS + 1)
    assert not is_settled(5_000_000_001, 5_000_000_000 + FINE_SETTLED_NS)
    assert is_settled(5_000_000_001, 5_000_000_002 + FINE_SETTLED_NS)


def test_a_decision_that_is_written_anew_or_damaged_is_read_again(tmp_path: Path) -> None:
    folder = DecisionFolder(tmp_path)
    folder.record(make_decision(STUDY, "approve"))
    path = next(tmp_path.glob("*.json"))
    settle(path)
    settle(tmp_path)
    for _ in range(2):
        decision = folder.latest(STUDY)
        assert decision is not None
        assert decision.action == "approve"
    assert folder.latest(STUDY) is decision
    aside = tmp_path / "aside.part"
    aside.write_text(make_decision(STUDY, "decline").model_dump_json())
    settle(aside)
    os.replace(aside, path)
    settle(tmp_path)
    after = folder.latest(STUDY)
    assert after is not None
    assert after.action == "decline"
    path.write_text("{}")
    with pytest.raises(ConfigError):
        folder.latest(STUDY)


def test_counts_are_the_same_object_until_a_decision_comes_or_goes(tmp_path: Path) -> None:
    folder = DecisionFolder(tmp_path)
    folder.record(make_decision(STUDY, "propose"))
    (tmp_path / "notes.0001.json").touch()  # what people leave beside decisions
    first = folder.counts()
    assert first == {STUDY: 1}
    assert folder.counts() is first
    folder.record(make_decision(OTHER, "approve"))
    folder.record(make_decision(STUDY, "withdraw"))
    assert folder.counts() == {STUDY: 2, OTHER: 1}
    assert first == {STUDY: 1}
    next(tmp_path.glob(f"{OTHER.hex()}.*")).unlink()
    assert folder.counts() == {STUDY: 2}
    assert folder.proposals() == ()
