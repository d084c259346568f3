"""The ledger from evidence alone: on every scenario the same as the one that asks a node; and Geth's own headers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from chain.ledger.test_ledger_conformance import SCENARIOS
from support.chain.anvil import AnvilClient
from support.chain.bench import (
    EXCLUDING_TERMS,
    GLORE_TERMS,
    STUDY_HASH,
    AnvilBench,
    Sites,
    build_entry,
    catch_refusal,
    derive_account,
    derive_sealing_key,
)
from support.chain.flaky import FlakyRpc
from support.chain.sealers import accept_headers, replace_fields

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.headers import MAX_HEADER_BYTES, Header
from coterie_chain.ethereum.rlp_bounds import split_items
from coterie_chain.ethereum.rpc import NodeRefused
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.history_check import check_history
from coterie_chain.ledger.protocol import Ledger, Post, SiteEntry, Terms
from coterie_chain.network.deploy import deploy
from coterie_chain.network.devnet import Anvil as Development
from coterie_chain.proof import evidence as evidence_room
from coterie_chain.proof.evidence import Evidence, gather
from coterie_chain.proof.verified_ledger import VerifiedLedger

GETH = Path(__file__).parents[2] / "golden" / "clique" / "headers.rlp"


@pytest.fixture
def bench(anvil: AnvilClient) -> Iterator[AnvilBench]:
    anvil_bench = AnvilBench(anvil)
    yield anvil_bench
    anvil_bench.close()


def verify_bench(bench: AnvilBench) -> VerifiedLedger:
    evidence = gather(bench.network)
    reread = Evidence.of_files(evidence.chain_id, evidence.catalog, evidence.files())
    assert reread == evidence
    return VerifiedLedger(reread)


def assert_same(ours: Ledger, theirs: Ledger) -> None:
    """Both ledgers answer alike, whatever they are asked."""
    assert list(ours.history()) == list(theirs.history())
    assert ours.sites() == theirs.sites()
    assert ours.studies() == theirs.studies()
    assert ours.heads() == theirs.heads()
    for study in ours.studies():
        assert ours.view(study) == theirs.view(study)
        assert list(ours.history(study)) == list(theirs.history(study))
        assert [ours.read_finished(study, p) for p in range(14)] == [theirs.read_finished(study, p) for p in range(14)]


@pytest.mark.anvil
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_evidence_proves_what_a_node_reports(bench: AnvilBench, scenario: Callable[[Sites], int]) -> None:
    sites = Sites(bench)
    scenario(sites)
    ledger = verify_bench(bench)
    assert_same(ledger, bench.ledger(None))
    judged = check_history(ledger.history(), {name: head.genesis for name, head in ledger.heads().items()})
    assert judged.heads == ledger.heads()


@pytest.mark.anvil
def test_open_steps_are_read_from_storage(bench: AnvilBench) -> None:
    """Every kind of open step, with posts missing, a skip and an exclusion behind it."""
    sites = Sites(bench)
    study = sites.start(replace(EXCLUDING_TERMS, opening=("each",), closing=("only:ana",)))
    assert_same(verify_bench(bench), bench.ledger(None))
    sites.post(study, "bob")
    assert_same(verify_bench(bench), bench.ledger(None))
    bench.sleep(100)
    sites["ana"].exclude(study, "cyd")
    sites["bob"].exclude(study, "cyd")
    assert_same(verify_bench(bench), bench.ledger(None))
    sites.step(study)
    sites.step(study)
    bench.sleep(100)
    sites["bob"].skip(study)
    assert_same(verify_bench(bench), bench.ledger(None))
    sites.step(study, converged=True)
    assert_same(verify_bench(bench), bench.ledger(None))
    sites.step(study)
    assert_same(verify_bench(bench), bench.ledger(None))


@pytest.mark.anvil
def test_a_proposal_that_waits_and_no_study_at_all_are_read(bench: AnvilBench) -> None:
    assert_same(verify_bench(bench), bench.ledger(None))
    Sites(bench)["ana"].propose(GLORE_TERMS)
    ledger = verify_bench(bench)
    assert_same(ledger, bench.ledger(None))
    assert catch_refusal(ledger.view, 9) == ("BadState", 0)


@pytest.mark.anvil
def test_a_proved_ledger_moves_nothing(bench: AnvilBench) -> None:
    ledger = verify_bench(bench)
    assert ledger.me is None
    assert ledger.now() > 1_600_000_000
    ledger.wait(0.0)
    post = Post(1, 0, 0, "", STUDY_HASH, 1, False, STUDY_HASH)
    moves: list[tuple[Callable[..., object], tuple[object, ...]]] = [
        (ledger.propose, (GLORE_TERMS,)),
        (ledger.join, (1, STUDY_HASH)),
        (ledger.skip, (1,)),
        (ledger.exclude, (1, "ana")),
        (ledger.dispute, (1, 0, STUDY_HASH, STUDY_HASH)),
        (ledger.pause, (1, 0)),
        (ledger.resume, (1,)),
        (ledger.abort, (1, 0)),
        (ledger.admit, (build_entry("dan"),)),
        (ledger.revoke, ("ana",)),
        (ledger.accept, ("ana",)),
        (ledger.recover, ("ana", derive_account("dan").address, derive_sealing_key("dan"))),
        (ledger.offer, (derive_account("dan").address, derive_sealing_key("dan"))),
    ]
    for move, arguments in moves:
        assert catch_refusal(move, *arguments) == ("NotSite",)
    assert catch_refusal(ledger.record, post) == ("NotOwner",)


@pytest.mark.anvil
def test_a_study_of_more_sites_than_fit_into_a_word_is_read() -> None:
    names = [f"site-{k:02d}" for k in range(40)]
    keys = {
        name: SiteKeys.of(sha256(name.encode()).digest(), sha256(b"root" + name.encode()).digest()) for name in names
    }
    founders = [SiteEntry(0, name, k.address, k.sealing) for name, k in keys.items()]
    with Development(options=("--gas-limit", "200000000")) as anvil:
        network = deploy(anvil.url, founders)
        terms = Terms(STUDY_HASH, tuple(reversed(names)), (), ("each", "server"), (), 3, 60)
        with EthereumLedger(network, keys[names[0]].account) as ledger:
            study = ledger.propose(terms)
            evidence = gather(network)
            view = VerifiedLedger(evidence).view(study)
            assert view == ledger.view(study)
    assert view.terms.sites == terms.sites


@pytest.mark.anvil
def test_evidence_may_begin_at_a_later_block_that_the_reader_knows(bench: AnvilBench) -> None:
    Sites(bench).start()
    ledger = VerifiedLedger(gather(bench.network, first=bench.network.block - 1))
    assert_same(ledger, bench.ledger(None))
    assert ledger.anchor.first == bench.network.block - 1
    with pytest.raises(LedgerMismatch):
        VerifiedLedger(gather(bench.network, first=bench.network.block + 1))


# Nodes that lack a part, lie, or move on


@pytest.fixture
def flaky(bench: AnvilBench, monkeypatch: pytest.MonkeyPatch) -> FlakyRpc:
    """The line through which evidence is gathered."""
    sites = Sites(bench)
    sites.step(sites.start())
    flaky_rpc = FlakyRpc(bench.network.url)
    monkeypatch.setattr(evidence_room, "Rpc", lambda url: flaky_rpc)
    return flaky_rpc


def alter_answer(method: str, change: Callable[[Any], Any]) -> Callable[[str, Any], Any]:
    return lambda asked, answer: change(answer) if asked == method else answer


@pytest.mark.anvil
@pytest.mark.parametrize(
    ("method", "change", "code"),
    [
        ("eth_getTransactionReceipt", lambda a: None, "CO-C302"),
        ("eth_getBlockByNumber", lambda a: {**a, "stateRoot": "0x" + "12" * 32}, "CO-C352"),
        ("eth_getBlockByNumber", lambda a: {**a, "miner": "0x" + "12" * 20}, "CO-C312"),
    ],
)
def test_a_node_that_lacks_or_bends_a_part_makes_no_evidence(
    bench: AnvilBench, flaky: FlakyRpc, method: str, change: Callable[[Any], Any], code: str
) -> None:
    flaky.after = alter_answer(method, change)
    with pytest.raises((LedgerMismatch, LedgerUnreachable)) as caught:
        gather(bench.network)
    assert caught.value.code == code


@pytest.mark.anvil
def test_a_node_that_bends_a_receipt_makes_evidence_that_proves_nothing(bench: AnvilBench, flaky: FlakyRpc) -> None:
    flaky.after = alter_answer("eth_getTransactionReceipt", lambda a: {**a, "cumulativeGasUsed": "0x1"})
    with pytest.raises(LedgerMismatch, match="The receipts of block") as caught:
        VerifiedLedger(gather(bench.network))
    assert caught.value.code == "CO-C354"


@pytest.mark.anvil
@pytest.mark.parametrize(("faults", "code"), [(2, ""), (100, "CO-C307")])
def test_a_chain_that_moves_on_is_read_again(bench: AnvilBench, flaky: FlakyRpc, faults: int, code: str) -> None:
    faults_left = [faults]

    def moved(method: str, params: Sequence[object]) -> None:
        if method == "eth_getProof" and faults_left[0]:
            faults_left[0] -= 1
            raise NodeRefused("here", method, "block height is 9 but requested was 8")

    flaky.before = moved
    if not code:
        assert_same(VerifiedLedger(gather(bench.network)), bench.ledger(None))
        return
    with pytest.raises(LedgerUnreachable) as caught:
        gather(bench.network)
    assert caught.value.code == code


@pytest.mark.anvil
@pytest.mark.parametrize("method", ["eth_getProof", "eth_getTransactionReceipt", "eth_getCode"])
def test_a_chain_whose_last_block_is_replaced_meanwhile_is_read_again(
    bench: AnvilBench, flaky: FlakyRpc, method: str
) -> None:
    """Half of one branch and half of the other made no evidence, and the node was taken for one of another kind."""
    whole, replaced = flaky.call("eth_getBlockByNumber", "latest", False), list[str]()

    def replace_once(asked: str, params: Sequence[object]) -> None:
        if asked == method and not replaced:
            replaced.append(asked)
            flaky.call("anvil_reorg", 1, [])

    flaky.before = replace_once
    evidence = gather(bench.network)
    assert flaky.call("eth_getBlockByNumber", whole["number"], False)["hash"] != whole["hash"]
    assert_same(VerifiedLedger(evidence), bench.ledger(None))


# Headers that Geth 1.13.15 sealed: three signers, period 1, epoch 25; a vote of two admits a fourth in block 9.


def read_geth_headers() -> list[Header]:
    return [Header.decode(raw) for raw in split_items(GETH.read_bytes(), "headers", MAX_HEADER_BYTES)]


def test_geth_s_own_seals_votes_and_epochs_are_accepted() -> None:
    headers = read_geth_headers()
    client = accept_headers(headers)
    assert (client.kind, client.sealed, len(client.signers)) == ("clique", len(headers) - 1, 4)
    assert len(accept_headers(headers[:9]).signers) == 3
    assert [h.number for h in headers if len(h["extraData"]) > 97] == [0, 25, 50]
    assert len(accept_headers(headers[25:]).signers) == 4


@pytest.mark.parametrize("number", [1, 9, 25, 26, 62])
def test_geth_s_headers_changed_in_one_bit_are_refused(number: int) -> None:
    headers = read_geth_headers()
    was = headers[number]["stateRoot"]
    headers[number] = replace_fields(headers[number], stateRoot=bytes([was[0] ^ 1, *was[1:]]))
    with pytest.raises(LedgerMismatch, match=f"Block {number}"):
        accept_headers(headers[: number + 1])


def test_an_epoch_with_a_signer_whose_votes_were_hidden_is_refused() -> None:
    """Without block 9 and its vote the fourth signer is a stranger, and block 25 lists it."""
    headers = read_geth_headers()
    client = accept_headers(headers[:9])
    with pytest.raises(LedgerMismatch, match="Block 25 is not sealed as its chain asks"):
        client.accept(headers[25])
