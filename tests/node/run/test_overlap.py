"""Sites that do not wait for the server's record: one block a round, the same bytes, a way back from a wrong guess."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from node.run.test_recovery import bits, digests, run_undisturbed
from support.learners import shapes
from support.learners.shapes import SCRIPT_CASES
from support.node.worlds import World, cohort

from coterie_chain.errors import BlobMissing, LedgerUnreachable, PostRejected
from coterie_chain.ledger.protocol import Ledger, Post, State
from coterie_learners.errors import ProtocolError, WrongPost
from coterie_node.audit.replay import replay
from coterie_node.errors import PayloadMissing, StudyStopped
from coterie_node.run.reasons import Reason
from coterie_node.run.runner import Runner


class Blocks:
    """A memory ledger with blocks: what sites send waits in a pool until a block takes it, the better paid first."""

    def __init__(self, world: World, overlap: bool = True) -> None:
        self.world, self.overlap = world, overlap
        self.pool: dict[tuple[str, int, int], tuple[int, Post]] = {}
        self.mined = 0
        self.refused: list[tuple[str, int, str]] = []
        self.crew = {name: self.runner(name) for name in world.study.sites}

    def runner(self, name: str) -> Runner:
        """A site's runner, as a fresh process would make it; sites of `overlap` send ahead."""
        handle: Any = Sender(self, name)
        runner = self.world.runner(name, ledger=handle)
        runner._ahead = handle if self.overlap else None
        return runner

    def work(self) -> None:
        """Turns until nobody can do anything before the next block."""
        before = None
        while before != (before := self._has_reached()):
            for runner in self.crew.values():
                runner.turn()

    def _has_reached(self) -> object:
        places = [(runner.position, runner._prediction, runner.restarts) for runner in self.crew.values()]
        return places, len(self.pool), len(self.world.chain.log)

    def mine(self) -> None:
        """One block."""
        pool, self.pool = self.pool, {}
        self.mined += 1
        for (name, position, _), (_, post) in sorted(pool.items(), key=lambda entry: entry[1][0]):
            try:
                self.world.ledger(name).record(post)
            except PostRejected as error:
                self.refused.append((name, position, error.name))

    def run(self) -> None:
        """Blocks until every site has its result."""
        self.work()
        while not all(runner.done for runner in self.crew.values()):
            assert self.mined < 200
            self.mine()
            self.work()


