"""Anybody who may send transactions can fill blocks: what stands beside the ledger's entries must stop no reader.

A member needs nobody's leave for a contract of its own. Its logs, its calldata and its own entries have any number and
any size. They are in the same blocks as those of an honest study, so that every bundle of the network holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account.types import TransactionDictType
from eth_typing import HexStr
from eth_utils.address import to_checksum_address
from support.chain.anvil import AnvilClient
from support.chain.bench import GLORE_TERMS, AnvilBench, Sites, build_entry, derive_account
from support.chain.bounded_node import bound_batches, pad_logs, run_bounded_node

from coterie_chain.ethereum.calldata import load_codec
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.network.deploy import deploy
from coterie_chain.proof.evidence import BODIES, gather
from coterie_chain.proof.verified_ledger import VerifiedLedger
from coterie_node.audit.archive import ALLOWANCE, check_sizes, read_archive, write_archive
from coterie_node.audit.bundle import LIMITS, find_file_limit
from coterie_node.errors import AuditFailed

pytestmark = [pytest.mark.timeout(300)]
CATALOG = load_codec("Catalog")
MEMBER = "cyd"
GAS = 28_000_000
MANY = 20_000


def write_logs(count: int) -> str:
    """A contract's first code: it logs so often, without topic and data."""
    return "0x61" + count.to_bytes(2).hex() + "5b60006000a060019003806003570000"


def write_log_of(size: int) -> str:
    """A contract's first code: one log of so many bytes."""
    return "0x62" + size.to_bytes(3).hex() + "6000a000"


# A topic that the Catalog uses, in a log of another contract that is no event of it: PUSH32 topic, LOG1.
BORROWED = "0x7f" + next(iter(CATALOG.topics))[2:] + "60006000a100"
FILLINGS = {
    "many logs": write_logs(MANY),
    "a log of a megabyte and a byte": write_log_of((1 << 20) + 1),
    "a log with the Catalog's topic": BORROWED,
    "calldata": "0x00" + "00" * 100_000,
}


@pytest.fixture
def bench(anvil: AnvilClient) -> Iterator[AnvilBench]:
    """A network with a study of a few records."""
    bench = AnvilBench(anvil)
    sites = Sites(bench)
    study = sites.start()
    sites.step(study)
    sites.step(study)
    yield bench
    bench.close()


def fill_block(anvil: AnvilClient, bench: AnvilBench, code: str, number: int, paying: int = 0) -> None:
    """One block with a contract of the member's own, and with an entry of the ledger."""
    account = derive_account(MEMBER)
    anvil.rpc("anvil_setBalance", account.address, hex(10**18))
    nonce = int(anvil.rpc("eth_getTransactionCount", account.address, "latest"), 16)
    offer = CATALOG.encode("offer", f"0x{0xABC0 + number:040x}", b"\7" * 32)
    anvil.rpc("evm_setAutomine", False)
    for k, (to, data) in enumerate((("", code), (bench.network.catalog, offer))):
        transaction: TransactionDictType = {
            "data": HexStr(data),
            "gas": GAS if not to else 1_000_000,
            "gasPrice": paying,
            "nonce": nonce + k,
            "chainId": bench.network.chain_id,
            "value": 0,
        }
        if to:
            transaction["to"] = to_checksum_address(to)
        anvil.rpc("eth_sendRawTransaction", "0x" + account.sign_transaction(transaction).raw_transaction.hex())
    anvil.rpc("evm_mine")
    anvil.rpc("evm_setAutomine", True)
    receipts = anvil.rpc("eth_getBlockReceipts", "latest")
    assert [receipt["status"] for receipt in receipts] == ["0x1", "0x1"]


