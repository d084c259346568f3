"""Processes that die and networks that fail, at every point: the study ends with the same bytes as without."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.lanes import later
from support.learners import shapes
from support.learners.shapes import SCRIPT_CASES
from support.node.worlds import World, cohort, sweep

from coterie_chain.errors import BlobMissing, LedgerUnreachable
from coterie_chain.ledger.protocol import State
from coterie_chain.store.protocol import MemoryBlobs
from coterie_node.audit.replay import replay
from coterie_node.peers.interactive_session import MemoryTransport
from coterie_node.run.runner import Runner

TALKERS = {"join"}


def make_shape(name: str) -> Callable[[], World]:
    shape = SCRIPT_CASES[name]
    return lambda: World(shapes.study(tuple(shape.rows)), shape.rows, shape.script, shape.schedule)


WORLDS: dict[str, Callable[[], World]] = {
    "glore masked": lambda: cohort(3, aggregation="masked"),
    "glore plain": lambda: cohort(3, aggregation="plain"),
    "glore of one site": lambda: cohort(1, aggregation="plain"),
    "glore with deflate": lambda: cohort(4, compression="deflate"),
    **{name: make_shape(name) for name in SCRIPT_CASES if name not in TALKERS},
}


def digests(world: World) -> list[tuple[int, str, str]]:
    """What every site recorded where; sealed posts have a random key, so only their place counts."""
    open_posts = {r.post.cid for r in world.records() if not world.blobs.get(r.post.cid).startswith(b"COSEAL1")}
    return [
        (r.post.position, r.site, r.post.sha256.hex() if r.post.cid in open_posts else "sealed")
        for r in sorted(world.records(), key=lambda r: (r.post.position, r.site))
    ]


def bits(result: Any) -> bytes:
    """A result to the bit."""
    if hasattr(result, "estimates"):
        return bytes(result.estimates.tobytes() + result.covariance.tobytes())
    return b"" if result is None else bytes(np.asarray(result).tobytes())


def run_undisturbed(make: Callable[[], World]) -> tuple[list[tuple[int, str, str]], dict[str, bytes]]:
    world = make()
    crew = world.crew()
    sweep(crew.values())
    assert world.view().state == State.COMPLETED
    return digests(world), {name: bits(r.machine.result) for name, r in crew.items()}


# Restarts


@pytest.mark.parametrize("kind", WORLDS)
def test_with_everybody_restarted_after_every_record_the_ledger_holds_the_same(kind: str) -> None:
    world = WORLDS[kind]()
    crew, written, restarts = world.crew(), 0, 0
    while not all(r.done for r in crew.values()):
        assert any(r.turn() for r in crew.values())
        if len(world.records()) > written:
            written, restarts = len(world.records()), restarts + 1
            crew = world.crew()
    assert restarts == len(world.records())
    assert (digests(world), {n: bits(r.machine.result) for n, r in crew.items()}) == run_undisturbed(WORLDS[kind])


def restart_sites(world: World, names: list[str], stop: Callable[[], object]) -> None:
    """Turns of processes that are started again for each turn, until the condition holds or nobody can move."""
    while not stop() and any(world.runner_after_replay(name).turn() for name in names):
        pass


def test_a_restart_after_an_exclusion_and_a_skip_follows_the_ledger() -> None:
    world = cohort(4, aggregation="masked", silent_site="exclude")
    rest = ["south", "east", "west"]

    def serving() -> bool:
        open_ = world.view().open
        return open_ is not None and open_.kind == "server"

    restart_sites(world, rest, serving)
    world.late()
    restart_sites(world, rest, serving)
    assert [dict(e.details)["silent"] for e in world.events("SiteExcluded")] == ["north"]
    restart_sites(world, ["east", "west"], lambda: False)
    world.late()
    restart_sites(world, ["east", "west"], lambda: world.events("ServerSkipped"))
    assert [dict(e.details)["server"] for e in world.events("ServerSkipped")] == ["south"]
    restart_sites(world, rest, lambda: False)
    assert world.view().state == State.COMPLETED
    assert len({bits(world.rerun(name)) for name in world.study.sites}) == 1
    assert replay(world.ledger(), world.blobs, world.number).verdict.verdict == "PASS"


def test_an_interactive_step_is_held_again_when_it_broke_off_before_anybody_posted() -> None:
    world = make_shape("join")()
    crew = world.crew()
    while (open_ := world.view().open) is not None and open_.kind != "each":
        assert any(r.turn() for r in crew.values())
    world.hub.seconds = 0.1
    alone = world.runner_after_replay("a")
    assert not alone.turn()
    assert alone.talking
    world.hub = MemoryTransport(20.0)
    crew = world.crew()
    sweep(crew.values())
    assert world.view().state == State.COMPLETED
    results = {name: r.machine.result for name, r in crew.items()}
    np.testing.assert_array_equal(SCRIPT_CASES["join"].pick(results), SCRIPT_CASES["join"].truth)


# Crashes at every call


class Crash(Exception):
    """The process dies here."""


class Crashing:
    """A ledger or store at each of whose calls the process may die: before the call, or after it has had effect."""

    def __init__(self, inner: Any, fate: Callable[[], bool]) -> None:
        self._inner, self._fate = inner, fate

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if not callable(call):
            return call

        def crash_or_call(*args: Any) -> Any:
            if self._fate():
                raise Crash(f"before {name}")
            result = call(*args)
            if self._fate():
                raise Crash(f"after {name}")
            return result

        return crash_or_call


def crashing_runner(world: World, name: str, fate: Callable[[], bool]) -> Runner:
    runner = world.runner(name)
    runner._ledger = Crashing(runner._ledger, fate)
    runner._blobs = Crashing(runner._blobs, fate)
    return runner


def survive(world: World, fate: Callable[[], bool]) -> int:
    """Run a study whose processes die by fate and are started again; returns how many died."""
    crashes = 0
    crew = {name: crashing_runner(world, name, fate) for name in world.study.sites}
    for _ in range(20_000):
        if all(r.done for r in crew.values()):
            return crashes
        for name in crew:
            try:
                crew[name].turn()
            except Crash:
                crashes += 1
                crew[name] = crashing_runner(world, name, fate)
    raise AssertionError("no end")


@pytest.mark.parametrize("kind", ["glore masked", "valoris", "secure cola"])
def test_a_process_that_dies_at_any_one_call_changes_nothing(kind: str) -> None:
    """Two dozen calls spread over the whole study, before the call and after it."""
    counter = [0]

    def count() -> bool:
        counter[0] += 1
        return False

    make = WORLDS[kind]
    assert survive(make(), count) == 0
    want = run_undisturbed(make)
    step = max(1, counter[0] // 24)
    for fatal in range(1, counter[0], step):
        counter[0] = 0
        world = make()

        def fate(fatal: int = fatal) -> bool:
            counter[0] += 1
            return counter[0] == fatal

        assert survive(world, fate) == 1
        assert digests(world) == want[0], f"after a crash at call {fatal}"


@pytest.mark.parametrize("seed", [0, *later(1, 2, 3)])
def test_processes_that_die_all_the_time_still_end_with_the_same_bytes(seed: int) -> None:
    chance = random.Random(seed)
    world = cohort(3, aggregation="masked")
    crashes = survive(world, lambda: chance.random() < 0.01)
    assert crashes > 5, seed
    assert digests(world) == run_undisturbed(WORLDS["glore masked"])[0], seed
    slots = [(r.post.position, r.post.attempt, r.site) for r in world.records()]
    assert len(slots) == len(set(slots))
    assert replay(world.ledger(), world.blobs, world.number).verdict.grade == "identical"


# A draft whose record is lost


class Unreachable:
    """A ledger that does not answer to its first `record`, before or after that has had effect."""

    def __init__(self, world: World, name: str, before: bool) -> None:
        self._ledger, self._before, self.failed = world.ledger(name), before, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def record(self, post: Any) -> None:
        if self.failed:
            self._ledger.record(post)
            return
        self.failed = True
        if not self._before:
            self._ledger.record(post)
        raise LedgerUnreachable("CO-C301", "The endpoint does not answer.")


@pytest.mark.parametrize("before", [True, False])
def test_a_draft_whose_record_was_lost_is_made_again_with_the_same_bytes(before: bool) -> None:
    world = WORLDS["glore masked"]()
    ledger = Unreachable(world, "north", before)
    crew = {**world.crew(), "north": world.runner("north", ledger=ledger)}
    with pytest.raises(LedgerUnreachable) as caught:
        crew["north"].turn()
    assert caught.value.retry
    assert len(world.records()) == (0 if before else 1)
    stored = set(world.blobs.blocks)
    sweep(crew.values())
    assert digests(world) == run_undisturbed(WORLDS["glore masked"])[0]
    assert world.records()[0].post.cid in stored


# Stores that fail for a while


class Sleepy(MemoryBlobs):
    """A store that holds nothing for the first calls."""

    def __init__(self, inner: MemoryBlobs, naps: int) -> None:
        super().__init__()
        self.blocks, self.naps = inner.blocks, naps

    def get(self, cid: str, max_bytes: int = 1 << 28) -> bytes:
        self.naps -= 1
        if self.naps >= 0:
            raise BlobMissing("CO-C201", "Nobody here has it yet.")
        return super().get(cid, max_bytes)


def test_a_payload_that_comes_late_to_the_store_is_waited_for() -> None:
    world = WORLDS["glore masked"]()
    crew = world.crew()
    crew["south"]._blobs = Sleepy(world.blobs, 3)
    missed = 0
    while not all(r.done for r in crew.values()):
        for runner in crew.values():
            try:
                runner.turn()
            except BlobMissing:
                missed += 1
    assert missed == 3
    assert digests(world) == run_undisturbed(WORLDS["glore masked"])[0]