class Sender:
    """One site's handle: its records go into the pool, and it never waits for them."""

    def __init__(self, blocks: Blocks, name: str) -> None:
        self._blocks, self._name = blocks, name
        self._ledger: Ledger = blocks.world.ledger(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def record(self, post: Post) -> None:
        self._blocks.pool.setdefault((self._name, post.position, post.attempt), (1, post))

    def submit(self, post: Post) -> None:
        self.record(post)

    def submit_early(self, post: Post, *, priority: bool) -> None:
        self._blocks.pool.setdefault((self._name, post.position, post.attempt), (0 if priority else 1, post))


@pytest.mark.parametrize("aggregation", ["plain", "masked"])
def test_a_round_takes_one_block_instead_of_two_and_leaves_the_same_bytes(aggregation: str) -> None:
    plain, ahead = (Blocks(cohort(3, aggregation=aggregation), overlap) for overlap in (False, True))
    plain.run()
    ahead.run()
    rounds = len(ahead.world.records("server")) - 1
    # One more block concludes the study.
    assert (plain.mined, ahead.mined) == (2 * rounds + 1, rounds + 2)
    assert ahead.refused == []
    assert digests(ahead.world) == digests(plain.world)
    assert len({bits(r.machine.result) for b in (plain, ahead) for r in b.crew.values()}) == 1
    assert sum(r.restarts for r in ahead.crew.values()) == 0
    assert replay(ahead.world.ledger(), ahead.world.blobs, ahead.world.number).verdict.grade == "identical"


@pytest.mark.parametrize("kind", sorted(set(SCRIPT_CASES) - {"join"}))
def test_every_shape_of_protocol_ends_the_same_with_overlap(kind: str) -> None:
    shape = SCRIPT_CASES[kind]

    def make() -> World:
        return World(shapes.study(tuple(shape.rows)), shape.rows, shape.script, shape.schedule)

    blocks = Blocks(make())
    blocks.run()
    assert digests(blocks.world) == run_undisturbed(make)[0]
    assert blocks.refused == []


def test_the_server_that_a_site_foresaw_is_skipped_and_the_next_ones_post_stands() -> None:
    blocks = Blocks(cohort(3, aggregation="masked"))
    world, silent = blocks.world, blocks.crew.pop("north")
    silent.turn()
    blocks.work()
    blocks.mine()
    blocks.work()
    assert {r.position for r in blocks.crew.values()} == {2}
    blocks.mine()
    assert {error for _, _, error in blocks.refused} == {"WrongStep"}
    world.late()
    blocks.work()
    assert len(world.events("ServerSkipped")) == 1
    blocks.crew["north"] = blocks.runner("north")
    blocks.run()
    assert world.records("server")[0].site == "south"
    assert blocks.crew["south"].restarts > 0
    assert len({bits(r.machine.result) for r in blocks.crew.values()}) == 1
    assert replay(world.ledger(), world.blobs, world.number).verdict.verdict == "PASS"


def test_a_server_whose_post_is_not_the_one_foreseen_is_disputed_and_nothing_builds_on_it() -> None:
    blocks = Blocks(cohort(3))
    world = blocks.world
    crooked = blocks.crew.pop("north")
    crooked.turn()
    blocks.work()
    blocks.mine()
    blocks.work()
    world.forge("north", lambda payload: payload.update(beta=payload["beta"] + 1e-9))
    blocks.mine()
    assert {error for _, _, error in blocks.refused} == {"BasisMismatch"}
    with pytest.raises(WrongPost) as caught:
        blocks.work()
    assert caught.value.site == "north"
    assert world.view().state == State.PAUSED
    assert [r.post.position for r in world.records("each")] == [0, 0, 0]


def test_a_server_that_lies_about_its_converged_flag_is_not_believed() -> None:
    blocks = Blocks(cohort(3))
    world = blocks.world
    blocks.work()
    blocks.mine()
    blocks.work()
    (sent_post,) = (post for (name, position, _), (_, post) in blocks.pool.items() if position == 1)
    world.ledger("north").record(replace(sent_post, converged=True))
    blocks.pool.clear()
    with pytest.raises(ProtocolError, match="converged=True"):
        blocks.work()
    assert replay(world.ledger(), world.blobs, world.number).verdict.code == "CO-P116"


def test_a_record_that_was_lost_on_its_way_is_sent_again() -> None:
    blocks = Blocks(cohort(3))
    blocks.work()
    blocks.mine()
    blocks.work()
    blocks.pool.clear()
    blocks.run()
    assert digests(blocks.world) == run_undisturbed(lambda: cohort(3))[0]


def test_a_site_that_restarts_behind_its_own_guess_goes_on_from_the_ledger() -> None:
    blocks = Blocks(cohort(3, aggregation="masked"))
    blocks.work()
    while not all(r.done for r in blocks.crew.values()):
        blocks.mine()
        blocks.work()
        name = blocks.world.study.sites[blocks.mined % 3]
        blocks.crew[name] = blocks.runner(name)
        blocks.work()
    assert digests(blocks.world) == run_undisturbed(lambda: cohort(3, aggregation="masked"))[0]


# What the fault simulation found


def exhaust(runner: Runner) -> None:
    """Turns until there is nothing to do."""
    while runner.turn():
        continue


class Failing:
    """A ledger on which a move fails once, before it has effect."""

    def __init__(self, inner: Ledger, move: str) -> None:
        self._inner, self._move, self.failed = inner, move, False

    def __getattr__(self, name: str) -> Any:
        if name == self._move and not self.failed:
            self.failed = True
            return self._fail
        return getattr(self._inner, name)

    def _fail(self, *_: object) -> None:
        raise LedgerUnreachable("CO-C301", "The node does not answer.")


def test_a_dispute_that_the_network_swallowed_is_raised_again() -> None:
    world = cohort(3)
    for name in world.study.sites:
        world.catch_up(name)[0].turn()
    world.forge("north", lambda payload: payload.update(beta=payload["beta"] + 1e-9))
    ledger: Any = Failing(world.ledger("south"), "dispute")
    runner = world.runner("south", ledger=ledger)
    with pytest.raises(LedgerUnreachable):
        exhaust(runner)
    assert world.view().state == State.RUNNING
    with pytest.raises(WrongPost):
        exhaust(runner)
    assert world.view().state == State.PAUSED


def test_the_payload_of_a_server_that_is_gone_is_made_again() -> None:
    world = cohort(3)
    crew = world.crew()
    while not world.records("server"):
        assert any(runner.turn() for runner in crew.values())
    (record,) = world.records("server")
    del world.blobs.blocks[record.post.cid]
    while any(runner.turn() for runner in crew.values()):
        continue
    assert world.view().state == State.COMPLETED
    assert np.array_equal(crew["south"].machine.result.estimates, crew["east"].machine.result.estimates)
    assert world.blobs.has(record.post.cid)


def test_a_missing_payload_names_its_site_and_is_not_waited_for_once_the_study_is_aborted() -> None:
    world = cohort(3)
    crew = world.crew()
    while len(world.records()) < 3:
        assert any(runner.turn() for runner in crew.values())
    del world.blobs.blocks[world.records()[0].post.cid]
    late = world.runner("east")
    with pytest.raises(PayloadMissing, match="The payload of north for 'stats/0'") as caught:
        late.turn()
    assert isinstance(caught.value, BlobMissing)
    assert caught.value.retry
    world.ledger("south").abort(world.number, Reason.OPERATOR)
    with pytest.raises(StudyStopped, match="its people stopped it"):
        late.turn()
