"""The daemon of one site: it follows the ledger and takes part in every study that its people approved.

All state is on the ledger, in the journal, and in the folder of decisions; the daemon may die at any moment. Studies do
not disturb each other: what stops one is told, and tried again while the study runs.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event as Flag

from coterie_chain.errors import ChainError, PostRejected, StoreFault
from coterie_chain.ethereum.network import Network
from coterie_chain.keys.journal import Journal
from coterie_chain.keys.private_files import replace_private
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import Ledger, PipelinedLedger, State, StudyView, Terms
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core.fit import fit_to_json
from coterie_learners.errors import LearnerError
from coterie_node.data.load import load_site
from coterie_node.errors import ConfigError, NodeError
from coterie_node.peers.interactive_session import Exchange
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.storage import FolderStorage
from coterie_node.release.approval import ApprovalFolder
from coterie_node.run.reasons import Reason, describe_reason
from coterie_node.run.runner import Progress, Runner
from coterie_node.run.study_files import study_of, study_on_ledger, study_terms
from coterie_node.run.supervisor import RetryPolicy, Supervisor
from coterie_node.site.config import NodeFolder
from coterie_node.site.decisions import Decision, DecisionFolder
from coterie_node.site.fault_notes import FaultRecord
from coterie_node.site.participant import Node, make_site_runner, take_snapshot
from coterie_node.site.study_task import StudyTask
from coterie_node.site.votes import Ballot, BallotBox
from coterie_node.site.watch.log import Log, code_of
from coterie_node.site.watch.metrics import Metrics

# Seconds between two looks at the ledger, and until a study that stopped here is tried again.
LEDGER_POLL_SECONDS, RETRY_SECONDS = 0.5, 60.0
# ... and between two measurements.
MEASURE_SECONDS = 5.0
# Seconds to go on for the sake of an interactive step once told to stop (the unit's TimeoutStopSec is longer), and
# between two looks at it.
LEAVE_SECONDS, SESSION_POLL_SECONDS = 150.0, 0.05
# A daemon bears what may pass for as long as it lasts: its people are told, and read the metrics.
ENDLESS_RETRY = RetryPolicy(limit=math.inf, first=0.5, longest=30.0, also=(StoreFault,))


@dataclass(frozen=True)
class NodeServices:
    """What the daemon works with: the seams are the ledger, the store, the journal and the clock."""

    home: NodeFolder
    keys: SiteKeys
    network: Network
    ledger: Ledger
    blobs: BlobStore
    journal: Journal
    ahead: PipelinedLedger | None = None
    clock: Callable[[], float] = time.monotonic
    exchange: Exchange | None = None
    newest: Callable[[], int] = lambda: 0
    peers: Callable[[], float] = lambda: 0
    log: Log = field(default_factory=Log)
    metrics: Metrics = field(default_factory=Metrics)

    @property
    def name(self) -> str:
        """This site's name."""
        return self.home.config.site