@pytest.mark.anvil
@pytest.mark.parametrize("filling", FILLINGS)
def test_what_a_member_writes_beside_the_ledger_spoils_no_evidence(
    anvil: AnvilClient, bench: AnvilBench, filling: str
) -> None:
    """One transaction made every export and every check of every bundle fail for good (CO-C350)."""
    fill_block(anvil, bench, FILLINGS[filling], 1)
    with EthereumLedger(bench.network) as ledger:
        entries = list(ledger.history())
    assert entries[-1].name == "KeyOffered"  # type: ignore[union-attr]
    assert list(VerifiedLedger(gather(bench.network)).history()) == entries


@pytest.mark.anvil
def test_a_node_that_bounds_its_answers_gives_the_same_evidence(anvil: AnvilClient, bench: AnvilBench) -> None:
    """Geth refuses batches of many bytes: a few blocks of calldata, or some hundred proposals, ended every export."""
    for number in range(3):
        fill_block(anvil, bench, FILLINGS["calldata"], number)
    with run_bounded_node(bound_batches(bench.network.url, 100, 250_000)) as url:
        evidence = gather(replace(bench.network, url=url))
    assert evidence == gather(bench.network)
    with run_bounded_node(bound_batches(bench.network.url, 7, 1 << 30)) as url:
        assert gather(replace(bench.network, url=url)) == evidence


@pytest.mark.anvil
def test_a_page_of_logs_that_is_too_long_is_read_in_smaller_pages(bench: AnvilBench) -> None:
    """Entries of many bytes in few blocks ended every daemon that had to read them: it asked for the same again."""
    with EthereumLedger(bench.network) as ledger:
        entries = list(ledger.history())
    with (
        run_bounded_node(pad_logs(bench.network.url, 2)) as url,
        EthereumLedger(replace(bench.network, url=url)) as ledger,
    ):
        assert list(ledger.history()) == entries


# Bundles


def test_a_bundle_of_blocks_that_shrink_to_nothing_can_be_read(tmp_path: Path) -> None:
    """Half a thousand transactions of zeros made every zip of every study a bomb in its reader's eyes."""
    files = {BODIES: bytes(ALLOWANCE + (8 << 20)), "README.md": b"text"}
    path = tmp_path / "study.zip"
    check_sizes(files, find_file_limit)
    write_archive(path, files)
    assert read_archive(path, find_file_limit) == files


def test_no_bundle_is_written_that_nobody_could_read(tmp_path: Path) -> None:
    with pytest.raises(AuditFailed, match="chain/code") as caught:
        check_sizes({"chain/code.rlp": bytes(LIMITS["chain/code.rlp"] + 1)}, find_file_limit)
    assert caught.value.code == "CO-A209"
    with pytest.raises(AuditFailed, match="evil") as caught:
        check_sizes({"evil": b"1"}, find_file_limit)
    assert caught.value.code == "CO-A209"


# Fees


@pytest.mark.long
@pytest.mark.anvil
def test_a_full_block_does_not_price_every_site_out(anvil: AnvilClient, bench: AnvilBench) -> None:
    """One block more than half full raised the base fee to a wei for good, and the price that all sites paid was one.

    Anvil's base fee is constant at zero; from any other it follows Ethereum's rule, as Geth's does.
    """
    anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(1))
    fill_block(anvil, bench, FILLINGS["calldata"], 1, paying=10**9)
    fill_block(anvil, bench, write_logs(60_000), 2, paying=10**9)
    base_fee = int(anvil.rpc("eth_getBlockByNumber", "pending", False)["baseFeePerGas"], 16)
    assert base_fee > 1
    account = derive_account("ana")
    anvil.rpc("anvil_setBalance", account.address, hex(10**18))
    with EthereumLedger(bench.network, account, gas_price=1) as ledger:
        study = ledger.propose(GLORE_TERMS)
        assert ledger.view(study).joined == ("ana",)
        assert list(VerifiedLedger(gather(bench.network)).history()) == list(ledger.history())
    founded = deploy(bench.network.url, [build_entry("ana")], account, gas_price=1)
    anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(0))
    assert dict(founded.founders) == {"ana": account.address}
