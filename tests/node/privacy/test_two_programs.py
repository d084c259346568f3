"""Two programs write into one site's privacy log: nothing of one is lost by the other, and each sees what both did."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from node.privacy.sites import Archive

from coterie_chain.errors import StoreFault
from coterie_node.privacy import storage
from coterie_node.privacy.files import folder_lock
from coterie_node.privacy.files.durable_files import write_durably
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.storage import FolderStorage

ALL = np.arange(400)
WRITES = 6


def write_many(root: Path, program: int) -> None:
    """One program that judges and writes a few releases of changing patients."""
    site = Archive(log=PrivacyLog(FolderStorage(root)), count=100 * program)
    for k in range(WRITES):
        rows = np.random.default_rng(100 * program + k).choice(500, 450, replace=False)
        with site.log.hold():
            candidate = site.candidate(rows)
            site.log.judge(candidate, 5)
            site.log.write(candidate)


def test_three_processes_at_once_lose_no_release_and_give_no_patient_two_places(tmp_path: Path) -> None:
    processes = [multiprocessing.get_context("fork").Process(target=write_many, args=(tmp_path, k)) for k in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    log = PrivacyLog(FolderStorage(tmp_path))
    assert len({head.session for head in log.heads()}) == 3 * WRITES
    prints = log.patients().prints
    assert len(prints) == len(set(prints.tolist())) == 500
    assert not log.is_lost
    assert {len(log.bits(head, 500)) for head in log.heads()} == {500}


def test_a_release_that_was_judged_beside_an_older_log_is_not_written(tmp_path: Path) -> None:
    """Both give their new patients the same places: the second would name the first one's patients as its own."""
    one, two = (Archive(log=PrivacyLog(FolderStorage(tmp_path)), count=100 * k) for k in range(2))
    one.release(ALL[:300])
    first, second = one.candidate(ALL[:350]), two.candidate(np.r_[0:300, 400:450], ("relapse", "lab"))
    one.log.write(first)
    with pytest.raises(StoreFault) as error:
        two.log.write(second)
    assert error.value.code == "CO-C216"
    assert len(two.log.heads()) == 2
    two.release(np.r_[0:300, 400:450], ("relapse", "lab"))
    assert two.kinds(np.r_[0:300, 400:449], ("relapse", "lab")) == {"dropped"}


def test_what_another_program_notes_of_a_release_is_seen_and_kept(tmp_path: Path) -> None:
    here, there = (Archive(log=PrivacyLog(FolderStorage(tmp_path)), count=100 * k) for k in range(2))
    here.release(ALL, kind="masked")
    (head,) = there.log.heads()
    for n in range(8):  # within one tick of the disk's clock as well
        there.log.put_head(replace(head, pooled={"the pool": (400.0, float(n))}))
        assert here.log.heads()[0].pooled == {"the pool": [400.0, n]}
        here.log.put_head(replace(here.log.heads()[0], equations=n))
        head = there.log.heads()[0]
        assert (head.equations, head.pooled) == (n, {"the pool": [400.0, n]})


def test_writes_within_one_tick_of_the_disk_s_clock_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time of change says nothing, each write still gives its folder another one."""

    def write_in_one_tick(contents: Mapping[Path, bytes]) -> None:
        write_durably(contents)
        for place in contents:
            os.utime(place.parent, ns=(10**18, 10**18))

    monkeypatch.setattr(storage, "write_durably", write_in_one_tick)
    here, there = (Archive(log=PrivacyLog(FolderStorage(tmp_path)), count=100 * k) for k in range(2))
    here.release(ALL)
    for n in range(2, 6):
        there.log.write(there.candidate(ALL))
        assert len(here.log.heads()) == n


def test_a_log_that_another_program_holds_is_waited_for_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_lock, "LOG_LOCK_SECONDS", 0.1)
    site = Archive(log=PrivacyLog(FolderStorage(tmp_path)))
    site.release(ALL)
    held = os.open(tmp_path / ".lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(StoreFault, match="another program") as error:
        site.log.write(site.candidate(ALL))
    assert error.value.code == "CO-C215"
    assert site.kinds(np.arange(401)) == {"added"}  # who only reads waits for nobody
    os.close(held)
    site.release(ALL)
    assert len(site.log.heads()) == 2


def test_a_sum_that_was_spoiled_and_made_again_is_known(tmp_path: Path) -> None:
    """A site posts a false share, the step is opened again with the same sites, and the sum comes to exist."""
    log = PrivacyLog(FolderStorage(tmp_path))
    site = Archive(log=log)
    for spoilers, state, missing in (
        ([("b",)], "spoiled", ("b",)),
        ([("b",), ()], "complete", ()),
        ([(), ("b",)], "complete", ()),
        ([("b",), ("b", "c")], "spoiled", ("b",)),
        ([("b",), ("c",)], "complete", ()),  # known to b, and to c: more cautious is as if known to all
    ):
        site.log.write(site.candidate(ALL, kind="masked"))
        head = log.heads()[-1]
        for lacking in spoilers:
            log.note_sum(head.session, head.parties, lacking)
        assert (log.heads()[-1].state, log.heads()[-1].missing) == (state, missing)
