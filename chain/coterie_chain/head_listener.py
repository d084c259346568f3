"""Hearing of new blocks from a development node, which tells of them on the port of its requests (WebSocket, RFC 6455).

What is heard is a hint when to look, and never believed: who looks asks the node, and makes every check. A node that
tells nothing is looked at from time to time as ever, and nobody has to say which kind of node it is.

Theory of operation. One connection, and one subscription on it. Frames are not taken apart: their bytes are searched
for the number of a block.

    state    event                                              next
    closed   `open`, and the node takes the subscription        open
    closed   `open`, and it does not, or is no WebSocket        closed; the next try is `_RETRY_AFTER` seconds later
    open     bytes with the number of a block                   open; `listen` returns the last number
    open     other bytes, or silence                            open; `listen` returns None when its time is over
    open     the connection ends                                closed
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SUBSCRIPTION = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]}).encode()
_NUMBER = re.compile(rb'"number":\s*"0x([0-9a-fA-F]{1,8})"')
_TAKEN = re.compile(rb'"result":\s*"0x')
_TEXT_FRAME, _MASKED = 0x81, 0x80
_RETRY_AFTER, _PATIENCE = 10.0, 2.0
# Of an answer's head; of what is read at once; of what may hold the beginning of a number.
_MAX_HEAD, _PIECE, _TAIL = 1 << 13, 1 << 16, 64


class HeadListener:
    """New blocks of the node at an http address without a password. One thread at a time."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        plain = parts.scheme == "http" and parts.hostname and not (parts.username or parts.query)
        self._place = (parts.hostname or "", parts.port or 80) if plain else None
        self._path = parts.path or "/"
        self._socket: socket.socket | None = None
        self._rest, self._retry_at = b"", 0.0

    def open(self) -> bool:
        """Whether the node tells of its blocks; it is asked to at the first call, and again some time after a fault."""
        if self._socket is None and self._place is not None and time.monotonic() >= self._retry_at:
            self._retry_at = time.monotonic() + _RETRY_AFTER
            with suppress(OSError, ValueError):
                self._socket = self._subscribe(self._place)
        return self._socket is not None

    def listen(self, seconds: float) -> int | None:
        """The number of a block as soon as the node tells of one; None if it does not within so many seconds."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._socket is None:
                time.sleep(left)
                return None
            number = self._read_number(self._socket, left)
            if number is not None:
                return number
        return None

    def close(self) -> None:
        """End the connection; `open` makes another."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._rest = None, b""

    def _read_number(self, connection: socket.socket, seconds: float) -> int | None:
        connection.settimeout(seconds)
        try:
            piece = connection.recv(_PIECE)
        except TimeoutError:
            return None
        except OSError:
            piece = b""
        if not piece:
            self.close()
            return None
        data = self._rest + piece
        numbers = list(_NUMBER.finditer(data))
        self._rest = data[numbers[-1].end() if numbers else 0 :][-_TAIL:]
        return int(numbers[-1][1], 16) if numbers else None

    def _subscribe(self, place: tuple[str, int]) -> socket.socket:
        """A connection on which the node tells of its blocks; OSError or ValueError if it will not."""
        connection = socket.create_connection(place, _PATIENCE)
        try:
            self._shake_hands(connection, place)
            mask = secrets.token_bytes(4)
            body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(_SUBSCRIPTION))
            connection.sendall(bytes((_TEXT_FRAME, _MASKED | len(body))) + mask + body)
            _read_until(connection, _TAKEN)
        except BaseException:
            connection.close()
            raise
        return connection

    def _shake_hands(self, connection: socket.socket, place: tuple[str, int]) -> None:
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        head = [f"GET {self._path} HTTP/1.1", f"Host: {place[0]}:{place[1]}", "Upgrade: websocket"]
        head += ["Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        connection.sendall("\r\n".join(head).encode("ascii"))
        answer = _read_until(connection, re.compile(rb"\r\n\r\n"))
        accepted = base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest())
        if not answer.startswith(b"HTTP/1.1 101 ") or accepted not in answer:
            raise ValueError("the node takes no WebSocket at this address")


def _read_until(connection: socket.socket, end: re.Pattern[bytes]) -> bytes:
    """What comes until `end` has come; OSError or ValueError if it does not within the patience."""
    data, deadline = b"", time.monotonic() + _PATIENCE
    while not end.search(data):
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = connection.recv(_PIECE)
        data += piece
        if not piece or len(data) > _MAX_HEAD or time.monotonic() > deadline:
            raise ValueError("the node takes no subscription")
    return data
