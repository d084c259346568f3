"""Callers without a proof of their name: at most so many, each for so long, so that strangers block no peer."""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass

from coterie_node.peers.transport import hang_up


@dataclass(eq=False)
class PendingConnection:
    """A connection from somebody, and until when (monotonic seconds) it may prove itself."""

    connection: socket.socket
    deadline: float

    @property
    def seconds_left(self) -> float:
        """Seconds that are left to it, more than 0."""
        return max(self.deadline - time.monotonic(), 0.001)


class PendingConnections:
    """Callers that wait for their proof; a new one replaces the oldest when all places are taken.

    A peer proves its name within a moment. So strangers block it only if they fill all places with newer callers within
    that moment. To keep a place does not help them.
    """

    def __init__(self, limit: int, seconds: float) -> None:
        self._limit, self._seconds = limit, seconds
        self._lock = threading.Lock()
        self._callers: dict[PendingConnection, None] = {}

    def enter(self, connection: socket.socket) -> PendingConnection:
        """A new caller."""
        caller = PendingConnection(connection, time.monotonic() + self._seconds)
        with self._lock:
            if len(self._callers) >= self._limit:
                oldest = next(iter(self._callers))
                del self._callers[oldest]
                hang_up(oldest.connection)
            self._callers[caller] = None
        return caller

    def leave(self, caller: PendingConnection) -> None:
        """It was let in, or went."""
        with self._lock:
            self._callers.pop(caller, None)
