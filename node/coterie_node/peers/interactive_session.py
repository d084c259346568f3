"""Interactive steps: the parties talk off the ledger while the runner goes on polling.

An `InteractiveStep` runs in a thread of its own, because the runner must go on to read the ledger. Its states:

    state       event                                  next
    connecting  a party is missing after 2 s           connecting: `missing_parties` names it, and it calls again
    connecting  all parties are there                  computing: the program runs
    connecting  `end`, because the step is over        ended, without a result
    computing   the program returns                    ended, with the result
    computing   a party leaves, is silent or deviates  ended, with the error that names it

Invariants. Nothing of the rows is sent while connecting, so a late party costs time and nothing else. A step that
computes never connects again: it ends, and the ledger decides what follows. The thread writes its result before it
ends, and the runner reads the result only after that.

`MemoryTransport` is the memory twin of the parties' channels: queues between all pairs of one process.
"""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from coterie_chain.errors import ChainError
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Channel
from coterie_learners.errors import LearnerError, SessionLost

# How long parties wait for each other before they look whether the step is still open.
MEET_SECONDS = 2.0


class SessionChannel(Channel, Protocol):
    """A channel that first connects to the other parties; its owner closes it when the session is over."""

    def connect(self, seconds: float) -> tuple[str, ...]:
        """Wait for the other parties; returns those absent after `seconds`; none once each knows that all are there."""

    def close(self) -> None:
        """Say that nothing more comes."""

    def abandon(self) -> None:
        """Break the session off, from another thread than the one that talks."""


class Exchange(Protocol):
    """The source of a site's channel for one session of an interactive step."""

    def channel(self, me: str, session: Hashable, parties: Sequence[str]) -> SessionChannel:
        """This site's channel to the other parties of a session."""


class MemoryTransport:
    """Queues between all parties of one process; a receive that outlasts `seconds` names the silent peer."""

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self._queues: defaultdict[Hashable, queue.Queue[bytes]] = defaultdict(queue.Queue)
        self._there: defaultdict[Hashable, set[str]] = defaultdict(set)
        self._news = threading.Condition()

    def channel(self, me: str, session: Hashable, parties: Sequence[str]) -> SessionChannel:
        """One party's end."""
        with self._news:
            self._there[session].add(me)
            self._news.notify_all()
        return MemoryChannel(self, me, session, parties)

    def missing_parties(self, session: Hashable, parties: Sequence[str], seconds: float) -> tuple[str, ...]:
        """The parties of a session that have not come after `seconds`."""
        with self._news:
            self._news.wait_for(lambda: self._there[session].issuperset(parties), timeout=seconds)
            return tuple(name for name in parties if name not in self._there[session])

    def between(self, session: Hashable, sender: str, receiver: str) -> queue.Queue[bytes]:
        """The queue of one direction of one pair."""
        # Under the lock: else both ends could make a queue at the same time, and the data in one would be lost.
        with self._news:
            return self._queues[session, sender, receiver]


class MemoryChannel:
    """One party's end of a session in a `MemoryTransport`."""

    def __init__(self, hub: MemoryTransport, me: str, session: Hashable, parties: Sequence[str]) -> None:
        self._hub, self._me, self._session, self._parties = hub, me, session, parties

    def connect(self, seconds: float) -> tuple[str, ...]:
        """The parties that are still absent after `seconds`."""
        return self._hub.missing_parties(self._session, self._parties, seconds)

    def send(self, to: str, data: bytes) -> None:
        """Send bytes to a party."""
        self._hub.between(self._session, self._me, to).put(data)

    def receive(self, sender: str) -> bytes:
        """Next bytes from a party; ProtocolError names it when it stays silent."""
        try:
            return self._hub.between(self._session, sender, self._me).get(timeout=self._hub.seconds)
        except queue.Empty:
            message = (
                f"{sender} sent nothing to {self._me} within {self._hub.seconds:g} s."
                " Ask that site, then propose the study again."
            )
            raise SessionLost("CO-P601", message, sender) from None

    def close(self) -> None:
        """Nothing to release."""

    def abandon(self) -> None:
        """Nothing either: a party that waits for this one finds it silent."""


class WatchedChannel:
    """A party's channel that keeps in words how far its program has come."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.progress = ""

    def send(self, to: str, data: bytes) -> None:
        """Send bytes to a party."""
        self._channel.send(to, data)

    def receive(self, sender: str) -> bytes:
        """Next bytes from a party."""
        return self._channel.receive(sender)

    def report(self, what: str, done: int, total: int) -> None:
        """Keep a share in tenths: people see how far it is, and no count of rows."""
        self.progress = f"{what}, {10 * (10 * done // max(total, 1))} % done"


class InteractiveStep:
    """One party's part of an interactive step, in a thread of its own: it connects to the others, then computes.

    `missing_parties` names the parties that are not there yet.
    """

    def __init__(self, session: Hashable, channel: SessionChannel, program: Callable[[Channel], Payload]) -> None:
        self.session = session
        self._watched = WatchedChannel(channel)
        self.missing_parties: tuple[str, ...] = ()
        self._channel, self._program = channel, program
        self._ended = False
        self._payload: Payload | None = None
        self._error: LearnerError | ChainError | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether this party talks or waits for the others."""
        return self._thread.is_alive()

    @property
    def progress(self) -> str:
        """How far this party's program has come, in words; empty where it does not say."""
        return self._watched.progress

    def outcome(self, patience: float = 0.001) -> Payload | None:
        """The opened result, None while the parties still talk; raises what ended the program."""
        # The thread is over before its fields are read: no lock is needed.
        self._thread.join(patience)
        if self._thread.is_alive():
            return None
        if self._error is not None:
            raise self._error
        if self._payload is None:
            raise SessionLost("CO-P603", "This site's part of the interactive step crashed. Its own log has the cause.")
        return self._payload

    def end(self) -> None:
        """Leave: the others find this party gone."""
        # The flag comes first, so that a thread that wakes from `connect` does not begin to compute.
        self._ended = True
        self._channel.abandon()

    def _run(self) -> None:
        try:
            # Connecting: a late party costs time only. No program has run, so nothing of the rows is on its way.
            while not self._ended and (missing_parties := self._channel.connect(MEET_SECONDS)):
                self.missing_parties = missing_parties
            self.missing_parties = ()
            # Computing: from here on there is no way back to connecting.
            if not self._ended:
                self._payload = self._program(self._watched)
        except (LearnerError, ChainError) as error:
            self._error = error
        finally:
            self._channel.close()
