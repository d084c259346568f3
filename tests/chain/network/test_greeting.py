"""A sealer greets its peers again when no block comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.network.greeting import FIRST_WAIT, LONGEST_WAIT, StallWatch
from coterie_chain.network.programs.ipc import Question

CALLED, CALLING = "enode://aa@10.0.0.2:30303", "enode://bb@10.0.0.3:51234"
LISTED = "enode://bb@10.0.0.3:30303"


class MemorySocket:
    """The socket of a node: its newest block, and what it was asked."""

    def __init__(self) -> None:
        self.block, self.mining, self.alive = 7, True, True
        self.now = 0.0
        self.greeted: list[tuple[str, str]] = []

    def __call__(self, questions: Sequence[Question]) -> list[Any]:
        if not self.alive:
            raise LedgerUnreachable("CO-C301", "The chain node is down.")
        return [self._answer(name, params) for name, params in questions]

    def _answer(self, name: str, params: Sequence[object]) -> Any:
        if name.startswith("admin_") and params:
            self.greeted.append((name.removeprefix("admin_"), str(params[0])))
            return True
        return {
            "eth_blockNumber": hex(self.block),
            "eth_mining": self.mining,
            "admin_peers": [
                {"enode": CALLED, "network": {"inbound": False}},
                {"enode": CALLING, "network": {"inbound": True}},
            ],
        }[name]

    def walk(self, watch: StallWatch, seconds: int) -> list[float]:
        """Look once a second; the times at which the peers were greeted."""
        times = []
        for _ in range(seconds):
            if watch.step():
                times.append(self.now)
            self.now += 1.0
        return times


def watch_of(node: MemorySocket) -> StallWatch:
    return StallWatch(node, peers=[LISTED], clock=lambda: node.now)


def test_peers_are_greeted_ever_more_rarely_while_no_block_comes() -> None:
    node = MemorySocket()
    assert node.walk(watch_of(node), 250) == [FIRST_WAIT, 3 * FIRST_WAIT, 7 * FIRST_WAIT]


def test_no_wait_is_longer_than_the_longest() -> None:
    node = MemorySocket()
    times = node.walk(watch_of(node), 4000)
    assert times[-1] - times[-2] == LONGEST_WAIT


def test_each_peer_is_greeted_at_an_address_that_can_be_called() -> None:
    node = MemorySocket()
    node.walk(watch_of(node), int(FIRST_WAIT) + 1)
    assert node.greeted == [
        ("removePeer", CALLED),
        ("removePeer", LISTED),
        ("addPeer", CALLED),
        ("addPeer", LISTED),
    ]


def test_a_block_begins_the_wait_again() -> None:
    node = MemorySocket()
    watch = watch_of(node)
    node.walk(watch, int(FIRST_WAIT) - 1)
    node.block += 1
    assert node.walk(watch, int(FIRST_WAIT)) == []


def test_a_node_that_does_not_seal_or_does_not_answer_is_left_alone() -> None:
    node = MemorySocket()
    node.mining = False
    assert node.walk(watch_of(node), 100) == []
    node.mining, node.alive = True, False
    assert node.walk(watch_of(node), 100) == []
