"""The wait for a deployment's confirmations: as long as blocks come, and no longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.network import deploy as deployment
from coterie_chain.network.deploy import (
    DEPLOYMENT_TIMEOUT,
    MAX_REPLACEMENTS,
    await_confirmations,
    await_deployment,
)

PERIOD, DEPLOYED = 5.0, 31


@dataclass
class Clock:
    """Time that passes while one sleeps."""

    now: float = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class MemoryNode(Rpc):
    """A node whose chain has one block for each period since the deployment, up to the last one."""

    def __init__(self, clock: Clock, last: int, period: float = PERIOD) -> None:
        super().__init__("http://127.0.0.1:1")
        self._clock, self._last, self._period = clock, last, period

    def call_quantity(self, method: str, *params: object) -> int:
        assert (method, params) == ("eth_blockNumber", ())
        return min(DEPLOYED + int(self._clock.now / self._period), self._last)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(deployment, "time", clock)
    return clock


@pytest.mark.parametrize("sealers", [3, 50, 253])
def test_the_wait_lasts_as_long_as_the_confirmations_of_all_sealers(clock: Clock, sealers: int) -> None:
    confirmations = sealers // 2 + 1
    with MemoryNode(clock, last=10_000) as node:
        await_confirmations(node, DEPLOYED + confirmations)
    assert confirmations * PERIOD <= clock.now <= (confirmations + 1) * PERIOD


def test_slow_blocks_are_waited_for(clock: Clock) -> None:
    period = DEPLOYMENT_TIMEOUT - 1
    with MemoryNode(clock, last=10_000, period=period) as node:
        await_confirmations(node, DEPLOYED + 26)
    assert clock.now >= 26 * period


def test_a_chain_that_stands_is_a_fault_that_names_its_newest_block(clock: Clock) -> None:
    with MemoryNode(clock, last=44) as node, pytest.raises(LedgerUnreachable) as caught:
        await_confirmations(node, 57)
    assert caught.value.code == "CO-C304"
    assert "No block after 44 came within 120 s; the Catalog counts from 57 on." in caught.value.message
    stood_since = (44 - DEPLOYED) * PERIOD
    assert DEPLOYMENT_TIMEOUT <= clock.now - stood_since <= DEPLOYMENT_TIMEOUT + 2


CATALOG, NAME = "0x" + "5" * 40, "0x" + "ab" * 32


class ReplacingNode(MemoryNode):
    """A node of a chain that is just founded: with each look at the receipt, the next of these blocks has it."""

    def __init__(self, clock: Clock, blocks: Sequence[int]) -> None:
        super().__init__(clock, last=10_000)
        self._blocks = list(blocks)

    def call(self, method: str, *params: object) -> Any:
        assert (method, params) == ("eth_getTransactionReceipt", (NAME,))
        block = self._blocks.pop(0) if len(self._blocks) > 1 else self._blocks[0]
        receipt = {"transactionHash": NAME, "status": "0x1", "gasUsed": "0x5208", "contractAddress": CATALOG}
        return receipt | {"blockNumber": hex(block)}


@pytest.mark.parametrize("blocks", [[DEPLOYED], [DEPLOYED, DEPLOYED + 1], [DEPLOYED, DEPLOYED + 2, DEPLOYED - 1]])
def test_a_deployment_whose_block_is_replaced_is_described_by_the_block_that_stays(
    clock: Clock, blocks: list[int]
) -> None:
    """Two sealers that had each sealed a first block: one is dropped, and a later block takes the deployment."""
    with ReplacingNode(clock, blocks) as node:
        assert await_deployment(node, NAME, CATALOG, 2) == blocks[-1]
    assert DEPLOYED + int(clock.now / PERIOD) >= blocks[-1] + 2


def test_a_node_that_never_settles_is_named(clock: Clock) -> None:
    blocks = [DEPLOYED + k % 2 for k in range(4 * MAX_REPLACEMENTS)]
    with ReplacingNode(clock, blocks) as node, pytest.raises(LedgerUnreachable) as caught:
        await_deployment(node, NAME, CATALOG, 2)
    assert caught.value.code == "CO-C302"
    assert f"was replaced {MAX_REPLACEMENTS - 1} times" in caught.value.message


class SilentNode(ReplacingNode):
    """The same node on a machine that is busy for a while: until then it answers nothing."""

    def __init__(self, clock: Clock, until: float) -> None:
        super().__init__(clock, [DEPLOYED])
        self._until = until

    def call(self, method: str, *params: object) -> Any:
        self._answer()
        return super().call(method, *params)

    def call_quantity(self, method: str, *params: object) -> int:
        self._answer()
        return super().call_quantity(method, *params)

    def _answer(self) -> None:
        if self._clock.now < self._until:
            raise LedgerUnreachable("CO-C301", "The chain node did not answer: timed out.")


@pytest.mark.parametrize("until", [0.0, DEPLOYMENT_TIMEOUT - 5])
def test_a_node_that_does_not_answer_for_a_while_is_waited_for(clock: Clock, until: float) -> None:
    with SilentNode(clock, until) as node:
        assert await_deployment(node, NAME, CATALOG, 2) == DEPLOYED


def test_a_node_that_never_answers_again_is_its_own_fault(clock: Clock) -> None:
    with SilentNode(clock, 1e9) as node, pytest.raises(LedgerUnreachable) as caught:
        await_deployment(node, NAME, CATALOG, 2)
    assert caught.value.code == "CO-C301"
    assert DEPLOYMENT_TIMEOUT <= clock.now <= DEPLOYMENT_TIMEOUT + 2
