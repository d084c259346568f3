"""JSON-RPC to one chain node over a kept-alive HTTP connection.

An address may end in `?jwt_file=PATH`: the file's secret then signs a token for every request, as the authenticated
ports of Ethereum's nodes want it.

The client is one persistent httpx connection: a waiting site asks a hundred times a second.
Every fault of the wire is a LedgerUnreachable that names the node by scheme, host and port only: the rest of an address
may be a secret.
"""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit

import httpx
from pydantic_core import from_json

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ethereum.jwt import create_bearer_token, split_secret

Request = tuple[str, Sequence[object]]

_MAX_ANSWER_BYTES = 1 << 28
FAULTS = (OSError, httpx.HTTPError, httpx.InvalidURL)
_UNAUTHORIZED = 401
# Seconds for a whole answer that goes on coming: a long history over a slow line.
_WHOLE_ANSWER_SECONDS = 120.0


class NodeRefused(LedgerUnreachable):
    """The node answered with a JSON-RPC error: `reason` as it put it, `data` of a revert in hex."""

    def __init__(self, where: str, method: str, reason: str, data: str | None = None) -> None:
        super().__init__("CO-C302", f"The chain node {where} refused {method}: {reason}. Read the node's own log.")
        self.reason = reason
        self.data = data


class Rpc:
    """A node at an http(s) address; `timeout` in seconds for each request. Threads take turns."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LedgerUnreachable("CO-C303", "The chain node's address must read http://host:port (or https).")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self.where = f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")
        query, self._secret = split_secret(parts.query)
        self._url = f"{self.where}{parts.path or '/'}" + (f"?{query}" if query else "")
        self._timeout = timeout
        self._auth = _read_password(parts)
        self._http: httpx.Client | None = None
        self._lock = threading.Lock()

    def call(self, method: str, *params: object) -> Any:
        """Answer to one request."""
        answer = self._post({"jsonrpc": "2.0", "id": 0, "method": method, "params": params})
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
        """Answers to requests that do not depend on each other, in their order."""
        if not requests:
            return []
        body = [{"jsonrpc": "2.0", "id": i, "method": m, "params": p} for i, (m, p) in enumerate(requests)]
        answers = self._post(body)
        if not isinstance(answers, list) or not all(isinstance(a, dict) for a in answers):
            raise self.explain_garbled("a batch")
        by_id = {a.get("id"): a for a in answers}
        return [self._take_result(m, by_id.get(i, {})) for i, (m, _) in enumerate(requests)]

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        with self._lock:
            self._drop()

    def explain_garbled(self, method: str) -> LedgerUnreachable:
        """The fault of an answer that makes no sense."""
        return LedgerUnreachable(
            "CO-C303", f"{self.where} did not answer {method} with JSON-RPC. Does the address name a chain node?"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _post(self, body: object) -> Any:
        raw = json.dumps(body).encode()
        with self._lock:
            try:
                status, answer = self._exchange(raw)
            except FAULTS as e:
                self._drop()
                raise self._explain_silence(e) from e
        if status == _UNAUTHORIZED:
            raise self._explain_locked()
        try:
            return from_json(answer)
        except ValueError:
            raise self.explain_garbled(f"a request (HTTP status {status})") from None

    def _exchange(self, raw: bytes) -> tuple[int, bytes]:
        reused = self._http is not None
        try:
            return self._send(raw)
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            # The node may have closed an idle connection. Asking twice does no harm: the same signed bytes or a read.
            self._drop()
            if not reused:
                raise
            return self._send(raw)

    def _send(self, raw: bytes) -> tuple[int, bytes]:
        token = {"Authorization": f"Bearer {create_bearer_token(self._secret)}"} if self._secret else {}
        deadline = time.monotonic() + max(self._timeout, _WHOLE_ANSWER_SECONDS)
        with self._connect().stream("POST", self._url, content=raw, headers=token) as response:
            return response.status_code, _read_bounded(response, deadline)

    def _connect(self) -> httpx.Client:
        if self._http is None:
            # trust_env: no proxy and no .netrc of the environment may see the requests or replace the password.
            self._http = httpx.Client(
                headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
                auth=self._auth,
                timeout=self._timeout,
                trust_env=False,
                verify=self._url.startswith("https:"),
            )
            weakref.finalize(self, self._http.close)
        return self._http

    def _drop(self) -> None:
        client, self._http = self._http, None
        if client is not None:
            client.close()

    def _take_result(self, method: str, answer: dict[str, Any]) -> Any:
        error = answer.get("error")
        if error is not None:
            raise _explain_refusal(self.where, method, error)
        if "result" not in answer:
            raise self.explain_garbled(method)
        return answer["result"]

    def _explain_locked(self) -> LedgerUnreachable:
        cure = "Name its token file in the address: ?jwt_file=PATH"
        if self._secret:
            cure = "Is jwt_file the token file of this very chain node, and are the clocks within a minute?"
        return LedgerUnreachable(
            "CO-C303", f"The chain node {self.where} does not let this node in (HTTP status 401). {cure}"
        )

    def _explain_silence(self, error: Exception) -> LedgerUnreachable:
        cause = str(error) or type(error).__name__
        return LedgerUnreachable(
            "CO-C301", f"The chain node {self.where} does not answer: {cause}. Is it running, and is the network up?"
        )


def read_newest_block(url: str) -> dict[str, int]:
    """The number of a node's newest block as `{"block": number}`; nothing if it does not answer."""
    try:
        with Rpc(url, timeout=2.0) as rpc:
            return {"block": rpc.call_quantity("eth_blockNumber")}
    except LedgerUnreachable:
        return {}


def _read_bounded(response: httpx.Response, deadline: float) -> bytes:
    """The whole answer, if it is not too large and comes in time; its bytes as they are on the wire."""
    answer = bytearray()
    for chunk in response.iter_raw():
        answer += chunk
        if len(answer) > _MAX_ANSWER_BYTES:
            raise httpx.DecodingError(f"an answer of more than {_MAX_ANSWER_BYTES} bytes")
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer did not end in time")
    return bytes(answer)


def _read_password(parts: SplitResult) -> tuple[str, str] | None:
    return None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))


def _explain_refusal(where: str, method: str, error: object) -> NodeRefused:
    if not isinstance(error, dict):
        return NodeRefused(where, method, str(error))
    data = error.get("data")
    output = data if isinstance(data, str) and data.startswith("0x") else None
    return NodeRefused(where, method, str(error.get("message", error)), output)
