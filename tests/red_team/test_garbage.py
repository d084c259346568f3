"""A member sends garbage to the network: the others' daemons run their study, and their bundle of it verifies.

COTERIE_GARBAGE sets how many transactions, COTERIE_FUZZ_SEED which. `test_total_ledger` holds that every reader reads
what the contracts took; here are the daemons, the commands and the bundle.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.node.commands import SITES, run
from support.node.garbage import check_garbage

from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.network.deploy import deploy
from coterie_chain.network.devnet import Anvil
from coterie_node.site.folder import find_node

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(600)]
TRANSACTIONS = int(os.environ.get("COTERIE_GARBAGE", "600"))
SEED = int(os.environ.get("COTERIE_FUZZ_SEED", "1"))


def test_daemons_commands_and_bundles_hold_beside_a_member_that_sends_garbage(tmp_path: Path) -> None:
    roots = [tmp_path / name for name in SITES]
    with Anvil() as anvil:
        for root in roots:
            store = f"folder:{tmp_path / 'store'}"
            run("init", root, "--site", root.name, "--chain", anvil.url, "--store", store, "--port", 0, "--light")
        keys = {root.name: find_node(root).load_keys() for root in roots}
        network = deploy(anvil.url, [SiteEntry(k, n, s.address, s.sealing) for k, (n, s) in enumerate(keys.items(), 1)])
        for root in roots:
            (root / "network.json").write_text(network.to_json())
        outcomes = check_garbage(roots, TRANSACTIONS, tmp_path, SEED)
    print(f"COTERIE_FUZZ_SEED={SEED} COTERIE_GARBAGE={TRANSACTIONS}: {dict(outcomes)}")
    assert outcomes["taken"] > TRANSACTIONS // 10
