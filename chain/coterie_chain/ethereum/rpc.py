"""JSON-RPC to one chain node over a kept-alive HTTP connection.

An address may end in `?jwt_file=PATH`: the file's secret then signs a token for every request, as the authenticated
ports of Ethereum's nodes want it.

Every fault of the wire is a LedgerUnreachable that names the node by scheme, host and port only: the rest of an address
may be a secret.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic_core import from_json

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ethereum.answers import MAX_ANSWER_BYTES, has_form, is_readable, limit_answer
from coterie_chain.ethereum.jwt import create_bearer_token, split_secret
from coterie_chain.http_client import WIRE_FAULTS, EndlessAnswer, HttpClient, Waits

Request = tuple[str, Sequence[object]]

# Fewer than any node refuses (Geth takes 1,000, and answers with 25 MB).
MAX_BATCH = 100
# A long answer, such as the logs of many blocks, may take so many times the limit of a silence. A short answer may take
# it once, and so may the answers to so few requests.
_ANSWER_FACTOR, _SHORT_ANSWER, _SHORT_BATCH = 12, 1 << 22, 8
# Letters of a node's own words that an error quotes.
_MAX_REASON = 500


class ChainNode(Protocol):
    """What readers ask of a chain node."""

    @property
    def where(self) -> str:
        """The node by scheme, host and port."""

    def call(self, method: str, *params: object) -> Any:
        """Answer to one request."""

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Answers to requests that do not depend on each other, in their order."""

    def explain_garbled(self, method: str) -> LedgerUnreachable:
        """The fault of an answer that makes no sense."""


class NodeRefused(LedgerUnreachable):
    """The node answered with a JSON-RPC error: `reason` as it put it, `data` of a revert in hex."""

    def __init__(self, where: str, method: str, reason: str, data: str | None = None) -> None:
        super().__init__("CO-C302", f"The chain node {where} refused {method}: {reason}. Read the node's own log.")
        self.reason = reason
        self.data = data


class AnswerTooLong(LedgerUnreachable):
    """An answer has more bytes than are read, or takes longer than is waited for: less must be asked at a time."""


