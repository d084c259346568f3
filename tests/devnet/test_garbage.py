"""A member's garbage on real Geth and Kubo: no daemon ends, and the others' study runs, is exported and verified."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from eth_account.types import TransactionDictType
from eth_typing import HexStr
from support.chain.web3_reader import connect_web3
from support.devnet.bed import skip_without_programs
from support.node.commands import SITES, run
from support.node.garbage import check_garbage

from coterie_node.network.devnet import make_settings, start_network, stop_programs
from coterie_node.site.run_folder import RunFolder

pytestmark = [pytest.mark.devnet, pytest.mark.xdist_group("garbage")]
TRANSACTIONS = 300


# A contract's first code that never ends, so that it burns the gas it is given.
ENDLESS = "0x5b600056"


def fill_half_a_block(place: RunFolder) -> None:
    """A member burns two thirds of a block's gas, after which the base fee is never 0 again (EIP-1559)."""
    account = place.site(SITES[0]).load_keys().account
    with connect_web3(place.chain().url(SITES[0])) as w3:
        transaction: TransactionDictType = {
            "data": HexStr(ENDLESS),
            "gas": 20_000_000,
            "nonce": w3.eth.get_transaction_count(account.address),
            "chainId": w3.eth.chain_id,
            "maxFeePerGas": 10**6,
            "maxPriorityFeePerGas": 1,
            "value": 0,
        }
        hash_ = w3.eth.send_raw_transaction(account.sign_transaction(transaction).raw_transaction)
        receipt = w3.eth.wait_for_transaction_receipt(hash_, timeout=60)
        assert receipt["gasUsed"] == 20_000_000
        deadline = time.monotonic() + 60
        while w3.eth.block_number <= receipt["blockNumber"] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert w3.eth.get_block("latest")["baseFeePerGas"] > 0


def test_daemons_on_geth_and_kubo_hold_beside_a_member_that_sends_garbage(tmp_path: Path) -> None:
    skip_without_programs()
    place = RunFolder(tmp_path / "net")
    place.root.mkdir()
    roots = [place.site_root(name) for name in SITES]
    try:
        start_network(place, SITES, make_settings("clique", "kubo"))
        fill_half_a_block(place)
        for root in roots:
            own = ("--chain", place.chain().url(root.name), "--store", place.store().url(root.name))
            run("init", root, "--site", root.name, *own, "--confirmations", 2, "--port", 0)
            (root / "network.json").write_text(place.network().to_json())
        outcomes = check_garbage(roots, TRANSACTIONS, tmp_path)
    finally:
        stop_programs(place)
    assert outcomes.total() == TRANSACTIONS
    assert outcomes["taken"] > TRANSACTIONS // 10
