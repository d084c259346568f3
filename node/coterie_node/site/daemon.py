"""The daemon of one site: it follows the ledger and takes part in every study that its people approved.

All state is on the ledger, in the journal, and in the folder of decisions, so the daemon may be killed at any moment.
One tick works in this order, after a copy of its state if a backup asks for one:

    1. studies that are new on the ledger    a decision may wait for one of them
    2. proposals of this site's people       step 1 of a later tick finds them on the ledger
    3. votes                                 they may admit a site, or resume a study
    4. one move in each study that is due    join, take a turn, or look whether the result is final
    5. measurements, every few seconds       their faults are ignored: they must not delay the work

Invariants. A study joins and posts only for a decision that is bound to its proposal (decisions.py), and only while the
ledger's terms are its document's. An error in one study stops that study alone: the log, the metrics and the status
name it, and it is tried again while the study runs. Only what makes the whole ledger unreadable ends the daemon; files
that cannot be used for a moment, as with too many open ones, make it unwell.
"""

from __future__ import annotations

import json
import math
import shutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from threading import Event as Flag
from typing import Any

from coterie_chain.errors import ChainError, PostRejected, StoreFault
from coterie_chain.ethereum.network import Network
from coterie_chain.keys.journal import Journal
from coterie_chain.keys.private_files import replace_private
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import Event, Ledger, PipelinedLedger, State, StudyView, Terms
from coterie_chain.retry import Backoff, RetryPolicy
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core.fit import fit_to_json
from coterie_learners.core.protocol import Site
from coterie_learners.errors import LearnerError
from coterie_node.data.load import load_site
from coterie_node.errors import ConfigError, NodeError, StudyQuarantined
from coterie_node.notices.events import Notice
from coterie_node.peers.interactive_session import Exchange
from coterie_node.privacy.log import PrivacyLog
from coterie_node.privacy.storage import FolderStorage
from coterie_node.release.approval import ApprovalFolder
from coterie_node.run.codec import forget_posts
from coterie_node.run.endings import describe_dispute, end_part, find_end, list_losses
from coterie_node.run.follower import Progress
from coterie_node.run.reasons import Reason, describe_reason
from coterie_node.run.runner import Runner
from coterie_node.run.study_files import (
    check_permit,
    check_silence_rule,
    check_terms,
    study_of,
    study_on_ledger,
    study_terms,
)
from coterie_node.run.supervisor import Supervisor
from coterie_node.site.decisions import Binding, Decision, DecisionFolder
from coterie_node.site.fault_notes import FaultRecord
from coterie_node.site.folder import SiteFolder
from coterie_node.site.participant import Node, make_site_runner, prepare_joining
from coterie_node.site.state_copy import answer_request
from coterie_node.site.statements.approvals import describe_missing, require_signers, state_approvals
from coterie_node.site.statements.joining import Joining
from coterie_node.site.study_list import StudyList
from coterie_node.site.study_task import StudyTask, TaskState, Wait, WaitCause, describe_vain_wait
from coterie_node.site.votes import Ballot, BallotBox
from coterie_node.site.watch.health import Health, describe_standstill
from coterie_node.site.watch.log import EventLog, code_of
from coterie_node.site.watch.metrics import Metrics
from coterie_node.site.watch.occasions import list_occasions

# Seconds between two looks at the ledger, and until a study that stopped here is tried again.
LEDGER_POLL_SECONDS, RETRY_SECONDS = 0.5, 60.0
# ... and between two measurements.
MEASURE_SECONDS = 5.0
# A proposal counts as expired so many seconds after its last second: longer than any reorganisation reaches.
EXPIRY_SECONDS = 3600
# A node that has not read the ledger for so many seconds is not well.
MAX_SILENCE = 120
# Seconds to go on for the sake of an interactive step after the signal to stop (the unit's TimeoutStopSec is longer),
# and between two looks at it.
LEAVE_SECONDS, SESSION_POLL_SECONDS = 150.0, 0.05
# A daemon retries what may pass for as long as it lasts: its people read the log and the metrics.
ENDLESS_RETRY = RetryPolicy(limit=math.inf, first=0.5, longest=30.0, also=(StoreFault,))
# What a defect of ours raises on input that nobody foresaw. It is no reason to stop the other studies.
DEFECTS = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, OSError, RecursionError)
MORE_DEFECTS = (TypeError, ValueError)


