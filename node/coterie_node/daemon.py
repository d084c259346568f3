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

from coterie_chain.blobs import BlobStore
from coterie_chain.errors import ChainError, PostRejected, StoreFault
from coterie_chain.journal import Journal
from coterie_chain.keys import SiteKeys
from coterie_chain.ledger import Ahead, Ledger, State, StudyView, Terms
from coterie_chain.network import Network
from coterie_chain.private_files import replace_private
from coterie_learners.errors import LearnerError
from coterie_learners.inference import plain
from coterie_node.attendance import Attendance, Patience
from coterie_node.audit import study_on_ledger
from coterie_node.ballots import Ballot, BallotBox
from coterie_node.consent import ReleaseFolder
from coterie_node.data import load_site
from coterie_node.decisions import Decision, DecisionFolder
from coterie_node.engagement import Engagement
from coterie_node.errors import ConfigError, NodeError
from coterie_node.fault_notes import FaultNotes
from coterie_node.log import Log, code_of
from coterie_node.metrics import Metrics
from coterie_node.participant import Node, runner_of, snapshot_of
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.storage import FolderStorage
from coterie_node.reasons import Reason, words_of
from coterie_node.runner import Progress, Runner
from coterie_node.site_config import Home
from coterie_node.studies import study_of, terms_of
from coterie_node.talk import Exchange

# Seconds between two looks at the ledger, and until a study that stopped here is tried again.
POLL, AGAIN = 0.5, 60.0
# ... and between two measurements.
EVERY = 5.0
# Seconds to go on for the sake of an interactive step once told to stop (the unit's TimeoutStopSec is longer), and
# between two looks at it.
LEAVE, BRIEFLY = 150.0, 0.05
# A daemon bears what may pass for as long as it lasts: its people are told, and read the metrics.
ENDLESS = Patience(limit=math.inf, first=0.5, longest=30.0, also=(StoreFault,))


