"""Does a learner obey? `check_learner` proves it on a study and rows of your own, over the real runner and rules.

The properties, in the order in which they are proved: it runs to an end at every site; it equals the pooled fit; an
auditor without rows replays it to the same bits; the order of the sites does not matter; payloads are canonical and
survive every compression; every post has a declared form; with every site restarted after every single record it
ends with the same bytes; and its steps are those that it discloses. The first property that fails is named by
NonConformant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from coterie_chain.errors import ChainError
from coterie_chain.ledger.memory import MemoryChain
from coterie_chain.ledger.protocol import Record, State
from coterie_learners.core import payload as pay
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Payload, Stamp
from coterie_learners.core.protocol import Machine, Script, Site, Step
from coterie_learners.core.registry import learner_of
from coterie_learners.core.study_disclosure import StepDisclosure
from coterie_learners.errors import LearnerError
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Data
from coterie_node.analysis.pooled import Reference
from coterie_node.audit.replay import replay
from coterie_node.errors import NodeError
from coterie_node.peers.interactive_session import MemoryTransport
from coterie_node.release.gate import Gate
from coterie_node.run.codec import PayloadCodec, fetch, pack
from coterie_node.run.runner import Runner
from coterie_node.run.simulate import World, check_sites, make_world, site_of
from coterie_node.run.study_files import study_terms

Numbers = dict[str, tuple[float, float]]


class Property(StrEnum):
    """What a learner must do, in the order in which it is proved."""

    RUNS = "runs to its end"
    POOLED = "equals the pooled fit"
    REPLAYS = "replays from its log"
    ORDER = "does not depend on the order of the sites"
    ROUND_TRIP = "payloads round-trip"
    DECLARED = "posts what it declares"
    RESTARTS = "survives a restart after every record"
    DISCLOSED = "its steps are those that it discloses"


# Checks of the letters that already stop the run, and the property which they guard.
_GUARDS = {
    "CO-P104": Property.ROUND_TRIP,
    "CO-P109": Property.ROUND_TRIP,
    "CO-P106": Property.DECLARED,
    "CO-P108": Property.DECLARED,
    "CO-P201": Property.REPLAYS,
}


class NonConformant(NodeError):
    """A learner that does not obey; `property` is the first one that failed."""

    def __init__(self, failed: Property, message: str) -> None:
        super().__init__("CO-L101", f"The learner fails the property {str(failed)!r}: {message}")
        self.property = failed


@dataclass(frozen=True)
class ConformanceReport:
    """What was proved, and by how much.

    Differences are the largest absolute ones. `restarts` counts restarts of all sites together. `disclosed` lists for
    each topic that sites post from their own rows: its fields with their shapes at the first site.
    """

    learner: str
    version: str
    sites: tuple[str, ...]
    records: int
    server_steps: int
    unchecked: int
    estimate_difference: float
    std_error_difference: float | None
    order_difference: float
    restarts: int
    disclosed: Mapping[str, Mapping[str, tuple[int, ...]]]


def _pairs(fit: Fit) -> Iterator[tuple[str, tuple[float, float]]]:
    """Estimate and standard error by term, of each model; 0 means that the method has no standard errors."""
    for name, model in fit.models.items():
        yield from ((f"{name}: {term}", pair) for term, pair in _pairs(model))
    if fit.models:
        return
    errors = [0.0] * len(fit.terms) if fit.covariance is None else fit.std_errors.tolist()
    yield from zip(fit.terms, zip(fit.estimates.tolist(), errors, strict=True), strict=True)


@dataclass(frozen=True)
class Trial:
    """One run to the end: its world, each site's result, and how often all sites were restarted.

    `exposures`: for each topic that a site posted of its own rows, what its readers can solve.
    """

    world: World
    results: Mapping[str, Any]
    restarts: int
    exposures: Mapping[str, Exposure] = field(default_factory=dict)

    @property
    def records(self) -> tuple[Record, ...]:
        """All records, in the order in which they were written."""
        return tuple(e for e in self.world.chain.log if isinstance(e, Record))

    @property
    def numbers(self) -> Numbers:
        """Estimate and standard error by term, over the results of all sites; sites must not contradict each other."""
        out: Numbers = {}
        for site, fit in self.results.items():
            if not isinstance(fit, Fit | None):
                raise NonConformant(Property.RUNS, f"its script returned {fit!r:.80} at {site}, not a Fit.")
            for term, pair in _pairs(fit) if fit else ():
                if out.setdefault(term, pair) != pair:
                    raise NonConformant(Property.RUNS, f"two sites end with different numbers for {term}.")
        return out

    @property
    def ending(self) -> str:
        """SHA-256 of the last server post; empty for a protocol without one."""
        return next((r.post.sha256.hex() for r in reversed(self.records) if r.kind == "server"), "")


def check_learner(
    study: Study, rows_by_site: Mapping[str, Data], reference: Reference, *, tolerance: float = 1e-10
) -> ConformanceReport:
    """Prove the study's learner on these rows; NonConformant names the first property that fails.

    `tolerance` is absolute: for estimates as given, for standard errors ten times as much. Give covariates of about
    unit spread.
    """
    check_sites(study, rows_by_site)
    trial = _run(make_world(study), rows_by_site)
    estimate, error = _check_pooled(trial.numbers, reference, tolerance)
    steps, unchecked = _check_replay(trial)
    order = _check_order(trial, rows_by_site, tolerance)
    disclosed = _check_posts(trial)
    second = _run(_restart_study(trial.world), rows_by_site, restart=True)
    if (second.ending, second.numbers) != (trial.ending, trial.numbers):
        raise NonConformant(Property.RESTARTS, "the last server post or the result has other bytes than without.")
    _check_disclosure(trial)
    return ConformanceReport(
        learner=study.learner.name,
        version=study.learner.version,
        sites=study.sites,
        records=len(trial.records),
        server_steps=steps,
        unchecked=unchecked,
        estimate_difference=estimate,
        std_error_difference=error,
        order_difference=order,
        restarts=second.restarts,
        disclosed=disclosed,
    )


# Running


def _run(world: World, rows: Mapping[str, Data], restart: bool = False) -> Trial:
    vaults: dict[str, dict[str, bytes]] = {name: {} for name in world.study.sites}
    failed = Property.RESTARTS if restart else Property.RUNS
    try:
        return _run_turns(world, rows, vaults, restart)
    except (LearnerError, ChainError) as error:
        message = f"{type(error).__name__} [{error.code}]: {error.message}"
        raise NonConformant(failed if restart else _GUARDS.get(error.code, failed), message) from error


def _run_turns(world: World, rows: Mapping[str, Data], vaults: Mapping[str, dict[str, bytes]], restart: bool) -> Trial:
    hub, written, restarts = MemoryTransport(), len(world.chain.log), 0
    script = learner_of(world.study).script
    exposures: dict[str, Exposure] = {}
    crew = _make_runners(world, script, rows, vaults, hub, exposures)
    while not all(r.done for r in crew.values()):
        # Before the turns: what ends between a party's turn and the question is taken up at the next turn.
        moved, talking = False, any(r.talking for r in crew.values())
        for name in world.study.sites:
            moved |= crew[name].turn()
            # An interactive step restarts with all parties or not at all, so no site restarts in the middle of one.
            if restart and len(world.chain.log) > written and not any(_is_talking(r) for r in crew.values()):
                written, restarts = len(world.chain.log), restarts + 1
                crew = _make_runners(world, script, rows, vaults, hub, exposures)
        if not moved and not talking and not any(r.talking for r in crew.values()):
            waiting = ", ".join(f"{name} for {r.machine.awaits.topic}" for name, r in crew.items() if r.machine.awaits)
            raise NonConformant(Property.RUNS, f"nobody can go on; {waiting} wait. Compare script and schedule.")
    state = world.ledger().view(world.number).state
    if state != State.COMPLETED:
        raise NonConformant(Property.RUNS, f"its script ends, but by its schedule the study is still {state.name}.")
    return Trial(world, {name: r.machine.result for name, r in crew.items()}, restarts, exposures)


def _make_runners(
    world: World,
    script: Callable[[Site], Script],
    rows: Mapping[str, Data],
    vaults: Mapping[str, dict[str, bytes]],
    hub: MemoryTransport,
    exposures: dict[str, Exposure],
) -> dict[str, Runner]:
    entries = world.ledger().sites()
    crew = {}
    for name in world.study.sites:
        site = site_of(world.study, name, rows.get(name), world.keys[name], entries, str(world.number))
        machine = Machine(script, replace(site, vault=vaults[name]))
        crew[name] = Runner(
            machine,
            world.ledger(name),
            world.blobs,
            world.number,
            _make_codec(world, name),
            exchange=hub,
            gate=ExposureProbe(world.study, exposures=exposures),
        )
    return crew


def _make_codec(world: World, name: str) -> PayloadCodec:
    return PayloadCodec(world.study, name, world.keys[name], {e.name: e.sealing for e in world.ledger().sites()})


def _is_talking(runner: Runner) -> bool:
    return runner.machine.awaits is not None and runner.machine.awaits.talks


def _restart_study(world: World) -> World:
    """The same network with the same keys, before the study's first record."""
    chain = MemoryChain(world.ledger().sites())
    first, *others = (chain.ledger(world.keys[name].address) for name in world.study.sites)
    number = first.propose(study_terms(world.study))
    for ledger in others:
        ledger.join(number, world.study.hash)
    return replace(world, chain=chain, number=number)


