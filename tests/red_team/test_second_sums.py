"""Attacks on masked sums that are made twice: the second sum, over fewer sites, must not show what one site holds."""

from __future__ import annotations

import numpy as np
import pytest
from support.node.worlds import World, cohort, until

from coterie_chain.ledger.protocol import State
from coterie_learners.core import masked_sum
from coterie_learners.glore.glore import GlorePlan, compute_local_sums
from coterie_learners.sums import newton
from coterie_node.errors import ReleaseRefused
from coterie_node.release.repeated_sums import list_attempts
from coterie_node.run.reasons import Reason
from coterie_node.run.runner import Runner


def make_world(count: int) -> World:
    return cohort(count, n=60 * count, aggregation="masked", silent_site="exclude", step_seconds=600)


def post_all(world: World, crew: dict[str, Runner], names: list[str], attempt: int) -> None:
    """Let these sites post at the first step in this attempt."""
    runners = [crew[name] for name in names]
    until(lambda: {r.site for r in world.records() if r.post.attempt == attempt} >= set(names), runners)


def exclude(world: World, names: list[str], silent: str) -> None:
    """Let these sites vote a silent site out, as they all would."""
    world.late()
    for name in names:
        if silent in world.view().parties:
            world.ledger(name).exclude(world.number, silent)


def vote_out(world: World, names: list[str], culprit: str, position: int = 0) -> None:
    """Let these sites say that a post cannot be used."""
    for name in names:
        world.ledger(name).report_unavailable(world.number, position, 0, culprit, Reason.UNAVAILABLE)


