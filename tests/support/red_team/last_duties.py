"""Studies of every learner in which one member withholds, garbles, seals wrongly or goes at one of its duties.

The member can be in a hurry: it goes on with what only it can read, so that the study leaves its deed behind before
anybody has looked. Its posts stand on the ledger as any others; what is behind them is what the deed leaves there.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, cast

import numpy as np
from support.learners import cohorts, evaluation_study, glm_studies, joins, strata, survival_study, vertical
from support.learners.table_study import arm_study, split_arms
from support.learners.treatment_study import split_treatment_rows, treatment_study
from support.node.worlds import World, sweep
from support.red_team.members import CrookedStore

from coterie_chain.errors import ChainError
from coterie_chain.keys.envelopes import seal
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import Event, OpenStep, Post, Record, State
from coterie_chain.retry import RetryPolicy
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Machine, Sealed, Step
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import LearnerError
from coterie_learners.study.document import Study
from coterie_node.errors import NodeError
from coterie_node.run.codec import PayloadCodec
from coterie_node.run.runner import Runner
from coterie_node.run.simulate import site_of
from coterie_node.run.supervisor import Supervisor

SECONDS = 600
# As the daemon does: it tries again for as long as the study runs.
ENDLESS = RetryPolicy(limit=math.inf, first=0.5, longest=30.0)
OPEN_DEEDS = ("goes", "leaves", "withholds", "garbles", "misstates", "misdirects")
SEALED_DEEDS = (*OPEN_DEEDS, "seals garbage", "seals to another key", "leaves a reader out", "leaves it open")
_STRANGER = SiteKeys.of(b"\5" * 32, b"\6" * 32)


def _with_rules(study: Study, silence: str) -> Study:
    rules = {**study.ledger.model_dump(), "silent_site": silence, "step_seconds": SECONDS}
    return Study.model_validate({**study.model_dump(), "ledger": rules})


def _make_glore(silence: str, count: int) -> tuple[Study, Mapping[str, Any]]:
    study = _with_rules(cohorts.study("died ~ age + male", count, aggregation="plain"), silence)
    return study, cohorts.split(study, cohorts.draw(45 * count, seed=3))


def _make_table(learner: str, silence: str, count: int, **options: Any) -> tuple[Study, Mapping[str, Any]]:
    study = _with_rules(strata.study("died ~ male + smoker + stage", count, learner, **options), silence)
    return study, strata.split(study, strata.draw(45 * count))


def _make_columns(learner: str, silence: str, **options: Any) -> tuple[Study, Mapping[str, Any]]:
    holders = {"north": ("died", "a1", "p1"), "south": ("b1", "q1"), "east": ("c1",)}
    study = _with_rules(vertical.study(holders, learner, **options), silence)
    return study, vertical.split(study, vertical.draw(300, columns_by_site=holders))


def _make_survival(study: Study, silence: str) -> tuple[Study, Mapping[str, Any]]:
    study = _with_rules(study, silence)
    columns = {**survival_study.read_columns(), "age": survival_study.read_age()}
    return study, survival_study.split_sites(columns, study.sites)


def _make_treatment(silence: str, count: int) -> tuple[Study, Mapping[str, Any]]:
    study = _with_rules(treatment_study(tuple(cohorts.study("died ~ age", count).sites)), silence)
    return study, split_treatment_rows(study)


def _make_validation(silence: str, count: int) -> tuple[Study, Mapping[str, Any]]:
    study = _with_rules(evaluation_study.validation_study("patterns", count), silence)
    return study, evaluation_study.split_stays(study)


def _make_shares(of: Any, silence: str) -> tuple[Study, Mapping[str, Any]]:
    return _with_rules(of.study, silence), of.data


Maker = Callable[[str, int], tuple[Study, Mapping[str, Any]]]
MAKERS: dict[str, Maker] = {
    "glore": _make_glore,
    "cola": lambda silence, count: _make_table("cola", silence, count),
    "secure_cola masks": lambda silence, count: _make_table("secure_cola", silence, count, scheme="masks"),
    "secure_cola bfv": lambda silence, count: _make_table("secure_cola", silence, count, scheme="bfv"),
    "survival_curves": lambda silence, count: _make_survival(survival_study.curve_study(count), silence),
    "table_one": lambda silence, count: (_with_rules(arm_study(count), silence), split_arms(count)),
    "cox": lambda silence, count: _make_survival(survival_study.cox_study(count, "died ~ age"), silence),
    "vertigo": lambda silence, _: _make_columns("vertigo", silence),
    "valoris": lambda silence, _: _make_columns("valoris", silence),
    "valoris aggregated": lambda silence, _: _make_columns("valoris", silence, mode="aggregated"),
    "secure_lasso": lambda silence, _: _make_shares(joins.cohort(60, 2, alpha=0.5), silence),
    "secure_glm": lambda silence, _: _make_shares(glm_studies.rows_cohort(n=200, m=1), silence),
    "validate": _make_validation,
    "propensity": _make_treatment,
}


def make_world(learner: str, silence: str, count: int = 3) -> World:
    """A study of a learner that all its sites have joined."""
    study, rows = MAKERS[learner](silence, count)
    return World(study, {name: rows.get(name) for name in study.sites}, learner_of(study).script)  # type: ignore[misc]


@dataclass(frozen=True)
class Duty:
    """One step of an undisturbed run, and the member that does its deed there."""

    learner: str
    position: int
    topic: str
    kind: str
    member: str
    sealed: bool

    def __str__(self) -> str:
        return f"{self.learner}, {self.topic} of {self.member}"


@cache
def list_duties(learner: str, silence: str, count: int = 3) -> tuple[Duty, ...]:
    """Each step, with who posts there; at a step of all sites the server of the next step, which can hurry it away."""
    world = make_world(learner, silence, count)
    crew, steps = world.crew(), dict[int, Step]()
    while any(not runner.done for runner in crew.values()):
        for runner in crew.values():
            if runner.machine.awaits is not None:
                steps[runner.position] = runner.machine.awaits
            runner.turn()
    posters = {record.post.position: record.site for record in world.records() if record.kind != "each"}
    first = world.study.sites[0]
    return tuple(
        Duty(learner, at, step.topic, step.who, posters.get(at, posters.get(at + 1, first)), step.readers is not None)
        for at, step in sorted(steps.items())
    )


def _change(value: Any) -> Any:
    """The same array with another last number."""
    changed = np.array(value)
    flat = changed.reshape(-1)
    flat[-1:] = np.nextafter(flat[-1:], 9e9) if flat.dtype.kind == "f" else flat[-1:] ^ 1
    return flat.reshape(changed.shape)


@dataclass(frozen=True)
class CrookedCodec(PayloadCodec):
    """The member's codec: at its topic it writes what its deed makes of the payload, and remembers what it hid."""

    topic: str = ""
    deed: str = ""
    hidden: dict[tuple[str, int], Payload] = field(default_factory=dict)

    def write(self, step: Step, attempt: int, payload: Payload) -> bytes:
        if step.topic != self.topic:
            return super().write(step, attempt, payload)
        self.hidden[step.topic, attempt] = payload
        honest = super().write(step, attempt, payload)
        if self.deed == "posts another result":
            return super().write(step, attempt, {name: _change(value) for name, value in payload.items()})
        if self.deed == "leaves it open":
            return replace(self, topic="", keys=None).write(step, attempt, payload)
        if step.readers is None:
            return hashlib.sha256(honest).digest() * 4 if self.deed == "garbles" else honest
        context = f"{self.study.hash.hex()}/{step.topic}/{self.name}".encode()
        keys = {name: self.directory[name] for name in {*step.readers, self.name}}
        strangers = dict.fromkeys(step.readers, _STRANGER.sealing)
        out = {
            "garbles": lambda: hashlib.sha256(honest).digest() * 4,
            "seals garbage": lambda: seal(b"garbage", keys, context),
            "seals to another key": lambda: seal(b"garbage", keys | strangers, context),
            "leaves a reader out": lambda: seal(b"garbage", {self.name: keys[self.name]}, context),
        }
        return out.get(self.deed, lambda: honest)()

    def read(self, step: Step, record: Record, blobs: BlobStore) -> Payload | Sealed:
        own = self.hidden.get((step.topic, record.post.attempt)) if record.site == self.name else None
        return super().read(step, record, blobs) if own is None else own