# Properties


def _check_pooled(numbers: Numbers, reference: Reference, tolerance: float) -> tuple[float, float | None]:
    if set(numbers) != set(reference.estimates):
        message = (
            f"its terms are {', '.join(sorted(numbers))}, the reference's {', '.join(sorted(reference.estimates))}."
        )
        raise NonConformant(Property.POOLED, message)
    estimate = _largest({t: numbers[t][0] for t in numbers}, reference.estimates, "estimate", tolerance)
    if reference.std_errors is None:
        return estimate, None
    errors = {t: numbers[t][1] for t in numbers}
    return estimate, _largest(errors, reference.std_errors, "standard error", 10 * tolerance)


def _largest(mine: Mapping[str, float], other: Mapping[str, float], what: str, allowed: float) -> float:
    gaps = {term: abs(mine[term] - other[term]) for term in mine}
    worst = max(gaps, key=lambda term: gaps[term])
    if not gaps[worst] <= allowed:
        message = f"the {what} of {worst} is {mine[worst]!r}, pooled {other[worst]!r}: {gaps[worst]:.3g} apart."
        raise NonConformant(Property.POOLED, message)
    return float(gaps[worst])


def _check_replay(trial: Trial) -> tuple[int, int]:
    world = trial.world
    second = replay(world.ledger(), world.blobs, world.number)
    verdict = second.verdict
    if not verdict.intact or verdict.max_difference:
        raise NonConformant(Property.REPLAYS, f"{verdict.verdict}, grade {verdict.grade}. {verdict.problem}".rstrip())
    # Without rows some protocols end with a part of the result, or with none; what there is must be the same.
    auditor_numbers = Trial(world, {"the auditor": second.fit}, 0).numbers
    other = [term for term, pair in auditor_numbers.items() if trial.numbers.get(term) != pair]
    if other:
        raise NonConformant(Property.REPLAYS, f"the auditor arrives at other numbers for {', '.join(other)}.")
    return verdict.steps, verdict.unchecked


