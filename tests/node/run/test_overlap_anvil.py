"""Overlap on a chain whose blocks a test mines: sites as on a chain with block time, on their real ledger handles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from node.run.test_recovery import bits, run_undisturbed
from support.chain.anvil import find_binary
from support.chain.anvil import run_anvil as anvil_running
from support.node.worlds import World, cohort

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import is_mining_instantly
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.keys.journal import MemoryJournal
from coterie_chain.ledger.protocol import Record
from coterie_chain.network.deploy import deploy
from coterie_node.audit.replay import replay
from coterie_node.run.runner import Runner
from coterie_node.run.study_files import study_terms

pytestmark = pytest.mark.anvil
ETHER = hex(10**18)


class Chain:
    """Three sites of a small study on an Anvil that mines when it is asked to."""

    def __init__(self, url: str, world: World) -> None:
        self.world, self.rpc = world, Rpc(url)
        # Found, propose and join while blocks still come by themselves.
        self.network = deploy(url, world.entries)
        for keys in world.keys.values():
            self.rpc.call("anvil_setBalance", keys.address, ETHER)
        self.journals = {name: MemoryJournal() for name in world.study.sites}
        self.number = self._start()
        self.rpc.call("evm_setAutomine", False)
        assert not is_mining_instantly(self.rpc)
        self.ledgers = {name: self._handle(name) for name in world.study.sites}
        self.crew = {name: self.runner(name) for name in world.study.sites}

    def _handle(self, name: str) -> EthereumLedger:
        return EthereumLedger(self.network, self.world.keys[name].account, self.journals[name], patience=5.0)

    def _start(self) -> int:
        first, *others = [self._handle(name) for name in self.world.study.sites]
        number = first.propose(study_terms(self.world.study))
        for ledger in others:
            ledger.join(number, self.world.study.hash)
        for ledger in (first, *others):
            ledger.close()
        return number

    def runner(self, name: str) -> Runner:
        """A site's runner: nothing here waits for a block."""
        self.world.number = self.number
        ledger: Any = self.ledgers[name]
        assert ledger.pipelined is ledger
        runner = self.world.runner(name, ledger=ledger)
        runner._ahead = ledger
        return runner

    def work(self) -> None:
        """Turns until nobody can do anything before the next block."""
        before = None
        while before != (before := [(r.position, r._prediction, r.restarts) for r in self.crew.values()]):
            for runner in self.crew.values():
                runner.turn()

    def mine(self) -> None:
        self.rpc.call("evm_mine")

    def blocks(self) -> int:
        return self.rpc.call_quantity("eth_blockNumber")

    def count_refused(self) -> list[str]:
        """Hashes of all transactions that were mined in vain."""
        hashes = []
        for number in range(self.blocks() + 1):
            for tx in self.rpc.call("eth_getBlockByNumber", hex(number), False)["transactions"]:
                if self.rpc.call("eth_getTransactionReceipt", tx)["status"] != "0x1":
                    hashes.append(tx)
        return hashes

    def close(self) -> None:
        for ledger in self.ledgers.values():
            ledger.close()
        self.rpc.close()


@pytest.fixture
def chain() -> Iterator[Chain]:
    program = find_binary()
    if program is None:
        pytest.skip("Anvil is not installed: make setup")
    with anvil_running(program) as anvil:
        network = Chain(anvil.url, cohort(3, aggregation="masked"))
        yield network
        network.close()


def finish(chain: Chain) -> None:
    while not all(runner.done for runner in chain.crew.values()):
        assert chain.blocks() < 100
        chain.mine()
        chain.work()


def test_a_round_takes_one_block_and_no_record_is_refused(chain: Chain) -> None:
    start = chain.blocks()
    chain.work()
    finish(chain)
    reader = chain.ledgers["north"]
    records = [e for e in reader.history(chain.number) if isinstance(e, Record)]
    rounds = len([r for r in records if r.kind == "server"])
    assert chain.blocks() - start == rounds + 1
    assert chain.count_refused() == []
    want = run_undisturbed(lambda: cohort(3, aggregation="masked"))[1]
    assert {name: bits(r.machine.result) for name, r in chain.crew.items()} == want
    assert replay(reader, chain.world.blobs, chain.number).verdict.grade == "identical"
    assert reader.gas_used > 0


def test_a_reorganisation_that_takes_records_is_followed_to_the_same_result(chain: Chain) -> None:
    chain.work()
    for _ in range(2):
        chain.mine()
        chain.work()
    chain.rpc.call("anvil_reorg", 2, [])
    finish(chain)
    assert max(runner.restarts for runner in chain.crew.values()) > 0
    want = run_undisturbed(lambda: cohort(3, aggregation="masked"))[1]
    assert {name: bits(r.machine.result) for name, r in chain.crew.items()} == want
    assert replay(chain.ledgers["south"], chain.world.blobs, chain.number).verdict.grade == "identical"


def test_a_refused_record_is_sent_again_on_the_plain_path(chain: Chain) -> None:
    chain.work()
    chain.mine()
    silent = chain.crew.pop("north")
    chain.work()
    chain.mine()
    assert len(chain.count_refused()) == 2
    chain.crew["north"] = silent
    finish(chain)
    assert len(chain.count_refused()) == 2
    want = run_undisturbed(lambda: cohort(3, aggregation="masked"))[1]
    assert {name: bits(r.machine.result) for name, r in chain.crew.items()} == want