class Daemon:
    """One site's studies. `beat` does all that there is to do now; `run` goes on until it is told to stop."""

    def __init__(self, services: NodeServices) -> None:
        self.tasks: dict[int, StudyTask] = {}
        self._proposals: dict[str, StudyTask] = {}
        self.services = services
        self.decisions = DecisionFolder(services.home.root / "decisions")
        self.ballots = BallotBox(services.home.root / "ballots")
        self.notes = FaultRecord(services.home.root / "faults")
        self.reached = -math.inf
        self._seen = 0
        self._measure_at = -math.inf
        self._outage = ""
        self._leave_by = math.inf
        services.metrics.confirmations.set(services.home.config.chain.confirmations)

    def run(self, stop: Flag) -> None:
        """Beat until `stop` is set; whatever is being done is finished first, an interactive step within 150 s."""
        pause = ENDLESS_RETRY.first
        while not stop.is_set() or self._must_continue():
            try:
                moved = self.tick()
                pause, self._outage = ENDLESS_RETRY.first, ""
                if not moved and not stop.is_set():
                    self._wait(stop)
                elif not moved:
                    time.sleep(SESSION_POLL_SECONDS)
            except ChainError as error:
                if not ENDLESS_RETRY.is_transient(error):
                    raise
                if error.code != self._outage:  # told once, counted each time
                    self._log_fault("ledger out of reach", error)
                self._outage = error.code
                if stop.wait(pause):
                    time.sleep(SESSION_POLL_SECONDS)
                pause = min(2 * pause, ENDLESS_RETRY.longest)

    def _must_continue(self) -> bool:
        """Whether leaving now would end a study for all: this site is in the middle of an interactive step of it."""
        now = self.services.clock()
        self._leave_by = min(self._leave_by, now + LEAVE_SECONDS)
        talking = any(task.supervisor is not None and task.supervisor.talking for task in self.tasks.values())
        return talking and now < self._leave_by

    def tick(self) -> bool:
        """Do what there is to do in every study; False if it is time to wait."""
        self._find_studies()
        self._propose()
        voted = self._vote()
        moved = [self._advance(task) for task in self.tasks.values() if not task.over]
        if self.services.clock() >= self._measure_at:
            self._measure_at = self.services.clock() + MEASURE_SECONDS
            with suppress(ChainError):  # the figures must never hold up the work
                self._measure()
        return voted or any(moved)

    @property
    def healthy(self) -> bool:
        """Whether the ledger was read within the last two minutes."""
        return self.services.clock() - self.reached < 120

    @property
    def status(self) -> list[dict[str, object]]:
        """How this site stands to each study; proposals that something keeps off the ledger have the number 0."""
        stuck = [task for task in list(self._proposals.values()) if task.fault is not None]
        return [task.as_dict() for task in [*self.tasks.copy().values(), *stuck]]

    # Studies

    def _find_studies(self) -> None:
        """Take note of studies that are new on the ledger."""
        numbers = self.services.ledger.studies()
        self.reached = self.services.clock()
        self._seen = min(self._seen, len(numbers))
        for number in numbers[self._seen :]:
            try:
                view = self.services.ledger.view(number)
            except PostRejected:
                return  # a reorganisation took it since the studies were counted: look again
            self._seen += 1
            if self.services.name in view.terms.sites:
                self._add_task(number, view)

    def _add_task(self, number: int, view: StudyView) -> None:
        """A study is there; it may have been before, and be there again after a reorganisation."""
        before, study_hash = self.tasks.get(number), view.terms.hash
        if before is not None and not before.over:
            if before.hash == study_hash:
                return
            self._stop_task(before, before.phase)
        task = self.tasks[number] = StudyTask(number, study_hash)
        task.phase = "done" if self._has_results(task) else "aborted" if view.state == State.ABORTED else "waiting"
        self.services.log.tell("study found", study=number, hash=study_hash.hex(), state=view.state.name.lower())

    def _propose(self) -> None:
        """Put on the ledger what this site's people propose; what is wrong with one proposal stays there."""
        known_hashes = {task.hash for task in self.tasks.values()}
        for study in self.decisions.studies():
            if study not in known_hashes:
                task = self._proposals.setdefault(study.hex(), StudyTask(0, study))
                self._guard(task, self._submit_proposal)
        self._proposals = {study: task for study, task in self._proposals.items() if task.hash not in known_hashes}

    def _submit_proposal(self, task: StudyTask) -> bool:
        decision = self.decisions.latest(task.hash)
        if decision is None or decision.action != "propose":
            return False
        if task.move is not None:
            self._propose_as(task.move)
            return False
        document = self.decisions.read_document(task.hash)
        node = self._node(document, decision)
        task.name = node.study.name
        self.services.blobs.put(document)
        task.move = study_terms(node.study), take_snapshot(node)
        self._propose_as(task.move)
        self.services.log.tell("study proposed", hash=decision.study)
        return True

    def _propose_as(self, move: tuple[Terms, bytes]) -> None:
        if self.services.ahead is None:
            self.services.ledger.propose(*move)
        else:
            self.services.ahead.submit_proposal(*move)

    def _vote(self) -> bool:
        """Cast this site's votes about members and paused studies; one that the contract refuses is put aside."""
        waiting = self.ballots.waiting()
        for path in waiting:
            try:
                self._cast(self.ballots.read(path))
            except (PostRejected, ConfigError) as error:
                self._log_fault("vote refused", error)
                self.ballots.settle(path, "refused")
            else:
                self.ballots.settle(path, "cast")
        return bool(waiting)

    def _cast(self, ballot: Ballot) -> None:
        try:
            ballot.cast(self.services.ledger)
        except PostRejected as error:
            if error.name != "AlreadyVoted":  # a vote sent before a crash has arrived since
                raise
        self.services.log.tell("vote cast", decision=ballot.motion, name=ballot.subject)

    def _advance(self, task: StudyTask) -> bool:
        """Do the next thing in one study; what is wrong with it stays there."""
        return self._guard(task, self._step)

    def _guard(self, task: StudyTask, step: Callable[[StudyTask], bool]) -> bool:
        """Do something for one study unless it stopped a moment ago; a fault stops this study alone."""
        if self.services.clock() < task.again_at and self.decisions.count(task.hash) == task.decisions_seen:
            return False
        try:
            moved = step(task)
        except ChainError as error:
            self._halt(task, error, ENDLESS_RETRY.longest if ENDLESS_RETRY.is_transient(error) else RETRY_SECONDS)
            return False
        except (LearnerError, NodeError) as error:
            self._halt(task, error, RETRY_SECONDS)
            return False
        if task.supervisor is None or task.supervisor.fault is None:
            task.fault = None
        return moved

    def _step(self, task: StudyTask) -> bool:
        view, decision = self.services.ledger.view(task.number), self.decisions.latest(task.hash)
        if view.terms.hash != task.hash:  # a reorganisation gave the number to another study
            self._stop_task(task, task.phase)
            self.tasks[task.number] = StudyTask(task.number, view.terms.hash)
            return True
        if decision is not None and decision.action in ("decline", "abort") and self._end(task, view, decision):
            return True
        if view.state == State.ABORTED:
            return self._close_aborted(task)
        if view.state == State.PROPOSED:
            return self._consider(task, view, decision)
        if decision is None:
            self._set_waiting(task, "approval: this site joined, but no decision is here")
            return False
        return self._work(task, view, decision)

    def _end(self, task: StudyTask, view: StudyView, decision: Decision) -> bool:
        """Carry out a no; False if the study is over anyway."""
        if view.state not in (State.PROPOSED, State.RUNNING, State.PAUSED):
            return False
        reason = Reason.DECLINED if decision.action == "decline" else Reason.OPERATOR
        self.services.ledger.abort(task.number, reason)
        self.services.log.tell("study ended by this site", study=task.number, cause=describe_reason(reason))
        self._stop_task(task, "declined" if decision.action == "decline" else "aborted")
        return True

    def _close_aborted(self, task: StudyTask) -> bool:
        self._stop_task(task, "aborted")
        self.services.log.tell("study aborted", level="warning", study=task.number)
        return True

    def _consider(self, task: StudyTask, view: StudyView, decision: Decision | None) -> bool:
        """Join a proposed study that this site's people approved and its policy allows."""
        missing = ", ".join(site for site in view.terms.sites if site not in view.joined)
        if decision is None or not decision.takes_part or self.services.name in view.joined:
            self._set_waiting(task, f"approval by {missing}")
            return False
        new = task.snapshot is None
        if task.snapshot is None:
            task.snapshot = take_snapshot(self._node_of(view, decision))
        self._join(task)
        if new:
            self.services.log.tell("study joined", study=task.number)
        return new

    def _join(self, task: StudyTask) -> None:
        """Join a study, or see to it that a joining under way gets into a block."""
        assert task.snapshot is not None
        ledger = self.services.ledger
        try:
            if self.services.ahead is None:
                ledger.join(task.number, task.hash, task.snapshot)
            else:
                self.services.ahead.submit_join(task.number, task.hash, task.snapshot)
        except PostRejected as error:
            if error.name != "AlreadyVoted":  # a joining sent before a crash has arrived since
                raise
        self._set_waiting(task, "a block that takes this site's joining")

    def _work(self, task: StudyTask, view: StudyView, decision: Decision) -> bool:
        if task.supervisor is None:
            task.supervisor = Supervisor(lambda: self._runner(task, view, decision), self.services.clock, ENDLESS_RETRY)
            task.phase = "working"
        if task.supervisor.done:
            return self._await_finality(task, task.supervisor)
        moved = task.supervisor.tick()
        self._note_restarts(task)
        if not moved and task.supervisor.fault is not None:
            self._report(task, task.supervisor.fault)
        elif not moved and not task.supervisor.done:
            self._set_waiting(task, self._describe_wait(task))
        return moved

    def _await_finality(self, task: StudyTask, supervisor: Supervisor) -> bool:
        """Wait until the result is final, look whether it still stands, and leave it in the results."""
        runner = supervisor.runner
        assert runner is not None
        if task.final_at is None:
            task.phase, task.final_at = (
                "settling",
                self.services.newest() + self.services.home.config.chain.confirmations,
            )
        if self.services.newest() < task.final_at:
            return False
        task.final_at = None
        if not runner.check_end():
            task.phase = "working"
            return True
        self._write_results(task, runner)
        task.phase, task.supervisor, task.cause = "done", None, ""
        self.services.log.tell("study done", study=task.number, name=task.name)
        return True

    def _has_results(self, task: StudyTask) -> bool:
        """Whether the results hold this study's already, from before a restart."""
        try:
            status = json.loads((self.services.home.results / f"{task.number}.json").read_bytes())
        except (OSError, ValueError):
            return False
        return bool(status.get("hash") == task.hash.hex() and status.get("network") == self.services.network.scope)

    def _write_results(self, task: StudyTask, runner: Runner) -> None:
        results = self.services.home.results
        fit = None if runner.machine.result is None else fit_to_json(runner.machine.result)
        status = {"study": task.number, "hash": task.hash.hex(), "name": task.name, "fit": fit}
        status["network"] = self.services.network.scope
        try:
            results.mkdir(mode=0o700, exist_ok=True)
            replace_private(results / f"{task.number}.json", json.dumps(status, indent=2))
        except OSError as error:
            what = f"The folder of results {results} cannot be used: {error.strerror or error}"
            raise StoreFault("CO-C204", f"{what}. Check the free space, and that this user may write there.") from None

    # What a study needs

    def _node_of(self, view: StudyView, decision: Decision) -> Node:
        return self._node(study_on_ledger(view, self.services.blobs).document, decision)

    def _node(self, document: bytes, decision: Decision) -> Node:
        """Everything that one study needs here; its policy and its rows are checked first."""
        services, home = self.services, self.services.home
        study = study_of(document, "The study's document")
        if study.hash.hex() != decision.study or not decision.takes_part:
            raise ConfigError("CO-F301", f"{services.name}'s people did not approve study {study.hash.hex()[:16]}.")
        if services.name not in study.sites:
            raise ConfigError("CO-F302", f"{services.name!r} takes no part in study {study.name!r}.")
        home.config.policy.check(study, services.name)
        home.config.talk.check(study, services.name)
        data = home.path(decision.data) if decision.data else home.data
        rows = load_site(data, study, services.name, home.exclude)
        consent = ApprovalFolder(home.root / "releases" / study.hash.hex()[:16]).consent
        return Node(
            study,
            services.name,
            rows,
            services.keys,
            services.network,
            services.ledger,
            services.blobs,
            services.journal,
            home.config.policy,
            consent,
            exchange=services.exchange,
            ahead=services.ahead,
            log=PrivacyLog(FolderStorage(home.privacy), services.journal.vault),
        )

    def _runner(self, task: StudyTask, view: StudyView, decision: Decision) -> Runner:
        node = self._node_of(view, decision)
        task.name = node.study.name
        # The document stays within reach for as long as the study does.
        self.services.blobs.put(node.study.document)

        def observe(progress: Progress) -> None:
            self.services.metrics.rounds.labels(progress.kind.partition(":")[0]).inc()
            self.services.log.tell(
                "step finished",
                study=task.number,
                position=progress.position,
                topic=progress.topic,
                kind=progress.kind,
                round=progress.round,
            )

        return make_site_runner(node, task.number, observe)

    # What is told

    def _describe_wait(self, task: StudyTask) -> str:
        """Whom a study waits for, by name, and since when if it is late."""
        view = self.services.ledger.view(task.number)
        if view.state == State.PAUSED:
            return "people: the study is paused over a dispute (coterie study resume, or abort)"
        if view.open is None:
            return "the ledger"
        runner = task.runner
        missing_parties = () if runner is None else runner.missing_parties
        silent = missing_parties or [site for site in view.open.posters if site not in view.open.posted]
        late = self.services.ledger.now() - view.open.deadline
        status = f"{', '.join(silent)} at step {view.open.position}"
        return f"{status}, {late} s past the deadline" if late > 0 else status

    def _set_waiting(self, task: StudyTask, cause: str) -> None:
        named = cause.partition(", ")[0]
        if named != task.cause.partition(", ")[0]:
            self.services.log.tell("waiting", study=task.number, waits_for=cause)
        task.cause = cause

    def _halt(self, task: StudyTask, error: Exception, seconds: float) -> None:
        """Tell what stopped a study here, and try again later: as long as it runs, people may mend it."""
        self._report(task, error)
        self._stop_task(task, "stopped")
        task.move = task.snapshot = None  # people may mend the rows
        # people who decide anew have mended something, and do not wait for the next look
        task.again_at, task.decisions_seen = self.services.clock() + seconds, self.decisions.count(task.hash)

    def _stop_task(self, task: StudyTask, phase: str) -> None:
        if task.supervisor is not None:
            task.supervisor.close()
        task.phase, task.supervisor = phase, None

    def _report(self, task: StudyTask, error: Exception) -> None:
        if task.fault is None or str(error) != str(task.fault):
            self._log_fault("fault", error, study=task.number)
            self.notes.note(task.number, error)
        task.fault = error

    def _log_fault(self, event: str, error: Exception, **which: object) -> None:
        self.services.metrics.faults.labels(code_of(error)).inc()
        self.services.log.fault(event, error, **which)

    def _note_restarts(self, task: StudyTask) -> None:
        runner = task.runner
        if runner is not None:
            task.posted = max(task.posted, runner.payload_bytes)
        if runner is not None and runner.restarts > task.restarts:
            self.services.metrics.restarts.inc(runner.restarts - task.restarts)
            self.services.log.tell("followed anew", study=task.number, restarts=runner.restarts)
            task.restarts = runner.restarts

    def _wait(self, stop: Flag) -> None:
        """Until the ledger changes, or for a moment; the time is counted by what is waited for."""
        start = self.services.clock()
        self.services.ledger.wait(LEDGER_POLL_SECONDS)
        passed = self.services.clock() - start
        if passed <= 0:
            stop.wait(LEDGER_POLL_SECONDS)  # a ledger that does not wait
        for cause in {self._waiting_label(task) for task in self.tasks.values() if not task.over}:
            self.services.metrics.waited.labels(cause).inc(passed)

    def _waiting_label(self, task: StudyTask) -> str:
        if task.fault is not None:
            return code_of(task.fault)
        return "approval" if task.cause.startswith("approval") else "confirmations" if task.final_at else "sites"

    def _measure(self) -> None:
        metrics, services = self.services.metrics, self.services
        states = Counter(task.phase for task in self.tasks.values())
        for phase in ("waiting", "working", "settling", "done", "stopped", "declined", "aborted"):
            metrics.studies.labels(phase).set(states[phase])
        metrics.head.set(services.newest())
        metrics.peers.set(services.peers())
        metrics.bytes.set(sum(task.posted for task in self.tasks.values()))
        metrics.gas.set(getattr(services.ledger, "gas_used", 0))
