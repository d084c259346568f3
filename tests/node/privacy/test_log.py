"""The privacy log refuses what gives patients away together with all that left before, and nothing else."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from node.privacy.sites import Archive

from coterie_node.privacy import log
from coterie_node.privacy import storage as storage_module
from coterie_node.privacy.cohorts import find_cohort, keep_cohort
from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.objections import Grade
from coterie_node.privacy.prints import RawRows
from coterie_node.privacy.storage import FolderStorage

ALL = np.arange(400)
MORE = np.arange(401)
MODEL = ("died", "age", "sex")

with_and_without = pytest.mark.parametrize("identified", [True, False], ids=["identifiers", "rows"])


@with_and_without
@pytest.mark.parametrize(
    "columns",
    [MODEL, ("died", "sex", "age"), ("relapse", "age"), (*MODEL, "lab")],
    ids=["same", "order", "other", "more"],
)
def test_one_patient_more_is_refused_whatever_else_the_study_reads(identified: bool, columns: tuple[str, ...]) -> None:
    site = Archive(identified)
    site.release(ALL)
    objections = site.judge(MORE, columns)
    assert "added" in {o.kind for o in objections}
    refusal = next(o for o in objections if o.kind == "added")
    assert refusal.grade is Grade.REFUSE
    assert refusal.study == "s1"
    assert "'s1'" in refusal.sentence
    assert "[cohort]" in refusal.sentence
    assert " 1 " not in refusal.sentence


@with_and_without
def test_a_lab_value_that_one_patient_lacks_is_refused_and_named(identified: bool) -> None:
    site = Archive(identified)
    site.release(ALL)
    refusal = next(o for o in site.judge(ALL[1:], (*MODEL, "lab"), lacking={"lab": 1}) if o.kind == "dropped")
    assert "lack lab" in refusal.sentence


@with_and_without
def test_women_then_men_then_all_but_one_is_refused(identified: bool) -> None:
    site = Archive(identified)
    women = np.flatnonzero(site.values["sex"][:400] == 0)
    men = np.flatnonzero(site.values["sex"][:400] == 1)
    site.release(women)
    site.release(men)
    assert "combination" in site.kinds(ALL[:-1])


def test_halves_then_all_but_two_is_refused() -> None:
    site = Archive()
    site.release(np.arange(200))
    site.release(np.arange(200, 400))
    assert site.kinds(np.delete(ALL, [3, 250])) == {"combination"}


@with_and_without
@pytest.mark.parametrize("patients", [1, 3])
def test_a_corrected_outcome_is_refused(identified: bool, patients: int) -> None:
    """Three changed patients are six units apart, and are three patients all the same."""
    site = Archive(identified)
    site.release(ALL)
    site.values["died"] = site.values["died"].copy()
    site.values["died"][:patients] = 1 - site.values["died"][:patients]
    assert site.kinds(ALL) == {"value changed"}


def test_corrections_of_many_patients_pass() -> None:
    site = Archive()
    site.release(ALL)
    site.values["died"] = site.values["died"].copy()
    site.values["died"][:20] = 1 - site.values["died"][:20]
    site.release(ALL)


@with_and_without
def test_a_range_that_drops_three_patients_is_refused(identified: bool) -> None:
    site = Archive(identified)
    site.release(ALL)
    oldest = np.argsort(site.values["age"][:400])[-3:]
    assert "dropped" in site.kinds(np.delete(ALL, oldest))


def test_a_column_in_another_unit_does_not_hide_one_patient_more() -> None:
    site = Archive()
    site.release(ALL, ("died", "age"))
    site.values["age"] = site.values["age"] * 12
    site.values["died"] = 2 - site.values["died"]
    assert "re-coded" in site.kinds(MORE, ("died", "age"))


@with_and_without
def test_honest_work_passes(identified: bool) -> None:
    """The same study again, other outcomes and models on the same rows, women only after all, a large refresh."""
    site = Archive(identified)
    site.release(ALL)
    site.release(ALL)
    site.release(ALL, ("relapse", "age", "sex"))
    site.release(ALL, (*MODEL, "lab"))
    site.release(np.flatnonzero(site.values["sex"][:400] == 0))
    site.release(np.arange(500))


def test_five_models_pass_on_a_declared_cohort_although_the_file_grows() -> None:
    site = Archive()
    printed = site.candidate(ALL).printed
    keep_cohort(site.log.storage, "autumn", printed, MODEL)
    for k, columns in enumerate([MODEL, ("died", "age"), ("relapse", "sex"), (*MODEL, "lab"), ("died", "lab")]):
        everybody = np.arange(400 + k)
        cohort = find_cohort(site.log.storage, "autumn")
        assert cohort is not None
        rows = everybody[cohort.select(site.candidate(everybody, columns).printed)]
        assert np.array_equal(rows, ALL)
        site.release(rows, columns)


def test_a_cohort_without_identifiers_is_known_by_its_complete_columns() -> None:
    site = Archive(identified=False)
    keep_cohort(site.log.storage, "autumn", site.candidate(ALL).printed, MODEL)
    cohort = find_cohort(site.log.storage, "autumn")
    assert cohort is not None
    assert len(cohort.select(site.candidate(np.arange(500), (*MODEL, "lab")).printed)) == 400


def test_the_log_survives_in_a_folder_that_only_its_user_reads(tmp_path: Path) -> None:
    site = Archive(log=PrivacyLog(FolderStorage(tmp_path / "log")))
    site.release(ALL)
    site.values["lab"] = site.values["lab"] + 1
    files = [path for path in (tmp_path / "log").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    again = Archive(log=PrivacyLog(FolderStorage(tmp_path / "log")))
    again.count = 10
    assert [head.study for head in again.log.heads()] == ["s1"]
    assert again.kinds(MORE) == {"added"}


def test_several_blobs_are_written_whole_and_in_place_of_former_ones(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "log")
    storage["values/a"] = b"old"
    blobs = {f"values/{name}": name.encode() * 5000 for name in "abcdefghijklmnop"} | {"set/x": b""}
    storage.update(blobs)
    assert {name: storage[name] for name in storage} == blobs
    assert list((tmp_path / "log").rglob("*.part")) == []


def test_a_log_writes_its_values_in_parts_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "WRITTEN_AT_ONCE", 2 * 4 * len(ALL))
    storage = CountingStorage()
    site = Archive(identified=False, log=PrivacyLog(storage))
    site.release(ALL)
    assert storage.parts == [2, 1]
    assert [len(storage[name]) for name in storage if name.startswith("values/")] == 3 * [4 * len(ALL)]


class CountingStorage(dict[str, bytes]):
    """A storage that counts what it is given at once."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[int] = []

    def update(self, blobs: Mapping[str, bytes], /) -> None:  # type: ignore[override]
        self.parts.append(len(blobs))
        super().update(blobs)


