"""Three and four sealers that sleep, in a world of memory: no block for nothing, every transaction in a block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from support.chain.sleeping_world import MemoryGeth, World
from support.lanes import later

from coterie_chain.errors import StoreFault
from coterie_chain.network.clique import CliqueChain
from coterie_chain.network.programs.anvil import AnvilChain
from coterie_chain.network.programs.ipc import Question
from coterie_chain.network.sealer_driver import SealerDriver
from coterie_chain.network.sealer_turns import Phase, compute_rank_pause

SEEDS = [0, 1, *later(2, 3, 4)]
SEALERS = (3, 4)
# Clique's random wait is at most 0.5 s * (floor(N/2)+1); looks, gossip and sealing take less than this.
SLACK = 0.3


def send_many(world: World, transactions: int, longest_pause: float) -> list[float]:
    """Send transactions one after the other, each when the one before is mined; returns the seconds of each."""
    seconds = []
    for number in range(transactions):
        world.run(world.random.random() * longest_pause)
        node = world.random.choice([n for n in world.nodes if n.alive])
        transaction = world.send(node, f"record {number}")
        seconds.append(world.run(120.0, lambda tx=transaction: world.is_mined(tx)))  # type: ignore[misc]
        assert world.is_mined(transaction)
    return seconds


@pytest.mark.parametrize("sealers", SEALERS)
def test_a_chain_at_rest_makes_no_block(sealers: int) -> None:
    world = World(sealers)
    world.run(120.0)
    assert world.sealed == []
    assert {driver.phase for driver in world.drivers} == {Phase.ASLEEP}
    assert all(driver.well for driver in world.drivers)


@pytest.mark.parametrize("sealers", SEALERS)
def test_a_heartbeat_is_a_majority_of_empty_blocks_and_no_more(sealers: int) -> None:
    world = World(sealers, heartbeat=90.0)
    world.run(380.0)
    beats = 4  # after 34, 124, 214 and 304 s: the last blocks before the start are nearly a minute old
    assert len(world.sealed) == beats * world.limit
    assert all(block.transactions == () for block in world.sealed)


@pytest.mark.parametrize("sealers", SEALERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_each_transaction_is_mined_within_its_second_and_confirmed_by_empty_blocks(sealers: int, seed: int) -> None:
    world = World(sealers, seed)
    seconds = send_many(world, 20, 4.0)
    assert max(seconds) < 2.0 + SLACK
    world.run(20.0)
    assert all(world.is_confirmed(f"record {number}") for number in range(20))
    blocks = len(world.sealed)
    world.run(30.0)
    assert len(world.sealed) == blocks
    assert len({node.head.hash for node in world.nodes}) == 1


def test_a_transaction_wakes_a_sleeping_chain_at_once() -> None:
    world = World(3)
    world.run(30.0)
    world.send(world.nodes[0], "record")
    assert world.run(10.0, lambda: world.is_mined("record")) < SLACK


@pytest.mark.parametrize("sealers", SEALERS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_dead_sealer_costs_the_pause_of_one_rank(sealers: int, seed: int) -> None:
    world = World(sealers, seed)
    world.run(5.0)
    world.kill(world.nodes[seed % sealers])
    seconds = send_many(world, 15, 4.0)
    assert max(seconds) < 1.0 + compute_rank_pause(sealers) + 0.5 * world.limit + SLACK
    world.run(60.0)
    assert all(world.is_confirmed(f"record {number}") for number in range(15))
    assert "eth_sendTransaction" not in world.nodes[(seed + 1) % sealers].calls


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sealer_that_comes_back_catches_up_and_the_chain_sleeps_again(seed: int) -> None:
    world = World(3, seed)
    world.run(5.0)
    node = world.nodes[0]
    world.kill(node)
    send_many(world, 5, 3.0)
    world.revive(node)
    send_many(world, 5, 3.0)
    world.run(60.0)
    blocks = len(world.sealed)
    world.run(60.0)
    assert len(world.sealed) == blocks
    assert len({node.head.hash for node in world.nodes}) == 1
    assert world.notices == ["CO-C301"]  # each outage is reported once


def test_transactions_wait_for_a_majority_and_are_mined_when_it_is_back() -> None:
    world = World(3, 1)
    world.run(5.0)
    for node in world.nodes[1:]:
        world.kill(node)
    world.send(world.nodes[0], "record")
    world.run(200.0)
    assert len(world.sealed) <= 1
    world.send(world.nodes[0], "another record")
    world.run(200.0)
    assert "another record" in world.nodes[0].pool
    assert not world.drivers[0].well
    world.revive(world.nodes[1])
    world.send(world.nodes[0], "a third record")  # as the writer does: it sends until a block has it
    world.run(60.0, lambda: world.is_mined("another record"))
    assert world.is_mined("another record")
    world.run(1.0)
    assert world.drivers[0].well


@pytest.mark.parametrize("seed", range(8))
def test_nothing_waits_for_ever_although_announcements_are_lost(seed: int) -> None:
    world = World(3, seed, loss=0.2)
    send_many(world, 15, 3.0)
    world.run(120.0)
    assert all(not node.pool for node in world.nodes)


@pytest.mark.parametrize("seed", SEEDS)
def test_three_sealers_that_start_together_fall_asleep_with_their_first_blocks(seed: int) -> None:
    world = World(3, seed, asleep=False)
    world.run(60.0)
    assert {driver.phase for driver in world.drivers} == {Phase.ASLEEP}
    assert min(node.head.number for node in world.nodes) >= world.limit
    send_many(world, 3, 2.0)


def test_a_chain_of_another_number_of_sealers_never_sleeps() -> None:
    world, notices = World(4), list[str]()
    node: MemoryGeth = world.nodes[0]
    driver = SealerDriver(
        node, confirmations=3, notice=lambda error: notices.append(error.code), clock=lambda: world.now
    )
    for _ in range(3):
        driver.step()
    assert node.mining
    assert notices == ["CO-C338"]


def test_a_daemon_that_ends_leaves_the_miner_on() -> None:
    world, stop = World(3), Event()
    world.run(1.0)
    stop.set()
    world.drivers[0].run(stop)
    assert world.nodes[0].mining


@pytest.mark.parametrize("method", ["eth_getBlockByNumber", "txpool_status", "clique_getSnapshot", "net_peerCount"])
@pytest.mark.parametrize("answer", [None, {}, "0x", [1]], ids=str)
def test_an_answer_of_another_form_is_reported_and_ends_nothing(method: str, answer: object) -> None:
    world, notices = World(3), list[str]()
    honest, broken = world.nodes[0], [True]

    def ask(questions: Sequence[Question]) -> list[Any]:
        answers = honest(questions)
        return [answer if broken[0] and name == method else a for (name, _), a in zip(questions, answers, strict=True)]

    driver = SealerDriver(
        ask, confirmations=2, notice=lambda error: notices.append(error.code), clock=lambda: world.now
    )
    driver.step()
    driver.step()
    assert notices == ["CO-C303"]
    broken[0] = False
    driver.step()
    assert driver.phase == Phase.ASLEEP


def test_a_node_that_does_not_answer_is_reported_once_and_asked_ever_more_rarely() -> None:
    world = World(3)
    world.kill(world.nodes[0])
    pauses = [world.drivers[0].step() for _ in range(10)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 10.0
    assert world.notices == ["CO-C301"]


@pytest.mark.parametrize(
    "sites", [("a", "b"), ("a", "b", "c", "d"), ("a", "b", "c" * 100)], ids=["2", "4", "long path"]
)
def test_a_network_that_cannot_sleep_is_not_made(sites: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(StoreFault) as caught:
        CliqueChain(tmp_path, sites, sleep=True).prepare(())
    assert caught.value.code == "CO-C338"
    assert not (tmp_path / "chain").exists()


def test_anvil_does_not_sleep(tmp_path: Path) -> None:
    with pytest.raises(StoreFault) as caught:
        AnvilChain(tmp_path, ("a", "b", "c"), sleep=True)
    assert caught.value.code == "CO-C338"
