"""What a step of a study asks of a chain node: exchanges are counted, because seconds depend on the machine."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from node.run.test_recovery import bits, run_undisturbed
from support.chain.anvil import find_binary
from support.chain.anvil import run_anvil as anvil_running
from support.node.worlds import World, cohort

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.network.deploy import deploy
from coterie_node.run.runner import Runner
from coterie_node.run.study_files import study_terms

pytestmark = pytest.mark.anvil
# How often they are made depends on the machine's speed: whether a block has come, and whether a post is in it.
POLLS = ("eth_blockNumber",), ("eth_getTransactionReceipt",)
# Exchanges of a site in a step, all others included: a look or two, and the post.
MOST_EXCHANGES = 4


class Exchanges:
    """The requests of each exchange with a chain node, by the connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: defaultdict[int, list[tuple[str, ...]]] = defaultdict(list)
        post = Rpc._post

        def note(rpc: Rpc, body: Any, *rest: Any) -> Any:
            requests = body if isinstance(body, list) else [body]
            self.made[id(rpc)].append(tuple(request["method"] for request in requests))
            return post(rpc, body, *rest)

        monkeypatch.setattr(Rpc, "_post", note)

    def of(self, ledger: EthereumLedger) -> list[tuple[str, ...]]:
        return self.made[id(ledger._rpc)]


def start(world: World, url: str) -> dict[str, EthereumLedger]:
    """The sites' handles, once all have joined the study on a new network."""
    network = deploy(url, world.entries)
    ledgers = {name: EthereumLedger(network, world.keys[name].account) for name in world.study.sites}
    first, *others = ledgers.values()
    world.number = first.propose(study_terms(world.study))
    for ledger in others:
        ledger.join(world.number, world.study.hash)
    return ledgers


def finish(crew: dict[str, Runner], ledgers: dict[str, EthereumLedger]) -> None:
    """Turns of all sites, one after the other; who has nothing to do looks whether there is a new block."""
    for _ in range(200):
        for name, runner in crew.items():
            while runner.turn():
                pass
            ledgers[name].wait(0.0)
        if all(runner.done for runner in crew.values()):
            return
    pytest.fail("the study does not end")


def test_a_step_takes_few_exchanges_with_the_chain_node(monkeypatch: pytest.MonkeyPatch) -> None:
    program = find_binary()
    if program is None:
        pytest.skip("Anvil is not installed: make setup")
    world = cohort(3, aggregation="masked")
    with anvil_running(program) as anvil:
        ledgers = start(world, anvil.url)
        crew = {name: world.runner(name, ledger=ledger) for name, ledger in ledgers.items()}
        exchanges = Exchanges(monkeypatch)
        finish(crew, ledgers)
        for name, ledger in ledgers.items():
            made = [methods for methods in exchanges.of(ledger) if methods not in POLLS]
            assert len(made) <= MOST_EXCHANGES * crew[name].position
            # What a new block holds is asked for together, but for the first study and the first Models of a handle.
            assert sum(methods in (("eth_getLogs",), ("eth_call",)) for methods in made) <= 2
            ledger.close()
    want = run_undisturbed(lambda: cohort(3, aggregation="masked"))[1]
    assert {name: bits(r.machine.result) for name, r in crew.items()} == want