def own_look(world: World, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """What one site's share of the first sum hides."""
    runner = world.runner(name)
    plan = GlorePlan.of(world.study)
    sums = compute_local_sums(plan, runner.machine.site, newton.begin(plan.rules))
    return np.concatenate([np.ravel(sums[key]) for key in sorted(sums)])


def words(world: World, name: str, attempt: int) -> masked_sum.Words64:
    (record,) = (r for r in world.records() if (r.site, r.post.attempt, r.post.position) == (name, attempt, 0))
    return np.asarray(world.payload(record)["masked"])


def add_posts(world: World, names: list[str], attempt: int) -> masked_sum.Words64:
    total = words(world, names[0], attempt)
    for name in names[1:]:
        total = masked_sum.add_words(total, words(world, name, attempt))
    return total


def remove_pads(world: World, reader: str, total: masked_sum.Words64, parties: list[str]) -> masked_sum.Words64:
    """What a silent party makes of the others' posts with its own keys, in the first attempt."""
    site = world.runner(reader).machine.seat(tuple(parties), 0)
    for peer in parties:
        if peer != reader:
            pad = np.frombuffer(site.mask(peer, "stats/0", total.nbytes), "<u8").reshape(total.shape)
            total = masked_sum.add_words(total, masked_sum.negate_words(pad) if peer < reader else pad)
    return total


def test_a_majority_that_votes_a_good_post_unusable_gets_no_second_sum() -> None:
    world = make_world(4)
    crew = world.crew()
    until(lambda: len(world.records()) == 4, crew.values())
    honest = crew["north"]
    assert honest.turn()  # it reads all four posts
    vote_out(world, ["east", "west"], "south")
    assert world.view().parties == ("north", "east", "west")
    with pytest.raises(ReleaseRefused) as refusal:
        until(lambda: honest.done, [honest])
    assert refusal.value.code == "CO-R310"
    assert [r for r in world.records() if r.site == "north" and r.post.attempt > 0] == []
    (end,) = world.events("StudyAborted")
    assert (end.site, dict(end.details)["reason"]) == ("north", Reason.RELEASE_REFUSED)


def test_a_restarted_site_remembers_the_sum_that_it_has_read() -> None:
    world = make_world(4)
    until(lambda: len(world.records()) == 4, world.crew().values())
    assert world.runner("north").turn()
    vote_out(world, ["east", "west"], "south")
    again = world.runner("north")
    with pytest.raises(ReleaseRefused, match="does not post 'stats/0' again without south"):
        until(lambda: again.done, [again])


def test_a_site_that_could_not_read_the_post_either_posts_again() -> None:
    world = make_world(4)
    crew = world.crew()
    until(lambda: len(world.records()) == 4, crew.values())
    vote_out(world, ["east", "west"], "south")
    until(lambda: len([r for r in world.records() if r.post.attempt == 1]) == 3, crew.values())


def test_a_site_stands_by_its_own_vote_when_the_post_comes_after_it() -> None:
    world = make_world(4)
    crew = world.crew()
    until(lambda: len(world.records()) == 4, crew.values())
    vote_out(world, ["north"], "south")
    assert crew["north"].turn()  # it reads all four posts now
    vote_out(world, ["east"], "south")
    until(lambda: len([r for r in world.records() if r.post.attempt == 1]) == 3, crew.values())


def test_a_silent_site_does_not_learn_the_share_of_the_next_silent_site() -> None:
    world = make_world(5)
    reader, lost, others = "mid", "south", ["north", "east", "west"]
    crew = world.crew()
    post_all(world, crew, [*others, lost], 0)
    # The attack's first half succeeds: the silent site reads the sum of all others.
    parties = list(world.study.sites)
    total = remove_pads(world, reader, add_posts(world, [*others, lost], 0), parties)
    want = sum(own_look(world, name) for name in [*others, lost])
    np.testing.assert_allclose(masked_sum.decode_fixed_point(total), want, rtol=0, atol=1e-9)
    exclude(world, [*others, lost], reader)
    post_all(world, crew, others, 1)
    exclude(world, others, lost)
    # The second half would be the difference to the sum of the three that are left.
    with pytest.raises(ReleaseRefused, match="would show mid what south holds"):
        until(lambda: False, [crew["north"]])
    assert [r for r in world.records() if r.post.attempt == 2] == []
    assert [dict(e.details)["silent"] for e in world.events("SiteExcluded")] == [reader, lost]
    assert world.view().state == State.ABORTED


def test_two_sites_that_are_silent_from_the_start_are_both_excluded_and_the_others_complete() -> None:
    world = make_world(5)
    others = ["north", "south", "east"]
    crew = world.crew()
    post_all(world, crew, others, 0)
    for silent in ("west", "mid"):
        exclude(world, [*others, "mid"] if silent == "west" else others, silent)
    until(lambda: world.view().state == State.COMPLETED, [crew[name] for name in others])


def test_a_site_that_leaves_by_choice_after_its_post_stops_nobody() -> None:
    world = make_world(5)
    others = ["north", "south", "east", "west"]
    crew = world.crew()
    post_all(world, crew, ["mid", *others[1:]], 0)
    world.ledger("mid").abort(world.number, Reason.OPERATOR, "mid")
    until(lambda: world.view().state == State.COMPLETED, [crew[name] for name in others])
    assert world.view().parties == tuple(others)


def test_a_vote_of_one_site_alone_makes_no_post_unusable() -> None:
    world = make_world(5)
    crew = world.crew()
    post_all(world, crew, ["north", "south", "east", "west"], 0)
    vote_out(world, ["east"], "south")
    (attempt,) = list_attempts(world.ledger().history(world.number), world.study.sites, 0).values()
    assert (attempt.missing, attempt.unusable) == ({"mid"}, set())


def test_a_step_that_is_repeated_over_the_same_sites_is_posted_again() -> None:
    world = cohort(4, aggregation="masked", silent_site="wait", step_seconds=600)
    crew = world.crew()
    until(lambda: len(world.records()) == 4, crew.values())
    assert crew["north"].turn()
    vote_out(world, ["east", "west"], "south")
    until(lambda: len([r for r in world.records() if r.post.attempt == 1]) == 4, crew.values())
