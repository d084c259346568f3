"""All checks of a node in their order: this machine, its store, the chain, the other sites, the rows of its studies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.keys.site_keys import SiteKeys
from coterie_node.network.checks.check_result import CheckResult, run_check
from coterie_node.network.checks.ledger_checks import check_ledger_of, check_studies, examine_seat
from coterie_node.network.checks.machine_checks import PROBE, check_machine, load_keys
from coterie_node.network.checks.peer_checks import Peers, check_peers_of, check_store_answers, check_store_of
from coterie_node.site.folder import SiteFolder


def examine(home: SiteFolder, *, daemon: bool = True) -> Iterator[CheckResult]:
    """All checks; those that need what failed before are left out. `daemon`: whether it shall run now."""
    keys: list[SiteKeys] = []
    for result in check_machine(home, daemon=daemon):
        if result.check == "key" and result.well:
            keys.append(load_keys(home))
        yield result
    yield run_check("store", lambda: check_store_answers(home, PROBE))
    peers = Peers.load(home)
    yield from check_store_of(peers)
    with ExitStack() as stack:
        ledgers: list[EthereumLedger] = []
        yield run_check("chain", lambda: _open_chain(home, stack, ledgers))
        for ledger in ledgers:
            yield from check_ledger_of(home, ledger)
            yield from check_peers_of(peers, ledger)
            for own in keys:
                yield run_check("seat", lambda own=own, ledger=ledger: examine_seat(home, own, ledger))  # type: ignore[misc]
            yield from check_studies(home, ledger)


def _open_chain(home: SiteFolder, stack: ExitStack, ledgers: list[EthereumLedger]) -> CheckResult:
    network = home.network()
    ledgers.append(stack.enter_context(EthereumLedger(network, None)))
    return CheckResult("chain", True, f"id {network.chain_id}, block {ledgers[0].newest}, Catalog {network.catalog}")