def test_prints_hold_neither_identifiers_nor_values(tmp_path: Path) -> None:
    site = Archive(log=PrivacyLog(FolderStorage(tmp_path)))
    site.release(ALL)
    raw = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"P00001" not in raw
    assert site.values["age"][:1].tobytes() not in raw
    other = RawRows({"age": site.values["age"]}, {}, None).prints(b"x" * 32)
    own = RawRows({"age": site.values["age"]}, {}, None).prints(site.log.key)
    assert np.mean(other.columns["age"] == own.columns["age"]) < 0.01


def test_a_lost_log_makes_every_release_ask() -> None:
    counter: dict[str, bytes] = {}
    site = Archive(log=PrivacyLog(dict[str, bytes](), counter))
    site.release(ALL)
    empty = Archive(log=PrivacyLog(dict[str, bytes](), counter))
    (objection,) = empty.judge(ALL)
    assert (objection.kind, objection.grade) == ("log lost", Grade.ASK)


class Crash(Exception):
    """The machine stops."""


class FailingStorage(dict[str, bytes]):
    """A storage that takes so many writes and then stops."""

    left: int = 0

    def __setitem__(self, name: str, content: bytes) -> None:
        if self.left == 0:
            raise Crash
        self.left -= 1
        super().__setitem__(name, content)

    def update(self, blobs: Mapping[str, bytes], /) -> None:  # type: ignore[override]
        for name, content in blobs.items():
            self[name] = content


