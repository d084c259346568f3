"""The parties of an interactive step in threads of one process, with everything that goes between them on record."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from coterie_learners.errors import ProtocolError
from coterie_learners.shares.field import PrimeField
from coterie_learners.shares.session import Keystream, Randomness, Session
from coterie_learners.shares.shamir3 import ThreePartyShamir

Out = TypeVar("Out")
NAMES = ("ana", "bob", "cyd")


class RecordedWire:
    """Queues between all parties; `log` holds every message as (sender, receiver, bytes)."""

    def __init__(self, seconds: float = 240.0) -> None:
        self.seconds = seconds
        self.log: list[tuple[str, str, bytes]] = []
        self._queues: dict[tuple[str, str], queue.Queue[bytes]] = {}

    def between(self, sender: str, receiver: str) -> queue.Queue[bytes]:
        """One direction of one pair; made once, whichever end asks first."""
        return self._queues.setdefault((sender, receiver), queue.Queue())

    def seen_by(self, name: str) -> list[bytes]:
        return [data for _, receiver, data in self.log if receiver == name]


class PartyChannel:
    """One party's end; `tamper` changes what it sends."""

    def __init__(
        self, wire: RecordedWire, me: str, tamper: Callable[[str, bytes], bytes] = lambda to, data: data
    ) -> None:
        self.wire, self.me, self.tamper = wire, me, tamper

    def send(self, to: str, data: bytes) -> None:
        changed = self.tamper(to, data)
        self.wire.log.append((self.me, to, changed))
        self.wire.between(self.me, to).put(changed)

    def receive(self, sender: str) -> bytes:
        try:
            return self.wire.between(sender, self.me).get(timeout=self.wire.seconds)
        except queue.Empty:
            raise ProtocolError("CO-P601", f"{sender} sent nothing to {self.me}.", sender) from None


def randomness(me: str, names: Sequence[str], seed: int = 0) -> Randomness:
    """Streams that differ by pair and by seed."""

    def key(*who: str) -> bytes:
        return f"{seed}/{'+'.join(sorted(who))}".encode().ljust(32, b".")[:32]

    return Randomness(Keystream(key(me)), {name: Keystream(key(me, name)) for name in names if name != me})


def run_parties(
    program: Callable[[ThreePartyShamir], Out],
    bits: int = 144,
    seed: int = 0,
    wire: RecordedWire | None = None,
    tamper: Mapping[str, Callable[[str, bytes], bytes]] | None = None,
    make: Callable[..., ThreePartyShamir] = ThreePartyShamir,
) -> list[Out]:
    """program(trio) at each of three computing parties; what each returns. `make` makes a party's end."""
    wire, changes = wire or RecordedWire(), tamper or {}

    def run(name: str) -> Out:
        end = PartyChannel(wire, name, changes.get(name, lambda to, data: data))
        return program(make(PrimeField(bits), Session(name, end, NAMES), NAMES, randomness(name, NAMES, seed)))

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(run, NAMES))
