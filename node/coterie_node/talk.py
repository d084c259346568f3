"""Interactive steps: the parties talk off the ledger while the runner goes on polling.

`Hub` is the memory twin of the parties' channels: queues between all pairs of one process.
"""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable
from typing import Protocol

from coterie_learners.errors import LearnerError, ProtocolError
from coterie_learners.payload import Payload
from coterie_learners.protocol import Channel


class Closable(Channel, Protocol):
    """A channel that its owner closes when the session is over."""

    def close(self) -> None:
        """Say that nothing more comes."""


class Exchange(Protocol):
    """Where a site gets its channel for one session of an interactive step."""

    def channel(self, me: str, session: Hashable) -> Closable:
        """This site's channel to the other parties of a session."""


class Hub:
    """Queues between all parties of one process; a receive that outlasts `seconds` names the silent peer."""

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self._queues: defaultdict[Hashable, queue.Queue[bytes]] = defaultdict(queue.Queue)

    def channel(self, me: str, session: Hashable) -> Closable:
        """One party's end."""
        return HubChannel(self, me, session)

    def between(self, session: Hashable, sender: str, receiver: str) -> queue.Queue[bytes]:
        """The queue of one direction of one pair."""
        return self._queues[session, sender, receiver]


class HubChannel:
    """One party's end of a session in a Hub."""

    def __init__(self, hub: Hub, me: str, session: Hashable) -> None:
        self._hub, self._me, self._session = hub, me, session

    def send(self, to: str, data: bytes) -> None:
        """Send bytes to a party."""
        self._hub.between(self._session, self._me, to).put(data)

    def receive(self, sender: str) -> bytes:
        """Next bytes from a party; ProtocolError names it when it stays silent."""
        try:
            return self._hub.between(self._session, sender, self._me).get(timeout=self._hub.seconds)
        except queue.Empty:
            told = f"{sender} sent nothing to {self._me} within {self._hub.seconds:g} s."
            raise ProtocolError("CO-P601", told, sender) from None

    def close(self) -> None:
        """Nothing to let go."""


class Talk:
    """One party's part of an interactive step, running in a thread of its own; `close` ends its session."""

    def __init__(
        self, session: Hashable, program: Callable[[], Payload], close: Callable[[], None] = lambda: None
    ) -> None:
        self.session = session
        self._program, self._close = program, close
        self._payload: Payload | None = None
        self._error: LearnerError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the parties still talk."""
        return self._thread.is_alive()

    def outcome(self, patience: float = 0.001) -> Payload | None:
        """The opened result, None while the parties still talk; raises what ended the program."""
        self._thread.join(patience)
        if self._thread.is_alive():
            return None
        if self._error is not None:
            raise self._error
        if self._payload is None:
            raise ProtocolError("CO-P603", "This site's part of the interactive step crashed. Its own log says why.")
        return self._payload

    def _run(self) -> None:
        try:
            self._payload = self._program()
        except LearnerError as error:
            self._error = error
        finally:
            self._close()