@with_and_without
@pytest.mark.parametrize("writes", range(6))
def test_a_crash_while_an_entry_is_written_forgets_no_release(writes: int, identified: bool) -> None:
    """Whatever was written when the machine stopped: what is posted after is judged against all that left before."""
    storage = FailingStorage()
    storage.left = 100
    site = Archive(identified, log=PrivacyLog(storage))
    site.release(ALL)
    storage.left = writes
    second = site.candidate(np.arange(450))
    with contextlib.suppress(Crash):
        site.log.write(second)
    storage.left = 100
    site.log = PrivacyLog(storage)
    assert "added" in site.kinds(MORE)
    site.log.write(second)
    assert len(site.log.heads()) == 2
    assert "dropped" in site.kinds(np.arange(449))


def test_one_column_declared_in_another_way_is_the_same_column() -> None:
    key = b"k" * 32
    number = RawRows({"hiv": np.array([0.0, 1.0, -0.0])}).prints(key).columns["hiv"]
    category = RawRows({"hiv": np.array([0, 1, 0])}, {"hiv": ("0", "1")}).prints(key).columns["hiv"]
    assert np.array_equal(number, category)


@with_and_without
def test_a_person_is_asked_about_nearly_the_patients_of_a_study_without_a_common_column(identified: bool) -> None:
    site = Archive(identified)
    site.release(ALL, ("died", "age"))
    other = site.candidate(MORE, ("relapse", "lab"))
    assert site.log.judge(other, 5) == []
    (objection,) = site.log.judge(other, 5, near=True)
    assert (objection.kind, objection.grade) == ("near", Grade.ASK)


def test_a_file_that_is_known_by_its_values_is_not_written_again() -> None:
    site = Archive(identified=False)
    site.release(ALL)
    before = set(site.log.storage)
    site.release(ALL)
    assert {name for name in site.log.storage if name not in before} == {"release/00000001"}
    changed = site.values["age"].copy()
    changed[3] += 0.1
    site.values["age"] = changed
    assert site.kinds(ALL) == {"value changed"}


def test_one_column_is_in_memory_at_a_time() -> None:
    rows, columns = 50_000, 40
    values = {f"x{j}": np.round(np.random.default_rng(j).normal(size=rows), 2) for j in range(columns)}
    raw, log = RawRows(values, {}, [f"P{k}" for k in range(rows)]), PrivacyLog()
    head = ReleaseHead("one", "study", "00", 0, 0, ("a", "b", "c"), "masked", rows, {})
    tracemalloc.start()
    candidate = log.prepare(head, log.print_rows(raw))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(candidate.head.columns) == columns
    assert peak < columns * rows * 4  # what all columns' prints alone would take


def test_the_identifiers_of_the_same_file_are_hashed_once() -> None:
    log = PrivacyLog()
    raw = RawRows({"age": np.arange(3.0)}, {}, [("a",), ("b",), ("c",)])
    first = log.print_rows(raw).patients
    kept = log.storage["hashed"]
    again = log.print_rows(raw).patients
    assert first is not None
    assert again is not None
    assert first.tolist() == again.tolist()
    assert log.storage["hashed"] is kept
    other = log.print_rows(RawRows(raw.values, {}, [("a",), ("b",), ("d",)])).patients
    assert other is not None
    assert [a == b for a, b in zip(first.tolist(), other.tolist(), strict=True)] == [True, True, False]


# Many releases


