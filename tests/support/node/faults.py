"""Whole studies in one process under a seeded schedule of faults: nothing is left to chance but the seed.

A `FaultStory` draws a small study and its faults from the seed, lets the sites' attendances (the daemon's own loop
body) take turns on virtual time, and checks the invariants at the end. The seams are the ledger, the store, the clock
and the sites' keys; everything above them is the product's own.

    python -m support.node.faults SEED     tells one story (from the folder tests)
"""

from __future__ import annotations

import copy
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
from support.learners import cohorts
from support.node.worlds import Clock, keys_of

from coterie_chain.errors import BlobMissing, ChainError, LedgerUnreachable, PostRejected, StoreFault
from coterie_chain.ledger.memory import MemoryChain, RecordPlaces
from coterie_chain.ledger.protocol import Event, Post, Record, SiteEntry, State
from coterie_chain.retry import RetryPolicy
from coterie_chain.store.protocol import MAX_BLOB, MemoryBlobs
from coterie_learners.core import payload as pay
from coterie_learners.core.protocol import Machine
from coterie_learners.errors import LearnerError, TooFewSites, WrongPost
from coterie_learners.glore.glore import GLORE
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Rows
from coterie_node.audit.replay import replay
from coterie_node.errors import NodeError, StudyStopped
from coterie_node.run.codec import PayloadCodec
from coterie_node.run.reasons import Reason
from coterie_node.run.runner import Runner
from coterie_node.run.simulate import site_of
from coterie_node.run.study_files import study_terms
from coterie_node.run.supervisor import Supervisor

STEP_SECONDS = 60
# Events after which the network is well again, and those within which every study must then have ended.
FAULTY_EVENTS, LAST = 250, 6000
KEPT_MOMENTS = 6
COEFFICIENTS = 1e-8


class Crash(Exception):
    """The process dies here."""


@dataclass(frozen=True)
class Weather:
    """How often each fault strikes: chances per call, per turn or per event."""

    crash: float
    unreachable: float
    late_record: float
    double_record: float
    lag: float
    missing: float
    disk_full: float
    pause: float
    fork: float

    @classmethod
    def draw(cls, chance: random.Random) -> Weather:
        """Most days have some faults and not others."""

        def some(most: float) -> float:
            return chance.random() * most if chance.random() < 0.5 else 0.0

        rates = (0.02, 0.04, 0.15, 0.15, 0.5, 0.1, 0.03, 0.05, 0.03)
        return cls(*(some(most) for most in rates))


CALM = Weather(0, 0, 0, 0, 0, 0, 0, 0, 0)


# The ledger


class Forking(MemoryChain):
    """A memory chain that remembers its last moments, takes posts into a pool, and can lose its newest entries."""

    def __init__(self, founders: Iterable[SiteEntry], clock: Callable[[], int]) -> None:
        super().__init__(founders, clock)
        self.moments: list[MemoryChain] = [self._still()]
        self.pool: list[tuple[int, str, Post]] = []

    def mark(self) -> None:
        """Remember this moment if something was written."""
        if len(self.log) != len(self.moments[-1].log):
            self.moments.append(self._still())
            del self.moments[:-KEPT_MOMENTS]

    def chain_behind(self, lag: int) -> MemoryChain:
        """The chain as a node sees it that is so many entries behind."""
        return self.moments[max(len(self.moments) - 1 - lag, 0)]

    def fork(self, depth: int) -> list[Record]:
        """Lose the newest writes; returns the records among them, which the sites' nodes still know."""
        depth = min(depth, len(self.moments) - 1)
        if depth == 0:
            return []
        del self.moments[-depth:]
        moment = self.moments[-1]
        lost = [e for e in self.log[len(moment.log) :] if isinstance(e, Record)]
        self.rules.__dict__.update(copy.deepcopy(moment.rules).__dict__)
        self.log[:], self.heads = list(moment.log), dict(moment.heads)
        return lost

    def rehearse(self, address: str, post: Post) -> None:
        """PostRejected if the chain would not take a post now."""
        self._still().ledger(address).record(post)

    def mine(self, chance: random.Random) -> None:
        """Execute the pool as a sealer does: the better paid first; what reverts is forgotten."""
        pool, self.pool = self.pool, []
        chance.shuffle(pool)
        for _, address, post in sorted(pool, key=lambda p: p[0]):
            try:
                self.ledger(address).record(post)
            except PostRejected:
                continue
            self.mark()

    def _still(self) -> MemoryChain:
        twin: MemoryChain = MemoryChain.__new__(MemoryChain)
        twin.rules, twin.clock = copy.deepcopy(self.rules), self.clock
        twin.log, twin.heads, twin.idle_blocks = list(self.log), dict(self.heads), self.idle_blocks
        twin._places, twin._reported = RecordPlaces(), {}
        return twin