class DutyStory:
    """One study in which a member does its deed at one duty; `hurries`: it then goes on before all others."""

    def __init__(self, duty: Duty, silence: str, deed: str, *, hurries: bool = True, count: int = 3) -> None:
        self.duty, self.silence, self.deed, self.hurries = duty, silence, deed, hurries
        self.world = make_world(duty.learner, silence, count)
        self.liar = duty.member
        self.honest = [name for name in self.world.study.sites if name != self.liar]
        self.store = CrookedStore(self.world.blobs, deed, active=False)
        starts: dict[str, Callable[[], Runner]] = {name: partial(self.world.runner, name) for name in self.honest}
        starts[self.liar] = self._make_liar
        self.crew = {name: Supervisor(start, self.world.clock, ENDLESS) for name, start in starts.items()}
        self.stops: dict[str, Exception] = {}
        self.is_gone = self.has_begun = False
        # The parties that honest sites miss at an interactive step, in which nobody can post without all.
        self.missing: set[tuple[str, ...]] = set()
        # Whose payload the honest sites cannot fetch.
        self.awaited: set[str] = set()

    def play(self, patience: int = 40) -> DutyStory:
        """Let all take turns on virtual time until the study has ended or nobody's patience is left."""
        for _ in range(patience):
            self._settle()
            if self.world.view().state in (State.COMPLETED, State.ABORTED):
                break
            self.world.clock.seconds += 100
        for _ in range(3):
            self._settle()
            self.world.clock.seconds += 61
        runners = [self.crew[name].runner for name in self.honest]
        self.missing = {runner.missing_parties for runner in runners if runner is not None}
        self.awaited = {getattr(self.crew[name].fault, "site", "") for name in self.honest}
        for supervisor in self.crew.values():
            supervisor.close()
        return self

    def list_readers_with_a_result(self) -> set[str]:
        """The honest sites whose protocol has ended with no error."""
        return {name for name in self.honest if self.crew[name].done}

    def list_named(self) -> dict[str, set[str]]:
        """Each member that the ledger names for a fault, and by which entries."""
        keys = {"SiteExcluded": "silent", "ServerSkipped": "server", "StepReopened": "culprit"}
        keys |= {"StudyAborted": "culprit", "AbortVoted": "culprit", "UnavailabilityVoted": "culprit"}
        out: dict[str, set[str]] = {}
        for event in self.list_events():
            name = str(dict(event.details).get(keys.get(event.name, ""), ""))
            if name:
                out.setdefault(name, set()).add(event.name)
        return out

    @property
    def waits_for_the_liar(self) -> bool:
        """Whether the honest sites wait for the member alone, and say so: at an interactive step, or for a payload."""
        return self.missing == {(self.liar,)} or self.awaited - {""} == {self.liar}

    def list_events(self) -> list[Event]:
        return [entry for entry in self.world.chain.log if isinstance(entry, Event)]

    def _make_liar(self) -> Runner:
        world, name = self.world, self.liar
        site = site_of(world.study, name, world.rows.get(name), world.keys[name], world.entries, str(world.number))
        machine = Machine(cast(Any, world.script), replace(site, vault=world.vaults[name]))
        plain = world.codec(name)
        codec = CrookedCodec(plain.study, name, plain.keys, plain.directory, topic=self.duty.topic, deed=self.deed)
        ledger = world.ledger(name)
        record: Callable[[Post], None] = ledger.record
        setattr(ledger, "record", lambda post: record(self._correct(post)))  # noqa: B010
        return Runner(machine, ledger, self.store, world.number, codec, exchange=world.hub)

    def _correct(self, post: Post) -> Post:
        if self.deed == "misdirects" and post.position == self.duty.position:
            return replace(post, cid=self.world.blobs.put(b"something else"))
        return self.store.correct(post)

    def _settle(self) -> None:
        moved = True
        while moved:
            moved = any(list(map(self._tick, self._list_order())))

    def _list_order(self) -> Iterator[str]:
        yield from [self.liar] * 4 if self.hurries and self.has_begun else []
        yield from self.world.study.sites

    def _tick(self, name: str) -> bool:
        supervisor = self.crew[name]
        if name == self.liar:
            open_ = self.world.view().open
            at_duty = open_ is not None and self._is_time(open_)
            # What is posted before or after the deed is in order.
            self.store.active = at_duty and self.deed in ("withholds", "misstates")
            if at_duty and not self.has_begun:
                self._begin()
            if self.is_gone:
                return False
        if name in self.stops:
            return False
        try:
            return supervisor.tick() or supervisor.talking
        except (ChainError, LearnerError, NodeError) as error:
            self.stops[name] = error
            return False

    def _is_time(self, open_: OpenStep) -> bool:
        return open_.position == self.duty.position and self.liar in open_.posters

    def _begin(self) -> None:
        self.has_begun = True
        if self.deed == "leaves":
            self.world.ledger(self.liar).abort(self.world.number, 1, self.liar)
        self.is_gone = self.deed in ("leaves", "goes")


def run_undisturbed(learner: str, silence: str, count: int = 3) -> World:
    """The same study with honest members alone."""
    world = make_world(learner, silence, count)
    sweep(world.crew().values())
    return world
