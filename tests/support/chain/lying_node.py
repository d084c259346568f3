"""A chain node that lies: it passes requests on to an honest one, and changes what comes back."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from support.chain.http_answers import serve_answers

Lie = Callable[[str, Any], Any]


def tell_truth(method: str, result: Any) -> Any:
    return result


def pass_on(answer: bytes) -> bytes:
    return answer


@dataclass
class LyingNode:
    """`lie` changes the result of a method; `garble` the bytes of a whole answer."""

    honest: str
    url: str = ""
    lie: Lie = tell_truth
    garble: Callable[[bytes], bytes] = pass_on

    def answer(self, body: bytes) -> bytes:
        request = urllib.request.Request(self.honest, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as response:
            answers = json.loads(response.read())
        asked = json.loads(body)
        methods = {a["id"]: a["method"] for a in (asked if isinstance(asked, list) else [asked])}
        for answer in answers if isinstance(answers, list) else [answers]:
            if "result" in answer:
                answer["result"] = self.lie(methods[answer["id"]], answer["result"])
        return self.garble(json.dumps(answers).encode())


@contextmanager
def run_lying_node(honest: str) -> Iterator[LyingNode]:
    """A lying node in front of an honest one; it tells the truth until it is asked to lie."""
    node = LyingNode(honest)
    with serve_answers(node.answer) as node.url:
        yield node
