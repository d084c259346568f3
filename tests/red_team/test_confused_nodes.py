"""A chain node, or a proxy before it, that confuses what it was asked: each answer is used for its own question only.

Reading such an answer would miss an entry, take one twice, or one of another contract or branch, and take for mined
what no block has.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.chain.anvil import AnvilClient
from support.chain.bench import GLORE_TERMS, AnvilBench, Sites, derive_account
from support.chain.bounded_node import ask, run_bounded_node
from support.chain.lying_node import LyingNode, run_lying_node
from support.lanes import later

from coterie_chain.errors import ChainError
from coterie_chain.ethereum.abi import load_errors
from coterie_chain.ethereum.calldata import load_codec
from coterie_chain.ethereum.entries.entry_file import EntryFile
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network, discover
from coterie_chain.ledger.protocol import Event, Record

pytestmark = pytest.mark.anvil
Log = dict[str, Any]
Use = Callable[[Network, Path], object]
TOPICS = {name: topic for topic, name in load_codec("Catalog").topics.items()}
WITH_VALUES = next(selector for selector, (_, types) in load_errors().items() if types)


@pytest.fixture(scope="module")
def honest(anvil: AnvilClient) -> Iterator[Network]:
    bench = AnvilBench(anvil)
    sites = Sites(bench)
    sites.step(sites.start())
    yield bench.network
    bench.close()


@pytest.fixture
def liar(honest: Network) -> Iterator[LyingNode]:
    with run_lying_node(honest.url) as node:
        yield node


def read(network: Network, folder: Path) -> list[Record | Event]:
    log = EntryFile(folder / "history.sqlite", network.scope)
    with EthereumLedger(network, log=log) as ledger:
        entries = list(ledger.history())
        ledger.view(1)
    log.close()
    return entries


def propose(network: Network, folder: Path) -> int:
    with EthereumLedger(network, derive_account("ana")) as ledger:
        return ledger.propose(GLORE_TERMS)


def look(network: Network, folder: Path) -> str:
    discover(network.url, network.catalog)
    with EthereumLedger(network) as ledger:
        return ledger.sealing + ledger.client


def on_logs(change: Callable[[list[Log]], list[Log]]) -> Callable[[str, Any], Any]:
    return lambda method, result: change(copy.deepcopy(result)) if method == "eth_getLogs" else result


def on_blocks(**fields: object) -> Callable[[str, Any], Any]:
    """Blocks with other fields; a field that is None is left out."""

    def change(method: str, result: Any) -> Any:
        if method != "eth_getBlockByNumber" or not result:
            return result
        return {key: value for key, value in (result | fields).items() if value is not None or key not in fields}

    return change


def on_receipts(**fields: object) -> Callable[[str, Any], Any]:
    return lambda method, result: result | fields if method == "eth_getTransactionReceipt" and result else result


def answer(wanted: str, other: object) -> Callable[[str, Any], Any]:
    return lambda method, result: other if method == wanted else result


def change_joining(**fields: object) -> Callable[[list[Log]], list[Log]]:
    return lambda logs: [log | fields if log["topics"][0] == TOPICS["StudyJoined"] else log for log in logs]


def repeat_joinings(logs: list[Log]) -> list[Log]:
    return [log for one in logs for log in [one] * (1 + (one["topics"][0] == TOPICS["StudyJoined"]))]


def add_later(logs: list[Log]) -> list[Log]:
    return [*logs, logs[-1] | {"blockNumber": hex(int(logs[-1]["blockNumber"], 16) + 500)}] if logs else logs


def count_too_far(logs: list[Log]) -> list[Log]:
    """Numbers of studies that no file of numbers can hold."""
    joined = [log for log in logs if log["topics"][0] == TOPICS["StudyJoined"]]
    for log in joined:
        log["topics"][1] = "0x" + "ff" * 32
    return logs


def strip_topics(logs: list[Log]) -> list[Log]:
    return [log | {"topics": []} for log in logs]


CONFUSED: dict[str, tuple[Callable[[str, Any], Any], Use, str]] = {
    "an entry of another contract": (on_logs(change_joining(address="0x" + "99" * 20)), read, "CO-C315"),
    "each joining twice": (on_logs(repeat_joinings), read, "CO-C315"),
    "an entry of a block that was not asked for": (on_logs(add_later), read, "CO-C315"),
    "an entry that was taken back": (on_logs(change_joining(removed=True)), read, "CO-C302"),
    "entries of another branch": (on_logs(change_joining(blockHash="0x" + "ab" * 32)), read, "CO-C302"),
    "a study beyond all numbers": (on_logs(count_too_far), read, "CO-C312"),
    "a block without a hash": (on_blocks(hash=None), look, "CO-C303"),
    "a first block without a hash": (on_blocks(hash=None), read, "CO-C311"),
    "a time beyond all times": (on_blocks(timestamp=hex(1 << 40)), read, "CO-C303"),
    "a receipt of another transaction": (on_receipts(transactionHash="0x" + "ee" * 32), propose, "CO-C303"),
    "a receipt that says nothing": (on_receipts(logs=[]), propose, "CO-C315"),
    "a receipt without topics": (
        lambda method, result: (
            result | {"logs": strip_topics(result["logs"])}
            if method == "eth_getTransactionReceipt" and result
            else result
        ),
        propose,
        "CO-C315",
    ),
    "more transactions than there are": (answer("eth_getTransactionCount", hex(1 << 70)), propose, "CO-C303"),
    "a price that nobody can pay": (on_blocks(baseFeePerGas=hex(1 << 255)), propose, "CO-C308"),
    "a name of a megabyte": (answer("web3_clientVersion", "x" * (1 << 20)), look, "CO-C303"),
    "a name that moves the cursor": (answer("web3_clientVersion", "\x1b[2J"), look, "CO-C303"),
}
SOON = (
    "an entry of another contract",
    "each joining twice",
    "entries of another branch",
    "a receipt that says nothing",
)


@pytest.mark.parametrize("kind", [*SOON, *later(*(kind for kind in CONFUSED if kind not in SOON))])
def test_a_confused_answer_is_refused_with_its_code_and_the_node_s_name(
    kind: str, honest: Network, liar: LyingNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie, use, code = CONFUSED[kind]
    if code == "CO-C308":  # on a development chain nothing is paid, whatever the node names
        monkeypatch.setattr("coterie_chain.ethereum.ethereum_ledger.choose_gas_price", lambda instant: 1)
    with pytest.raises(ChainError) as caught:
        use(replace(honest, url=liar.url), tmp_path)
    assert caught.value.code == code
    assert liar.url in caught.value.message
    assert len(caught.value.message) < 1000


def test_what_was_refused_is_read_once_the_node_is_right_again(
    honest: Network, liar: LyingNode, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    reference = read(honest, tmp_path / "other")
    for kind in SOON[:3]:
        liar.lie = CONFUSED[kind][0]
        with pytest.raises(ChainError):
            read(replace(honest, url=liar.url), tmp_path)
    liar.lie = lambda method, result: result
    assert read(replace(honest, url=liar.url), tmp_path) == reference


def refuse_calls(honest: str, data: str) -> Callable[[bytes], bytes]:
    """A node that says of each rehearsal that the contract refused it, with these bytes."""

    def answer_with(body: bytes) -> bytes:
        asked = json.loads(body)
        if isinstance(asked, dict) and asked["method"] == "eth_call":
            error = {"code": 3, "message": "execution reverted", "data": data}
            return json.dumps({"jsonrpc": "2.0", "id": 0, "error": error}).encode()
        return json.dumps(ask(honest, body)).encode()

    return answer_with


@pytest.mark.parametrize(
    ("data", "shown"),
    [(WITH_VALUES + "zz", WITH_VALUES), (WITH_VALUES + "00", WITH_VALUES), ("0x123456" + "ab" * 100_000, "0x123456")],
)
def test_a_refusal_that_cannot_be_read_is_shown_in_short(
    data: str, shown: str, honest: Network, tmp_path: Path
) -> None:
    with run_bounded_node(refuse_calls(honest.url, data)) as url, pytest.raises(ChainError) as caught:
        propose(replace(honest, url=url), tmp_path)
    assert caught.value.code == "CO-C401"
    assert shown in caught.value.message
    assert len(caught.value.message) < 400
