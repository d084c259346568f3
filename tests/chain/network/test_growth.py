"""When a node is started again because its chain stands still."""

from __future__ import annotations

from coterie_chain.network.growth import PATIENCE_SECONDS, GrowthWatch

SITES = ("north", "south", "west")
STALLED = {"north": 1, "south": 1, "west": 1}


def test_a_chain_that_grows_is_let_alone() -> None:
    watch = GrowthWatch(SITES)
    looks = [watch.choose_restart({"north": n, "south": n, "west": 0}, 15.0 * n) for n in range(1, 20)]
    assert looks == [None] * 19


def test_the_nodes_of_a_chain_that_stands_still_are_started_again_in_turn() -> None:
    watch = GrowthWatch(SITES)
    choices = [(now, watch.choose_restart(STALLED, float(now))) for now in range(1, 90)]
    assert [(now, site) for now, site in choices if site] == [
        (1 + PATIENCE_SECONDS, "west"),
        (1 + 2 * PATIENCE_SECONDS, "south"),
        (1 + 3 * PATIENCE_SECONDS, "north"),
        (1 + 4 * PATIENCE_SECONDS, "west"),
    ]


def test_a_new_block_begins_the_wait_again() -> None:
    watch = GrowthWatch(SITES)
    watch.choose_restart(STALLED, 1.0)
    assert watch.choose_restart({**STALLED, "north": 2}, PATIENCE_SECONDS) is None
    assert watch.choose_restart({**STALLED, "north": 2}, 2 * PATIENCE_SECONDS - 1) is None
