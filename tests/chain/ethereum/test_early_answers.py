"""What a look wants is asked for together; what a node does not answer together is asked for one by one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.chain.anvil import AnvilClient
from support.chain.bench import AnvilBench, Sites
from support.chain.bounded_node import ask, bound_batches, pad_logs, run_bounded_node
from support.lanes import later

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ethereum.follower import ask_block
from coterie_chain.ethereum.reader import Reader
from coterie_chain.ethereum.rpc import EarlyAnswers, Rpc
from coterie_chain.ledger.protocol import Record, StudyView

pytestmark = pytest.mark.anvil
Answer = Callable[[bytes], bytes]


def answer_with_an_object(honest: str) -> Answer:
    """A node that refuses every batch as a whole, with one object."""

    def answer(body: bytes) -> bytes:
        asked, answers = json.loads(body), ask(honest, body)
        if isinstance(asked, list):
            return b'{"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "no batches"}}'
        return json.dumps(answers).encode()

    return answer


def leave_out(honest: str, place: int) -> Answer:
    """A node that never answers the request at this place of a batch."""

    def answer(body: bytes) -> bytes:
        asked, answers = json.loads(body), ask(honest, body)
        if isinstance(asked, list) and len(asked) > 1:
            answers = [one for one in answers if one["id"] != place]
        return json.dumps(answers).encode()

    return answer


def answer_batches(honest: str, change: Callable[[list[dict[str, Any]]], Any]) -> Answer:
    """A node whose answers to batches are changed; `change` gives what JSON is made of, or bytes."""

    def answer(body: bytes) -> bytes:
        asked, answers = json.loads(body), ask(honest, body)
        changed = change(answers) if isinstance(asked, list) else answers
        return changed if isinstance(changed, bytes) else json.dumps(changed).encode()

    return answer


def answer_twice(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two answers to each request, and the second knows of no log."""
    return answers + [one | {"result": []} if isinstance(one.get("result"), list) else one for one in answers]


def number_by(kind: Callable[[int], object]) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda answers: [one | {"id": kind(one["id"])} for one in answers]


NODES: dict[str, Callable[[str], Answer]] = {
    "answers all": lambda honest: lambda body: json.dumps(ask(honest, body)).encode(),
    "one request at a time": lambda honest: bound_batches(honest, 1, 1 << 20),
    "few bytes": lambda honest: bound_batches(honest, 100, 200),
    "no list": answer_with_an_object,
    "no first answer": lambda honest: leave_out(honest, 0),
    "no logs": lambda honest: leave_out(honest, 1),
    "no states": lambda honest: leave_out(honest, 2),
    "long pages": lambda honest: pad_logs(honest, 1),
    "two answers each": lambda honest: answer_batches(honest, answer_twice),
    "no JSON": lambda honest: answer_batches(honest, lambda _: b"<html>413 Payload Too Large</html>"),
    "no answer": lambda honest: answer_batches(honest, lambda _: []),
    "reversed": lambda honest: answer_batches(honest, lambda answers: answers[::-1]),
    "texts for numbers": lambda honest: answer_batches(honest, number_by(str)),
    "truth for numbers": lambda honest: answer_batches(honest, number_by(bool)),
    "numbers below zero": lambda honest: answer_batches(honest, number_by(lambda number: -1 - number)),
}


@pytest.fixture
def sites(anvil: AnvilClient) -> Iterator[Sites]:
    bench = AnvilBench(anvil)
    yield Sites(bench)
    bench.close()


def read_as_they_come(sites: Sites, reader: Reader, study: int) -> list[tuple[StudyView, Any, int]]:
    """What a reader sees after each of the first posts, when it expects the block and when it does not."""
    seen = []
    for number, name in enumerate(("ana", "bob", "cyd")):
        sites.post(study, name)
        if number != 1:
            reader.wait(1.0)
        with reader.read_at_one_block():
            seen.append((reader.view(study), reader.read_finished(study, 0), reader.now()))
    return seen


SOON = ["answers all", "no list", "two answers each", "no JSON"]


@pytest.mark.parametrize("kind", [*SOON, *later(*(kind for kind in NODES if kind not in SOON))])
def test_a_reader_sees_the_same_whatever_the_node_answers_together(sites: Sites, anvil: AnvilClient, kind: str) -> None:
    study, network = sites.start(), sites.bench.network  # type: ignore[attr-defined]
    with run_bounded_node(NODES[kind](anvil.url)) as url, Rpc(url) as rpc, Rpc(anvil.url) as plain:
        reader = Reader(rpc, network, confirmations=0, poll=0.02, clock="pending")
        reader.view(study)
        seen = read_as_they_come(sites, reader, study)
        assert [view.open.position if view.open else None for view, _, _ in seen] == [0, 0, 1]
        assert [records is None for _, records, _ in seen] == [True, True, False]
        reference = Reader(plain, network, confirmations=0, poll=0.02, clock="pending")
        assert list(reader.history(None)) == list(reference.history(None))
        assert [len(view.open.posted) if view.open else 0 for view, _, _ in seen] == [1, 2, 0]
        assert all(isinstance(record, Record) for record in seen[-1][1])


def test_an_answer_is_used_once_and_only_for_its_own_request(
    anvil: AnvilClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Rpc(anvil.url) as rpc:
        asked: Counter[str] = Counter()
        call = rpc.call
        monkeypatch.setattr(rpc, "call", lambda method, *params: [asked.update([method]), call(method, *params)][1])
        early = EarlyAnswers(rpc)
        early.prepare([ask_block(0), ("eth_chainId", ())])
        first = early.call("eth_getBlockByNumber", "0x0", False)
        assert asked == {}
        assert early.call("eth_getBlockByNumber", "0x0", True)["hash"] == first["hash"]
        assert early.call("eth_getBlockByNumber", "0x0", False) == first
        assert asked == {"eth_getBlockByNumber": 2}
        early.prepare([])
        early.call("eth_chainId")
        assert asked["eth_chainId"] == 1


def test_a_node_out_of_reach_is_no_missing_answer() -> None:
    with Rpc("http://127.0.0.1:1", timeout=1.0) as rpc, pytest.raises(LedgerUnreachable, match="did not answer"):
        EarlyAnswers(rpc).prepare([ask_block(0)])
