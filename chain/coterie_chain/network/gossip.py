"""Short messages to all stores of the private swarm, over Kubo's publish and subscribe.

They are for what may be lost: nobody keeps a message, and who does not listen at that moment misses it. A store passes
on what any of its peers says, so that a reader believes no message that is not signed, and bounds how much it reads.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Protocol

from pydantic_core import from_json

from coterie_chain.errors import ChainError
from coterie_chain.store.kubo import KuboBlobs

# The most messages while listening once: an honest network sends fewer.
MAX_MESSAGES, MAX_HEARD_BYTES = 1000, 1 << 20


class Gossip(Protocol):
    """A room in which all sites hear each other."""

    def publish(self, message: bytes) -> None:
        """Send a message to who listens now; ChainError where the store does not take it."""

    def listen(self, seconds: float) -> Sequence[bytes]:
        """The messages of so many seconds; ChainError where the store does not listen."""


class KuboGossip:
    """The room of a topic in the swarm of a site's own Kubo."""

    def __init__(self, store: KuboBlobs, topic: str) -> None:
        self._store = store
        # multibase: base64url without padding
        self._topic = "u" + base64.urlsafe_b64encode(topic.encode()).decode().rstrip("=")

    def publish(self, message: bytes) -> None:
        """Send a message."""
        self._store.publish(self._topic, message)

    def listen(self, seconds: float) -> Sequence[bytes]:
        """The messages of so many seconds."""
        body = self._store.subscribe(self._topic, seconds, MAX_HEARD_BYTES)
        return list(_read_messages(body[:MAX_HEARD_BYTES]))


class MemoryGossip:
    """The memory twin: a room of one process, in which each site has its own ear."""

    def __init__(self) -> None:
        self.ears: list[MemoryEar] = []

    def open_ear(self) -> MemoryEar:
        """A site's end of the room."""
        self.ears.append(MemoryEar(self))
        return self.ears[-1]


class MemoryEar:
    """One site's end of a room in memory; a fault is raised instead of what it should do."""

    def __init__(self, room: MemoryGossip) -> None:
        self._room, self.heard = room, list[bytes]()
        self.fault: ChainError | None = None

    def publish(self, message: bytes) -> None:
        """Send a message to all ears but this one."""
        if self.fault is not None:
            raise self.fault
        for ear in self._room.ears:
            if ear is not self:
                ear.heard.append(message)

    def listen(self, seconds: float) -> Sequence[bytes]:
        """What came since the last time."""
        if self.fault is not None:
            raise self.fault
        heard, self.heard = self.heard, []
        return heard


def _read_messages(body: bytes) -> Iterator[bytes]:
    """The messages in lines of JSON; a line of another form, as the last one may be, is left out."""
    for line in body.split(b"\n")[:MAX_MESSAGES]:
        try:
            data = str(from_json(line)["data"])
            if data.startswith("u"):
                yield base64.urlsafe_b64decode(data[1:] + "=" * (-(len(data) - 1) % 4))
        except (ValueError, KeyError, TypeError, binascii.Error):
            continue
