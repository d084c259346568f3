"""What a ledger on a chain must do beyond the conformance suite: faults, races, confirmations, other networks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_utils.crypto import keccak
from support.chain.anvil import AnvilClient
from support.chain.bench import (
    BENCH_FOUNDERS,
    GLORE_TERMS,
    STUDY_HASH,
    AnvilBench,
    Sites,
    build_entry,
    catch_refusal,
    derive_account,
)
from support.chain.web3_reader import connect_web3

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable
from coterie_chain.ethereum import ethereum_ledger
from coterie_chain.ethereum.abi import load_artifact
from coterie_chain.ethereum.calldata import decode_refusal, encode_site_name
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.rpc import NodeRefused, Rpc
from coterie_chain.keys.journal import MemoryJournal, SqliteJournal
from coterie_chain.ledger.protocol import Event, Record, State
from coterie_chain.ledger.rules import VOTE_TIME
from coterie_chain.network import deploy as deployment
from coterie_chain.network.deploy import Network, deploy, discover
from coterie_chain.network.seat_reader import SeatReader

pytestmark = pytest.mark.anvil


@pytest.fixture
def bench(anvil: AnvilClient) -> Iterator[AnvilBench]:
    anvil_bench = AnvilBench(anvil)
    yield anvil_bench
    anvil_bench.close()


@pytest.fixture
def sites(bench: AnvilBench) -> Sites:
    return Sites(bench)


# The network


def test_a_network_file_says_where_the_catalog_is(bench: AnvilBench) -> None:
    network = bench.network
    assert Network.from_json(network.to_json()) == network
    nested = "[" * 100_000 + "]" * 100_000
    for broken in ("", "[]", "{}", nested, network.to_json().replace(network.catalog, "0x12")):
        with pytest.raises(LedgerMismatch, match=r"not a network\.json") as caught:
            Network.from_json(broken)
        assert caught.value.code == "CO-C310"


def test_a_network_is_discovered_from_its_catalogs_address(bench: AnvilBench, anvil: AnvilClient) -> None:
    anvil.rpc("anvil_mine", "0x5")
    assert discover(bench.network.url, bench.network.catalog.lower()) == replace(bench.network, founders=())
    assert bench.ledger(derive_account("ana")).final_after == 0
    for wrong in ("0x12", "catalog"):
        with pytest.raises(LedgerMismatch, match="Not a Catalog's address"):
            discover(bench.network.url, wrong)
    with pytest.raises(LedgerMismatch, match="is not this version's Catalog"):
        discover(bench.network.url, derive_account("ana").address)


def test_a_catalog_is_discovered_once_its_block_can_be_replaced_no_more(bench: AnvilBench, anvil: AnvilClient) -> None:
    """A site that found it sooner kept the number of a block that another one replaced, and its daemon ended."""
    with Rpc(bench.network.url) as rpc:
        missing = bench.network.block + 1000 - rpc.call_quantity("eth_blockNumber")
    with pytest.raises(LedgerUnreachable, match=f"was deployed in block {bench.network.block} and counts") as caught:
        discover(bench.network.url, bench.network.catalog, confirmations=1000)
    assert caught.value.code == "CO-C302"
    anvil.rpc("anvil_mine", hex(missing))
    assert discover(bench.network.url, bench.network.catalog, confirmations=1000).block == bench.network.block


def test_a_node_without_old_states_is_read_from_the_first_block(
    bench: AnvilBench, anvil: AnvilClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    anvil.rpc("anvil_mine", "0x5")
    monkeypatch.setattr("coterie_chain.ethereum.network._read_code", lambda rpc, address, block: b"")
    network = discover(bench.network.url, bench.network.catalog)
    assert network.block == 0
    with EthereumLedger(network) as reader:
        assert [s.name for s in reader.sites()] == list(BENCH_FOUNDERS)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"chain_id": 1}, "CO-C311", "its chain id is 20240, and the network's is 1"),
        ({"genesis": "0x" + "00" * 32}, "CO-C311", "its hash of block 0 is"),
        ({"catalog": "0x" + "11" * 20}, "CO-C317", r"\(0 bytes\) is not this version's Catalog"),
    ],
)
def test_another_network_is_a_mismatch(bench: AnvilBench, change: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(LedgerMismatch, match=words) as caught:
        EthereumLedger(replace(bench.network, **change))
    assert caught.value.code == code


def test_a_model_is_not_a_catalog(bench: AnvilBench, sites: Sites) -> None:
    sites["ana"].sites()
    model = sites["ana"]._reader.models[1]  # type: ignore[attr-defined]
    with pytest.raises(LedgerMismatch, match="is not this version's Catalog"):
        EthereumLedger(replace(bench.network, catalog=model))


def test_a_node_that_is_behind_is_waited_for(bench: AnvilBench) -> None:
    with pytest.raises(LedgerUnreachable, match="wait until it has caught up") as caught:
        EthereumLedger(replace(bench.network, block=10**6))
    assert caught.value.retry


def test_an_unreachable_node_is_a_retry(bench: AnvilBench) -> None:
    for move in (
        lambda url: EthereumLedger(replace(bench.network, url=url)),
        lambda url: deploy(url, [build_entry("ana")]),
    ):
        with pytest.raises(LedgerUnreachable, match=r"http://127\.0\.0\.1:9 ") as caught:
            move("http://127.0.0.1:9/secret")
        assert caught.value.retry
        assert "secret" not in str(caught.value)


def test_an_address_that_is_none_is_said() -> None:
    with pytest.raises(LedgerUnreachable, match="must read http"):
        deploy("ipc:/somewhere", [build_entry("ana")])


def test_founders_that_the_catalog_refuses_are_said(anvil: AnvilClient) -> None:
    with pytest.raises(LedgerMismatch, match="deployment failed") as caught:
        deploy(anvil.url, [build_entry("ana"), build_entry("ana")])
    assert caught.value.code == "CO-C313"
    with pytest.raises(ValueError, match="1 to 32 bytes"):
        deploy(anvil.url, [replace(build_entry("ana"), name="a" * 33)])


def test_web3_reads_the_same_network(bench: AnvilBench) -> None:
    with connect_web3(bench.network.url) as w3:
        catalog = w3.eth.contract(address=bench.network.catalog, abi=load_artifact("Catalog").abi)  # type: ignore[call-overload]
        assert catalog.functions.siteCount().call() == len(BENCH_FOUNDERS)
        assert load_artifact("Catalog").matches(bytes(w3.eth.get_code(catalog.address)))


# Moves


def test_gas_and_records_are_counted(bench: AnvilBench, sites: Sites) -> None:
    study = sites.start()
    ana = bench.ledger(derive_account("ana"))
    post = sites.draft(study, "ana")
    ana.record(post)
    used = ana.gas_used
    assert 50_000 < used < 300_000
    ana.view(study)
    ana.record(post)
    assert (ana.records, ana.gas_used) == (1, used)


def test_a_move_that_was_overtaken_says_why(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    study = sites.start()
    bob = sites["bob"]
    rehearsed: list[str] = []
    rehearse = bob._rehearse  # type: ignore[attr-defined]

    def overtaken(to: str, data: str, block: str) -> None:
        rehearse(to, data, block)
        if not rehearsed:
            sites["ana"].pause(study, 1)
        rehearsed.append(block)

    monkeypatch.setattr(bob, "_rehearse", overtaken)
    assert catch_refusal(bob.pause, study, 2) == ("BadState", 3)
    assert rehearsed[0] == "pending"


@pytest.mark.parametrize("sleeps", [False, True])
def test_a_chain_that_sleeps_has_the_time_of_the_wall_clock_in_rehearsals_too(
    bench: AnvilBench, sites: Sites, sleeps: bool
) -> None:
    """The wall clock is past the deadline and no block is: the rehearsal lets the move pass, and its block refuses."""
    study = sites.start()
    for name in BENCH_FOUNDERS:
        sites.post(study, name)
    opened = sites["ana"].view(study).open
    assert opened is not None
    late = time.time() + 1000
    with EthereumLedger(bench.network, derive_account("ana"), sleeps=sleeps, wall=lambda: late) as ledger:
        assert (ledger.now() == int(late - 2)) == (ledger.now() > opened.deadline) == sleeps
        assert catch_refusal(ledger.skip, study) == ("NotYet", opened.deadline)
        assert (ledger.gas_used > 0) == sleeps
        assert ledger.block_time < opened.deadline


@pytest.mark.parametrize(
    ("sleeps", "seconds", "counted"),
    [(True, 0, [("ana",), ("bob",)]), (True, 100, [(), ()]), (False, 100, [("ana",), ("bob",)])],
)
def test_a_vote_expires_by_the_wall_clock_where_the_chain_sleeps(
    bench: AnvilBench,
    sites: Sites,
    monkeypatch: pytest.MonkeyPatch,
    sleeps: bool,
    seconds: int,
    counted: list[tuple[str, ...]],
) -> None:
    """No block is made, so the contract's own view counts the vote for ever; it is not asked."""
    sites["ana"].admit(build_entry("dan"))
    sites["bob"].revoke("cyd")
    votes = [e for e in sites["ana"].history() if isinstance(e, Event) and e.name.endswith("Voted")]
    motions = [bytes.fromhex(str(dict(vote.details)["motion"]).removeprefix("0x")) for vote in votes]
    wall = float(sites["ana"].now() + VOTE_TIME + seconds)
    with EthereumLedger(bench.network, None, sleeps=sleeps, wall=lambda: wall) as ledger:
        views: list[object] = []
        ask = ledger._reader.ask

        def count_views(asked: Any, block: str) -> list[Any]:
            views.extend(asked)
            return ask(asked, block)

        monkeypatch.setattr(ledger._reader, "ask", count_views)
        assert [ledger.list_voters(motion) for motion in motions] == counted
        assert (len(views) == 0) == sleeps


