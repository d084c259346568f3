"""A chain node may lie while a Catalog is deployed: what was signed is founded, or nothing, and every wait ends."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.chain.anvil import AnvilClient
from support.chain.bench import AnvilBench, build_entry
from support.chain.lying_node import LyingNode, run_lying_node

from coterie_chain.errors import ChainError, LedgerMismatch
from coterie_chain.network import deploy as deployment
from coterie_chain.network.deploy import deploy

pytestmark = pytest.mark.anvil
Change = Callable[[Any], Any]
OURS = ("mine", "yours")
WORD = "0x" + "f" * 64


@pytest.fixture(scope="module")
def bench(anvil: AnvilClient) -> Iterator[AnvilBench]:
    """A Catalog of other founders, with the same code."""
    bench = AnvilBench(anvil)
    yield bench
    bench.close()


@pytest.fixture
def liar(bench: AnvilBench, monkeypatch: pytest.MonkeyPatch) -> Iterator[LyingNode]:
    monkeypatch.setattr(deployment, "DEPLOYMENT_TIMEOUT", 1.0)
    with run_lying_node(bench.network.url) as node:
        yield node


def change(method: str, edit: Change) -> Callable[[str, Any], Any]:
    return lambda asked, result: edit(copy.deepcopy(result)) if asked == method and result is not None else result


def put(method: str, **fields: Any) -> Callable[[str, Any], Any]:
    return change(method, lambda answer: {**answer, **fields})


RECEIPT, BLOCK = "eth_getTransactionReceipt", "eth_getBlockByNumber"
LIES: dict[str, tuple[Callable[[str, Any], Any], str]] = {
    "no contract": (put(RECEIPT, contractAddress=None), "CO-C313"),
    "it failed": (put(RECEIPT, status="0x0"), "CO-C313"),
    "neither failed nor not": (put(RECEIPT, status=None), "CO-C303"),
    "a receipt of another transaction": (put(RECEIPT, transactionHash="0x" + "ab" * 32), "CO-C303"),
    "a block in a hundred years": (put(RECEIPT, blockNumber="0xfffffff"), "CO-C303"),
    "gas below zero": (put(RECEIPT, gasUsed="-0x1"), "CO-C303"),
    "code that differs in a byte": (change("eth_getCode", lambda code: code[:-2] + "00"), "CO-C317"),
    "no code": (change("eth_getCode", lambda _: "0x"), "CO-C317"),
    "a block with room for nothing": (put(BLOCK, gasLimit="0x0"), "CO-C302"),
    "a base fee beyond all numbers": (put(BLOCK, baseFeePerGas=WORD), "CO-C308"),
    "a base fee below zero": (put(BLOCK, baseFeePerGas="-0x1"), "CO-C303"),
    "a count of transactions beyond all numbers": (change("eth_getTransactionCount", lambda _: WORD), "CO-C303"),
    "another chain": (change("eth_chainId", lambda _: "0x1"), "CO-C311"),
    "no first block": (put(BLOCK, hash=None), "CO-C311"),
}


@pytest.mark.parametrize("kind", LIES)
def test_each_lie_about_a_deployment_is_an_error_of_ours(kind: str, bench: AnvilBench, liar: LyingNode) -> None:
    liar.lie, code = LIES[kind]
    price = 1 if "base fee" in kind else None
    with pytest.raises(ChainError) as caught:
        deploy(liar.url, map(build_entry, OURS), gas_price=price, chain_id=bench.network.chain_id)
    assert caught.value.code == code


def test_a_node_that_shows_another_catalog_of_the_same_code_founds_nothing(bench: AnvilBench, liar: LyingNode) -> None:
    """Its founders are others, who would have the majority: only the payer's key and nonce tell which one is ours."""
    liar.lie = put(RECEIPT, contractAddress=bench.network.catalog)
    with pytest.raises(LedgerMismatch, match=f"made {bench.network.catalog}; what was signed makes 0x") as caught:
        deploy(liar.url, map(build_entry, OURS))
    assert caught.value.code == "CO-C313"


def test_nothing_is_signed_for_a_chain_that_is_not_the_genesis(bench: AnvilBench, liar: LyingNode) -> None:
    asked: list[str] = []

    def lie(method: str, result: Any) -> Any:
        asked.append(method)
        return "0x1" if method == "eth_chainId" else result

    liar.lie = lie
    with pytest.raises(LedgerMismatch, match="its chain id is 1, and the genesis has"):
        deploy(liar.url, map(build_entry, OURS), chain_id=bench.network.chain_id)
    assert "eth_sendRawTransaction" not in asked


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"jsonrpc": "2.0", "id": 0}',
        b'{"id": 0, "result": "0x1", "result": {}}',
        b'{"id": 0, "result": NaN}',
        b'{"id": 0, "result": "0x' + b"1" * 5000 + b'"}',
        b'{"id": 0, "error": {"message": "\\u001b[2J' + b"x" * 100_000 + b'"}}',
        b'{"id": 0, "error": 7}',
    ],
    ids=["empty", "utf-16", "lists", "objects", "no result", "twice", "nan", "long number", "long error", "odd error"],
)
def test_no_bytes_of_a_node_end_a_deployment_otherwise_than_by_an_error(body: bytes, liar: LyingNode) -> None:
    liar.garble = lambda _: body
    with pytest.raises(ChainError) as caught:
        deploy(liar.url, map(build_entry, OURS))
    assert caught.value.code in ("CO-C302", "CO-C303")
    assert (len(caught.value.message) < 2000, "\x1b" in caught.value.message) == (True, False)
