"""A chain node that bounds what it takes and answers, as Geth does; and one whose logs take much room."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from support.chain.http_answers import serve_answers

# More than a reader takes of one page of logs.
PADDING = b" " * ((1 << 25) + 1)


def ask(honest: str, body: bytes) -> Any:
    request = urllib.request.Request(honest, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.loads(response.read())


def bound_batches(honest: str, most_requests: int, most_bytes: int) -> Callable[[bytes], bytes]:
    """Geth's rules: too many requests get one refusal, and what comes after too many bytes is refused one by one."""

    def answer(body: bytes) -> bytes:
        asked, answers = json.loads(body), ask(honest, body)
        if not isinstance(asked, list):
            return json.dumps(answers).encode()
        if len(asked) > most_requests:
            return json.dumps([refuse(asked[0]["id"], -32600, "batch too large")]).encode()
        taken, size = [], 0
        for item in answers:
            taken.append(item if size <= most_bytes else refuse(item["id"], -32003, "response too large"))
            size += len(json.dumps(item))
        return json.dumps(taken).encode()

    return answer


def refuse(number: int, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}


def pad_logs(honest: str, most_blocks: int) -> Callable[[bytes], bytes]:
    """Logs of more blocks than so many take more bytes than a reader takes."""

    def answer(body: bytes) -> bytes:
        asked, answers = json.loads(body), ask(honest, body)
        raw = json.dumps(answers).encode()
        if not isinstance(asked, dict) or asked["method"] != "eth_getLogs":
            return raw
        (wanted,) = asked["params"]
        blocks = int(wanted["toBlock"], 16) - int(wanted["fromBlock"], 16) + 1
        return raw if blocks <= most_blocks else PADDING + raw

    return answer


@contextmanager
def run_bounded_node(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """The node's address."""
    with serve_answers(answer) as url:
        yield url
