"""The seam of ways by which notices leave a node, and its twin in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from coterie_node.errors import NodeError
from coterie_node.notices.events import Notice


class SendFailed(NodeError):
    """A way could not take notices now; it is tried again until their time is over."""


class Sender(Protocol):
    """One way: a mail server, or an address."""

    @property
    def name(self) -> str:
        """The way's name in settings, state and log."""

    def send(self, delivery: str, notices: Sequence[Notice]) -> None:
        """Send some notices at once; SendFailed if it cannot. `delivery` is the same for the same notices."""


@dataclass
class MemorySender:
    """Keeps what is sent; `failures` is how often it fails first."""

    name: str = "memory"
    failures: int = 0
    deliveries: list[tuple[Notice, ...]] = field(default_factory=list)

    def send(self, delivery: str, notices: Sequence[Notice]) -> None:
        """Keep some notices, or fail."""
        if self.failures > 0:
            self.failures -= 1
            raise SendFailed("CO-T102", "The way in memory fails, as it was asked to.")
        self.deliveries.append(tuple(notices))
