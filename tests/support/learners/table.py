"""Machines around a table: a protocol played without a ledger, its posts going through bytes from hand to hand."""

from __future__ import annotations

import itertools
import queue
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from coterie_learners.core.payload import Payload, Stamp, decode, encode
from coterie_learners.core.protocol import Channel, Machine, Posts, Script, Sealed, Site, Step
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Data


class MemoryChannels:
    """Channels between all sites."""

    def __init__(self) -> None:
        self._queues: dict[tuple[str, str], queue.Queue[bytes]] = {}

    def between(self, sender: str, receiver: str) -> queue.Queue[bytes]:
        """One direction of one pair; made once, whichever end asks first."""
        return self._queues.setdefault((sender, receiver), queue.Queue())

    def channel(self, me: str) -> Channel:
        return MemoryChannel(self, me)


class MemoryChannel:
    def __init__(self, queues: MemoryChannels, me: str) -> None:
        self.queues, self.me = queues, me

    def send(self, to: str, data: bytes) -> None:
        self.queues.between(self.me, to).put(data)

    def receive(self, sender: str) -> bytes:
        return self.queues.between(sender, self.me).get(timeout=20)


def sealed(me: str, step: Step, payload: Payload) -> Sealed:
    return Sealed(me, step.topic, bool(payload.get("converged", False)))


class MemoryProtocol:
    """Machines around a table: posts go through bytes, and only readers see a sealed one."""

    def __init__(self, script: Callable[[Site], Script], study: Study, rows: Mapping[str, Data]) -> None:
        self.study, self.script = study, script
        self.keys = {
            frozenset(pair): bytes([k + 1]) * 32 for k, pair in enumerate(itertools.combinations(study.sites, 2))
        }
        self.machines = {name: Machine(script, self.site(name, rows[name])) for name in study.sites}
        self.log: list[dict[str, bytes]] = []
        self.topics: list[str] = []
        self.readers: dict[str, tuple[str, ...]] = {}
        self.sealed: dict[str, bool] = {}
        self.served = 0

    def site(self, name: str, rows: Data) -> Site:
        shared = {peer: self.keys[frozenset((name, peer))] for peer in self.study.sites if peer != name}
        return Site(self.study, name, rows, name.encode() * 8, shared)

    def play(self) -> dict[str, Any]:
        """All steps to the end; results by site."""
        while any(m.awaits for m in self.machines.values()):
            for step in [m.awaits for m in self.machines.values() if m.awaits]:
                self.sealed[step.topic] = step.readers is not None
                self.readers[step.topic] = self.study.sites if step.readers is None else step.readers
            topic, blobs = self.drafts()
            self.log.append(blobs)
            self.topics.append(topic)
            opened = {name: decode(blob)[1] for name, blob in blobs.items()}
            for machine in self.machines.values():
                machine.feed(self.read(machine, opened))
        return {name: m.result for name, m in self.machines.items()}

    def drafts(self) -> tuple[str, dict[str, bytes]]:
        steps = [m.awaits for m in self.machines.values() if m.awaits]
        assert len(steps) == len(self.machines)
        assert len({(step.topic, step.who) for step in steps}) == 1
        step, queues = steps[0], MemoryChannels()
        posters = list(self.study.sites)
        if step.who == "server":
            posters, self.served = [posters[self.served % len(posters)]], self.served + 1
        elif step.who != "each":
            posters = [step.who.removeprefix("only:")]

        def draft(name: str) -> Payload:
            return self.machines[name].draft(self.study.sites, 0, queues.channel(name))

        with ThreadPoolExecutor(len(posters) if step.talks else 1) as pool:
            payloads = list(pool.map(draft, posters))
        blobs = {n: encode(Stamp("s", step.topic, n, 0), p) for n, p in zip(posters, payloads, strict=True)}
        return step.topic, blobs

    def read(self, machine: Machine, opened: Posts) -> Posts:
        step = machine.awaits
        assert step is not None
        me = machine.site.name
        return {
            poster: payload if step.readers is None or me in (*step.readers, poster) else sealed(me, step, payload)
            for poster, payload in opened.items()
        }

    def posts(self, topic: str) -> dict[str, Payload]:
        """What was posted at a step, by site."""
        return {name: decode(blob)[1] for name, blob in self.log[self.topics.index(topic)].items()}

    def last(self) -> Payload:
        """The only post of the last step that counts."""
        (*_, topic) = (topic for topic in self.topics if topic != "conclusion")
        return next(iter(self.posts(topic).values()))

    def auditor(self) -> Machine:
        """A machine without rows, fed from the log."""
        machine = Machine(self.script, Site(self.study, "auditor"))
        for blobs in self.log:
            machine.feed(self.read(machine, {name: decode(blob)[1] for name, blob in blobs.items()}))
        return machine
