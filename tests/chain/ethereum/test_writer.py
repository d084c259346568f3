"""Transactions are signed once, sent until they are mined, and never lost or doubled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from eth_account import Account
from support.chain.anvil import AnvilClient
from support.chain.bench import AnvilBench, derive_account
from support.chain.flaky import FlakyRpc
from support.lanes import later

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ethereum import writer
from coterie_chain.ethereum.calldata import load_codec, to_hex
from coterie_chain.ethereum.decode import parse_quantity
from coterie_chain.ethereum.network import choose_fees
from coterie_chain.ethereum.rpc import Request, Rpc
from coterie_chain.ethereum.writer import TransactionReceipt, Writer
from coterie_chain.keys.journal import MemoryJournal
from coterie_chain.network.deploy import Network

pytestmark = pytest.mark.anvil


@pytest.fixture
def network(anvil: AnvilClient) -> Network:
    return AnvilBench(anvil).network


@pytest.fixture
def rpc(network: Network) -> Iterator[FlakyRpc]:
    with FlakyRpc(network.url) as connected:
        yield connected


def start_writer(rpc: Rpc, network: Network, journal: MemoryJournal, name: str = "ana", patience: float = 10) -> Writer:
    return Writer(rpc, derive_account(name), journal, network, gas_price=0, patience=patience)


def submit_offer(writer: Writer, network: Network, purpose: str, gas: int = 200_000) -> TransactionReceipt:
    data = load_codec("Catalog").encode("offer", derive_account(purpose).address, b"s" * 32)
    return writer.send(network.catalog, data, gas, purpose)


def count_mined(rpc: Rpc, name: str = "ana") -> int:
    return parse_quantity(rpc.call("eth_getTransactionCount", derive_account(name).address, "latest"))


def test_a_move_is_mined_and_noted(rpc: FlakyRpc, network: Network) -> None:
    journal = MemoryJournal()
    first = start_writer(rpc, network, journal)
    receipt = submit_offer(first, network, "a")
    assert receipt.ok
    assert 30_000 < receipt.gas < 200_000
    assert len(receipt.logs) == 1
    ((tx, noted),) = journal.list_sent(f"{network.scope}/{derive_account('ana').address}")
    assert (tx.nonce, tx.purpose, tx.hash, noted) == (count_mined(rpc) - 1, "a", receipt.tx, True)
    assert not first.is_pending("a")


@pytest.mark.parametrize("restarted", [True, False])
@pytest.mark.parametrize("method", ["eth_sendRawTransaction", "eth_getTransactionReceipt"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_after_a_crash_the_same_bytes_are_sent(
    rpc: FlakyRpc, network: Network, method: str, when: str, restarted: bool
) -> None:
    journal, count = MemoryJournal(), count_mined(rpc)
    first = start_writer(rpc, network, journal)
    rpc.cut_before(method) if when == "before" else rpc.cut_after(method)
    with pytest.raises(LedgerUnreachable, match="cut"):
        submit_offer(first, network, "a")
    rpc.restore()
    ((tx, noted),) = journal.list_sent(f"{network.scope}/{derive_account('ana').address}")
    assert not noted
    second = start_writer(rpc, network, journal) if restarted else first
    if second.is_pending("a"):
        assert submit_offer(second, network, "a").tx == tx.hash
    assert rpc.call("eth_getTransactionReceipt", tx.hash)["status"] == "0x1"
    assert count_mined(rpc) == count + 1


def test_what_was_left_unsent_goes_first(rpc: FlakyRpc, network: Network) -> None:
    journal, count = MemoryJournal(), count_mined(rpc)
    rpc.cut_before("eth_sendRawTransaction")
    with pytest.raises(LedgerUnreachable):
        submit_offer(start_writer(rpc, network, journal), network, "left")
    rpc.restore()
    assert submit_offer(start_writer(rpc, network, journal), network, "next").ok
    assert count_mined(rpc) == count + 2


def test_a_nonce_that_somebody_else_used_is_replaced(
    rpc: FlakyRpc, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_GRACE", 0.1)
    journal = MemoryJournal()
    ours = start_writer(rpc, network, journal)
    assert not ours.is_pending("a")
    submit_offer(start_writer(rpc, network, MemoryJournal()), network, "stranger to the journal")
    assert submit_offer(ours, network, "a").ok
    saved = journal.list_sent(f"{network.scope}/{derive_account('ana').address}")
    assert [(tx.purpose, tx.nonce, noted) for tx, noted in saved] == [("a", count_mined(rpc) - 1, True)]


@pytest.mark.parametrize("restarted", [False, *later(True)])
def test_two_nodes_of_different_age_behind_one_address_lead_to_no_second_transaction(
    rpc: FlakyRpc, network: Network, monkeypatch: pytest.MonkeyPatch, restarted: bool
) -> None:
    """What is asked alone is answered by the one that has no receipt yet, and what is asked together by the other."""
    monkeypatch.setattr(writer, "_GRACE", 0.1)
    journal, count = MemoryJournal(), count_mined(rpc)
    ours = start_writer(rpc, network, journal, patience=0.4)
    together, batch = [False], rpc.batch

    def ask_together(requests: Sequence[Request]) -> list[Any]:
        together[0] = True
        try:
            return batch(requests)
        finally:
            together[0] = False

    monkeypatch.setattr(rpc, "batch", ask_together)
    rpc.after = lambda method, answer: None if method == "eth_getTransactionReceipt" and not together[0] else answer
    with pytest.raises(LedgerUnreachable, match="was not mined"):
        submit_offer(ours, network, "a")
    ours = start_writer(rpc, network, journal) if restarted else ours
    assert ours.is_pending("a")
    rpc.restore()
    assert submit_offer(ours, network, "a").ok
    assert count_mined(rpc) == count + 1


def test_a_receipt_of_another_transaction_does_not_end_the_sending(rpc: FlakyRpc, network: Network) -> None:
    journal = MemoryJournal()
    ours = start_writer(rpc, network, journal)
    rpc.after = lambda method, answer: (
        answer | {"transactionHash": "0x" + "ee" * 32} if method == "eth_getTransactionReceipt" and answer else answer
    )
    with pytest.raises(LedgerUnreachable) as caught:
        submit_offer(ours, network, "a")
    assert caught.value.code == "CO-C303"
    assert ours.is_pending("a")
    rpc.restore()
    assert submit_offer(ours, network, "a").ok


def name_base_fee(wei: int) -> Callable[[str, Any], Any]:
    return lambda method, answer: (
        answer | {"baseFeePerGas": hex(wei)} if method == "eth_getBlockByNumber" and answer else answer
    )


@pytest.mark.parametrize("wei", [1 << 255, *later(10**11)])
def test_a_price_that_the_node_invents_is_neither_paid_nor_signed(rpc: FlakyRpc, network: Network, wei: int) -> None:
    """Once signed it would be sent again for ever, and nobody would take it: the account has not that much."""
    journal = MemoryJournal()
    ours = Writer(rpc, derive_account("ana"), journal, network, gas_price=1, patience=5.0)
    rpc.after = name_base_fee(wei)
    with pytest.raises(
        LedgerUnreachable, match=r"names \d+ wei per gas, and this site pays 100000000000 at most"
    ) as caught:
        submit_offer(ours, network, "a")
    assert caught.value.code == "CO-C308"
    assert not journal.list_sent(f"{network.scope}/{derive_account('ana').address}")


@pytest.mark.parametrize(
    ("base", "most", "offered"), [(7, 10**11, 513), (0, 50, 50), (40, 50, 50), (10**9, 10**11, 64000000065)]
)
def test_what_is_offered_has_headroom_and_stays_below_the_most_that_a_site_pays(
    rpc: FlakyRpc, base: int, most: int, offered: int
) -> None:
    rpc.after = name_base_fee(base)
    fees = choose_fees(rpc, 1, most)
    assert fees == {"maxFeePerGas": min(offered, most), "maxPriorityFeePerGas": 1}
    assert fees["maxFeePerGas"] >= base + 1


def test_a_node_that_starts_and_counts_a_block_before_its_receipts_makes_nobody_sign_twice(
    rpc: FlakyRpc, network: Network
) -> None:
    """Both started again after the block: the site took its own transaction for a stranger's, and struck it."""
    journal = MemoryJournal()
    rpc.cut_after("eth_sendRawTransaction")
    with pytest.raises(LedgerUnreachable):
        submit_offer(start_writer(rpc, network, journal), network, "a")
    rpc.restore()
    count, looks = count_mined(rpc), 0

    def hide(method: str, answer: Any) -> Any:
        nonlocal looks
        looks += method == "eth_getTransactionReceipt"
        return None if method == "eth_getTransactionReceipt" and looks < 6 else answer

    rpc.after = hide
    restarted_writer = start_writer(rpc, network, journal)
    assert not restarted_writer.is_pending("a")
    assert restarted_writer.find_signed("a") is not None
    assert count_mined(rpc) == count


