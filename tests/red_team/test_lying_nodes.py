"""A site's own chain node or Kubo may lie: each lie is caught where it is read, with the code that names its kind."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.chain.anvil import AnvilClient
from support.chain.bench import AnvilBench, Sites
from support.chain.kubo_server import KuboServer, format_cid, serve_kubo
from support.chain.lying_node import LyingNode, run_lying_node
from support.lanes import later

from coterie_chain.errors import ChainError, LedgerMismatch
from coterie_chain.ethereum.answers import ANSWER_FORMS
from coterie_chain.ethereum.calldata import load_codec
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network, discover
from coterie_chain.ledger.history_check import check_history
from coterie_chain.proof.evidence import gather
from coterie_chain.proof.verified_ledger import VerifiedLedger
from coterie_chain.store.cid import compute_raw_cid
from coterie_chain.store.kubo import KuboBlobs

pytestmark = pytest.mark.anvil
Change = Callable[[Any], Any]
RECORDED = load_codec("Model").topics
# What is asked by writers alone.
SENT = {"eth_getBalance", "eth_getTransactionCount", "net_peerCount", "eth_sendRawTransaction", "eth_getBlockByHash"}


@pytest.fixture(scope="module")
def honest(anvil: AnvilClient) -> Iterator[Network]:
    """A network with a study of a few records."""
    bench = AnvilBench(anvil)
    sites = Sites(bench)
    study = sites.start()
    sites.step(study)
    sites.step(study)
    yield bench.network
    bench.close()


@pytest.fixture
def liar(honest: Network) -> Iterator[LyingNode]:
    with run_lying_node(honest.url) as node:
        yield node


def read_everything(network: Network) -> None:
    """What a site and an auditor ask of a node; the history is held against the rules and the hash chains."""
    with EthereumLedger(network) as ledger:
        for study in ledger.studies():
            ledger.view(study)
            ledger.read_finished(study, 0)
        heads, _, _ = ledger.heads(), ledger.sites(), ledger.sealing
        judge = check_history(list(ledger.history()), {site: head.genesis for site, head in heads.items()})
        if judge.heads != heads:
            raise LedgerMismatch("CO-C340", "the heads are others")


def catch_code(network: Network, read: Callable[[Network], object] = read_everything) -> str:
    with pytest.raises(ChainError) as caught:
        read(network)
    return caught.value.code


def change_one(method: str, change: Change) -> Callable[[str, Any], Any]:
    return lambda asked, result: change(copy.deepcopy(result)) if asked == method and result else result


def alter_data(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Another payload in the first record of the answer."""
    for log in logs:
        if log["topics"][0] in RECORDED:
            log["data"] = log["data"][: 2 + 64 * 9] + "ab" * 32 + log["data"][2 + 64 * 10 :]
            break
    return logs


