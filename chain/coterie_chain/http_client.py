"""The one HTTP client: requests to one server, each answer bounded in size and time.

JSON-RPC to a chain node and the RPC of an IPFS daemon both go through it (docs/decisions/31). It follows no redirect,
asks no proxy, reads no .netrc, and inflates nothing: a secret goes to the server that was named, and to no other.

A connection is kept open for the next request. The server may close it while it is idle; then the request is sent once
more over a new one, so that a request must be one that does no harm twice. Threads do not wait for each other.

Connections, bodies and the rules of HTTP are the standard library's. The head of a request is written, and that of an
answer is read, without its parser of mails: it takes ten times as long as all the rest, and a round has many requests.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from types import TracebackType
from typing import Any, BinaryIO, Self, cast
from urllib.parse import urlencode, urlsplit

# What the wire can do wrong: nobody there, silence, a broken connection, or no HTTP.
WIRE_FAULTS = (OSError, http.client.HTTPException)
_PIECE = 1 << 16
# Those of http.client.
_MAX_LINE, _MAX_HEADERS = 1 << 16, 100
# Heads that only say that another follows, and digits of a body's length.
_MAX_CONTINUES, _MAX_DIGITS = 10, 18
# Characters that would end a path or a header's value.
_PATH_ENDS, _LINE_ENDS = re.compile(r"[^\x21-\x7e]"), re.compile(r"[\r\n]")


# A host and a port, the seconds to wait, and the address to call from.
Dial = Callable[[tuple[str, int], float, tuple[str, int] | None], socket.socket]


class EndlessAnswer(TimeoutError):
    """An answer has begun, and its end does not come in time."""


@dataclass(frozen=True)
class Answer:
    """An answer: its HTTP status and its body."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Waits:
    """How long to wait, in seconds: for a connection, for the next bytes, and for a whole head and a whole body."""

    connect: float
    silence: float
    answer: float


class HttpClient:
    """One server at an http(s) address without a path; `headers` go with every request.

    `dial` opens a connection to a host and a port, for callers who judge where it goes.
    """

    def __init__(
        self, url: str, waits: Waits, headers: Mapping[str, str] | None = None, dial: Dial | None = None
    ) -> None:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        self._kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._host, self._port, self._waits, self._dial = parts.hostname or "", parts.port, waits, dial
        self._headers = dict(headers or {})
        self._idle: list[http.client.HTTPConnection] = []
        weakref.finalize(self, _close_all, self._idle)

    def post(
        self,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        limit: int,
        within: float | None = None,
    ) -> Answer:
        """The answer to a POST, of which at most `limit` + 1 bytes are read; one of WIRE_FAULTS if there is none.

        `within`: seconds for its head and for its body, if other than this client's.
        """
        return self._request("POST", path, body, self._headers | dict(headers or {}), limit, within)

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

    def _request(
        self,
        verb: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        limit: int,
        within: float | None = None,
    ) -> Answer:
        waits = self._waits if within is None else replace(self._waits, answer=within)
        with suppress(IndexError):
            idle = self._idle.pop()
            # Closed by the server while it was idle. A silence is not: it would only last twice as long.
            with suppress(ConnectionError, http.client.HTTPException):
                return self._exchange(idle, verb, path, body, headers, limit, waits)
        return self._exchange(self._connect(), verb, path, body, headers, limit, waits)

    def _connect(self) -> http.client.HTTPConnection:
        connection = self._kind(self._host, self._port, timeout=self._waits.connect)
        if self._dial is not None:
            # The standard library's own seam; TLS still checks the host's name.
            vars(connection)["_create_connection"] = self._dial
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
        waits: Waits,
    ) -> Answer:
        try:
            _send(connection, verb, path, body, headers)
            timed = _TimedSocket(connection.sock, waits)
            with closing(_Response(cast("socket.socket", timed), method=verb)) as response:
                response.begin()
                timed.begin()
                answer = Answer(response.status, _read_bounded(response, limit))
                stays = response.isclosed() and not response.will_close
        except BaseException:
            connection.close()
            raise
        if stays:
            self._idle.append(connection)
        else:
            connection.close()
        return answer