READS = {"view", "read_finished", "history", "sites", "studies", "heads"}


class Node:
    """One site's handle: reads may lag, every call may fail or be the last, records may come late or twice."""

    def __init__(self, story: FaultStory, name: str) -> None:
        self._story, self._name, self._address = story, name, story.keys[name].address

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self._strike(f"before {name}")
            answer = self._answer(name, arguments)
            self._strike(f"after {name}")
            return answer

        return call

    @property
    def me(self) -> str:
        return self._name

    def now(self) -> int:
        return self._story.clock()

    def read_at_one_block(self) -> AbstractContextManager[None]:
        return nullcontext()  # the worst case: each read may be of another block

    def record(self, post: Post) -> None:
        story = self._story
        post = story.forge_record(self._name, post)
        self._strike("before record")
        if story.strikes(story.weather.late_record):
            story.chain.pool.append((2, self._address, post))
            raise LedgerUnreachable("CO-C304", "The transaction was not mined in time.")
        self._write("record", post)
        if story.strikes(story.weather.double_record):
            self._write("record", post)
        story.acknowledged.append((self._name, post))
        self._strike("after record")

    def submit(self, post: Post) -> None:
        story = self._story
        post = story.forge_record(self._name, post)
        self._strike("before submit")
        story.chain.rehearse(self._address, post)
        entry = (1, self._address, post)
        if not story.strikes(story.weather.late_record) and entry not in story.chain.pool:
            story.chain.pool.append(entry)
        self._strike("after submit")

    def submit_early(self, post: Post, *, priority: bool) -> None:
        story = self._story
        post = story.forge_record(self._name, post)
        self._strike("before send")
        entry = (0 if priority else 1, self._address, post)
        if entry not in story.chain.pool:
            story.chain.pool.append(entry)
        self._strike("after send")

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name in READS:
            chain_behind = self._story.chain.chain_behind(self._story.lags[self._name])
            return getattr(chain_behind.ledger(self._address), name)(*arguments)
        return self._write(name, *arguments)

    def _write(self, name: str, *arguments: Any) -> Any:
        try:
            return getattr(self._story.chain.ledger(self._address), name)(*arguments)
        finally:
            self._story.chain.mark()

    def _strike(self, where: str) -> None:
        story = self._story
        if story.strikes(story.weather.crash):
            raise Crash(where)
        if story.strikes(story.weather.unreachable):
            raise LedgerUnreachable("CO-C301", f"The node does not answer, {where}.")


class Store(MemoryBlobs):
    """One site's store: its own blocks, and those of the peers that are up."""

    def __init__(self, story: FaultStory, name: str) -> None:
        super().__init__()
        self._story, self._name = story, name

    def put(self, data: bytes) -> str:
        story = self._story
        if story.strikes(story.weather.crash):
            raise Crash("before put")
        if story.strikes(story.weather.disk_full):
            raise StoreFault("CO-C204", "No space left on device.")
        cid = super().put(data)
        if story.strikes(story.weather.crash):
            raise Crash("after put")
        return cid

    def get(self, cid: str, max_bytes: int = MAX_BLOB) -> bytes:
        story = self._story
        if story.strikes(story.weather.missing):
            raise BlobMissing("CO-C201", "Nobody here has it yet.")
        content = super().get(cid, max_bytes)
        self.blocks.setdefault(cid, self._read_block(cid))
        return content

    def _read_block(self, cid: str) -> bytes:
        if cid in self.blocks:
            return self.blocks[cid]
        for name, store in self._story.stores.items():
            if cid in store.blocks and name not in self._story.gone:
                return store.blocks[cid]
        raise BlobMissing("CO-C201", f"No block {cid} at any site that is up.")


