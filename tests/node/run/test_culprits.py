"""A member withholds or garbles a payload: the ledger names it, no honest server is skipped, and the study goes on."""

from __future__ import annotations

import math
from functools import partial

import pytest
from support.node.worlds import World, cohort

from coterie_chain.errors import ChainError
from coterie_chain.ledger.protocol import State
from coterie_chain.retry import RetryPolicy
from coterie_learners.errors import LearnerError
from coterie_node.audit.bundle import read_payloads as payloads_of
from coterie_node.audit.replay import replay
from coterie_node.errors import NodeError, PayloadMissing, PostUnusable
from coterie_node.run.reasons import Reason
from coterie_node.run.supervisor import Supervisor

CULPRIT = "west"
# As the daemon does: it tries again for as long as the study runs.
ENDLESS = RetryPolicy(limit=math.inf, first=0.5, longest=30.0)


def four(silence: str) -> World:
    return cohort(4, aggregation="plain", silent_site=silence)


def withhold(world: World, position: int) -> None:
    """Take a site's payload at a step out of every store, as a member that never serves it does."""
    (record,) = (r for r in world.records() if r.site == CULPRIT and r.post.position == position)
    del world.blobs.blocks[record.post.cid]


def attend(world: World, names: list[str], until: State = State.COMPLETED, seconds: int = 40) -> dict[str, Exception]:
    """Let sites take part as their daemons do, on virtual time; returns the errors that ended a site's part."""
    crew = {name: Supervisor(partial(world.runner, name), world.clock, ENDLESS) for name in names}
    ended: dict[str, Exception] = {}
    for _ in range(400):
        for name in [name for name in names if name not in ended]:
            try:
                while crew[name].tick():
                    pass
            except (ChainError, LearnerError, NodeError) as error:
                ended[name] = error
        if world.view().state == until or len(ended) == len(names):
            return ended
        world.clock.seconds += seconds
    raise AssertionError(f"the study never ended: {world.view()}, {ended}")


def sites_of(world: World) -> list[str]:
    (found,) = {CULPRIT} & set(world.study.sites)
    return [name for name in world.study.sites if name != found]


def post_all(world: World) -> None:
    """Every site posts at the first step; nobody reads yet."""
    for name in world.study.sites:
        runner, _, _ = world.catch_up(name)
        assert runner.turn()


@pytest.mark.parametrize("silence", ["exclude", "abort"])
def test_a_withheld_payload_is_reported_by_all_and_costs_its_site_the_study_not_a_server_its_turn(silence: str) -> None:
    world = four(silence)
    post_all(world)
    withhold(world, 0)
    ended = attend(world, sites_of(world), State.COMPLETED)
    votes = world.events("UnavailabilityVoted")
    assert {dict(e.details)["culprit"] for e in votes} == {CULPRIT}
    assert {dict(e.details)["reason"] for e in votes} == {Reason.UNAVAILABLE}
    assert world.events("ServerSkipped") == []
    if silence == "exclude":
        assert ended == {}
        assert world.view().parties == tuple(sites_of(world))
    else:
        (end,) = world.events("StudyAborted")
        assert dict(end.details)["culprit"] == CULPRIT
        assert all(f"The site at fault is {CULPRIT}" in str(error) for error in ended.values())


def test_a_study_that_waits_repeats_the_step_and_takes_the_payload_when_it_comes() -> None:
    world = four("wait")
    post_all(world)
    withhold(world, 0)
    assert attend(world, [*sites_of(world), CULPRIT], State.COMPLETED) == {}
    (again,) = world.events("StepReopened")
    assert dict(again.details)["culprit"] == CULPRIT
    assert world.view().parties == world.study.sites
    assert world.events("ServerSkipped") == []


def test_nobody_is_reported_in_the_first_half_of_the_time() -> None:
    world = four("exclude")
    post_all(world)
    withhold(world, 0)
    runner = world.runner("north")
    for seconds, reports in ((0, 0), (world.study.ledger.step_seconds // 2 + 1, 1), (1, 1)):
        world.clock.seconds += seconds
        with pytest.raises(PayloadMissing):
            runner.turn()
        assert len(world.events("UnavailabilityVoted")) == reports


def test_a_garbled_payload_costs_its_site_the_study_where_the_study_excludes() -> None:
    world = four("exclude")
    world.post(CULPRIT, b"garbage")
    with_others = sites_of(world)
    assert attend(world, with_others, State.COMPLETED) == {}
    assert world.view().parties == tuple(with_others)
    assert {dict(e.details)["reason"] for e in world.events("UnavailabilityVoted")} == {Reason.BAD_PAYLOAD}


@pytest.mark.parametrize("silence", ["wait", "abort"])
def test_a_garbled_payload_ends_any_other_study_with_its_site_on_record(silence: str) -> None:
    world = four(silence)
    world.post(CULPRIT, b"garbage")
    ended = attend(world, sites_of(world), State.ABORTED)
    (end,) = world.events("StudyAborted")
    assert (dict(end.details)["reason"], dict(end.details)["culprit"]) == (Reason.BAD_PAYLOAD, CULPRIT)
    assert ended
    assert not any(isinstance(error, PostUnusable) for error in ended.values())


@pytest.mark.parametrize("silence", ["abort", "exclude"])
def test_a_post_that_was_voted_unusable_spoils_neither_replay_nor_bundle(silence: str) -> None:
    world = four(silence)
    post_all(world)
    withhold(world, 0)
    state = State.COMPLETED if silence == "exclude" else State.ABORTED
    attend(world, sites_of(world), state)
    outcome = replay(world.ledger(), world.blobs, world.number)
    assert outcome.verdict.intact, outcome.verdict.problem
    assert any(f"The post of {CULPRIT} at position 0" in remark for remark in outcome.remarks)
    stored = len(list(payloads_of(world.ledger(), world.blobs, world.number)))
    assert stored == len(world.records()) - 1