class _TimedSocket(io.RawIOBase):
    """What a socket receives while a head or a body may take: one byte a time would else be waited for without end.

    An answer has lines too (head, sizes of chunks), and a line is read to its end however slowly it comes.
    """

    def __init__(self, sock: socket.socket, waits: Waits) -> None:
        super().__init__()
        self._sock, self._waits = sock, waits
        self._raw = sock.makefile("rb", buffering=0)
        self.begin()

    def begin(self) -> None:
        """Let the time begin."""
        self._deadline = time.monotonic() + self._waits.answer

    def makefile(self, mode: str) -> BinaryIO:
        """The stream that the standard library's answer reads."""
        return cast("BinaryIO", io.BufferedReader(self))

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Receive; EndlessAnswer if the time is over, TimeoutError for a silence."""
        left = self._deadline - time.monotonic()
        if left > 0:
            self._sock.settimeout(min(self._waits.silence, left))
            try:
                return self._raw.readinto(buffer)
            except TimeoutError:
                if left >= self._waits.silence:
                    raise
        raise EndlessAnswer(f"no end of the answer after {self._waits.answer:g} s")

    def close(self) -> None:
        """Let the socket go, which stays open for the next request."""
        if not self.closed:
            self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer whose head is read line by line; the body is read as ever."""

    def begin(self) -> None:
        """Read the head; one of WIRE_FAULTS if it has another form."""
        version, status = _read_status(self.fp)
        for _ in range(_MAX_CONTINUES):
            if status != HTTPStatus.CONTINUE:
                break
            _read_headers(self.fp)
            version, status = _read_status(self.fp)
        else:
            raise http.client.HTTPException(f"got more than {_MAX_CONTINUES} heads without an answer")
        self.code = self.status = status
        self.version = 10 if version == "HTTP/1.0" else 11
        headers = _read_headers(self.fp)
        self.chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        length = headers.get("content-length", "")
        if len(length) > _MAX_DIGITS:
            raise http.client.HTTPException(f"the length of the answer has {len(length)} digits")
        known = length.isascii() and length.isdecimal() and not self.chunked
        self.length = int(length) if known else None
        if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            self.length = 0
        # A body that nothing bounds ends with the connection.
        asks_to_close = self.version == 10 or "close" in headers.get("connection", "").lower()
        self.will_close = asks_to_close or not (self.chunked or self.length is not None)


def _read_status(stream: BinaryIO) -> tuple[str, int]:
    """The first line of a head: the version of HTTP, and the status."""
    line = stream.readline(_MAX_LINE + 1)
    if len(line) > _MAX_LINE:
        raise http.client.LineTooLong("status line")
    if not line:
        raise http.client.RemoteDisconnected("the other end closed the connection without an answer")
    version, _, rest = line.decode("iso-8859-1").partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not (status.isascii() and status.isdecimal() and len(status) == 3):
        raise http.client.BadStatusLine(repr(line[:80]))
    return version, int(status)


def _read_headers(stream: BinaryIO) -> dict[str, str]:
    """The fields of a head by their names in small letters; of a name that comes twice the first."""
    fields: dict[str, str] = {}
    for _ in range(_MAX_HEADERS + 1):
        line = stream.readline(_MAX_LINE + 1)
        if len(line) > _MAX_LINE:
            raise http.client.LineTooLong("header line")
        if line in (b"\r\n", b"\n", b""):
            return fields
        name, _, value = line.decode("iso-8859-1").partition(":")
        fields.setdefault(name.lower(), value.strip())
    raise http.client.HTTPException(f"got more than {_MAX_HEADERS} headers")


def _send(
    connection: http.client.HTTPConnection, verb: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> None:
    """Send a request; InvalidURL or ValueError for a path or a header that would say more than itself."""
    if _PATH_ENDS.search(path):
        raise http.client.InvalidURL("the address has a character that no path may have")
    own = {"Host": _name_host(connection), "Accept-Encoding": "identity"}
    length = {} if body is None else {"Content-Length": str(len(body))}
    lines = [f"{name}: {value}" for name, value in (own | length | dict(headers)).items()]
    if any(_LINE_ENDS.search(line) for line in lines):
        raise ValueError("a header has a line break")
    head = "\r\n".join([f"{verb} {path} HTTP/1.1", *lines, "", ""]).encode("iso-8859-1")
    # One packet for what fits into it.
    connection.sock.sendall(head + body if body is not None and len(body) < _PIECE else head)
    if body is not None and len(body) >= _PIECE:
        connection.sock.sendall(body)


def _name_host(connection: http.client.HTTPConnection) -> str:
    host = f"[{connection.host}]" if ":" in connection.host else connection.host
    return host if connection.port == connection.default_port else f"{host}:{connection.port}"


def encode_query(path: str, params: Mapping[str, str]) -> str:
    """A path with its parameters."""
    return f"{path}?{urlencode(params)}" if params else path


def _read_bounded(response: http.client.HTTPResponse, limit: int) -> bytes:
    """At most `limit` + 1 bytes; IncompleteRead if the connection ends before."""
    body = bytearray()
    while len(body) <= limit:
        piece = response.read1(min(_PIECE, limit + 1 - len(body)))
        if not piece:
            break
        body += piece
    if len(body) <= limit and response.length:
        raise http.client.IncompleteRead(b"", response.length)
    if response.length == 0:
        response.close()  # read1 leaves a finished response open, and the connection could not be used again
    return bytes(body)


def _close_all(connections: list[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()