def test_of_releases_that_show_the_same_a_new_one_is_compared_with_the_first_of_another_session(tmp_path: Path) -> None:
    site = Archive(log=PrivacyLog(FolderStorage(tmp_path)))
    for _ in range(3):
        site.release(ALL)
    site.release(ALL, ("died", "age"))
    heads = site.log.heads()
    assert [head.study for head in heads] == ["s1", "s2", "s3", "s4"]
    assert [head.study for head in site.log.others(site.candidate(ALL).head)] == ["s1", "s4"]
    assert [head.study for head in site.log.others(heads[0])] == ["s2", "s4"]
    # What shows more from now on stands for itself.
    site.log.put_head(replace(heads[1], pooled={"the pool": (400.0, 90.0)}))
    assert {head.study for head in site.log.others(site.candidate(ALL).head)} == {"s1", "s2", "s4"}
    assert [head.study for head in PrivacyLog(site.log.storage).heads()] == ["s1", "s2", "s3", "s4"]


def test_a_release_that_is_posted_again_is_found_by_its_session_and_its_parties_and_takes_its_own_place() -> None:
    site = Archive()
    site.release(ALL)
    site.release(MORE[:300])
    head = site.log.heads()[0]
    site.log.put_head(replace(head, equations=7))
    found = site.log.find(head.session, tuple(reversed(head.parties)))
    assert found is not None
    assert found.equations == 7
    assert site.log.find(head.session, ("nobody",)) is None
    assert [h.equations for h in site.log.heads()] == [7, 0]


def test_the_folder_of_releases_is_listed_again_only_when_somebody_else_changed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    look = storage_module._list_files

    def note_look(folder: str, prefix: str = "") -> Iterator[str]:
        looks.append(folder)
        return look(folder, prefix)

    monkeypatch.setattr(storage_module, "_list_files", note_look)
    site = Archive(log=PrivacyLog(FolderStorage(tmp_path)))
    site.release(ALL)
    first = len(looks)  # before there was a folder
    for _ in range(3):
        site.release(ALL)
    assert len(site.log.heads()) == 4
    assert len(looks) == first
    (tmp_path / "release" / "00000001").unlink()
    assert [head.study for head in site.log.heads()] == ["s1", "s3", "s4"]
    other = PrivacyLog(FolderStorage(tmp_path))
    other.put_head(replace(other.heads()[-1], session="another program's"))
    assert len(site.log.heads()) == 4
    assert len(looks) > first


def test_two_programs_that_write_into_one_log_see_each_others_releases(tmp_path: Path) -> None:
    here, there = (Archive(log=PrivacyLog(FolderStorage(tmp_path))) for _ in range(2))
    here.release(ALL)
    there.count = 10
    there.release(ALL, ("died", "age"))
    here.release(ALL, ("relapse", "age"))
    assert [len(site.log.heads()) for site in (here, there)] == [3, 3]
    assert len(list((tmp_path / "release").iterdir())) == 3


def test_a_log_that_lost_a_release_stays_lost_after_the_next_ones_and_writes_over_none() -> None:
    counter: dict[str, bytes] = {}
    site = Archive(log=PrivacyLog(dict[str, bytes](), counter))
    for _ in range(3):
        site.release(ALL)
    del site.log.storage["release/00000001"]  # type: ignore[attr-defined]
    assert site.kinds(ALL) == {"log lost"}
    site.log.put_head(replace(site.log.heads()[-1], state="complete"))
    assert site.log.is_lost
    site.log.write(site.candidate(ALL))
    assert [head.study for head in site.log.heads()] == ["s1", "s3", "s5"]
    assert site.kinds(ALL) == {"log lost"}


def test_records_since_a_backup_count_as_lost_although_a_running_study_goes_on() -> None:
    counter: dict[str, bytes] = {}
    site = Archive(log=PrivacyLog(dict[str, bytes](), counter))
    site.release(ALL, kind="masked")
    log.count_as_lost(counter, 2)
    head = site.log.heads()[0]
    site.log.note_sum(head.session, head.parties, ())
    site.log.put_head(replace(head, equations=3))
    assert site.log.is_lost