def test_a_move_that_ran_short_of_gas_gets_more(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    study = sites.start()
    monkeypatch.setattr(ethereum_ledger, "GAS", 70_000)
    sites.post(study, "ana")
    opened = sites["bob"].view(study).open
    assert opened is not None
    assert opened.posted == ("ana",)


def test_a_crash_between_sending_and_hearing_is_survived(bench: AnvilBench, sites: Sites, tmp_path: Path) -> None:
    study = sites.start()
    post = sites.draft(study, "ana")
    for method in ("eth_sendRawTransaction", "eth_getTransactionReceipt"):
        journal = SqliteJournal(tmp_path / "journal.db")
        with EthereumLedger(bench.network, derive_account("ana"), journal) as ledger:
            call = ledger._rpc.call

            def cut(asked: str, *params: object, method: str = method, call: Any = call) -> Any:
                answer = call(asked, *params)
                if asked == method:
                    raise LedgerUnreachable("CO-C301", "cut")
                return answer

            ledger._rpc.call = cut  # type: ignore[method-assign, assignment]
            if method == "eth_sendRawTransaction":
                with pytest.raises(LedgerUnreachable, match="cut"):
                    ledger.record(post)
            else:
                ledger._rpc.call = call  # type: ignore[method-assign]
                ledger.record(post)
        journal.close()
    assert sites["ana"].heads()["ana"].seq == 1
    assert catch_refusal(sites["ana"].record, replace(post, sha256=STUDY_HASH)) == ("Overwrite",)


def test_what_was_journalled_for_a_slot_wins_over_a_new_draft(bench: AnvilBench, sites: Sites, tmp_path: Path) -> None:
    study = sites.start()
    first = sites.draft(study, "ana")
    second = replace(first, sha256=STUDY_HASH)
    with SqliteJournal(tmp_path / "journal.db") as journal:
        with EthereumLedger(bench.network, derive_account("ana"), journal) as ledger:
            ledger.sites()
            call = ledger._rpc.call

            def cut(asked: str, *params: object) -> Any:
                if asked == "eth_sendRawTransaction":
                    raise LedgerUnreachable("CO-C301", "cut")
                return call(asked, *params)

            ledger._rpc.call = cut  # type: ignore[method-assign, assignment]
            with pytest.raises(LedgerUnreachable):
                ledger.record(first)
        with EthereumLedger(bench.network, derive_account("ana"), journal) as ledger:
            assert catch_refusal(ledger.record, second) == ("Overwrite",)
            ledger.record(first)
            (record,) = [e for e in ledger.history(study) if isinstance(e, Record)]
            assert record.post == first


def test_refusals_come_with_their_values() -> None:
    basis = decode_refusal("0x" + keccak(text="BasisMismatch(bytes32)")[:4].hex() + STUDY_HASH.hex())
    assert (basis.name, basis.values) == ("BasisMismatch", ("0x" + STUDY_HASH.hex(),))
    assert decode_refusal("0x").values == ()
    assert (decode_refusal("0x12345678").name, decode_refusal("0x12345678").values) == ("Reverted", ("0x12345678",))


def test_values_that_the_contract_cannot_hold_are_refused_here(sites: Sites) -> None:
    study = sites.start()
    assert catch_refusal(sites["ana"].propose, replace(GLORE_TERMS, max_rounds=1 << 16)) == ("BadTerms",)
    assert catch_refusal(sites["ana"].propose, replace(GLORE_TERMS, timeout=1 << 32)) == ("BadTerms",)
    with pytest.raises(ValueError, match="argument of `abort`"):
        sites["ana"].abort(study, 1 << 16)
    with pytest.raises(ValueError, match="1 to 32 bytes"):
        encode_site_name("")


def test_an_account_without_funds_is_reported(bench: AnvilBench, monkeypatch: pytest.MonkeyPatch) -> None:
    poor = Account.create()
    monkeypatch.setattr(ethereum_ledger, "is_anvil", lambda rpc: False)
    with EthereumLedger(bench.network, poor) as ledger:
        monkeypatch.setattr(ledger, "_rehearse", lambda *args: None)
        with pytest.raises(NodeRefused, match=r"[Ff]unds"):
            ledger.pause(1, 1)


# Waiting and confirmations


def test_wait_returns_at_a_new_block_or_when_the_time_is_over(bench: AnvilBench, sites: Sites) -> None:
    reader = bench.ledger(None)
    reader.sites()
    begun = time.monotonic()
    reader.wait(0.1)
    assert 0.1 <= time.monotonic() - begun < 1
    threading.Timer(0.1, lambda: sites["ana"].admit(build_entry("dan"))).start()
    begun = time.monotonic()
    reader.wait(20)
    assert time.monotonic() - begun < 5
    # what was not read yet is not waited for
    begun = time.monotonic()
    reader.wait(20)
    assert time.monotonic() - begun < 5


def test_the_clock_goes_on_between_blocks(sites: Sites) -> None:
    before = sites["ana"].now()
    sites.bench.sleep(1000)
    assert sites["ana"].now() >= before + 1000


@pytest.fixture
def beat(bench: AnvilBench) -> Iterator[None]:
    """Blocks come all the time, as on a chain with sealers."""
    with Rpc(bench.network.url) as rpc:
        over = threading.Event()

        def mine() -> None:
            while not over.wait(0.02):
                rpc.call("evm_mine")

        thread = threading.Thread(target=mine)
        thread.start()
        yield
        over.set()
        thread.join()


@pytest.mark.usefixtures("beat")
def test_with_confirmations_a_site_reads_what_it_wrote(bench: AnvilBench) -> None:
    network = deploy(bench.network.url, map(build_entry, ("ana", "bob")), confirmations=2)
    handles = {name: EthereumLedger(network, derive_account(name), confirmations=2) for name in ("ana", "bob")}
    terms = replace(GLORE_TERMS, sites=("ana", "bob"), max_rounds=1)
    study = handles["ana"].propose(terms)
    assert handles["ana"].view(study).joined == ("ana",)
    handles["bob"].join(study, STUDY_HASH)
    assert handles["bob"].view(study).state == State.RUNNING
    sites = Sites(bench)
    sites._ledgers.update(handles)
    for _ in range(2):
        sites.step(study)
    assert handles["ana"].view(study).state == State.COMPLETED
    (model,) = handles["ana"].read_finished(study, 1) or ()
    assert model.site == "ana"
    assert len([e for e in handles["bob"].history(study) if isinstance(e, Record)]) == 3
    for handle in handles.values():
        handle.close()


def test_two_handles_with_one_key_take_turns(bench: AnvilBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie_chain.ethereum.writer._GRACE", 0.1)
    first_handle, second_handle = bench.ledger(derive_account("ana")), bench.ledger(derive_account("ana"))
    for i, handle in enumerate((first_handle, second_handle, first_handle, second_handle)):
        handle.admit(build_entry(f"site-{i}"))
    assert len([e for e in first_handle.history(0) if e.site == "ana"]) == 5


# Moves that nobody waits for


def fund(rpc: Rpc) -> None:
    """What is submitted pays one wei, to stand before what builds on it."""
    for name in ("ana", "bob"):
        rpc.call("anvil_setBalance", derive_account(name).address, hex(10**18))


@pytest.fixture
def slow(bench: AnvilBench) -> Iterator[Rpc]:
    """The chain, which makes a block only on request."""
    with Rpc(bench.network.url) as rpc:
        fund(rpc)
        rpc.call("evm_setAutomine", False)
        try:
            yield rpc
        finally:
            rpc.call("evm_setAutomine", True)
            rpc.call("evm_mine")


def test_what_is_submitted_is_sent_once_and_taken_by_the_next_block(bench: AnvilBench, sites: Sites) -> None:
    study = sites.start()
    handle, post = bench.ledger(derive_account("ana")), sites.draft(study, "ana")
    with Rpc(bench.network.url) as rpc:
        fund(rpc)
        count = rpc.call_quantity("eth_getTransactionCount", derive_account("ana").address, "latest")
        rpc.call("evm_setAutomine", False)
        for _ in range(3):
            handle.submit(post)
        assert handle.records == 1
        rpc.call("evm_mine")
        rpc.call("evm_setAutomine", True)
        handle.submit(post)
        assert rpc.call_quantity("eth_getTransactionCount", derive_account("ana").address, "pending") == count + 1
    opened = handle.view(study).open
    assert opened is not None
    assert opened.posted == ("ana",)
    assert catch_refusal(handle.submit, replace(post, sha256=STUDY_HASH)) == ("Overwrite",)


def test_what_the_contract_would_refuse_is_not_submitted(bench: AnvilBench, sites: Sites, slow: Rpc) -> None:
    slow.call("evm_setAutomine", True)
    study = sites.start()
    slow.call("evm_setAutomine", False)
    handle, post = bench.ledger(derive_account("ana")), sites.draft(study, "ana")
    pending = slow.call_quantity("eth_getTransactionCount", derive_account("ana").address, "pending")
    assert catch_refusal(handle.submit, replace(post, position=1))[0] == "WrongStep"
    assert catch_refusal(handle.submit_join, study, STUDY_HASH)[0] in ("AlreadyVoted", "BadState")
    assert catch_refusal(bench.ledger(Account.create()).submit, post) == ("NotOwner",)
    assert slow.call_quantity("eth_getTransactionCount", derive_account("ana").address, "pending") == pending


def test_a_joining_is_submitted_as_well(bench: AnvilBench, sites: Sites, slow: Rpc) -> None:
    slow.call("evm_setAutomine", True)
    study = sites["ana"].propose(replace(GLORE_TERMS, sites=("ana", "bob")))
    slow.call("evm_setAutomine", False)
    handle = bench.ledger(derive_account("bob"))
    for _ in range(2):
        handle.submit_join(study, STUDY_HASH)
    assert handle.view(study).joined == ("ana",)
    slow.call("evm_mine")
    assert handle.view(study).joined == ("ana", "bob")


def test_a_transaction_that_no_block_takes_is_reported_after_the_patience(
    bench: AnvilBench, sites: Sites, slow: Rpc
) -> None:
    slow.call("evm_setAutomine", True)
    study = sites.start()
    slow.call("evm_setAutomine", False)
    post = sites.draft(study, "ana")
    with EthereumLedger(bench.network, derive_account("ana"), MemoryJournal(), patience=0.1) as handle:
        handle.submit(post)
        time.sleep(0.2)
        with pytest.raises(LedgerUnreachable, match="was not mined within") as caught:
            handle.submit(post)
        assert (caught.value.code, caught.value.retry) == ("CO-C304", True)
        slow.call("evm_mine")
        handle.submit(post)
        assert handle.heads()["ana"].seq == 1


def test_a_submitted_nonce_that_somebody_else_used_is_replaced(
    bench: AnvilBench, sites: Sites, slow: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coterie_chain.ethereum.writer._GRACE", 0.05)
    slow.call("evm_setAutomine", True)
    study = sites.start()
    handle, thief = bench.ledger(derive_account("ana")), bench.ledger(derive_account("ana"))
    handle.sites()
    call = handle._rpc.call

    def lost(asked: str, *params: object) -> Any:
        return None if asked == "eth_sendRawTransaction" else call(asked, *params)

    handle._rpc.call = lost  # type: ignore[method-assign, assignment]
    post = sites.draft(study, "ana")
    handle.submit(post)
    thief.admit(build_entry("thief"))
    handle._rpc.call = call  # type: ignore[method-assign]
    handle.submit(post)
    time.sleep(0.1)
    handle.submit(post)
    slow.call("evm_mine")
    assert handle.heads()["ana"].seq == 1


# Members


def test_who_votes_for_a_new_key_gives_it_wei_for_its_gas_once_if_it_has_any(
    bench: AnvilBench, sites: Sites, anvil: AnvilClient
) -> None:
    def read_balance(name: str) -> int:
        return int(str(anvil.rpc("eth_getBalance", build_entry(name).address, "latest")), 16)

    sites["ana"].admit(build_entry("dan"))
    assert read_balance("dan") == 0
    anvil.rpc("anvil_setBalance", build_entry("bob").address, hex(10**27))
    sites["bob"].admit(build_entry("dan"))
    assert read_balance("dan") == ethereum_ledger.ENDOWMENT
    sites["bob"].recover("ana", build_entry("dan2").address, build_entry("dan2").sealing)
    assert read_balance("dan2") == ethereum_ledger.ENDOWMENT


def test_a_deployment_that_no_block_takes_says_what_to_look_for(
    anvil: AnvilClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "DEPLOYMENT_TIMEOUT", 0.1)
    anvil.rpc("evm_setAutomine", False)
    try:
        with pytest.raises(LedgerUnreachable, match=r"the newest is \d+\. .*signed recently") as caught:
            deploy(anvil.url, [build_entry(name) for name in BENCH_FOUNDERS])
    finally:
        anvil.rpc("evm_setAutomine", True)
        anvil.rpc("evm_mine")
    assert caught.value.code == "CO-C304"


def test_a_reader_of_seats_sees_what_the_ledger_sees_and_keeps_no_history(sites: Sites, bench: AnvilBench) -> None:
    ledger = bench.ledger(None)
    with SeatReader(bench.network) as seats:
        assert seats.sites() == ledger.sites()
        assert seats.newest == ledger.newest
        assert not [value for value in vars(seats).values() if isinstance(value, list | dict)]


def test_a_reader_of_seats_refuses_a_node_of_another_network(bench: AnvilBench) -> None:
    with pytest.raises(LedgerMismatch) as caught:
        SeatReader(replace(bench.network, genesis="0x" + "00" * 32))
    assert caught.value.code == "CO-C311"
