"""A network in memory, with a clock that tests move, sites that fall silent, and sites that cheat.

The seams are the ledger's twin, the store's twin and the clock; runners, desks and machines are the real ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from support.learners import cohorts
from support.learners.cohorts import Codes

from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.memory import MemoryChain
from coterie_chain.ledger.protocol import Event, Ledger, Post, Record, SiteEntry, StudyView, Terms
from coterie_chain.store.protocol import MemoryBlobs
from coterie_learners.core import payload as pay
from coterie_learners.core.payload import Payload, Stamp
from coterie_learners.core.protocol import Machine, Script, Site, Step
from coterie_learners.glore.glore import GLORE
from coterie_learners.study.document import Schedule, Study
from coterie_learners.study.rows import Rows
from coterie_node.peers.interactive_session import MemoryTransport
from coterie_node.run.codec import PayloadCodec, pack
from coterie_node.run.follower import Follower
from coterie_node.run.runner import Runner
from coterie_node.run.simulate import site_of
from coterie_node.run.study_files import SILENCE, study_terms

Change = Callable[[dict[str, Any]], None]
Scripted = Callable[[Site], Script]


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.seconds = 1_000_000

    def __call__(self) -> int:
        return self.seconds


def keys_of(name: str) -> SiteKeys:
    """Keys that are the same in every test."""
    return SiteKeys.of(*(hashlib.sha256(f"{kind} of {name}".encode()).digest() for kind in ("key", "root")))


class World:
    """A study that all its sites have joined, before its first record."""

    def __init__(
        self,
        study: Study,
        rows: Mapping[str, Rows],
        script: Scripted | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        self.study, self.rows, self.clock = study, rows, Clock()
        self.script = script or GLORE.script
        self.keys = {name: keys_of(name) for name in study.sites}
        self.entries = [SiteEntry(k, n, s.address, s.sealing) for k, (n, s) in enumerate(self.keys.items(), 1)]
        self.chain = MemoryChain(self.entries, self.clock)
        self.blobs = MemoryBlobs()
        self.blobs.put(study.document)
        self.vaults: dict[str, dict[str, bytes]] = {name: {} for name in study.sites}
        self.hub = MemoryTransport(20.0)
        self.number = self.join(study_terms(study) if schedule is None else with_schedule(study, schedule))

    def join(self, terms: Terms) -> int:
        """Propose a study and let every site join it."""
        first, *others = (self.ledger(name) for name in terms.sites)
        number = first.propose(terms)
        for ledger in others:
            ledger.join(number, terms.hash)
        return number

    # Views

    def ledger(self, site: str | None = None) -> Ledger:
        """One site's handle, or a reader's."""
        return self.chain.ledger(None if site is None else self.keys[site].address)

    def view(self) -> StudyView:
        return self.ledger().view(self.number)

    def records(self, kind: str = "") -> list[Record]:
        """Records of this study, of one kind or of all."""
        records = [e for e in self.chain.log if isinstance(e, Record) and e.post.study == self.number]
        return [r for r in records if kind in ("", r.kind)]

    def events(self, name: str) -> list[Event]:
        return [e for e in self.chain.log if isinstance(e, Event) and e.name == name]

    def ending(self) -> str:
        """SHA-256 of the last server post that counts."""
        last = max(record.post.position for record in self.records())
        return [r for r in self.records("server") if r.post.position < last][-1].post.sha256.hex()

    def payload(self, record: Record) -> Payload:
        """What is behind an open record."""
        return pay.decode(pay.unpack(self.blobs.get(record.post.cid)))[1]

    # Sites

    def codec(self, name: str) -> PayloadCodec:
        return PayloadCodec(self.study, name, self.keys.get(name), {e.name: e.sealing for e in self.entries})

    def runner(self, name: str, *, ledger: Ledger | None = None, tolerance: float = 0.0) -> Runner:
        """A site's runner, as a fresh process would make it."""
        site = site_of(self.study, name, self.rows[name], self.keys[name], self.entries, str(self.number))
        machine = Machine(self.script, replace(site, vault=self.vaults[name]), tolerance)
        return Runner(
            machine, ledger or self.ledger(name), self.blobs, self.number, self.codec(name), exchange=self.hub
        )

    def crew(self, names: Iterable[str] | None = None, **options: Any) -> dict[str, Runner]:
        return {name: self.runner(name, **options) for name in names or self.study.sites}

    def rerun(self, name: str) -> Any:
        """What a fresh process of a site arrives at when the study has ended."""
        runner = self.runner(name)
        while runner.turn():
            pass
        return runner.machine.result

    def runner_after_replay(self, name: str) -> Runner:
        """A fresh process of a site, fed with all that is finished."""
        runner, records = self.runner(name), len(self.chain.log)
        while self.ledger().read_finished(self.number, runner.position) is not None and not runner.done:
            runner.turn()
        assert len(self.chain.log) == records
        return runner

    def auditor(self) -> Follower:
        machine = Machine(self.script, Site(self.study, "auditor"))
        return Follower(machine, self.ledger(), self.blobs, self.number, self.codec("auditor"))

    # Cheating

    def forge(self, name: str, change: Change, **stamp: Any) -> Record:
        """Let a site post at the open step what it would post, changed; `stamp` replaces parts of the stamp."""
        runner, step, open_ = self.catch_up(name)
        payload = {k: np.array(v) for k, v in runner.machine.draft(open_.parties, open_.attempt).items()}
        change(payload)
        if not stamp:
            blob = pack(self.study, step, name, open_.attempt, payload)
        else:
            forged_stamp = replace(Stamp(self.study.hash.hex(), step.topic, name, open_.attempt), **stamp)
            blob = pay.pack(pay.encode(forged_stamp, payload), pay.SHUFFLE_ZSTD)
        return self.post(name, blob, bool(np.all(payload.get("converged", False))))

    def post(self, name: str, blob: bytes, converged: bool = False, **changes: Any) -> Record:
        """Let a site record any bytes at the open step."""
        open_ = self.view().open
        assert open_ is not None
        post = Post(
            study=self.number,
            position=open_.position,
            attempt=open_.attempt,
            cid=self.blobs.put(blob),
            sha256=hashlib.sha256(blob).digest(),
            size=len(blob),
            converged=converged,
            basis=open_.basis,
        )
        self.ledger(name).record(replace(post, **changes))
        return self.records()[-1]

    def catch_up(self, name: str) -> tuple[Runner, Step, Any]:
        """A site's runner at the open step, fed with all before it, having posted nothing."""
        runner, open_ = self.runner(name), self.view().open
        assert open_ is not None
        while runner.position < open_.position:
            assert runner.turn()
        assert runner.machine.awaits is not None
        return runner, runner.machine.awaits, open_

    # Time

    def late(self) -> None:
        """Let the open step's deadline pass."""
        open_ = self.view().open
        assert open_ is not None
        self.clock.seconds = max(self.clock.seconds, open_.deadline) + 1


