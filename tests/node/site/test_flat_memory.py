"""A daemon that has had many studies holds no more in memory, and judges in no more steps, than one that had few."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest
from support.node.houses import SITES, NodeNetwork, study_file

from coterie_learners.core.payload import Stamp, encode, pack
from coterie_node.notices.events import Notice, NoticeKind
from coterie_node.privacy import log
from coterie_node.release import gate
from coterie_node.run import codec
from coterie_node.site.study_list import EndedStudies, StudyList
from coterie_node.site.study_task import StudyTask, TaskState

# What a study needs while it goes on; the rest of its objects hang on these.
KINDS = (
    *("Study", "Design", "Learner", "StudyTask", "Supervisor", "Runner", "Machine", "Gate", "PayloadCodec", "Loaded"),
    *("PrivacyLog", "Candidate", "Judgement", "Decision", "Joining", "Terms", "DecodedPost", "Stamp", "Node"),
)
# The gate and its log: what judges a release beside all former ones.
JUDGING = tuple(str(Path(str(part.__file__)).parent) for part in (gate, log))


def count_objects() -> dict[str, int]:
    """How many live objects of Coterie there are of each kind, apart from the ledger's own records."""
    gc.collect()
    types = Counter(type(thing) for thing in gc.get_objects())
    return {
        kind: sum(n for type_, n in types.items() if type_.__name__ == kind and "coterie" in str(type_.__module__))
        for kind in KINDS
    }


def count_heads(network: NodeNetwork) -> int:
    """How many releases the daemons hold for the judgement of the next one."""
    return sum(len(daemon._privacy._index) for daemon in network.daemons.values())


def run_studies(network: NodeNetwork, numbers: range) -> None:
    """One study after the other; each is done at all sites."""
    for k in numbers:
        study = network.propose(study_file(network.root, name=f"cohort-{k}"))
        network.approve(study, *SITES[1:])
        network.settle()
        number = len(network.chain.ledger(None).studies())
        assert {daemon.tasks[number].phase for daemon in network.daemons.values()} == {"done"}


@pytest.fixture
def no_posts() -> Iterator[None]:
    """No posts of other tests in this process's memory; other tests' objects are not counted."""
    codec._DECODED._posts.clear()
    codec._DECODED.size = 0
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    assert codec._DECODED.size == sum(post.size for post in codec._DECODED._posts.values())


def count_calls(network: NodeNetwork, number: int) -> Counter[str]:
    """How often one more study calls each function of the gate and of its log; a step of a generator is a call."""
    calls: Counter[str] = Counter()

    def observe(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(JUDGING):
            calls[f"{frame.f_code.co_filename}:{frame.f_code.co_name}"] += 1

    sys.setprofile(observe)
    try:
        run_studies(network, range(number, number + 1))
    finally:
        sys.setprofile(None)
    return calls


def check_flat(network: NodeNetwork, first: int, last: int) -> None:
    """The same objects after the last study as after the first ones, and as many calls of the gate in it."""
    run_studies(network, range(first - 1))
    few = count_calls(network, first - 1)
    before = count_objects()
    shared = {len(daemon._privacy._index._shared) for daemon in network.daemons.values()}
    run_studies(network, range(first, last - 1))
    many = count_calls(network, last - 1)
    after = count_objects()
    assert few.total() > 1000
    assert many == few
    assert after == before
    assert after["StudyTask"] == after["DecodedPost"] == after["Decision"] == after["Runner"] == 0
    # One entry for each release and site, of values that all of them share but for three texts.
    assert count_heads(network) == last * len(SITES)
    assert {len(daemon._privacy._index._shared) for daemon in network.daemons.values()} == shared
    assert [len(daemon.tasks) for daemon in network.daemons.values()] == [last] * len(SITES)
    assert [len(daemon.studies.going) for daemon in network.daemons.values()] == [0] * len(SITES)


@pytest.mark.usefixtures("no_posts")
def test_studies_that_are_over_leave_memory_and_the_way_of_the_next_one(node_network: NodeNetwork) -> None:
    check_flat(node_network, 2, 3)


@pytest.mark.long
@pytest.mark.usefixtures("no_posts")
def test_twenty_studies_leave_no_more_in_memory_and_in_the_way_than_five(node_network: NodeNetwork) -> None:
    check_flat(node_network, 5, 20)


def make_ended(number: int, digest: bytes = bytes(31) + b"\1", state: TaskState = TaskState.DONE) -> StudyTask:
    task = StudyTask(number, digest, "north")
    task.state, task.name, task.ending, task.losses, task.posted = state, "age", "It ended.", ("west left",), 100
    return task


def test_a_study_that_is_over_reads_the_same_from_the_disk() -> None:
    ended = EndedStudies()
    task = make_ended(7)
    ended.put(task)
    found = ended.find(7)
    assert found is not None
    assert found is not task
    assert found.as_dict() == task.as_dict()
    assert (found.posted, found.state, found.over) == (100, TaskState.DONE, True)
    assert ended.find(8) is None


def test_studies_that_are_over_count_and_are_found_like_the_others() -> None:
    studies, twin = StudyList(), StudyTask(3, bytes(31) + b"\1", "south")
    for task in (make_ended(1), make_ended(2, bytes(31) + b"\2", TaskState.ABORTED), twin):
        studies.add(task)
    assert list(studies.tasks) == [1, 2, 3]
    assert list(studies.going) == [3]
    assert studies.tasks[3] is twin
    assert 4 not in studies.tasks
    assert studies.count_states() == {TaskState.DONE: 1, TaskState.ABORTED: 1, TaskState.WAITING: 1}
    assert studies.sum_posted() == 200
    assert studies.list_twins(twin) == [1]
    assert studies.has("north", twin.hash)
    assert not studies.has("west", twin.hash)
    twin.abort()
    assert list(studies.due({})) == []
    assert list(studies.going) == []
    assert studies.tasks[3].phase == "aborted"


def test_another_study_takes_the_number_of_one_that_is_over_after_a_reorganisation() -> None:
    studies, other = StudyList(), StudyTask(1, bytes(31) + b"\5", "west")
    studies.add(make_ended(1))
    studies.add(other)
    assert [task.phase for task in studies.take_displaced()] == ["done"]
    assert studies.tasks[1] is other
    assert not studies.has("north", bytes(31) + b"\1")
    assert list(studies.due({})) == [other]


def test_each_result_is_handed_over_until_it_is_taken_and_then_no_more(node_network: NodeNetwork) -> None:
    looks: list[list[Notice]] = []
    answers = [False, True, True]

    def observe(standing: Sequence[Notice]) -> bool:
        looks.append([notice for notice in standing if notice.kind is NoticeKind.RESULT])
        return answers[len(looks) - 1]

    south = node_network.daemons["south"]
    run_studies(node_network, range(1))
    south = node_network.daemons["south"] = node_network.daemon("south")
    south.services = replace(south.services, observe=observe)
    for _ in answers:
        south.tick()
        node_network.seconds += 10
    assert [[notice.study for notice in look] for look in looks] == [[1], [1], []]


def test_the_posts_of_one_study_are_forgotten_alone() -> None:
    posts = codec.DecodedPosts(1 << 20)
    blobs = {name: pack(encode(Stamp(name, "t", "north", 0), {}), 0) for name in ("a", "b")}
    first = {name: posts.decode(blob) for name, blob in blobs.items()}
    posts.forget("a")
    assert posts.size == first["b"].size
    assert posts.decode(blobs["b"]) is first["b"]
    assert posts.decode(blobs["a"]) is not first["a"]