def drop_middle(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out a record in the middle."""
    places = [k for k, log in enumerate(logs) if log["topics"][0] in RECORDED]
    return [log for k, log in enumerate(logs) if k != places[0]] if places else logs


def test_the_node_is_read_as_it_is_until_it_lies(honest: Network, liar: LyingNode) -> None:
    network = replace(honest, url=liar.url)
    read_everything(network)
    assert VerifiedLedger(gather(network)).founders == dict(network.founders)


LIES: dict[str, tuple[Callable[[str, Any], Any], set[str]]] = {
    "another chain id": (change_one("eth_chainId", lambda _: "0x7"), {"CO-C311"}),
    "another first block": (
        change_one("eth_getBlockByNumber", lambda b: {**b, "hash": "0x" + "12" * 32}),
        {"CO-C311"},
    ),
    "other code": (change_one("eth_getCode", lambda code: code[:-4] + "0000"), {"CO-C317"}),
    "an altered record": (change_one("eth_getLogs", alter_data), {"CO-C340"}),
    "a record left out": (change_one("eth_getLogs", drop_middle), {"CO-C315"}),
    "no logs at all": (change_one("eth_getLogs", lambda _: []), {"CO-C315"}),
    "logs of nobody's form": (
        change_one("eth_getLogs", lambda logs: [{**log, "topics": ["0x" + "34" * 32]} for log in logs]),
        {"CO-C312"},
    ),
    "answers of another form": (change_one("eth_call", lambda _: {"a": []}), {"CO-C303"}),
    "answers of no length": (change_one("eth_call", lambda _: "0x"), {"CO-C312"}),
    "a block beyond all blocks": (change_one("eth_blockNumber", lambda _: "0x" + "f" * 16), {"CO-C303"}),
}


@pytest.mark.parametrize("kind", LIES)
def test_each_lie_of_a_chain_node_is_caught_by_its_kind(kind: str, honest: Network, liar: LyingNode) -> None:
    liar.lie, codes = LIES[kind]
    assert catch_code(replace(honest, url=liar.url)) in codes


@pytest.mark.parametrize("cut", [0, 1, 20, -1])
def test_a_cut_answer_is_no_json_rpc(cut: int, honest: Network, liar: LyingNode) -> None:
    liar.garble = lambda answer: answer[:cut]
    assert catch_code(replace(honest, url=liar.url)) == "CO-C303"


@pytest.fixture
def other_logs(anvil: AnvilClient, honest: Network) -> Iterator[list[dict[str, Any]]]:
    """What another Catalog of the same sites wrote, as if the honest one's contracts had written it."""
    bench = AnvilBench(anvil)
    sites = Sites(bench)
    study = sites.start()
    sites.step(study, converged=True)
    with EthereumLedger(honest) as mine, EthereumLedger(bench.network) as theirs:
        list(mine.history()), list(theirs.history())
        places = zip(sorted(theirs._reader.models.items()), sorted(mine._reader.models.items()), strict=True)
        renamed = {other.lower(): own.lower() for (_, other), (_, own) in places}
    renamed[bench.network.catalog.lower()] = honest.catalog.lower()
    question = {"fromBlock": hex(bench.network.block), "toBlock": "latest", "address": list(renamed)}
    text = json.dumps(anvil.rpc("eth_getLogs", question))
    for other, own in renamed.items():
        text = text.replace(other[2:], own[2:])
    yield json.loads(text)
    bench.close()


def test_the_logs_of_another_network_under_this_one_s_names_are_found_out(
    honest: Network, liar: LyingNode, other_logs: list[dict[str, Any]]
) -> None:
    """Chain id, first block, code and addresses are right: only hash chains and counters tell."""
    liar.lie = change_one("eth_getLogs", lambda _: copy.deepcopy(other_logs))
    assert catch_code(replace(honest, url=liar.url)) in {"CO-C312", "CO-C315", "CO-C340"}


def test_evidence_of_a_lying_node_does_not_hold(honest: Network, liar: LyingNode) -> None:
    network = replace(honest, url=liar.url)

    def alter_receipt(receipt: dict[str, Any]) -> dict[str, Any]:
        return {**receipt, "logs": alter_data(receipt["logs"])}

    liar.lie = change_one("eth_getTransactionReceipt", alter_receipt)
    assert catch_code(network, lambda n: VerifiedLedger(gather(n))) == "CO-C354"


def answer_with(method: str, nonsense: object) -> Callable[[str, Any], Any]:
    """A lie: one method has this answer, all others are honest."""
    return lambda asked, result: nonsense if asked == method else result


@pytest.mark.parametrize("method", ["eth_getProof", *later(*sorted(ANSWER_FORMS.keys() - SENT - {"eth_getProof"}))])
def test_no_answer_of_any_form_brings_anything_but_an_error_of_ours(
    method: str, honest: Network, liar: LyingNode
) -> None:
    network = replace(honest, url=liar.url)
    answers: tuple[object, ...] = (None, [], {}, "0x", 7, "0x" + "f" * 64, [{}])
    for nonsense in answers:
        liar.lie = answer_with(method, nonsense)
        for read in (read_everything, gather, lambda n: discover(n.url, n.catalog)):
            try:
                read(network)
            except ChainError as error:
                assert error.code.startswith("CO-C3")  # noqa: PT017


@pytest.mark.parametrize(
    ("lie", "codes"),
    [
        ((200, b"other bytes"), {"CO-C202"}),
        ((200, b""), {"CO-C202"}),
        ((200, bytes(2 << 20)), {"CO-C202"}),
        ((500, b"[[[["), {"CO-C208"}),
        ((500, b'{"Message": {"a": 1}}'), {"CO-C208"}),
        ((302, b""), {"CO-C208"}),
    ],
)
def test_each_lie_of_a_kubo_is_caught_by_its_kind(lie: tuple[int, bytes], codes: set[str]) -> None:
    payload = b"a payload"
    with serve_kubo(KuboServer()) as kubo:
        kubo.blocks[format_cid(0x55, hashlib.sha256(payload).digest())] = payload
        store = KuboBlobs(kubo.url, timeout=1.0)
        assert store.get(compute_raw_cid(payload)) == payload
        kubo.lie = lambda command, query: lie
        with pytest.raises(ChainError) as caught:
            store.get(compute_raw_cid(payload))
        assert caught.value.code in codes
