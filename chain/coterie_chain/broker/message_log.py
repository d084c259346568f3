"""What the twin needs of a broker: messages in one order that all its readers share. The Protocol, and its memory twin.

A broker that fans messages out to a queue for each reader gives no such order. A stream does: readers of RabbitMQ's and
of Redis' streams read the one list from its beginning, whenever they come.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition
from typing import Protocol

# A block of a payload has at most 1 MiB; a move on the ledger is far smaller.
MAX_MESSAGE = (1 << 20) + 4096


class MessageLog(Protocol):
    """One reader's place in a list of messages that others append to as well."""

    def append(self, message: bytes) -> None:
        """Append a message of at most MAX_MESSAGE bytes; every reader sees it, this one too."""

    def read(self, seconds: float) -> list[bytes]:
        """The messages since the last call, in their order; waits at most so long for the first."""

    def close(self) -> None:
        """Leave the broker; the messages stay."""


# A log by its name: each call is a reader of its own, which begins with the first message.
OpenLog = Callable[[str], MessageLog]


class MemoryBroker:
    """The memory twin of a broker, for the threads of one process."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.messages: dict[str, list[bytes]] = {}

    def open(self, name: str) -> MessageLog:
        """A reader of the log of this name."""
        return MemoryLog(self, name)


class MemoryLog:
    """A reader of one list of a MemoryBroker."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self._broker, self._name, self._at = broker, name, 0

    def append(self, message: bytes) -> None:
        """Append a message."""
        with self._broker.changed:
            self._broker.messages.setdefault(self._name, []).append(message)
            self._broker.changed.notify_all()

    def read(self, seconds: float) -> list[bytes]:
        """The messages since the last call."""
        with self._broker.changed:
            if seconds > 0:
                self._broker.changed.wait_for(lambda: bool(self._list_new()), seconds)
            new = self._list_new()
            self._at += len(new)
            return new

    def close(self) -> None:
        """Nothing is open."""

    def _list_new(self) -> list[bytes]:
        return self._broker.messages.get(self._name, [])[self._at :]