@dataclass(frozen=True)
class Desk:
    """What the daemon works with: the seams are the ledger, the store, the journal and the clock."""

    home: Home
    keys: SiteKeys
    network: Network
    ledger: Ledger
    blobs: BlobStore
    journal: Journal
    ahead: Ahead | None = None
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

    def __init__(self, desk: Desk) -> None:
        self.engagements: dict[int, Engagement] = {}
        self._proposals: dict[str, Engagement] = {}
        self.desk = desk
        self.decisions = DecisionFolder(desk.home.root / "decisions")
        self.ballots = BallotBox(desk.home.root / "ballots")
        self.notes = FaultNotes(desk.home.root / "faults")
        self.reached = -math.inf
        self._seen = 0
        self._measure_at = -math.inf
        self._outage = ""
        self._leave_by = math.inf
        desk.metrics.confirmations.set(desk.home.config.chain.confirmations)

    def run(self, stop: Flag) -> None:
        """Beat until `stop` is set; whatever is being done is finished first, an interactive step within 150 s."""
        pause = ENDLESS.first
        while not stop.is_set() or self._must_stay():
            try:
                moved = self.beat()
                pause, self._outage = ENDLESS.first, ""
                if not moved and not stop.is_set():
                    self._wait(stop)
                elif not moved:
                    time.sleep(BRIEFLY)
            except ChainError as error:
                if not ENDLESS.bears(error):
                    raise
                if error.code != self._outage:  # told once, counted each time
                    self._tell_fault("ledger out of reach", error)
                self._outage = error.code
                if stop.wait(pause):
                    time.sleep(BRIEFLY)
                pause = min(2 * pause, ENDLESS.longest)

    def _must_stay(self) -> bool:
        """Whether leaving now would end a study for all: this site is in the middle of an interactive step of it."""
        now = self.desk.clock()
        self._leave_by = min(self._leave_by, now + LEAVE)
        talking = any(one.attendance is not None and one.attendance.talking for one in self.engagements.values())
        return talking and now < self._leave_by

    def beat(self) -> bool:
        """Do what there is to do in every study; False if it is time to wait."""
        self._meet()
        self._propose()
        voted = self._vote()
        moved = [self._advance(one) for one in self.engagements.values() if not one.over]
        if self.desk.clock() >= self._measure_at:
            self._measure_at = self.desk.clock() + EVERY
            with suppress(ChainError):  # the figures must never hold up the work
                self._measure()
        return voted or any(moved)

    @property
    def healthy(self) -> bool:
        """Whether the ledger was read within the last two minutes."""
        return self.desk.clock() - self.reached < 120

    @property
    def told(self) -> list[dict[str, object]]:
        """How this site stands to each study; proposals that something keeps off the ledger have the number 0."""
        stuck = [one for one in list(self._proposals.values()) if one.fault is not None]
        return [one.as_dict() for one in [*self.engagements.copy().values(), *stuck]]

    # Studies

    def _meet(self) -> None:
        """Take note of studies that are new on the ledger."""
        numbers = self.desk.ledger.studies()
        self.reached = self.desk.clock()
        self._seen = min(self._seen, len(numbers))
        for number in numbers[self._seen :]:
            try:
                view = self.desk.ledger.view(number)
            except PostRejected:
                return  # a reorganisation took it since the studies were counted: look again
            self._seen += 1
            if self.desk.name in view.terms.sites:
                self._find(number, view)

    def _find(self, number: int, view: StudyView) -> None:
        """A study is there; it may have been before, and be there again after a reorganisation."""
        before, found = self.engagements.get(number), view.terms.hash
        if before is not None and not before.over:
            if before.hash == found:
                return
            self._leave_off(before, before.phase)
        one = self.engagements[number] = Engagement(number, found)
        one.phase = "done" if self._left(one) else "aborted" if view.state == State.ABORTED else "waiting"
        self.desk.log.tell("study found", study=number, hash=found.hex(), state=view.state.name.lower())

    def _propose(self) -> None:
        """Put on the ledger what this site's people propose; what is wrong with one proposal stays there."""
        known = {one.hash for one in self.engagements.values()}
        for study in self.decisions.studies():
            if study not in known:
                one = self._proposals.setdefault(study.hex(), Engagement(0, study))
                self._guard(one, self._put_forward)
        self._proposals = {study: one for study, one in self._proposals.items() if one.hash not in known}

    def _put_forward(self, one: Engagement) -> bool:
        decision = self.decisions.of(one.hash)
        if decision is None or decision.action != "propose":
            return False
        if one.move is not None:
            self._propose_as(one.move)
            return False
        document = self.decisions.kept(one.hash)
        node = self._node(document, decision)
        one.name = node.study.name
        self.desk.blobs.put(document)
        one.move = terms_of(node.study), snapshot_of(node)
        self._propose_as(one.move)
        self.desk.log.tell("study proposed", hash=decision.study)
        return True

    def _propose_as(self, move: tuple[Terms, bytes]) -> None:
        if self.desk.ahead is None:
            self.desk.ledger.propose(*move)
        else:
            self.desk.ahead.submit_proposal(*move)

    def _vote(self) -> bool:
        """Cast this site's votes about members and paused studies; one that the contract refuses is put aside."""
        waiting = self.ballots.waiting()
        for path in waiting:
            try:
                self._cast(self.ballots.read(path))
            except (PostRejected, ConfigError) as error:
                self._tell_fault("vote refused", error)
                self.ballots.settle(path, "refused")
            else:
                self.ballots.settle(path, "cast")
        return bool(waiting)

    def _cast(self, ballot: Ballot) -> None:
        try:
            ballot.cast(self.desk.ledger)
        except PostRejected as error:
            if error.name != "AlreadyVoted":  # a vote sent before a crash has arrived since
                raise
        self.desk.log.tell("vote cast", decision=ballot.motion, name=ballot.subject)

    def _advance(self, one: Engagement) -> bool:
        """Do the next thing in one study; what is wrong with it stays there."""
        return self._guard(one, self._step)

    def _guard(self, one: Engagement, step: Callable[[Engagement], bool]) -> bool:
        """Do something for one study unless it stopped a moment ago; a fault stops this study alone."""
        if self.desk.clock() < one.again_at and self.decisions.count(one.hash) == one.decided:
            return False
        try:
            moved = step(one)
        except ChainError as error:
            self._halt(one, error, ENDLESS.longest if ENDLESS.bears(error) else AGAIN)
            return False
        except (LearnerError, NodeError) as error:
            self._halt(one, error, AGAIN)
            return False
        if one.attendance is None or one.attendance.fault is None:
            one.fault = None
        return moved

    def _step(self, one: Engagement) -> bool:
        view, decision = self.desk.ledger.view(one.number), self.decisions.of(one.hash)
        if view.terms.hash != one.hash:  # a reorganisation gave the number to another study
            self._leave_off(one, one.phase)
            self.engagements[one.number] = Engagement(one.number, view.terms.hash)
            return True
        if decision is not None and decision.action in ("decline", "abort") and self._end(one, view, decision):
            return True
        if view.state == State.ABORTED:
            return self._aborted(one)
        if view.state == State.PROPOSED:
            return self._consider(one, view, decision)
        if decision is None:
            self._await(one, "approval: this site joined, but no decision is here")
            return False
        return self._work(one, view, decision)

    def _end(self, one: Engagement, view: StudyView, decision: Decision) -> bool:
        """Carry out a no; False if the study is over anyway."""
        if view.state not in (State.PROPOSED, State.RUNNING, State.PAUSED):
            return False
        reason = Reason.DECLINED if decision.action == "decline" else Reason.OPERATOR
        self.desk.ledger.abort(one.number, reason)
        self.desk.log.tell("study ended by this site", study=one.number, cause=words_of(reason))
        self._leave_off(one, "declined" if decision.action == "decline" else "aborted")
        return True

    def _aborted(self, one: Engagement) -> bool:
        self._leave_off(one, "aborted")
        self.desk.log.tell("study aborted", level="warning", study=one.number)
        return True

    def _consider(self, one: Engagement, view: StudyView, decision: Decision | None) -> bool:
        """Join a proposed study that this site's people approved and its policy allows."""
        missing = ", ".join(site for site in view.terms.sites if site not in view.joined)
        if decision is None or not decision.takes_part or self.desk.name in view.joined:
            self._await(one, f"approval by {missing}")
            return False
        new = one.snapshot is None
        if one.snapshot is None:
            one.snapshot = snapshot_of(self._node_of(view, decision))
        self._join(one)
        if new:
            self.desk.log.tell("study joined", study=one.number)
        return new

    def _join(self, one: Engagement) -> None:
        """Join a study, or see to it that a joining under way gets into a block."""
        assert one.snapshot is not None
        ledger = self.desk.ledger
        try:
            if self.desk.ahead is None:
                ledger.join(one.number, one.hash, one.snapshot)
            else:
                self.desk.ahead.submit_join(one.number, one.hash, one.snapshot)
        except PostRejected as error:
            if error.name != "AlreadyVoted":  # a joining sent before a crash has arrived since
                raise
        self._await(one, "a block that takes this site's joining")

    def _work(self, one: Engagement, view: StudyView, decision: Decision) -> bool:
        if one.attendance is None:
            one.attendance = Attendance(lambda: self._runner(one, view, decision), self.desk.clock, ENDLESS)
            one.phase = "working"
        if one.attendance.done:
            return self._settle(one, one.attendance)
        moved = one.attendance.beat()
        self._note_restarts(one)
        if not moved and one.attendance.fault is not None:
            self._report(one, one.attendance.fault)
        elif not moved and not one.attendance.done:
            self._await(one, self._culprits(one))
        return moved

    def _settle(self, one: Engagement, attendance: Attendance) -> bool:
        """Wait until the result is final, look whether it still stands, and leave it in the results."""
        runner = attendance.runner
        assert runner is not None
        if one.final_at is None:
            one.phase, one.final_at = "settling", self.desk.newest() + self.desk.home.config.chain.confirmations
        if self.desk.newest() < one.final_at:
            return False
        one.final_at = None
        if not runner.check_end():
            one.phase = "working"
            return True
        self._leave(one, runner)
        one.phase, one.attendance, one.cause = "done", None, ""
        self.desk.log.tell("study done", study=one.number, name=one.name)
        return True

    def _left(self, one: Engagement) -> bool:
        """Whether the results hold this study's already, from before a restart."""
        try:
            told = json.loads((self.desk.home.results / f"{one.number}.json").read_bytes())
        except (OSError, ValueError):
            return False
        return bool(told.get("hash") == one.hash.hex() and told.get("network") == self.desk.network.scope)

    def _leave(self, one: Engagement, runner: Runner) -> None:
        results = self.desk.home.results
        fit = None if runner.machine.result is None else plain(runner.machine.result)
        told = {"study": one.number, "hash": one.hash.hex(), "name": one.name, "fit": fit}
        told["network"] = self.desk.network.scope
        try:
            results.mkdir(mode=0o700, exist_ok=True)
            replace_private(results / f"{one.number}.json", json.dumps(told, indent=2))
        except OSError as error:
            what = f"The folder of results {results} cannot be used: {error.strerror or error}"
            raise StoreFault("CO-C204", f"{what}. Check the free space, and that this user may write there.") from None

    # What a study needs

    def _node_of(self, view: StudyView, decision: Decision) -> Node:
        return self._node(study_on_ledger(view, self.desk.blobs).document, decision)

    def _node(self, document: bytes, decision: Decision) -> Node:
        """Everything that one study needs here; its policy and its rows are checked first."""
        desk, home = self.desk, self.desk.home
        study = study_of(document, "The study's document")
        if study.hash.hex() != decision.study or not decision.takes_part:
            raise ConfigError("CO-F301", f"{desk.name}'s people did not approve study {study.hash.hex()[:16]}.")
        if desk.name not in study.sites:
            raise ConfigError("CO-F302", f"{desk.name!r} takes no part in study {study.name!r}.")
        home.config.policy.check(study, desk.name)
        home.config.talk.check(study, desk.name)
        rows = load_site(home.path(decision.data) if decision.data else home.data, study, desk.name)
        consent = ReleaseFolder(home.root / "releases" / study.hash.hex()[:16]).consent
        return Node(
            study,
            desk.name,
            rows,
            desk.keys,
            desk.network,
            desk.ledger,
            desk.blobs,
            desk.journal,
            home.config.policy,
            consent,
            exchange=desk.exchange,
            ahead=desk.ahead,
            log=PrivacyLog(FolderStorage(home.privacy), desk.journal.vault),
        )

    def _runner(self, one: Engagement, view: StudyView, decision: Decision) -> Runner:
        node = self._node_of(view, decision)
        one.name = node.study.name
        # The document stays within reach for as long as the study does.
        self.desk.blobs.put(node.study.document)

        def observe(progress: Progress) -> None:
            self.desk.metrics.rounds.labels(progress.kind.partition(":")[0]).inc()
            self.desk.log.tell(
                "step finished",
                study=one.number,
                position=progress.position,
                topic=progress.topic,
                kind=progress.kind,
                round=progress.round,
            )

        return runner_of(node, one.number, observe)

    # What is told

    def _culprits(self, one: Engagement) -> str:
        """Whom a study waits for, by name, and since when if it is late."""
        view = self.desk.ledger.view(one.number)
        if view.state == State.PAUSED:
            return "people: the study is paused over a dispute (coterie study resume, or abort)"
        if view.open is None:
            return "the ledger"
        runner = one.runner
        absent = () if runner is None else runner.absent
        silent = absent or [site for site in view.open.posters if site not in view.open.posted]
        late = self.desk.ledger.now() - view.open.deadline
        told = f"{', '.join(silent)} at step {view.open.position}"
        return f"{told}, {late} s past the deadline" if late > 0 else told

    def _await(self, one: Engagement, cause: str) -> None:
        named = cause.partition(", ")[0]
        if named != one.cause.partition(", ")[0]:
            self.desk.log.tell("waiting", study=one.number, waits_for=cause)
        one.cause = cause

    def _halt(self, one: Engagement, error: Exception, seconds: float) -> None:
        """Tell what stopped a study here, and try again later: as long as it runs, people may mend it."""
        self._report(one, error)
        self._leave_off(one, "stopped")
        one.move = one.snapshot = None  # people may mend the rows
        # people who decide anew have mended something, and do not wait for the next look
        one.again_at, one.decided = self.desk.clock() + seconds, self.decisions.count(one.hash)

    def _leave_off(self, one: Engagement, phase: str) -> None:
        if one.attendance is not None:
            one.attendance.close()
        one.phase, one.attendance = phase, None

    def _report(self, one: Engagement, error: Exception) -> None:
        if one.fault is None or str(error) != str(one.fault):
            self._tell_fault("fault", error, study=one.number)
            self.notes.note(one.number, error)
        one.fault = error

    def _tell_fault(self, event: str, error: Exception, **which: object) -> None:
        self.desk.metrics.faults.labels(code_of(error)).inc()
        self.desk.log.fault(event, error, **which)

    def _note_restarts(self, one: Engagement) -> None:
        runner = one.runner
        if runner is not None:
            one.posted = max(one.posted, runner.payload_bytes)
        if runner is not None and runner.restarts > one.restarts:
            self.desk.metrics.restarts.inc(runner.restarts - one.restarts)
            self.desk.log.tell("followed anew", study=one.number, restarts=runner.restarts)
            one.restarts = runner.restarts

    def _wait(self, stop: Flag) -> None:
        """Until the ledger changes, or for a moment; the time is counted by what is waited for."""
        start = self.desk.clock()
        self.desk.ledger.wait(POLL)
        passed = self.desk.clock() - start
        if passed <= 0:
            stop.wait(POLL)  # a ledger that does not wait
        for cause in {self._cause(one) for one in self.engagements.values() if not one.over}:
            self.desk.metrics.waited.labels(cause).inc(passed)

    def _cause(self, one: Engagement) -> str:
        if one.fault is not None:
            return code_of(one.fault)
        return "approval" if one.cause.startswith("approval") else "confirmations" if one.final_at else "sites"

    def _measure(self) -> None:
        metrics, desk = self.desk.metrics, self.desk
        states = Counter(one.phase for one in self.engagements.values())
        for phase in ("waiting", "working", "settling", "done", "stopped", "declined", "aborted"):
            metrics.studies.labels(phase).set(states[phase])
        metrics.head.set(desk.newest())
        metrics.peers.set(desk.peers())
        metrics.bytes.set(sum(one.posted for one in self.engagements.values()))
        metrics.gas.set(getattr(desk.ledger, "gas_used", 0))