# Crooked sites


def garbage(story: FaultStory, post: Post) -> bytes:
    return sha256(post.sha256).digest() * 5


def torn(story: FaultStory, post: Post) -> bytes:
    return story.bytes_of(post)[:-3]


def poison_values(story: FaultStory, post: Post) -> bytes:
    """The same payload with a number that is none."""
    return _change_payload(story, post, lambda a: a.reshape(-1).__setitem__(0, np.nan))


def wrong(story: FaultStory, post: Post) -> bytes:
    """A server's post with one number in its last bit."""
    return _change_payload(story, post, lambda a: a.reshape(-1).__setitem__(0, np.nextafter(a.reshape(-1)[0], 9e9)))


def _change_payload(story: FaultStory, post: Post, change: Callable[[Any], None]) -> bytes:
    stamp, payload = pay.decode(pay.unpack(story.bytes_of(post)))
    arrays = {name: np.array(value) for name, value in payload.items()}
    first = next((n for n, a in sorted(arrays.items()) if a.dtype.kind == "f" and a.size), None)
    if first is None:
        return garbage(story, post)
    change(arrays[first])
    return pay.pack(pay.encode(stamp, arrays), pay.STORED)


@dataclass(frozen=True)
class Tampering:
    """What a crooked site does at one position."""

    site: str
    position: int
    how: Callable[[FaultStory, Post], bytes]


# The story


@dataclass
class Ending:
    """How a story ended: the study's state, why, what struck, and after how many events."""

    state: State
    cause: str
    struck: Counter[str]
    events: int
    faults: dict[str, str] = field(default_factory=dict)


@cache
def cohort_of(count: int, aggregation: str, silence: str) -> tuple[Study, dict[str, Rows]]:
    """A small study and its rows."""
    plain = cohorts.study("died ~ age + male", count=count, aggregation=aggregation)
    rules = {**plain.ledger.model_dump(), "step_seconds": STEP_SECONDS, "silent_site": silence}
    study = Study.model_validate({**plain.model_dump(), "ledger": rules})
    return study, cohorts.split(study, cohorts.draw(40 * count, seed=7))