def _check_order(trial: Trial, rows: Mapping[str, Data], tolerance: float) -> float:
    study = trial.world.study
    turned = Study.model_validate({**study.model_dump(), "sites": study.sites[::-1]})
    mine, other = trial.numbers, _run(make_world(turned), rows).numbers
    # Sums of whole numbers, such as masked ones, are exact: then not one bit may differ.
    allowed = 0.0 if all(_has_integers(p) for step, _, p in _posts(trial) if not step.public) else tolerance
    gap = max((abs(a - b) for t in mine for a, b in zip(mine[t], other[t], strict=True)), default=0.0)
    if not gap <= allowed:
        message = f"with the sites reversed the result differs by {gap:.3g}; allowed is {allowed:.3g}."
        raise NonConformant(Property.ORDER, message)
    return float(gap)


# Disclosure


@dataclass
class ExposureProbe(Gate):
    """A gate that lets everything through and notes by topic what readers can solve."""

    exposures: dict[str, Exposure] = field(default_factory=dict)

    def admit(self, step: Step, site: Site, position: int, payload: Payload) -> bytes | None:
        """No verdict: the rows are a test's."""
        if step.reveals is not None and not (step.public or step.talks or step.announces):
            self.exposures[step.topic] = step.reveals(step.select(site), payload)
        return bytes(32)


