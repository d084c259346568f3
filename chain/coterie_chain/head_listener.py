"""Hearing of new blocks from a development node, which tells of them on the port of its requests by WebSocket.

What is heard is a hint when to look, and never believed: who looks asks the node, and makes every check. A node that
tells nothing is looked at from time to time as ever, and nobody has to say which kind of node it is.

    state    event                                              next
    closed   `open`, and the node takes the subscription        open
    closed   `open`, and it does not, or is no WebSocket        closed; the next try is `_RETRY_AFTER` seconds later
    open     a message with the number of a block               open; `listen` returns the number
    open     another message, or silence                        open; `listen` returns None when its time is over
    open     `_MAX_FRAMES` since the last newer block           closed
    open     the connection ends                                closed
"""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from websockets.protocol import Event
    from websockets.sync.client import ClientConnection

_SUBSCRIPTION = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_subscribe", "params": ["newHeads"]})
_RETRY_AFTER, _PATIENCE = 10.0, 2.0
# A message about a block has about 2 kB.
_MAX_MESSAGE, _MAX_DIGITS = 1 << 16, 10
# Frames, of any kind, since the last block that is newer than all before. A node has no reason for as many.
_MAX_FRAMES = 1000


class HeadListener:
    """New blocks of the node at an http address without a password. One thread at a time."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        plain = parts.scheme == "http" and parts.hostname and not (parts.username or parts.query)
        self._address = f"ws://{parts.netloc}{parts.path or '/'}" if plain else ""
        self._connection: ClientConnection | None = None
        self._retry_at, self._opened = 0.0, ExitStack()
        self._highest, self._frames = -1, _Frames()

    def open(self) -> bool:
        """Whether the node tells of its blocks; it is asked to at the first call, and again some time after a fault."""
        if self._connection is None and self._address and time.monotonic() >= self._retry_at:
            self._retry_at = time.monotonic() + _RETRY_AFTER
            self._connection, self._highest = self._subscribe(), -1
        return self._connection is not None

    def listen(self, seconds: float) -> int | None:
        """The number of a block as soon as the node tells of one; None if it does not within so many seconds."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._connection is None:
                time.sleep(left)
                return None
            number = self._read_number(self._connection, left)
            if number is not None:
                if number > self._highest:
                    self._highest, self._frames.count = number, 0
                return number
        return None

    def close(self) -> None:
        """End the connection; `open` makes another."""
        self._connection = None
        self._opened.close()

    def _subscribe(self) -> ClientConnection | None:
        """A connection on which the node tells of its blocks; None if it will not."""
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        self._frames = _Frames()
        with suppress(OSError, ValueError, RecursionError, WebSocketException):
            opening = connect(
                self._address,
                compression=None,
                proxy=None,
                ping_interval=None,
                open_timeout=_PATIENCE,
                close_timeout=_PATIENCE,
                max_size=_MAX_MESSAGE,
                create_connection=_bound_connection(self._frames),
            )
            connection = self._opened.enter_context(opening)
            connection.send(_SUBSCRIPTION)
            answer = json.loads(connection.recv(timeout=_PATIENCE))
            if isinstance(answer, dict) and isinstance(answer.get("result"), str):
                return connection
        self._opened.close()
        return None

    def _read_number(self, connection: ClientConnection, seconds: float) -> int | None:
        from websockets.exceptions import ConnectionClosed

        try:
            return _find_number(connection.recv(timeout=seconds))
        except TimeoutError:
            return None
        except ConnectionClosed:
            self.close()
            return None


@dataclass
class _Frames:
    """How many frames have come since the last newer block."""

    count: int = 0


def _bound_connection(frames: _Frames) -> type[ClientConnection]:
    """A connection that ends itself at a flood: pings, and parts of a message, are seen by nobody else."""
    from websockets.sync.client import ClientConnection

    class BoundedConnection(ClientConnection):
        def process_event(self, event: Event) -> None:
            frames.count += 1
            if frames.count > _MAX_FRAMES:
                self.close_socket()
            else:
                super().process_event(event)

    return BoundedConnection


def _find_number(message: str | bytes) -> int | None:
    """The number of the block that a message is about; None if it is about none."""
    try:
        number = json.loads(message)["params"]["result"]["number"]
        return int(number, 16) if isinstance(number, str) and len(number) <= _MAX_DIGITS else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