class FaultStory:
    """One seed: a study, its sites, what strikes them and when."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = chance = random.Random(seed)
        count = chance.choice((1, 2, 3, 3, 4))
        aggregation = "plain" if count < 3 else chance.choice(("plain", "masked"))
        self.kind = (count, aggregation, chance.choice(("wait", "wait", "exclude", "abort")))
        self.study, self.rows = cohort_of(*self.kind)
        self.weather = Weather.draw(chance)
        self.overlaps = chance.random() < 0.5
        self.leaver, self.leaves_at = chance.choice(self.study.sites), chance.randrange(10, FAULTY_EVENTS)
        self.leaves = count > 1 and chance.random() < 0.12
        self.crime = self._commit_crime() if chance.random() < 0.15 else None
        self.clock, self.gone, self.struck = Clock(), set[str](), Counter[str]()
        self.keys = {name: keys_of(name) for name in self.study.sites}
        entries = [SiteEntry(k, n, s.address, s.sealing) for k, (n, s) in enumerate(self.keys.items(), 1)]
        self.entries, self.chain = entries, Forking(entries, self.clock)
        self.stores = {name: Store(self, name) for name in self.study.sites}
        self.vaults: dict[str, dict[str, bytes]] = {name: {} for name in self.study.sites}
        self.lags = dict.fromkeys(self.study.sites, 0)
        self.wakes = dict.fromkeys(self.study.sites, 0)
        self.stopped: dict[str, Exception] = {}
        self.unsettled: set[str] = set()
        self.acknowledged: list[tuple[str, Post]] = []
        self.forks = self.events = 0
        self.number = self._start_study()
        self.crew = {name: self._attend(name) for name in self.study.sites}

    def run(self) -> Ending:
        """Let the sites work until all have ended; AssertionError if they do not, or if an invariant is broken."""
        while not all(self._has_ended(name) for name in self.study.sites):
            self.events += 1
            assert self.events < LAST, f"a study that never ends: {self.chain.ledger(None).view(self.number)}"
            self._event()
        self.weather = CALM
        self.chain.mine(self.chance)
        self._operator()
        return self._judge()

    # What the seams ask

    def strikes(self, rate: float) -> bool:
        """Whether a fault of this rate happens now."""
        return rate > 0 and self.chance.random() < rate

    def forge_record(self, name: str, post: Post) -> Post:
        """The post that a site records: its own, or at the crime's position another one."""
        if self.crime is None or (self.crime.site, self.crime.position) != (name, post.position):
            return post
        blob = self.crime.how(self, post)
        cid = MemoryBlobs.put(self.stores[name], blob)
        return replace(post, cid=cid, sha256=sha256(blob).digest(), size=len(blob))

    def bytes_of(self, post: Post) -> bytes:
        """What is behind a post, at whichever site."""
        return MemoryBlobs.get(next(s for s in self.stores.values() if post.cid in s.blocks), post.cid)

    # Events

    def _event(self) -> None:
        if self.events == FAULTY_EVENTS:
            self.weather = CALM
        if self.leaves and self.events == self.leaves_at:
            self.gone.add(self.leaver)
            self._count_fault("gone")
        if self.chain.pool and self.chance.random() < 0.3:
            self.chain.mine(self.chance)
        if self.strikes(self.weather.fork):
            self._fork()
        awake = [n for n in self.study.sites if not self._has_ended(n) and self.wakes[n] <= self.clock.seconds]
        if awake:
            self._turn(self.chance.choice(awake))
        else:
            waiting = [self.wakes[n] for n in self.study.sites if not self._has_ended(n)]
            self.clock.seconds = max(min(waiting, default=0), self.clock.seconds + 1)
            self._operator()

    def _turn(self, name: str) -> None:
        self.lags[name] = self.chance.randrange(1, KEPT_MOMENTS) if self.strikes(self.weather.lag) else 0
        if self.strikes(self.weather.pause):
            self._count_fault("pause")
            self.wakes[name] = self.clock.seconds + self.chance.randrange(1, 3 * STEP_SECONDS)
            return
        attendance = self.crew[name]
        try:
            moved = self._settle(name) if attendance.done else attendance.tick()
        except Crash:
            self._count_fault("crash")
            self.crew[name] = self._attend(name)
        except (LearnerError, ChainError, NodeError) as error:
            self._count_fault(f"stop {error.code}")
            self.stopped[name] = error
        else:
            if attendance.fault is not None:
                self._count_fault(attendance.fault.code)
            if not moved:
                self.wakes[name] = max(self.clock.seconds + self.chance.randrange(1, 8), int(_wait(attendance)))

    def _settle(self, name: str) -> bool:
        runner = self.crew[name].runner
        try:
            if runner is not None and runner.check_end():
                self.unsettled.discard(name)
        except ChainError:
            return False  # asked again, as the daemon does
        return True

    def _fork(self) -> None:
        lost = self.chain.fork(self.chance.randrange(1, 4))
        self.forks += len(lost)
        self._count_fault("fork")
        # A node puts what a fork lost back into its pool, unless it is restarted just then.
        resent = [(2, self.keys[r.site].address, r.post) for r in lost if self.chance.random() < 0.7]
        self.chain.pool.extend(resent)
        # A site that has ended looks once more whether its result still stands, before it tells it.
        self.unsettled |= {name for name in self.study.sites if self.crew[name].done}
        for name in self.stopped:  # what it sent the others of its reasons may be lost, too
            self.crew[name] = self._attend(name)
        self.stopped.clear()

    def _operator(self) -> None:
        """People: they end a study that waits in vain, and start again a node that stopped while the study runs."""
        view = self.chain.ledger(None).view(self.number)
        stuck = view.open is not None and self.clock.seconds > view.open.deadline + 4 * STEP_SECONDS
        if view.state == State.PAUSED or (stuck and self.gone):
            for mover in (n for n in view.parties if n not in self.gone or len(view.parties) == 1):
                with suppress(PostRejected):  # has voted already, or the study ended by the vote before
                    self.chain.ledger(self.keys[mover].address).abort(self.number, Reason.OPERATOR)
            self.chain.mark()

    def _has_ended(self, name: str) -> bool:
        over = self.crew[name].done and name not in self.unsettled
        return over or name in self.gone or name in self.stopped

    # Sites

    def _start_study(self) -> int:
        first, *others = (self.chain.ledger(self.keys[name].address) for name in self.study.sites)
        number = first.propose(study_terms(self.study))
        for ledger in others:
            ledger.join(number, self.study.hash)
        self.chain.moments[:] = [self.chain._still()]
        return number

    def _attend(self, name: str) -> Supervisor:
        def start() -> Runner:
            site = site_of(self.study, name, self.rows[name], self.keys[name], self.entries, str(self.number))
            machine = Machine(GLORE.script, replace(site, vault=self.vaults[name]))
            codec = PayloadCodec(self.study, name, self.keys[name], {e.name: e.sealing for e in self.entries})
            node: Any = Node(self, name)
            ahead = node if self.overlaps else None
            return Runner(machine, node, self.stores[name], self.number, codec, ahead=ahead)

        retry = RetryPolicy(limit=1e9, first=1.0, longest=20.0, also=(StoreFault,))
        return Supervisor(start, lambda: float(self.clock.seconds), retry)

    def _commit_crime(self) -> Tampering:
        how = self.chance.choice((garbage, torn, poison_values, wrong))
        position = self.chance.randrange(6)
        if how is wrong:
            position |= 1  # server posts are at odd positions; a site's own sums nobody else can check
        return Tampering(self.chance.choice(self.study.sites), position, how)

    def _count_fault(self, what: str) -> None:
        self.struck[what] += 1

    # Invariants

    def _judge(self) -> Ending:
        ledger = self.chain.ledger(None)
        view, records = ledger.view(self.number), self._records()
        slots = [(r.post.position, r.post.attempt, r.site) for r in records]
        assert len(slots) == len(set(slots)), "two records in one slot"
        self._check_acknowledged(records)
        self._check_stops(view.state)
        anywhere = MemoryBlobs()
        for store in self.stores.values():
            anywhere.blocks |= store.blocks
        anywhere.put(self.study.document)
        for record in records:
            assert sha256(anywhere.get(record.post.cid)).digest() == record.post.sha256, "a record without its bytes"
        if view.state == State.COMPLETED:
            verdict = replay(ledger, anywhere, self.number).verdict
            assert (verdict.verdict, verdict.grade) == ("PASS", "identical"), verdict
            self._check_model(records)
        return Ending(
            view.state, self._abort_cause(), self.struck, self.events, {n: str(e) for n, e in self.stopped.items()}
        )

    def _records(self) -> list[Record]:
        return [e for e in self.chain.log if isinstance(e, Record) and e.post.study == self.number]

    def _events_named(self, name: str) -> list[Event]:
        return [e for e in self.chain.log if isinstance(e, Event) and e.name == name]

    def _check_acknowledged(self, records: list[Record]) -> None:
        """What a site read as recorded is so, unless a fork took it."""
        if self.forks == 0:
            recorded_posts = {(r.site, r.post) for r in records}
            assert all(pair in recorded_posts for pair in self.acknowledged), "an acknowledged record is lost"

    def _check_stops(self, state: State) -> None:
        """A study ends with its result, or for a reason that the faults of this story explain."""
        assert state in (State.COMPLETED, State.ABORTED), state
        if state == State.ABORTED:
            cause = self._abort_cause()
            lawful = {
                "OPERATOR": bool(self.gone) or self.crime is not None,
                "SILENT_SITE": self.kind[2] == "abort" or self.kind[1:] == ("masked", "exclude"),
                "UNAVAILABLE": self._abort_culprit() in self.gone
                or (self.kind[2] == "abort" and self.struck["CO-C201"] > 0),
                "BAD_PAYLOAD": self.crime is not None,
                "TOO_FEW_SITES": self.kind[1:] == ("masked", "exclude"),
            }
            assert lawful.get(cause, False), cause
        for name, error in self.stopped.items():
            if isinstance(error, WrongPost):
                assert self.crime is not None
                assert error.site == self.crime.site, f"{name} blames {error.site}"
            elif state == State.COMPLETED and not self._is_own_crime(name, error):
                raise AssertionError(f"{name} stopped although the study was completed: {error}") from error
            elif not isinstance(error, StudyStopped | TooFewSites):
                assert self.crime is not None, f"{name}: {error}"
                assert getattr(error, "site", self.crime.site) == self.crime.site, f"{name} blames {error}"

    def _check_model(self, records: list[Record]) -> None:
        """The bytes of an undisturbed run; after an exclusion its coefficients, over the sites that were left."""
        excluded = tuple(str(dict(e.details)["silent"]) for e in self._events_named("SiteExcluded"))
        ends = {n: a.runner.machine.result for n, a in self.crew.items() if a.done and a.runner is not None}
        assert len({_bits(fit) for fit in ends.values()}) <= 1, "the sites hold different results"
        want = oracle(self.kind, excluded)
        for fit in ends.values():
            if excluded:
                assert np.max(np.abs(fit.estimates - want.estimates)) < COEFFICIENTS
            else:
                assert _bits(fit) == _bits(want), "not the bits of an undisturbed run"

    def _is_own_crime(self, name: str, error: Exception) -> bool:
        """Whether a site stopped because it cannot read what it posted itself; the others went on without it."""
        return self.crime is not None and name == self.crime.site == getattr(error, "site", "")

    def _abort_culprit(self) -> str:
        aborts = self._events_named("StudyAborted")
        return str(dict(aborts[-1].details).get("culprit") or "") if aborts else ""

    def _abort_cause(self) -> str:
        aborts = self._events_named("StudyAborted")
        return Reason(int(dict(aborts[-1].details)["reason"])).name if aborts else ""