class Rpc:
    """A node at an http(s) address; `timeout` in seconds of silence for each request."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        parts = _split_address(url)
        self._where = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        query, self._secret = split_secret(parts.query)
        self._path = (parts.path or "/") + (f"?{query}" if query else "")
        self._headers = {"Content-Type": "application/json"} | _build_authorization(parts)
        self._timeout = timeout
        self._http = HttpClient(url, Waits(timeout, timeout, _ANSWER_FACTOR * timeout))

    @property
    def where(self) -> str:
        """The node by scheme, host and port."""
        return self._where

    def call(self, method: str, *params: object) -> Any:
        """Answer to one request; AnswerTooLong if it has more bytes than are read."""
        limit = limit_answer(method, params)
        within = self._timeout if limit <= _SHORT_ANSWER else None
        answer = self._post({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}, limit, within)
        if not isinstance(answer, dict):
            raise self.explain_garbled(method)
        return self._take_result(method, answer)

    def call_quantity(self, method: str, *params: object) -> int:
        """A number that the node answers."""
        answer = self.call(method, *params)
        try:
            return int(answer, 16)
        except (TypeError, ValueError):
            raise self.explain_garbled(method) from None

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Answers to requests that do not depend on each other, in their order.

        A node bounds how many it takes at once, and how long its answer may be: what it does not answer as a whole is
        asked for again by halves, in the end one by one. A member that fills blocks makes answers long.
        """
        parts = [requests[at : at + MAX_BATCH] for at in range(0, len(requests), MAX_BATCH)]
        return [answer for part in parts for answer in self._ask_together(part)]

    def _ask_together(self, requests: Sequence[Request]) -> list[Any]:
        try:
            return self._exchange(requests)
        except (NodeRefused, AnswerTooLong, _AnswerMissing, _NoBatch) as fault:
            if len(requests) == 1 and isinstance(fault, (_NoBatch, _AnswerMissing)):
                ((method, params),) = requests
                return [self.call(method, *params)]
            if len(requests) == 1:
                raise
        middle = len(requests) // 2
        return self._ask_together(requests[:middle]) + self._ask_together(requests[middle:])

    def batch_early(self, requests: Sequence[Request]) -> dict[int, Any]:
        """Answers by the places of their requests, in one exchange; what the node does not answer well is left out.

        LedgerUnreachable only if the node is out of reach. At most MAX_BATCH requests.
        """
        try:
            by_id = self._post_batch(requests, self._timeout)
        except (AnswerTooLong, _NoBatch):
            return {}
        answers = {}
        for place, (method, _) in enumerate(requests):
            with suppress(LedgerUnreachable):
                answers[place] = self._take_result(method, by_id.get(place, {}))
        return answers

    def _post_batch(self, requests: Sequence[Request], within: float) -> dict[int, dict[str, Any]]:
        """The answers of one exchange by the places of their requests, as the node gave them.

        A request with two answers has none: nobody can say which is the right one.
        """
        body = [{"jsonrpc": "2.0", "id": i, "method": m, "params": p} for i, (m, p) in enumerate(requests)]
        limit = min(sum(limit_answer(m, p) for m, p in requests), MAX_ANSWER_BYTES)
        try:
            answers = self._post(body, limit, within)
        except _Garbled as fault:
            # A node, or a proxy before it, that takes no batches answers so.
            raise _NoBatch(fault.code, fault.message) from None
        if not isinstance(answers, list) or not all(isinstance(a, dict) for a in answers):
            garbled = self.explain_garbled("a batch")
            raise _NoBatch(garbled.code, garbled.message)
        known = [a for a in answers if type(a.get("id")) is int]
        times = Counter(a["id"] for a in known)
        return {a["id"]: a for a in known if times[a["id"]] == 1}

    def _exchange(self, requests: Sequence[Request]) -> list[Any]:
        parts = min(max(len(requests) / _SHORT_BATCH, 1), _ANSWER_FACTOR)
        by_id = self._post_batch(requests, parts * self._timeout)
        if any(place not in by_id for place in range(len(requests))):
            fault = self.explain_garbled("each request of a batch")
            raise _AnswerMissing(fault.code, fault.message)
        return [self._take_result(m, by_id[i]) for i, (m, _) in enumerate(requests)]

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._http.close()

    def explain_garbled(self, method: str) -> LedgerUnreachable:
        """The fault of an answer that makes no sense."""
        return _Garbled(
            "CO-C303", f"{self.where} did not answer {method} with JSON-RPC. Check that the address names a chain node."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _post(self, body: object, limit: int = MAX_ANSWER_BYTES, within: float | None = None) -> Any:
        fresh = {"Authorization": f"Bearer {create_bearer_token(self._secret)}"} if self._secret else {}
        raw = json.dumps(body).encode()
        try:
            # Asking twice does no harm: the same signed bytes or a read.
            answer = self._http.post(self._path, raw, self._headers | fresh, limit=limit, within=within)
        except EndlessAnswer as e:
            raise AnswerTooLong("CO-C301", self._describe_silence(str(e))) from e
        except WIRE_FAULTS as e:
            raise self._explain_silence(str(e) or type(e).__name__) from e
        if len(answer.body) > limit:
            raise self._explain_length(f"more than {limit} bytes")
        if not is_readable(answer.body):
            raise self._explain_length(f"{len(answer.body)} bytes of more parts than an answer has")
        if answer.status == HTTPStatus.UNAUTHORIZED:
            raise self._explain_locked()
        try:
            return from_json(answer.body)
        except ValueError:
            raise self.explain_garbled(f"a request (HTTP status {answer.status})") from None

    def _take_result(self, method: str, answer: dict[str, Any]) -> Any:
        error = answer.get("error")
        if error is not None:
            raise _explain_refusal(self.where, method, error)
        if "result" not in answer or not has_form(method, answer["result"]):
            raise self.explain_garbled(method)
        return answer["result"]

    def _explain_locked(self) -> LedgerUnreachable:
        cure = "Name its token file in the address: ?jwt_file=PATH"
        if self._secret:
            cure = "Is jwt_file the token file of this very chain node, and are the clocks within a minute?"
        return LedgerUnreachable(
            "CO-C303", f"The chain node {self.where} does not let this node in (HTTP status 401). {cure}"
        )

    def _explain_silence(self, cause: str) -> LedgerUnreachable:
        return LedgerUnreachable("CO-C301", self._describe_silence(cause))

    def _explain_length(self, size: str) -> AnswerTooLong:
        message = f"The chain node {self.where} sent {size}, which is more than was asked for"
        return AnswerTooLong("CO-C303", f"{message}. Check that the address names a chain node, or read its log.")

    def _describe_silence(self, cause: str) -> str:
        return f"The chain node {self.where} did not answer: {cause}. Check that it runs and that the network is up."


class _Garbled(LedgerUnreachable):
    """An answer is no JSON-RPC, or none that its method has."""


class _AnswerMissing(LedgerUnreachable):
    """A batch has fewer answers than requests."""


class _NoBatch(LedgerUnreachable):
    """A batch was not answered with a list."""


class EarlyAnswers:
    """A chain node whose answers are requested together before they are needed: a look is then one exchange.

    Each early answer is used once, by the same request. Whatever the node does not answer early is asked for when it is
    needed, with the faults that this has. One thread at a time.
    """

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._answers: dict[str, Any] = {}

    @property
    def where(self) -> str:
        """The node by scheme, host and port."""
        return self._rpc.where

    def prepare(self, requests: Sequence[Request]) -> None:
        """Ask for what will be needed; what was asked for before and not used is dropped."""
        self._answers.clear()
        self.add(requests)

    def add(self, requests: Sequence[Request]) -> None:
        """Ask for more."""
        if requests:
            answers = self._rpc.batch_early(requests)
            self._answers |= {_identify(requests[place]): answer for place, answer in answers.items()}

    def find_number(self, which: str) -> int | None:
        """The number of a block that was asked for by this name; None without an answer."""
        block = self._answers.get(_identify(("eth_getBlockByNumber", (which, False))))
        return None if block is None or block.get("number") is None else int(block["number"], 16)

    def call(self, method: str, *params: object) -> Any:
        """Answer to one request."""
        key = _identify((method, params)) if self._answers else ""
        return self._answers.pop(key) if key in self._answers else self._rpc.call(method, *params)

    def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Answers to requests that do not depend on each other, in their order."""
        keys = [_identify(request) for request in requests] if self._answers else []
        if keys and all(key in self._answers for key in keys):
            return [self._answers.pop(key) for key in keys]
        return self._rpc.batch(requests)

    def explain_garbled(self, method: str) -> LedgerUnreachable:
        """The fault of an answer that makes no sense."""
        return self._rpc.explain_garbled(method)


def _identify(request: Request) -> str:
    """The same text for the same request."""
    method, params = request
    return json.dumps([method, params])


def read_newest_block(url: str) -> dict[str, int]:
    """The number of a node's newest block as `{"block": number}`; nothing if it does not answer."""
    try:
        with Rpc(url, timeout=2.0) as rpc:
            return {"block": rpc.call_quantity("eth_blockNumber")}
    except LedgerUnreachable:
        return {}


def _split_address(url: str) -> SplitResult:
    with suppress(ValueError):  # a port that is no number, or brackets without an end
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    raise LedgerUnreachable("CO-C303", "The chain node's address must read http://host:port (or https). Correct it.")


def _build_authorization(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _explain_refusal(where: str, method: str, error: object) -> NodeRefused:
    if not isinstance(error, dict):
        return NodeRefused(where, method, _shorten(error))
    data = error.get("data")
    output = data if isinstance(data, str) and data.startswith("0x") else None
    return NodeRefused(where, method, _shorten(error.get("message", error)), output)


def _shorten(reason: object) -> str:
    """A node's reason as one line of a log: printable, and not longer than a person reads."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(reason)[: _MAX_REASON + 1])
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}..."
