"""A member sends garbage to the network: the others' daemons run their study, and their bundle of it verifies.

COTERIE_GARBAGE sets how many transactions, COTERIE_FUZZ_SEED which; `make test` sends a few of them. That every reader
reads what the contracts took, `test_total_ledger` holds; here are the daemons, the commands and the bundle.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.node.commands import nodes_on_anvil
from support.node.garbage import check_garbage

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(600)]
TRANSACTIONS = int(os.environ.get("COTERIE_GARBAGE", "600"))
SEED = int(os.environ.get("COTERIE_FUZZ_SEED", "1"))


@pytest.mark.long
def test_daemons_commands_and_bundles_hold_beside_a_member_that_sends_garbage(tmp_path: Path) -> None:
    with nodes_on_anvil(tmp_path) as roots:
        outcomes = check_garbage(roots, TRANSACTIONS, tmp_path, SEED)
    print(f"COTERIE_FUZZ_SEED={SEED} COTERIE_GARBAGE={TRANSACTIONS}: {dict(outcomes)}")
    assert outcomes["taken"] > TRANSACTIONS // 10