@cache
def oracle(kind: tuple[int, str, str], excluded: tuple[str, ...] = ()) -> Any:
    """The fit of an undisturbed run of a study over the sites that are left."""
    study, rows = cohort_of(*kind)
    if excluded:
        remaining = tuple(name for name in study.sites if name not in excluded)
        options = {**study.learner.model_dump(), "aggregation": "plain"}
        study = Study.model_validate({**study.model_dump(), "sites": remaining, "learner": options})
        rows = {name: rows[name] for name in remaining}
    from coterie_node.run.simulate import simulate

    _, runners, _ = simulate(study, rows)
    return next(iter(runners.values())).machine.result


def _bits(fit: Any) -> bytes:
    return bytes(fit.estimates.tobytes() + fit.covariance.tobytes())


def _wait(attendance: Supervisor) -> float:
    return attendance.resume_at if attendance.fault is not None else 0.0


def stories(seeds: Iterable[int]) -> Iterator[tuple[int, Ending]]:
    """The endings of many seeds; an AssertionError names the seed and the command that runs it again."""
    for seed in seeds:
        try:
            yield seed, FaultStory(seed).run()
        except Exception as error:
            raise AssertionError(f"seed {seed} fails: {error}\nRun it again with: make faults SEED={seed}") from error


if __name__ == "__main__":
    for story_seed, ending in stories(int(word) for word in sys.argv[1:]):
        print(story_seed, FaultStory(story_seed).kind, ending)
