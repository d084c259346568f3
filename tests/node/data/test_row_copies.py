"""Checked copies of rows: the same numbers as the file gives, and every check that reading the file would have made."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.node.houses import SITES, NodeNetwork, study_file

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import CodedRows, OwnColumns
from coterie_node.data import row_copies
from coterie_node.data.commitment import make_snapshot
from coterie_node.data.load import Loaded, load_site
from coterie_node.data.patients.site_rows import WithRaw
from coterie_node.data.row_copies import HEADER_BYTES, Contents, RowCopies, make_key
from coterie_node.site.decisions import make_decision

STUDY = """
name = "probe"
sites = ["a", "b"]
formula = "y ~ age + visits + ward"
patient = "id"
[learner]
name = "glore"
[rows]
missing = "drop"
[variables.y]
type = "binary"
[variables.age]
type = "number"
range = [0, 100]
[variables.visits]
type = "count"
range = [0, 9]
[variables.ward]
type = "category"
levels = ["east", "west", "north"]
"""
COLUMNS = """
name = "split"
sites = ["a", "b"]
formula = "y ~ age + visits + ward"
identifier = ["id"]
columns = {a = ["age", "visits", "ward"], b = ["y"]}
[learner]
name = "vertigo"
"""
SPLIT = COLUMNS + STUDY[STUDY.index("[rows]") :]
COLA = STUDY.replace('"glore"', '"cola"').replace('type = "number"', 'type = "count"')
FIRST = slice(1)


def parse(text: str = STUDY, **texts: str) -> Study:
    for old, new in texts.items():
        text = text.replace(old, new)
    return complete_study(Study.from_toml(text))


def write_file(path: Path, seed: int = 1) -> Path:
    rng = np.random.default_rng(seed)
    wards = ("east", "west", "north", "")
    lines = [
        f"P{k},{rng.integers(0, 2)},{rng.integers(20, 90)},{rng.integers(0, 9)},{wards[rng.integers(0, 4)]}"
        for k in range(80)
    ]
    path.write_text("id,y,age,visits,ward\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_file(tmp_path / "data.csv")


@pytest.fixture
def copies(tmp_path: Path) -> RowCopies:
    return RowCopies(tmp_path / "copies", spare=0)


def load(file: Path, copies: RowCopies | None, study: Study | None = None, exclude: Path | None = None) -> Loaded:
    loaded = load_site(file, study or parse(), "a", exclude, copies)
    assert loaded is not None
    return loaded


def raw_values(loaded: Loaded) -> Mapping[str, NDArray[Any]]:
    assert isinstance(loaded.rows, WithRaw)
    return loaded.rows.read_raw().values


def forge(file: Path, copies: RowCopies, values: Mapping[str, float], rows: slice = FIRST) -> None:
    """Put a copy there whose digest is right, and whose first row, or more of them, is not that of the file."""
    loaded, design = load(file, None), Design(parse(), "a")
    assert isinstance(loaded.rows, WithRaw)
    raw = loaded.rows.read_raw()
    changed = {name: np.array(column) for name, column in raw.values.items()}
    for name, value in values.items():
        changed[name] = changed[name] if value.is_integer() else changed[name].astype(np.float64)
        changed[name][rows] = value
    key = make_key(design, "a", ".csv", loaded.source.digest(), frozenset())
    copies.save(design, key, Contents(loaded.read, loaded.events, replace(raw, values=changed)))


def first_age(file: Path, copies: RowCopies, study: Study | None = None) -> float:
    return float(raw_values(load(file, copies, study))["age"][0])


def true_age(file: Path) -> float:
    return float(raw_values(load(file, None))["age"][0])


@pytest.mark.parametrize("text", [STUDY, SPLIT, COLA], ids=["rows", "columns", "codes"])
def test_a_copy_gives_the_rows_of_the_file_to_the_bit(file: Path, copies: RowCopies, text: str) -> None:
    study = parse(text)
    plain, first, second = load(file, None, study), load(file, copies, study), load(file, copies, study)
    assert copies.path(study.hash).exists()
    salt = bytes(32)
    assert make_snapshot(plain, salt) == make_snapshot(first, salt) == make_snapshot(second, salt)
    assert plain.summary == second.summary
    assert type(plain.rows) is type(second.rows)
    wanted, got = plain.rows, second.rows
    assert isinstance(wanted, WithRaw)
    assert isinstance(got, WithRaw)
    for name, column in wanted.read_raw().values.items():
        assert got.read_raw().values[name].dtype == column.dtype
        assert got.read_raw().values[name].tobytes() == column.tobytes()
    assert list(got.read_raw().identifiers or ()) == list(wanted.read_raw().identifiers or ())
    if not isinstance(wanted, CodedRows | OwnColumns) and not isinstance(got, CodedRows | OwnColumns):
        for a, b in zip(wanted.blocks(), got.blocks(), strict=True):
            assert a.x.tobytes() == b.x.tobytes()
            assert a.group is not None
            assert b.group is not None
            assert a.group.tolist() == b.group.tolist()


def test_a_copy_is_what_is_read(file: Path, copies: RowCopies) -> None:
    forge(file, copies, {"age": 99.0})
    assert first_age(file, copies) == 99


def test_a_file_that_changed_is_read_from_the_start_though_size_and_time_are_the_same(
    file: Path, copies: RowCopies
) -> None:
    forge(file, copies, {"age": 99.0})
    before = file.stat()
    text = file.read_text()
    file.write_text(text.replace("P0,1,", "P0,0,") if "P0,1," in text else text.replace("P0,0,", "P0,1,"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert first_age(file, copies) == true_age(file) != 99


@pytest.mark.parametrize("at", [0, 20, HEADER_BYTES - 1, HEADER_BYTES, -400, -1])
def test_a_copy_with_another_byte_anywhere_is_not_read(file: Path, copies: RowCopies, at: int) -> None:
    forge(file, copies, {"age": 99.0})
    path = copies.path(parse().hash)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert first_age(file, copies) == true_age(file)


@pytest.mark.parametrize("length", [0, 10, HEADER_BYTES, HEADER_BYTES + 100])
def test_a_copy_that_was_cut_is_not_read(file: Path, copies: RowCopies, length: int) -> None:
    forge(file, copies, {"age": 99.0})
    os.truncate(copies.path(parse().hash), length)
    assert first_age(file, copies) == true_age(file)


def test_a_copy_of_another_version_of_the_program_is_not_read(
    file: Path, copies: RowCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(row_copies, "PROGRAM", ("0.0.9", *row_copies.PROGRAM[1:]))
        forge(file, copies, {"age": 99.0})
        assert first_age(file, copies) == 99
    assert first_age(file, copies) == true_age(file)


def test_a_copy_for_another_study_is_not_read(file: Path, copies: RowCopies) -> None:
    narrow = parse(**{"[0, 100]": "[0, 50]"})
    forge(file, copies, {"age": 49.0})
    copies.path(parse().hash).rename(copies.path(narrow.hash))
    with pytest.raises(DataError, match="out of the declared range") as refused:
        load(file, copies, narrow)
    assert refused.value.code == "CO-D113"
    assert list(copies.root.iterdir()) == []


def test_a_copy_with_rows_of_patients_who_object_since_is_removed(file: Path, copies: RowCopies) -> None:
    load(file, copies)
    exclude = file.with_name("optout.csv")
    exclude.write_text("id\nP3\n")
    loaded = load(file, copies, exclude=exclude)
    assert loaded.read == 79
    again = load(file, copies, exclude=exclude)
    assert again.read == 79
    assert isinstance(again.rows, WithRaw)
    assert ("P3",) not in list(again.rows.read_raw().identifiers or ())
    (path,) = copies.root.iterdir()
    assert b"P2P4" in path.read_bytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [("age", 101.0), ("age", math.inf), ("y", 2.0), ("visits", 10.0), ("visits", 2.5), ("ward", 3.0), ("ward", 0.5)],
)
def test_a_copy_with_a_value_that_the_study_does_not_allow_is_not_read(
    file: Path, copies: RowCopies, name: str, value: float
) -> None:
    forge(file, copies, {"age": 99.0, name: value})
    assert first_age(file, copies) == true_age(file)


def test_rows_that_do_not_vary_are_refused_from_a_copy_too(file: Path, copies: RowCopies) -> None:
    forge(file, copies, {"age": 50.0}, slice(None))
    with pytest.raises(DataError) as refused:
        load(file, copies)
    assert refused.value.code == "CO-D120"


def test_only_the_owner_reads_a_copy(file: Path, copies: RowCopies) -> None:
    load(file, copies)
    assert copies.path(parse().hash).stat().st_mode & 0o777 == 0o600
    assert copies.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_copy_that_others_can_reach_is_not_read(file: Path, copies: RowCopies, mode: int) -> None:
    forge(file, copies, {"age": 99.0})
    copies.path(parse().hash).chmod(mode)
    assert first_age(file, copies) == true_age(file)
    assert copies.path(parse().hash).stat().st_mode & 0o777 == 0o600


def test_a_link_is_no_copy(file: Path, copies: RowCopies) -> None:
    forge(file, copies, {"age": 99.0})
    path = copies.path(parse().hash)
    path.rename(file.with_name("elsewhere"))
    path.symlink_to(file.with_name("elsewhere"))
    assert first_age(file, copies) == true_age(file)
    assert not path.is_symlink()


@contextmanager
def _full_disk(bytes_left: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as on a disk without room."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("bytes_left", [0, 100, 1000])
def test_a_full_disk_leaves_no_copy_and_the_rows_are_there(file: Path, copies: RowCopies, bytes_left: int) -> None:
    with _full_disk(bytes_left):
        loaded = load(file, copies)
    assert loaded.n == load(file, None).n
    assert list(copies.root.iterdir()) == []


def test_a_copy_takes_no_room_that_must_stay_free(file: Path, copies: RowCopies) -> None:
    load(file, replace(copies, spare=1 << 62))
    assert list(copies.root.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_stops_nothing(file: Path, tmp_path: Path) -> None:
    (tmp_path / "copies").write_text("a file where the folder should be")
    assert load(file, RowCopies(tmp_path / "copies", spare=0)).n == load(file, None).n


def test_the_oldest_copies_go_when_there_are_too_many(
    file: Path, copies: RowCopies, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = [parse(probe=f"probe-{k}") for k in range(3)]
    load(file, copies, studies[0])
    size = copies.path(studies[0].hash).stat().st_size
    monkeypatch.setattr(row_copies, "LARGEST_FOLDER", 2 * size)
    for k, study in enumerate(studies):
        load(file, copies, study)
        os.utime(copies.path(study.hash), (k, k))
    assert [copies.path(study.hash).exists() for study in studies] == [False, True, True]


def test_rows_too_large_for_a_copy_have_none(file: Path, copies: RowCopies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_copies, "LARGEST", 100)
    load(file, copies)
    assert list(copies.root.iterdir()) == []


# In a node


def _copy_of(node_network: NodeNetwork, site: str, study: bytes) -> Path:
    return node_network.homes[site].copies.path(study)


def test_a_daemon_keeps_a_copy_until_the_study_is_done(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south")
    node_network.settle()
    assert [_copy_of(node_network, site, study).exists() for site in SITES] == [True, True, False]
    node_network.approve(study, "west")
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}
    assert [_copy_of(node_network, site, study).exists() for site in SITES] == [False, False, False]


@pytest.mark.parametrize("action", ["decline", "abort", "withdraw"])
def test_a_study_without_this_site_leaves_no_copy_here(node_network: NodeNetwork, action: str) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south")
    node_network.settle()
    assert _copy_of(node_network, "south", study).exists()
    node_network.decisions("south").record(make_decision(study, action))  # type: ignore[arg-type]
    node_network.settle()
    assert not _copy_of(node_network, "south", study).exists()


def test_a_daemon_that_starts_after_the_end_removes_the_copy(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    node_network.settle()
    path = _copy_of(node_network, "west", study)
    path.write_text("left behind")
    node_network.daemon("west").tick()
    assert not path.exists()