@dataclass(frozen=True)
class NodeServices:
    """What the daemon works with: the seams are the ledger, the store, the journal and the clock.

    `epoch` is the time in seconds since 1970. `block_age` is that of the newest block in seconds, and `period` the
    seconds between two; 0 where blocks come as they are wanted. `describe_gain` says what this site gained by joining a
    finished study; empty where there is nothing to say. `observe` takes what stands now that people get notices of, and
    never waits (False: it takes nothing now); None where nobody does. `rest` is the pause in seconds between two looks
    at the ledger while no study needs this site; 0 looks as often as at work. `tidy` is called when a study has left
    memory, and `settle` before the work of each tick: it raises while this site may not work yet.
    """

    home: SiteFolder
    keys: SiteKeys
    network: Network
    ledger: Ledger
    blobs: BlobStore
    journal: Journal
    ahead: PipelinedLedger | None = None
    clock: Callable[[], float] = time.monotonic
    epoch: Callable[[], int] = lambda: int(time.time())
    exchange: Exchange | None = None
    newest: Callable[[], int] = lambda: 0
    peers: Callable[[], float] = lambda: 0
    swarm_peers: Callable[[], float] = lambda: math.nan
    block_age: Callable[[], float] = lambda: 0.0
    period: float = 0.0
    chain_is_well: Callable[[], bool] = lambda: True
    log: EventLog = field(default_factory=EventLog)
    metrics: Metrics = field(default_factory=Metrics)
    describe_gain: Callable[[Site, Any], str] = lambda site, fit: ""
    observe: Callable[[Sequence[Notice]], object] | None = None
    rest: float = 0.0
    tidy: Callable[[], object] = lambda: None
    settle: Callable[[], object] = lambda: None

    @property
    def name(self) -> str:
        """This site's name."""
        return self.home.config.site


