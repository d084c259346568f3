"""The one HTTP client: requests to one server, each answer bounded in size and time.

JSON-RPC to a chain node and the RPC of an IPFS daemon both go through it (docs/decisions/31). It follows no redirect,
asks no proxy, reads no .netrc, and inflates nothing: a secret goes to the server that was named, and to no other.

A connection is kept open for the next request. The server may close it while it is idle; then the request is sent once
more over a new one, so that a request must be one that does no harm twice. Threads do not wait for each other.
"""

from __future__ import annotations

import http.client
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlencode, urlsplit

# What the wire can do wrong: nobody there, silence, a broken connection, or no HTTP.
WIRE_FAULTS = (OSError, http.client.HTTPException)
_PIECE = 1 << 16


class EndlessAnswer(TimeoutError):
    """An answer has begun, and its end does not come in time."""


@dataclass(frozen=True)
class Answer:
    """An answer: its HTTP status and its body."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Waits:
    """How long to wait, in seconds: for a connection, for the next bytes, and for the whole answer."""

    connect: float
    silence: float
    answer: float


class HttpClient:
    """One server at an http(s) address without a path; `headers` go with every request."""

    def __init__(self, url: str, waits: Waits, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self._kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._host, self._port, self._waits = parts.hostname or "", parts.port, waits
        self._headers = dict(headers or {})
        self._idle: list[http.client.HTTPConnection] = []
        weakref.finalize(self, _close_all, self._idle)

    def post(self, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, *, limit: int) -> Answer:
        """The answer to a POST, of which at most `limit` + 1 bytes are read; one of WIRE_FAULTS if there is none."""
        return self._request("POST", path, body, self._headers | dict(headers or {}), limit)

    def get(self, path: str, headers: Mapping[str, str] | None = None, *, limit: int) -> Answer:
        """The answer to a GET, as `post` has it."""
        return self._request("GET", path, None, self._headers | dict(headers or {}), limit)

    def close(self) -> None:
        """Close the idle connections; the next request opens another."""
        _close_all(self._idle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _request(self, verb: str, path: str, body: bytes | None, headers: dict[str, str], limit: int) -> Answer:
        with suppress(IndexError):
            idle = self._idle.pop()
            # Closed by the server while it was idle. A silence is not: it would only last twice as long.
            with suppress(ConnectionError, http.client.HTTPException):
                return self._exchange(idle, verb, path, body, headers, limit)
        return self._exchange(self._connect(), verb, path, body, headers, limit)

    def _connect(self) -> http.client.HTTPConnection:
        connection = self._kind(self._host, self._port, timeout=self._waits.connect)
        connection.connect()
        connection.sock.settimeout(self._waits.silence)
        return connection

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        verb: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        limit: int,
    ) -> Answer:
        try:
            connection.request(verb, path, body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, _read_bounded(response, limit, self._waits.answer))
        except BaseException:
            connection.close()
            raise
        if response.isclosed() and connection.sock is not None:
            self._idle.append(connection)
        else:
            connection.close()
        return answer


def encode_query(path: str, params: Mapping[str, str]) -> str:
    """A path with its parameters."""
    return f"{path}?{urlencode(params)}" if params else path


def _read_bounded(response: http.client.HTTPResponse, limit: int, seconds: float) -> bytes:
    """At most `limit` + 1 bytes; EndlessAnswer if they take longer, IncompleteRead if the connection ends before."""
    deadline = time.monotonic() + seconds
    body = bytearray()
    while len(body) <= limit:
        piece = response.read1(min(_PIECE, limit + 1 - len(body)))
        if not piece:
            break
        body += piece
        if time.monotonic() > deadline:
            raise EndlessAnswer(f"no end of the answer after {seconds:g} s")
    if len(body) <= limit and response.length:
        raise http.client.IncompleteRead(b"", response.length)
    if response.length == 0:
        response.close()  # read1 leaves a finished response open, and the connection could not be used again
    return bytes(body)


def _close_all(connections: list[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()
