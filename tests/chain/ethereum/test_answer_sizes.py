"""How much of an answer is read, and what reading it takes: by what was asked for."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from support.chain.http_answers import serve_answers
from support.lanes import later

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ethereum.answers import MAX_ANSWER_BYTES, has_form, is_readable, limit_answer
from coterie_chain.ethereum.rpc import EarlyAnswers, Request, Rpc

METHODS: list[Request] = [("eth_blockNumber", ()), ("eth_getBlockByNumber", ("latest", False)), ("eth_getLogs", ({},))]


def pack(result: bytes) -> Callable[[bytes], bytes]:
    return lambda body: b'{"jsonrpc": "2.0", "id": 0, "result": ' + result + b"}"


@pytest.mark.parametrize("request_", [METHODS[0], *later(*METHODS[1:])], ids=lambda request: request[0])
def test_more_than_an_answer_can_have_is_not_read(request_: Request) -> None:
    method, params = request_
    size = limit_answer(method, params)
    with serve_answers(pack(b'"0x' + b"0" * size + b'"')) as url, Rpc(url) as rpc:
        with pytest.raises(LedgerUnreachable, match=f"more than {size} bytes") as caught:
            rpc.call(method, *params)
        assert (caught.value.code, url in caught.value.message) == ("CO-C303", True)


def test_a_batch_may_have_what_its_requests_may_have() -> None:
    requests = [METHODS[0]] * 3
    body = json.dumps([{"id": number, "result": "0x" + "0" * (1 << 17)} for number in range(3)]).encode()
    with serve_answers(lambda _: body) as url, Rpc(url) as rpc:
        with pytest.raises(LedgerUnreachable, match=f"more than {limit_answer('eth_blockNumber')} bytes"):
            rpc.batch(requests)
        assert rpc.batch_early(requests) == {}


def test_a_block_with_its_transactions_may_have_more_and_nothing_more_than_that() -> None:
    assert limit_answer("eth_getBlockByNumber", ("0x1", True)) > limit_answer("eth_getBlockByNumber", ("0x1", False))
    assert limit_answer("eth_chainId") < limit_answer("eth_call") < limit_answer("eth_getLogs") == MAX_ANSWER_BYTES
    assert limit_answer("eth_unknown") <= MAX_ANSWER_BYTES


@pytest.mark.parametrize("part", [b"{},", *later(b"[],", b'{"a":1},', b"1,")])
def test_a_text_of_millions_of_parts_is_no_answer(part: bytes) -> None:
    assert is_readable(b"[" + part * 10_000 + b"1]")
    assert not is_readable(b"[" + part * 2_200_000 + b"1]")


@pytest.mark.long
def test_the_longest_honest_logs_are_an_answer() -> None:
    topics = ["0x" + "ab" * 32] * 4
    log = {"address": "0x" + "ab" * 20, "topics": topics, "data": "0x", "blockNumber": "0x1", "removed": False}
    body = json.dumps([log]).encode()
    assert is_readable(b"[" + (body[1:-1] + b",") * (MAX_ANSWER_BYTES // len(body)) + b"1]")


def test_an_answer_of_too_many_parts_is_said_to_be_one() -> None:
    with serve_answers(pack(b"[" + b"[]," * (1 << 19) + b"1]")) as url, Rpc(url) as rpc:
        with pytest.raises(LedgerUnreachable, match="more parts than an answer has") as caught:
            rpc.call("eth_getLogs", {})
        assert caught.value.code == "CO-C303"


@pytest.mark.parametrize("end", ["", "0", "g"])
def test_the_form_of_long_bytes_is_checked_in_no_more_room_than_they_take(end: str) -> None:
    text = "0x" + "ab" * (1 << 20) + end
    tracemalloc.start()
    try:
        assert has_form("eth_call", text) == (end == "")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(text)


def test_an_early_answer_that_is_too_long_is_asked_for_alone() -> None:
    """Logs of a full block: with the other answers they are too long, alone they are not."""
    asked: list[Any] = []

    def answer(body: bytes) -> bytes:
        asked.append(json.loads(body))
        if isinstance(asked[-1], list):
            return b" " * (MAX_ANSWER_BYTES + 1)
        return pack(b"[]")(body)

    with serve_answers(answer) as url, Rpc(url) as rpc:
        early = EarlyAnswers(rpc)
        early.prepare([METHODS[2], METHODS[2]])
        assert early.call("eth_getLogs", {}) == []
    assert [type(one) for one in asked] == [list, dict]