def sweep(runners: Iterable[Follower]) -> None:
    """Turns until nobody has anything to do; parties that talk are waited for."""
    crew = list(runners)
    while True:
        talking = any(r.talking for r in crew)  # before the turns: what ends in between is taken up at the next
        moved = [runner.turn() for runner in crew]
        if not any(moved) and not talking and not any(r.talking for r in crew):
            return


def until(condition: Callable[[], bool], runners: Iterable[Runner]) -> None:
    """Turns, one at a time, until the condition holds."""
    crew = list(runners)
    while not condition():
        moved = False
        for runner in crew:
            moved |= not condition() and runner.turn()
        assert moved, "nobody can go on, and what the test waits for has not come"


def with_schedule(study: Study, schedule: Schedule) -> Terms:
    """Terms of a study whose learner is not installed."""
    rules = study.ledger
    return Terms(
        study.hash,
        study.sites,
        schedule.opening,
        schedule.loop,
        schedule.closing,
        schedule.max_rounds,
        rules.step_seconds,
        SILENCE[rules.silent_site],
    )


def cohort(count: int = 3, n: int = 90, codes: Codes | None = None, **options: Any) -> World:
    """A GLORE study over a small cohort; options that the study's ledger section knows go there."""
    rules = {k: options.pop(k) for k in ("step_seconds", "silent_site", "compression") if k in options}
    study = cohorts.study(count=count, **options)
    if rules:
        study = Study.model_validate({**study.model_dump(), "ledger": {**study.ledger.model_dump(), **rules}})
    return World(study, cohorts.split(study, codes if codes is not None else cohorts.draw(n)))


# Studies with an end of their own


def run_past_a_skip_and_an_exclusion() -> World:
    """A masked study of four that excludes a silent site, and skips a server, on its way to the end."""
    world = cohort(4, aggregation="masked", silent_site="exclude")
    crew = world.crew()
    rest = [crew[name] for name in ("south", "east", "west")]
    sweep(rest)
    world.late()
    until(lambda: (o := world.view().open) is not None and o.kind == "server", rest)
    sweep([crew["east"], crew["west"]])
    world.late()
    sweep(rest)
    return world


def separated_world() -> World:
    """The outcome is separated by age."""
    codes = cohorts.draw(90)
    codes["died"] = (codes["age"] > 0.1).astype(float)
    return cohort(3, codes=codes)


def collinear_world() -> World:
    """A column is a combination of another."""
    codes = cohorts.draw(90)
    codes["crp"] = codes["age"]
    return cohort(3, codes=codes)


def tiny_world() -> World:
    """Six rows at all sites together."""
    codes = cohorts.draw(6)
    codes["died"][:] = np.arange(6) % 2
    return cohort(3, codes=codes)
