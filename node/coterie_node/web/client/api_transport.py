"""How the client reaches a node's API: a seam with one method, and its twin over the one HTTP client of the house."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic_core import from_json

from coterie_chain.http_client import WIRE_FAULTS, Answer, HttpClient, Waits
from coterie_node.errors import ConfigError, NodeError
from coterie_node.site.config import LOOPBACK_HOSTS

API_PREFIX = "/api/v1"
# A replay computes every server step again before it answers.
_WAITS = Waits(connect=10.0, silence=600.0, answer=900.0)
_MAX_ANSWER_BYTES, MAX_BUNDLE_BYTES = 1 << 26, 1 << 30


class ApiRefused(NodeError):
    """A node's API refused a request; `status` is that of HTTP, `code` one of docs/errors.md."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(code, message)
        self.status = status


class ApiTransport(Protocol):
    """The way to a node's API."""

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str], limit: int) -> Answer:
        """The answer to a request, of which at most `limit` + 1 bytes are read; NodeError (CO-H151) if none comes."""


@dataclass(frozen=True)
class HttpTransport:
    """A node's API at an address."""

    http: HttpClient
    url: str

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str], limit: int) -> Answer:
        """The answer over HTTP."""
        try:
            if method == "GET":
                return self.http.get(f"{API_PREFIX}{path}", headers, limit=limit)
            return self.http.post(f"{API_PREFIX}{path}", body or b"", headers, limit=limit)
        except WIRE_FAULTS as error:
            message = f"The API at {self.url} does not answer: {error}"
            raise NodeError("CO-H151", f"{message}. Check the address, and that the node's page runs.") from None


def open_http(url: str) -> HttpTransport:
    """The way to an address; ConfigError (CO-H153) for one that would send a token in the clear to another machine."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ConfigError("CO-H153", f"{url[:80]!a} is no address of a node. Write https://HOST:PORT.")
    local = parts.hostname in LOOPBACK_HOSTS or parts.hostname.endswith(".localhost")
    if parts.scheme == "http" and not local:
        message = "A token would go to another machine without encryption"
        raise ConfigError("CO-H153", f"{message}. Use https, or a tunnel to this machine.")
    return HttpTransport(HttpClient(url, _WAITS), url)


@dataclass(frozen=True)
class ApiCaller:
    """Requests with a token; each POST has an idempotency key, so that one that is sent twice acts once."""

    transport: ApiTransport
    token: str

    def get(self, path: str) -> Any:
        """The document of an address; ApiRefused if the API refuses."""
        return _parse(self._send("GET", path, None, {}, _MAX_ANSWER_BYTES))

    def post(self, path: str, document: dict[str, Any]) -> Any:
        """The document that an act answers with; ApiRefused if the API refuses."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        return _parse(self._send("POST", path, json.dumps(document).encode(), headers, _MAX_ANSWER_BYTES))

    def download(self, path: str) -> bytes:
        """The bytes of a file."""
        return self._send("GET", path, None, {}, MAX_BUNDLE_BYTES)

    def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str], limit: int) -> bytes:
        whole = {"Authorization": f"Bearer {self.token}", **headers}
        answer = self.transport.send(method, path, body, whole, limit)
        if len(answer.body) > limit:
            raise NodeError("CO-H152", f"The answer to {path} has more than {limit} bytes. Ask the node's people.")
        if answer.status != 200:
            raise _read_problem(answer)
        return answer.body


def _parse(body: bytes) -> Any:
    try:
        return from_json(body)  # it bounds how deep a document is nested
    except ValueError:
        message = "The answer is no document of a node's API"
        raise NodeError("CO-H152", f"{message}. Check the address and the versions of both sides.") from None


def _read_problem(answer: Answer) -> NodeError:
    """The error that a problem document describes."""
    try:
        problem = from_json(answer.body)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, LookupError, TypeError):
        message = f"The server answers with the status {answer.status} and no problem document"
        return NodeError("CO-H152", f"{message}. Check the address: is it a node's page?")
    return ApiRefused(code, detail, answer.status)