class Daemon:
    """One site's studies. `tick` does all that there is to do now; `run` goes on until it is asked to stop."""

    def __init__(self, services: NodeServices) -> None:
        self.studies = StudyList()
        self._proposals: dict[str, StudyTask] = {}
        self._counts: Mapping[bytes, int] = {}
        self.services = services
        self.decisions = DecisionFolder(services.home.root / "decisions")
        self.ballots = BallotBox(services.home.root / "ballots")
        self.notes = FaultRecord(services.home.root / "faults")
        # One for all studies: each of them is judged beside all former releases, which one copy in memory serves.
        self._privacy = PrivacyLog(FolderStorage(services.home.privacy), services.journal.vault)
        self.reached = -math.inf
        self._seen = 0
        self._measure_at = -math.inf
        self._outage = self._file_fault = ""
        self._leave_by = math.inf
        self._block_at = math.inf
        services.metrics.confirmations.set(services.home.config.chain.confirmations)
        services.metrics.build.labels(version("coterie")).set(1)

    def run(self, stop: Flag) -> None:
        """Tick until `stop` is set; the open move is finished first, an interactive step within 150 s."""
        backoff = Backoff(ENDLESS_RETRY)
        while not stop.is_set() or self._must_continue():
            try:
                moved = self.tick()
                self._outage = self._file_fault = ""
                backoff.reset()
                if not moved and not stop.is_set():
                    self._wait(stop)
                elif not moved:
                    time.sleep(SESSION_POLL_SECONDS)
            except (ChainError, OSError) as error:
                if isinstance(error, ChainError) and not ENDLESS_RETRY.is_transient(error):
                    raise
                self._note_outage(error)
                if stop.wait(backoff.next_pause()):
                    time.sleep(SESSION_POLL_SECONDS)

    def _note_outage(self, error: ChainError | OSError) -> None:
        """Log what keeps this site from its work, once in each outage: the ledger, or files of this machine."""
        if code_of(error) != self._outage:
            self._log_fault("files cannot be used" if isinstance(error, OSError) else "ledger out of reach", error)
        self._outage, self._file_fault = code_of(error), ""
        if isinstance(error, OSError):  # without its path: everybody may ask how this node is
            self._file_fault = f"files of this machine cannot be used: {error.strerror or type(error).__name__}"

    def _must_continue(self) -> bool:
        """Whether leaving now would end a study for all: this site is in the middle of an interactive step of it."""
        now = self.services.clock()
        self._leave_by = min(self._leave_by, now + LEAVE_SECONDS)
        talking = any(task.talking for task in self.studies.going.values())
        return talking and now < self._leave_by

    def tick(self) -> bool:
        """Do what there is to do in every study; False if it is time to wait."""
        self._copy_state()
        self.services.settle()
        self._find_studies()
        self._propose()
        voted = self._vote()
        moved = [self._advance(task) for task in self.studies.due(self.decisions.counts())]
        if self.services.clock() >= self._measure_at:
            self._measure_at = self.services.clock() + MEASURE_SECONDS
            with suppress(ChainError):  # measurements must never stop the work
                self._measure()
            self._notify()
        return voted or any(moved)

    def _copy_state(self) -> None:
        """Make the copy that a backup asks for; one that cannot be written is that command's fault, and no study's."""
        try:
            answer_request(self.services.home, self.services.journal)
        except ChainError as error:
            self._log_fault("no copy for a backup", error)

    @property
    def tasks(self) -> Mapping[int, StudyTask]:
        """All studies that name this site, by number; what is over is read from the disk."""
        return self.studies.tasks

    @property
    def health(self) -> Health:
        """How this node is: whether it reads the ledger, and whether the chain makes the blocks that it should."""
        now, causes = self.services.clock(), []
        if now - self.reached >= MAX_SILENCE:
            causes.append(f"the ledger was not read for {MAX_SILENCE} s: does the chain node run?")
        if standstill := describe_standstill(now - self._block_at, self.services.period):
            causes.append(standstill)
        if self._file_fault:
            causes.append(self._file_fault)
        if not self.services.chain_is_well():
            causes.append("transactions wait and no block comes: do a majority of the sealers run?")
        return Health(self.services.name, version("coterie"), tuple(causes))

    @property
    def status(self) -> list[dict[str, object]]:
        """The state of each study here; proposals that a fault keeps off the ledger have the number 0."""
        stuck = [task for task in list(self._proposals.values()) if task.fault is not None]
        tasks = [*self.tasks.values(), *stuck]
        return [task.as_dict() | {"same_document": self.studies.list_twins(task)} for task in tasks]

    # Studies

    def _find_studies(self) -> None:
        """Take note of studies that are new on the ledger."""
        count = len(self.services.ledger.studies())
        self.reached = self.services.clock()
        self._seen = min(self._seen, count)
        if count == self._seen:
            return
        news = self._seen > 0
        for event in self.services.ledger.list_proposals(self._seen):
            if not self._take_note(event, is_news=news):
                return  # a reorganisation took it since the studies were counted: look again
            self._seen = event.study

    def _take_note(self, event: Event, *, is_news: bool) -> bool:
        """Add a study that names this site, from its proposal; False if the ledger does not have it any more."""
        terms = dict(event.details)
        if self.services.name not in str(terms["sites"]).split(","):
            return True
        task = StudyTask(event.study, bytes.fromhex(str(terms["hash"])[2:]), event.site)
        # What is over is known from the history: a view of each would keep a node with thousands from its work.
        if self._has_results(task):
            task.finish()
        elif find_end(self.services.ledger, task.number) is not None and self._is_final(task):
            task.abort()
        else:
            try:
                self.services.ledger.view(task.number)
            except PostRejected:
                return False
            except ChainError as error:
                if ENDLESS_RETRY.is_transient(error):
                    raise
                # This one study cannot be read. The others can: their numbers were counted on the same ledger.
                self.studies.add(task)
                self._halt(task, error, RETRY_SECONDS)
                return True
        self._add_task(task, is_news=is_news)
        return True

    def _add_task(self, task: StudyTask, *, is_news: bool) -> None:
        """Add a study; after a reorganisation it may be there for the second time.

        `is_news` is False at the start: studies that are over are not logged once more.
        """
        before = self.tasks.get(task.number)
        if before is not None and not before.over:
            if before.hash == task.hash:
                return
            before.close()
        self.studies.add(task)
        if task.over:
            self._forget(task)
        if is_news or not task.over:
            self._log_study(task)

    def _log_study(self, task: StudyTask) -> None:
        facts: dict[str, Any] = {"study": task.number, "hash": task.hash.hex(), "state": task.phase}
        if twins := self.studies.list_twins(task):
            facts["same_document"] = twins
        self.services.log.tell("study found", **facts)

    def _propose(self) -> None:
        """Put the proposals of this site's people on the ledger; a fault stops its own proposal alone.

        That another site has proposed the same document changes nothing: its proposal may have other terms.
        """
        me = self.services.name
        for study in self._list_unlooked(me):
            self._proposals.setdefault(study.hex(), StudyTask(0, study, me))
        # The proposal is ours once the ledger has one of this document by this site; until then it is sent again each
        # tick.
        waiting = [task for task in self._proposals.values() if not self.studies.has(me, task.hash)]
        for task in waiting:
            self._guard(task, self._submit_proposal)
        self._proposals = {
            t.hash.hex(): t for t in waiting if self._is_proposed(t) and not self.studies.has(me, t.hash)
        }

    def _list_unlooked(self, me: str) -> list[bytes]:
        """The studies decided on since the last look, and those of this site that the ledger does not hold any more."""
        counts, displaced = self.decisions.counts(), self.studies.take_displaced()
        lost = [task.hash for task in displaced if task.proposer == me and task.hash in counts]
        if counts is not self._counts:
            lost += [study for study, count in counts.items() if self._counts.get(study) != count]
            self._counts = counts
        return lost

    def _is_proposed(self, task: StudyTask) -> bool:
        """Whether this site's people propose a study, as far as is known; what cannot be read is looked at again."""
        try:
            decision = self.decisions.latest(task.hash)
        except ConfigError:
            return True
        return decision is not None and decision.action == "propose"

    def _submit_proposal(self, task: StudyTask) -> bool:
        decision = self.decisions.latest(task.hash)
        if decision is None or decision.action != "propose":
            return False
        # Terms and snapshot are worked out once: a second computation could commit to other rows in the same proposal.
        if task.proposal is not None:
            self._propose_as(task.proposal)
            return False
        document = self.decisions.read_document(task.hash)
        node = self._node(document, decision)
        task.name = node.study.name
        check_silence_rule(node.study)
        # The document is in the store before the ledger names its hash: the others look for it at once.
        self.services.blobs.put(document)
        proposal = study_terms(node.study), self._prepare_joining(node, decision, 0)
        task.prepare_proposal(proposal)
        self._propose_as(proposal)
        self.services.log.tell("study proposed", hash=decision.study)
        return True

    def _propose_as(self, proposal: tuple[Terms, Joining]) -> None:
        terms, joining = proposal
        if self.services.ahead is None:
            self.services.ledger.propose(terms, *joining)
        else:
            self.services.ahead.submit_proposal(terms, *joining)

    def _vote(self) -> bool:
        """Cast this site's votes and statements; one that the contract refuses is put aside."""
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
            ballot.cast(self.services.ledger, self.services.blobs)
        except PostRejected as error:
            if error.name != "AlreadyVoted":  # a vote sent before a crash has arrived since
                raise
        self.services.log.tell("vote cast", decision=ballot.motion, name=ballot.subject)

    def _advance(self, task: StudyTask) -> bool:
        """Make the next move in one study; a fault stops this study alone."""
        moved = self._guard(task, self._step)
        if task.over:
            self._forget(task)
            self.services.tidy()
        return moved

    def _forget(self, task: StudyTask) -> None:
        """Let go of all that a study needed while it went on: a daemon has thousands of them in its life."""
        self.services.home.copies.drop(task.hash)
        self.decisions.forget(task.hash)
        forget_posts(task.hash)
        self.studies.retire(task)
        if self.services.observe is not None:
            self.studies.just_ended[task.number] = task

    def _guard(self, task: StudyTask, step: Callable[[StudyTask], bool]) -> bool:
        """Do something for one study unless it stopped a moment ago; a fault stops this study alone."""
        if not task.is_due(self.services.clock(), self.decisions.counts().get(task.hash, 0)):
            return False
        try:
            moved = step(task)
        except ChainError as error:
            self._halt(task, error, ENDLESS_RETRY.longest if ENDLESS_RETRY.is_transient(error) else RETRY_SECONDS)
            return False
        except (LearnerError, NodeError) as error:
            self._halt(task, error, RETRY_SECONDS)
            return False
        except (*DEFECTS, *MORE_DEFECTS) as error:
            self._quarantine(task, error)
            return False
        task.clear_fault()
        return moved

    def _step(self, task: StudyTask) -> bool:
        # Order: is it still the same study, did people say no, has it ended, did people say yes, for this proposal.
        # A no is carried out before all else. Nothing is joined or posted without a bound decision.
        view = self.services.ledger.view(task.number)
        if view.terms.hash != task.hash:  # a reorganisation gave the number to another study
            task.close()
            self.studies.add(StudyTask(task.number, view.terms.hash, view.proposer))
            return True
        decision = self._decision_about(view)
        going = view.state in (State.PROPOSED, State.RUNNING, State.PAUSED)
        if decision is not None and not decision.takes_part and going:
            return self._end(task, view, decision)
        if view.state == State.ABORTED:
            return self._close_aborted(task)
        if view.state == State.PROPOSED and self.services.ledger.now() > view.deadline:
            return self._close_expired(task, view)
        if decision is None or not decision.takes_part:
            self.services.home.copies.drop(task.hash)
            self._wait_for_people(task, view)
            self.studies.set_aside(task)
            return False
        if view.state == State.PROPOSED and self._wait_for_signers(task, view, decision):
            return False
        network, blobs = self.services.network.scope, self.services.blobs
        self.decisions.bind(view, network, self._is_standing, lambda: check_terms(view, study_on_ledger(view, blobs)))
        if view.state == State.PROPOSED:
            return self._consider(task, view, decision)
        return self._work(task, view, decision)

    def _decision_about(self, view: StudyView) -> Decision | None:
        """The decision of this site's people about this proposal; `propose` decides about their own proposal alone."""
        decision = self.decisions.latest(view.terms.hash, view.id)
        if decision is None or decision.action == "withdraw":
            return None
        if decision.action == "propose" and view.proposer != self.services.name:
            return None
        return decision

    def _is_standing(self, binding: Binding) -> bool:
        """Whether the ledger still holds a proposal; a reorganisation may have given its number to another."""
        try:
            view = self.services.ledger.view(binding.number)
        except PostRejected:
            return False
        return Binding.of(view, binding.network) == binding

    def _wait_for_people(self, task: StudyTask, view: StudyView) -> None:
        if view.state == State.PROPOSED:
            missing = tuple(site for site in view.terms.sites if site not in view.joined)
            vain = describe_vain_wait(missing, self.services.ledger.sites(), task.number)
            self._set_waiting(task, Wait(WaitCause.APPROVAL, missing, note=vain))
        else:
            note = "approval: this site joined, but no decision is here"
            self._set_waiting(task, Wait(WaitCause.APPROVAL, note=note))

    def _wait_for_signers(self, task: StudyTask, view: StudyView, decision: Decision) -> bool:
        """Whether this site still has to join and too few of its persons have signed."""
        joined = self.services.name in view.joined
        missing = "" if joined else describe_missing(self.services.home, decision, self.services.epoch())
        if missing:
            self._set_waiting(task, Wait(WaitCause.PEOPLE, note=missing))
            self.studies.set_aside(task)
        return bool(missing)

    def _end(self, task: StudyTask, view: StudyView, decision: Decision) -> bool:
        """Carry out a no. It is over here once that is final: one that a reorganisation takes back is said again."""
        me, reason = self.services.name, Reason.OPERATOR
        if decision.action == "decline":
            is_own = (view.proposer, view.state) == (me, State.PROPOSED)
            reason = Reason.WITHDRAWN if is_own else Reason.DECLINED
        if me in view.parties:
            end_part(self.services.ledger, view, me, reason)
            self.services.log.tell("study ended by this site", study=task.number, cause=describe_reason(reason))
            return True
        if not self._await_final_end(task):
            return False
        ending = f"{me} left it: {describe_reason(reason)}."
        if decision.action == "decline":
            task.decline(ending)
        else:
            task.abort(ending)
        return True

    def _close_expired(self, task: StudyTask, view: StudyView) -> bool:
        """Nobody can join any more. It is over an hour later, when no reorganisation brings a joining back."""
        if self.services.ledger.now() <= view.deadline + EXPIRY_SECONDS:
            self._set_waiting(task, Wait(WaitCause.BLOCK, note="nothing: the proposal has expired"))
            return False
        task.abort("The proposal has expired: not all of its sites have joined.")
        self.services.log.tell("proposal expired", study=task.number, hash=task.hash.hex())
        return True

    def _close_aborted(self, task: StudyTask) -> bool:
        """Log which site ended the study, why, and the site at fault."""
        if not self._await_final_end(task):
            return False
        self._note_losses(task)
        end = find_end(self.services.ledger, task.number)
        cause, culprit = ("", "") if end is None else (end.describe("it"), end.culprit)
        if end is not None and end.site == self.services.name and end.reason in (Reason.DECLINED, Reason.WITHDRAWN):
            task.decline(cause)
        task.abort(cause)
        log = self.services.log
        log.tell("study aborted", level="warning", study=task.number, cause=cause, culprit=culprit)
        return True

    def _await_final_end(self, task: StudyTask) -> bool:
        """Whether no reorganisation can take a study's end back; until then it is left alone."""
        if self._is_final(task):
            return True
        task.close()
        note = f"block {self._find_final_block(task)}, which makes its end final"
        self._set_waiting(task, Wait(WaitCause.CONFIRMATIONS, note=note))
        return False

    def _consider(self, task: StudyTask, view: StudyView, decision: Decision) -> bool:
        """Join a proposed study that this site's people approved and its policy allows."""
        # Joined: what is left is that the others join too.
        if self.services.name in view.joined:
            self._wait_for_people(task, view)
            return False
        joining, new = task.joining, task.joining is None
        if joining is None:
            joining = self._prepare_joining(self._node_of(view, decision), decision, view.id)
            task.prepare_join(joining)
        self._join(task, joining)
        if new:
            self.services.log.tell("study joined", study=task.number)
        return new

    def _prepare_joining(self, node: Node, decision: Decision, number: int) -> Joining:
        """What goes on the ledger with a join, with the statement on who approved; ConfigError if too few did."""
        services, now = self.services, self.services.epoch()
        require_signers(services.home, decision, now)
        joining = prepare_joining(node)
        signed = state_approvals(services.home, services.keys, services.network, services.blobs, decision, number, now)
        return joining._replace(approvals=signed)

    def _join(self, task: StudyTask, joining: Joining) -> None:
        """Join a study, or send a join again that is not in a block yet."""
        ledger = self.services.ledger
        try:
            if self.services.ahead is None:
                ledger.join(task.number, task.hash, *joining)
            else:
                self.services.ahead.submit_join(task.number, task.hash, *joining)
        except PostRejected as error:
            if error.name != "AlreadyVoted":  # a joining sent before a crash has arrived since
                raise
        self._set_waiting(task, Wait(WaitCause.BLOCK, note="a block with this site's join"))

    def _work(self, task: StudyTask, view: StudyView, decision: Decision) -> bool:
        if task.supervisor is None:
            start = Supervisor(lambda: self._runner(task, view, decision), self.services.clock, ENDLESS_RETRY)
            task.begin(start)
        supervisor = task.supervisor
        assert supervisor is not None
        # The protocol has ended in this process. The result is written only when no reorganisation can take a record of
        # it.
        if supervisor.done:
            return self._await_finality(task, supervisor)
        if supervisor.runner is not None:
            check_permit(supervisor.runner.machine.site.study, self.services.epoch())
        moved = supervisor.tick()
        self._note_restarts(task)
        if view.parties != view.terms.sites or (view.open is not None and view.open.attempt):
            self._note_losses(task)
        if not moved and supervisor.fault is not None:
            self._report(task, supervisor.fault, task.note_fault(supervisor.fault))
        elif not moved and not supervisor.done:
            self._set_waiting(task, self._describe_wait(task))
        return moved

    def _await_finality(self, task: StudyTask, supervisor: Supervisor) -> bool:
        """Wait until the result is final, check that it still stands, and write it to the results."""
        runner = supervisor.runner
        assert runner is not None
        if task.final_at is None:
            task.settle(self._find_final_block(task))
        if task.final_at is None or self.services.newest() < task.final_at:
            return False
        if not runner.check_end():
            task.reopen()
            return True
        self._note_losses(task)
        # The file comes before the state: a daemon that dies in between finds the file and finishes again.
        gain = self._describe_gain(task, runner)
        self._write_results(task, runner, gain)
        task.finish()
        if gain:
            self.services.log.tell("gain", study=task.number, message=gain)
        self.services.log.tell("study done", study=task.number, name=task.name)
        return True

    def _describe_gain(self, task: StudyTask, runner: Runner) -> str:
        """What this site gained by joining; a defect there keeps no result back."""
        try:
            return self.services.describe_gain(runner.machine.site, runner.machine.result)
        except (*DEFECTS, *MORE_DEFECTS) as defect:
            self.services.log.fault("no gain", defect, study=task.number)
            return ""

    def _is_final(self, task: StudyTask) -> bool:
        """Whether the blocks of all entries of a study have their confirmations."""
        return self.services.newest() >= self._find_final_block(task)

    def _find_final_block(self, task: StudyTask) -> int:
        """The block that makes a study's last entry final. A chain that sleeps makes no block after that one."""
        newest = self.services.newest()
        last = max((entry.block for entry in self.services.ledger.history(task.number)), default=newest)
        return min(last, newest) + self.services.home.config.chain.confirmations

    def _has_results(self, task: StudyTask) -> bool:
        """Whether the results folder has this study's result already, from before a restart."""
        try:
            status = json.loads((self.services.home.results / f"{task.number}.json").read_bytes())
        except (OSError, ValueError):
            return False
        return bool(status.get("hash") == task.hash.hex() and status.get("network") == self.services.network.scope)

    def _write_results(self, task: StudyTask, runner: Runner, gain: str) -> None:
        results = self.services.home.results
        fit = None if runner.machine.result is None else fit_to_json(runner.machine.result)
        status = {"study": task.number, "hash": task.hash.hex(), "name": task.name, "fit": fit}
        status |= {"network": self.services.network.scope, "row_warnings": list(task.row_warnings), "gain": gain}
        status |= {} if task.flow is None else {"flow": task.flow.as_dict()}
        try:
            results.mkdir(mode=0o700, exist_ok=True)
            replace_private(results / f"{task.number}.json", json.dumps(status, indent=2))
        except OSError as error:
            what = f"The folder of results {results} cannot be used: {error.strerror or error}"
            raise StoreFault("CO-C204", f"{what}. Check the free space, and that this user may write there.") from None

    # What a study needs

    def _node_of(self, view: StudyView, decision: Decision) -> Node:
        """Everything for a study on the ledger, whose terms must be its document's."""
        study = study_on_ledger(view, self.services.blobs)
        check_terms(view, study)
        return self._node(study.document, decision)

    def _node(self, document: bytes, decision: Decision) -> Node:
        """Everything that one study needs here; its policy and its rows are checked first."""
        services, home = self.services, self.services.home
        study = study_of(document, "The study's document")
        if study.hash.hex() != decision.study or not decision.takes_part:
            raise ConfigError(
                "CO-F301",
                f"{services.name}'s people did not approve study {study.hash.hex()[:16]}."
                " Approve it with `coterie study approve`.",
            )
        if services.name not in study.sites:
            raise ConfigError(
                "CO-F302", f"{services.name!r} takes no part in study {study.name!r}. Decline it, or ask its proposer."
            )
        check_permit(study, services.epoch())
        home.config.policy.check(study, services.name)
        home.config.talk.check(study, services.name)
        rows = load_site(home.locate_rows(decision.data), study, services.name, home.exclude, home.copies)
        consent = self._releases_of(study.hash).consent
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
            log=self._privacy,
            approvals=decision.signed,
            epoch=services.epoch,
        )

    def _releases_of(self, study: bytes) -> ApprovalFolder:
        """The payloads of a study that wait for a person."""
        return ApprovalFolder.of_study(self.services.home.releases, study)

    def _runner(self, task: StudyTask, view: StudyView, decision: Decision) -> Runner:
        node = self._node_of(view, decision)
        task.name = node.study.name
        task.row_warnings = () if node.rows is None else node.rows.row_warnings
        task.flow = None if node.rows is None else node.rows.flow
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

    # What people read

    def _describe_wait(self, task: StudyTask) -> Wait:
        """The sites that a study waits for, by name, and since when if it is late."""
        view = self.services.ledger.view(task.number)
        if view.state == State.PAUSED:
            return Wait(WaitCause.PEOPLE, note=self._describe_pause(task))
        if view.open is None:
            return Wait(WaitCause.BLOCK, note="the ledger")
        runner = task.runner
        missing = () if runner is None else runner.missing_parties
        silent = missing or tuple(site for site in view.open.posters if site not in view.open.posted)
        late = max(self.services.ledger.now() - view.open.deadline, 0)
        progress = "" if runner is None else runner.talk_progress
        vain = describe_vain_wait(silent, self.services.ledger.sites(), task.number) if late else ""
        return Wait(WaitCause.SITES, silent, view.open.position, late, vain or progress)

    def _describe_pause(self, task: StudyTask) -> str:
        """What people have to settle: the post that a site disputed, if that is why."""
        history = self.services.ledger.history(task.number)
        disputes = [e for e in history if isinstance(e, Event) and e.name == "Disputed"]
        over = f"{disputes[-1].site} disputed {describe_dispute(disputes[-1])}" if disputes else "a site asked for it"
        return f"people: the study is paused, because {over} (coterie study resume, or abort)"

    def _set_waiting(self, task: StudyTask, wait: Wait) -> None:
        if task.wait_for(wait):
            self.services.log.tell("waiting", study=task.number, waits_for=wait.text)

    def _halt(self, task: StudyTask, error: Exception, seconds: float) -> None:
        """Stop one study here, and try again later: as long as it runs, people may remove the cause."""
        decisions = self.decisions.counts().get(task.hash, 0)
        self._report(task, error, task.stop(error, self.services.clock() + seconds, decisions))

    def _quarantine(self, task: StudyTask, error: Exception) -> None:
        """Stop one study for a defect of ours. Its text may quote rows: it goes to this site's own people only."""
        where = self.notes.note_defect(task.number, traceback.format_exception(error))
        message = f"A defect ({type(error).__name__}) stopped study {task.number} at this site; the others go on"
        remedy = f"{where} has the details for a report; the study is tried again every {RETRY_SECONDS:.0f} s"
        self._halt(task, StudyQuarantined("CO-R501", f"{message}. {remedy}."), RETRY_SECONDS)

    def _report(self, task: StudyTask, error: Exception, is_news: bool) -> None:
        if is_news:
            self._log_fault("fault", error, study=task.number)
            self.notes.note(task.number, error)

    def _log_fault(self, event: str, error: Exception, **which: object) -> None:
        self.services.metrics.faults.labels(code_of(error)).inc()
        self.services.log.fault(event, error, **which)

    def _note_restarts(self, task: StudyTask) -> None:
        restarts = task.count_progress()
        if restarts:
            self.services.metrics.restarts.inc(restarts)
            self.services.log.tell("followed again from the first record", study=task.number, restarts=task.restarts)

    def _note_losses(self, task: StudyTask) -> None:
        """Log each exclusion, leaving, repeated step and skipped server once, with the site at fault."""
        losses = list_losses(self.services.ledger.history(task.number))
        news = task.note_losses(tuple(loss.sentence for loss in losses))
        for loss in losses[len(losses) - len(news) :]:
            self.services.log.tell("step begins again", study=task.number, culprit=loss.site, cause=loss.sentence)

    def _wait(self, stop: Flag) -> None:
        """Wait until the ledger changes, or for a moment; the metric counts the time by cause."""
        watched = self.studies.list_watched()
        if self.services.rest and not watched and not self._proposals:
            stop.wait(self.services.rest)
            return
        start = self.services.clock()
        self.services.ledger.wait(LEDGER_POLL_SECONDS)
        passed = self.services.clock() - start
        if passed <= 0:
            stop.wait(LEDGER_POLL_SECONDS)  # a ledger that does not wait
        for cause in {task.wait_label for task in watched}:
            self.services.metrics.waited.labels(cause).inc(passed)

    def _notify(self) -> None:
        """Hand over what people get notices of; a fault of files here must not stop the work either."""
        if self.services.observe is None:
            return
        with suppress(OSError):
            ended, releases_of = self.studies.just_ended.copy(), self._releases_of
            tasks = (*self.studies.going.values(), *ended.values())
            taken = self.services.observe(tuple(list_occasions(self.services.home, tasks, releases_of, self.health)))
            if taken is not False:
                self.studies.just_ended.clear()

    def _measure(self) -> None:
        metrics, services = self.services.metrics, self.services
        tasks, states = list(self.studies.going.values()), self.studies.count_states()
        for state in TaskState:
            metrics.studies.labels(state.value).set(states[state])
        metrics.show_faults({task.number: code_of(task.fault) for task in tasks if task.fault})
        waits = {task.number: task.waits_for for task in tasks if task.waits_for is not None}
        metrics.show_late({number: (", ".join(wait.sites), wait.late) for number, wait in waits.items() if wait.late})
        asked = [w for w in waits.values() if w.cause is WaitCause.APPROVAL and services.name in w.sites]
        metrics.approvals.set(len(asked))
        metrics.releases.set(sum(self._releases_of(task.hash).count_waiting() for task in tasks if not task.over))
        metrics.votes.set(len(self.ballots.waiting()))
        metrics.free.set(shutil.disk_usage(services.home.root).free)
        metrics.bytes.set(self.studies.sum_posted())
        metrics.head.set(services.newest())
        age = services.block_age()
        self._block_at = services.clock() - age
        metrics.block_age.set(age)
        metrics.peers.set(services.peers())
        metrics.swarm_peers.set(services.swarm_peers())
        metrics.gas.set(getattr(services.ledger, "gas_used", 0))