def _check_disclosure(trial: Trial) -> None:
    disclosure = learner_of(trial.world.study).discloses(trial.world.study)
    steps: dict[str, Step] = {step.topic: step for step, _, _ in _posts(trial)}
    for topic, step in steps.items():
        disclosed = [item for item in disclosure.steps if item.covers(topic)]
        if not disclosed:
            raise NonConformant(Property.DISCLOSED, f"it discloses nothing of the step {topic!r}.")
        if len(disclosed) > 1:
            names = " and ".join(repr(item.topic) for item in disclosed)
            raise NonConformant(Property.DISCLOSED, f"{names} both disclose the step {topic!r}; people read both.")
        _check_step(step, disclosed[0])
        _check_protection(step, disclosed[0], trial.exposures.get(topic))
    certain = [item for item in disclosure.steps if not item.occasional]
    idle = [item.topic for item in certain if not any(item.covers(topic) for topic in steps)]
    if idle:
        raise NonConformant(Property.DISCLOSED, f"it discloses {', '.join(idle)}, and makes no such step.")


def _check_step(step: Step, disclosed: StepDisclosure) -> None:
    """NonConformant for a step with other posters or readers than its learner discloses."""
    pairs: tuple[tuple[str, object, object], ...] = (
        ("posters", step.who, disclosed.who),
        ("readers", step.readers, disclosed.readers),
        ("a conversation", step.talks, disclosed.talks),
    )
    for what, real, claim in pairs:
        if real != claim:
            message = f"the step {step.topic!r} has {what} {real!r}, and it discloses {claim!r}."
            raise NonConformant(Property.DISCLOSED, message)


def _check_protection(step: Step, disclosed: StepDisclosure, exposure: Exposure | None) -> None:
    """NonConformant for numbers that are less protected than disclosed; no exposure where the step states none."""
    forms = {} if step.expects is None else step.expects.fields
    if disclosed.protection != "plain" and any(form.dtype[1] == "f" for form in forms.values()):
        message = f"{step.topic!r} posts fractions, and it discloses {disclosed.protection} words."
        raise NonConformant(Property.DISCLOSED, message)
    if exposure is None:
        return
    if exposure.sums_only != (disclosed.protection == "masked"):
        message = f"the step {step.topic!r} has masks {exposure.sums_only!r}, and it discloses {disclosed.protection}."
        raise NonConformant(Property.DISCLOSED, message)
    # Cells of a masked post are those of the sum, which the end of the study discloses.
    solvable = [*exposure.rebuilt, *exposure.gridded, *({} if exposure.sums_only else exposure.cells)]
    if solvable and not disclosed.rebuilds:
        message = f"readers of {step.topic!r} can solve for {solvable[0]}, and it discloses that they rebuild nothing."
        raise NonConformant(Property.DISCLOSED, message)


def _has_integers(payload: Payload) -> bool:
    return all(value.dtype.kind in "iu" for value in payload.values())


def _check_posts(trial: Trial) -> dict[str, dict[str, tuple[int, ...]]]:
    disclosed: dict[str, dict[str, tuple[int, ...]]] = {}
    for step, record, payload in _posts(trial):
        _check_round_trip(trial.world, step, record, payload)
        if step.public:
            continue
        if step.expects is None:
            raise NonConformant(Property.DECLARED, f"the step {step.topic!r} has no Schema; give it expects=.")
        disclosed.setdefault(step.topic, {name: value.shape for name, value in payload.items()})
    return disclosed


def _check_round_trip(world: World, step: Step, record: Record, payload: Payload) -> None:
    stamp = Stamp(world.study.hash.hex(), step.topic, record.site, record.post.attempt)
    raw = pay.encode(stamp, payload)
    survived = all(pay.unpack(pay.pack(raw, c)) == raw for c in (pay.STORED, pay.DEFLATE, pay.SHUFFLE_ZSTD))
    read_stamp, arrays = pay.decode(raw)
    same = read_stamp == stamp and pay.canonical(arrays) == pay.canonical(payload)
    if step.readers is None:
        same &= pack(world.study, step, record.site, stamp.attempt, payload) == fetch(record.post, world.blobs)
    if not (survived and same):
        raise NonConformant(Property.ROUND_TRIP, f"{step.topic!r} of {record.site} reads back as something else.")


def _posts(trial: Trial) -> Iterator[tuple[Step, Record, Payload]]:
    """Every post with its step, opened with its poster's own keys."""
    world = trial.world
    ledger, position = world.ledger(), 0
    machine = Machine(learner_of(world.study).script, Site(world.study, "witness"))
    while machine.awaits is not None:
        posts = {}
        for record in ledger.read_finished(world.number, position) or ():
            posts[record.site] = _make_codec(world, record.site).read(machine.awaits, record, world.blobs)
            yield machine.awaits, record, posts[record.site]
        machine.advance(posts)
        position += 1