def test_a_journalled_nonce_that_was_used_meanwhile_is_struck(
    rpc: FlakyRpc, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_GRACE", 0.05)
    journal = MemoryJournal()
    rpc.cut_before("eth_sendRawTransaction")
    with pytest.raises(LedgerUnreachable):
        submit_offer(start_writer(rpc, network, journal), network, "a")
    rpc.restore()
    submit_offer(start_writer(rpc, network, MemoryJournal()), network, "stranger to the journal")
    restarted_writer = start_writer(rpc, network, journal)
    assert not restarted_writer.is_pending("a")
    assert submit_offer(restarted_writer, network, "a").ok


def test_what_a_reorganisation_dropped_is_sent_again(
    rpc: FlakyRpc, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_RESEND_AFTER", 0.05)
    journal = MemoryJournal()
    ours = start_writer(rpc, network, journal)
    dropped = submit_offer(ours, network, "dropped")
    count = count_mined(rpc)
    rpc.call("anvil_reorg", 1, [])
    assert count_mined(rpc) == count - 1
    assert submit_offer(ours, network, "next").ok
    assert count_mined(rpc) == count + 1
    assert rpc.call("eth_getTransactionReceipt", dropped.tx)["status"] == "0x1"


def test_a_restarted_site_sends_again_what_a_reorganisation_dropped(rpc: FlakyRpc, network: Network) -> None:
    journal = MemoryJournal()
    dropped = submit_offer(start_writer(rpc, network, journal), network, "dropped")
    rpc.call("anvil_reorg", 1, [])
    restarted_writer = start_writer(rpc, network, journal)
    assert restarted_writer.is_pending("dropped")
    assert submit_offer(restarted_writer, network, "dropped").tx == dropped.tx


def test_a_transaction_that_is_not_mined_is_given_up_for_now(rpc: FlakyRpc, network: Network) -> None:
    ours = start_writer(rpc, network, MemoryJournal(), patience=0.1)
    rpc.call("evm_setAutomine", False)
    try:
        with pytest.raises(LedgerUnreachable, match="was not mined within") as caught:
            submit_offer(ours, network, "slow")
    finally:
        rpc.call("evm_setAutomine", True)
    assert (caught.value.code, caught.value.retry) == ("CO-C304", True)
    assert ours.is_pending("slow")
    rpc.call("evm_mine")
    assert submit_offer(ours, network, "slow").ok


def test_a_revert_is_a_receipt_that_is_not_ok(rpc: FlakyRpc, network: Network) -> None:
    receipt = submit_offer(start_writer(rpc, network, MemoryJournal()), network, "bob")
    assert not receipt.ok
    assert receipt.gas < 200_000


def test_running_short_of_gas_shows_in_the_receipt(rpc: FlakyRpc, network: Network) -> None:
    receipt = submit_offer(start_writer(rpc, network, MemoryJournal()), network, "a", gas=30_000)
    assert (receipt.ok, receipt.gas) == (False, 30_000)


def test_what_the_node_refuses_outright_is_said(rpc: FlakyRpc, network: Network) -> None:
    poor = Account.create()
    ours = Writer(rpc, poor, MemoryJournal(), network, gas_price=10**9)
    with pytest.raises(LedgerUnreachable, match=r"refused eth_sendRawTransaction: .*[Ff]unds") as caught:
        submit_offer(ours, network, "a")
    assert caught.value.code == "CO-C302"


def test_threads_share_the_nonces(rpc: FlakyRpc, network: Network) -> None:
    ours, count = start_writer(rpc, network, MemoryJournal()), count_mined(rpc)
    threads = [threading.Thread(target=submit_offer, args=(ours, network, f"thread {i}")) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count_mined(rpc) == count + 8


def test_only_the_last_mined_ones_are_kept(rpc: FlakyRpc, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie_chain.keys.journal.MAX_MINED", 3)
    journal = MemoryJournal()
    ours = start_writer(rpc, network, journal)
    for i in range(6):
        submit_offer(ours, network, f"kept {i}")
    saved = journal.list_sent(f"{network.scope}/{derive_account('ana').address}")
    assert [tx.purpose for tx, _ in saved] == ["kept 2", "kept 3", "kept 4", "kept 5"]


def test_an_unreachable_node_is_named_without_its_secrets() -> None:
    with closing(Rpc("http://user:secret@127.0.0.1:9/token", timeout=1)) as nobody:
        with pytest.raises(LedgerUnreachable, match=r"http://127\.0\.0\.1:9 did not answer") as caught:
            nobody.call("eth_chainId")
        assert caught.value.retry
        assert not {"secret", "token", "user"} & set(caught.value.message.replace("/", " ").split())


def test_a_raw_transaction_is_what_the_journal_holds(rpc: FlakyRpc, network: Network) -> None:
    journal, raw_transactions = MemoryJournal(), []
    rpc.before = lambda method, params: (
        raw_transactions.append(params[0]) if method == "eth_sendRawTransaction" else None
    )
    submit_offer(start_writer(rpc, network, journal), network, "a")
    ((tx, _),) = journal.list_sent(f"{network.scope}/{derive_account('ana').address}")
    assert raw_transactions == [to_hex(tx.raw)]
