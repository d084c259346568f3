"""One study at this site's daemon: an automaton that owns its state. The daemon calls its verbs and reads it.

States, events and moves; every pair that is not here leaves the state as it is.

    state      event      next       why
    ---------  ---------  ---------  ------------------------------------------------------------------
    waiting    begin      working    the study runs, and this site's people approved it
    stopped    begin      working    the cause may be gone: a fault is tried again while the study runs
    working    settle     settling   the protocol has ended here; its last record is not final yet
    settling   reopen     working    a reorganisation took records of the result
    settling   finish     done       the result is final and stands in the results folder
    waiting    finish     done       the results folder holds it, from before a restart of the daemon
    any open   stop       stopped    a fault of this study or of this site; nothing else stops
    stopped    wait       waiting    the fault is gone, and the study waits for somebody else
    any open   decline    declined   this site's people declined the proposal
    any open   abort      aborted    the study ended without a result, here or on the ledger

Open are waiting, working, settling and stopped. Done, declined and aborted are final.
Invariants: there is a supervisor only while working or settling. `final_at` is set only while settling. In a final
state there is neither a fault nor anything that the study waits for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from coterie_chain.ledger.protocol import SiteEntry, Terms
from coterie_node.data.cohort.flow import Flow
from coterie_node.run.runner import Runner
from coterie_node.run.supervisor import Supervisor
from coterie_node.site.statements.joining import Joining
from coterie_node.site.watch.log import code_of, error_sentence


class TaskState(Enum):
    """The state of a study at this site; the values are those of the status and of the metrics."""

    WAITING = "waiting"
    WORKING = "working"
    SETTLING = "settling"
    STOPPED = "stopped"
    DONE = "done"
    DECLINED = "declined"
    ABORTED = "aborted"


FINAL = frozenset({TaskState.DONE, TaskState.DECLINED, TaskState.ABORTED})
OPEN = frozenset(TaskState) - FINAL


class TaskEvent(Enum):
    """What happens to a study at this site."""

    BEGIN = "begin"
    WAIT = "wait"
    SETTLE = "settle"
    REOPEN = "reopen"
    FINISH = "finish"
    STOP = "stop"
    DECLINE = "decline"
    ABORT = "abort"


# The table of the module's docstring, as code reads it. A pair that is missing is no error: an event that comes late,
# as a fault after the end, changes nothing.
MOVES: dict[tuple[TaskState, TaskEvent], TaskState] = {
    (TaskState.WAITING, TaskEvent.BEGIN): TaskState.WORKING,
    (TaskState.STOPPED, TaskEvent.BEGIN): TaskState.WORKING,
    (TaskState.WORKING, TaskEvent.SETTLE): TaskState.SETTLING,
    (TaskState.SETTLING, TaskEvent.REOPEN): TaskState.WORKING,
    (TaskState.SETTLING, TaskEvent.FINISH): TaskState.DONE,
    (TaskState.WAITING, TaskEvent.FINISH): TaskState.DONE,
    (TaskState.STOPPED, TaskEvent.WAIT): TaskState.WAITING,
    **{(state, TaskEvent.STOP): TaskState.STOPPED for state in OPEN},
    **{(state, TaskEvent.DECLINE): TaskState.DECLINED for state in OPEN},
    **{(state, TaskEvent.ABORT): TaskState.ABORTED for state in OPEN},
}


class WaitCause(Enum):
    """What a study waits for; the values are the labels of the metric."""

    APPROVAL = "approval"
    BLOCK = "block"
    SITES = "sites"
    PEOPLE = "people"
    CONFIRMATIONS = "confirmations"


@dataclass(frozen=True)
class Wait:
    """What a study waits for: the cause, and of which sites, at which step, since how many seconds past its deadline.

    `note` says the rest, where there is more to say.
    """

    cause: WaitCause
    sites: tuple[str, ...] = ()
    position: int | None = None
    late: int = 0
    note: str = ""

    @property
    def text(self) -> str:
        """The same in words."""
        names = ", ".join(self.sites)
        note = f" ({self.note})" if self.note else ""
        if self.position is not None:
            late = f", {self.late} s past the deadline" if self.late > 0 else ""
            return f"{names} at step {self.position}{note}{late}"
        return f"{self.cause.value} by {names}{note}" if self.sites else self.note

    def is_like(self, other: Wait | None) -> bool:
        """Whether the other says the same, except for the seconds that have passed."""
        return other is not None and self._key == other._key

    @property
    def _key(self) -> tuple[object, ...]:
        return self.cause, self.sites, self.position, self.late > 0, self.note


def describe_vain_wait(sites: Sequence[str], seats: Sequence[SiteEntry], study: int) -> str:
    """What people must know about a wait for sites if one of them has no seat any more; empty if all have one."""
    active = {seat.name for seat in seats if seat.active}
    gone = ", ".join(site for site in sites if site not in active)
    if not gone:
        return ""
    way_out = f"any site can end the study: coterie study abort {study}"
    return f"the seat of {gone} was revoked, so no further post will come from there; {way_out}"


class StudyTask:
    """A study's number on the ledger (0 until it is there), its hash, its proposer, and its state here.

    `fault` keeps it from going on; `proposal` is this site's proposal, `joining` its commitment when it joins. Both are
    computed once, and again after a fault, because people may have corrected the rows.
    """

    # A daemon keeps one of each study that ever named its site.
    __slots__ = (
        "_decisions_at_stop",
        "_retry_at",
        "ending",
        "fault",
        "final_at",
        "flow",
        "hash",
        "joining",
        "losses",
        "name",
        "number",
        "posted",
        "proposal",
        "proposer",
        "restarts",
        "row_warnings",
        "state",
        "supervisor",
        "waits_for",
    )

    def __init__(self, number: int, hash: bytes, proposer: str = "") -> None:
        self.number, self.hash, self.proposer, self.name = number, hash, proposer, ""
        self.row_warnings: tuple[str, ...] = ()
        self.flow: Flow | None = None
        self.state = TaskState.WAITING
        self.waits_for: Wait | None = None
        self.fault: Exception | None = None
        self.supervisor: Supervisor | None = None
        self.final_at: int | None = None
        self.proposal: tuple[Terms, Joining] | None = None
        self.joining: Joining | None = None
        self.restarts = self.posted = 0
        self.ending = ""
        self.losses: tuple[str, ...] = ()
        self._retry_at = -math.inf
        self._decisions_at_stop = 0

    # Its state

    @property
    def phase(self) -> str:
        """The state as the status shows it."""
        return self.state.value

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do."""
        return self.state in FINAL

    @property
    def cause(self) -> str:
        """What it waits for, in words; empty if nothing."""
        return "" if self.waits_for is None else self.waits_for.text

    @property
    def runner(self) -> Runner | None:
        """This site's runner, while it works on the study."""
        supervisor = self.supervisor  # once: another thread reads the status
        return None if supervisor is None else supervisor.runner

    @property
    def talking(self) -> bool:
        """Whether this site is in the middle of an interactive step of the study."""
        return self.supervisor is not None and self.supervisor.talking

    @property
    def wait_label(self) -> str:
        """What the metric of waiting counts now: the code of a fault, or the cause."""
        if self.fault is not None:
            return code_of(self.fault)
        return WaitCause.SITES.value if self.waits_for is None else self.waits_for.cause.value

    def is_due(self, now: float, decisions: int) -> bool:
        """Whether to try now: after a fault when its pause is over, or at once when people have decided again."""
        return now >= self._retry_at or decisions != self._decisions_at_stop

    def as_dict(self) -> dict[str, object]:
        """What the status shows: never a number of patients."""
        error, runner = self.fault, self.runner
        fault = None if error is None else {"code": code_of(error), "message": error_sentence(error)}
        position = None if runner is None else runner.position
        status = {"study": self.number, "hash": self.hash.hex(), "name": self.name, "phase": self.phase}
        status["proposer"] = self.proposer
        return (
            status
            | {"cause": self.cause, "position": position, "fault": fault, "ending": self.ending}
            | {"lost": list(self.losses)}
        )

    # Its events

    def prepare_proposal(self, proposal: tuple[Terms, Joining]) -> None:
        """Keep the terms of this site's proposal, and its commitment."""
        self.proposal = proposal

    def prepare_join(self, joining: Joining) -> None:
        """Keep this site's commitment for its join."""
        self.joining = joining

    def begin(self, supervisor: Supervisor) -> None:
        """Take turns from now on."""
        self.supervisor = supervisor
        self._move(TaskEvent.BEGIN)

    def wait_for(self, wait: Wait) -> bool:
        """Wait for something; True if it is something else than before."""
        is_news = not wait.is_like(self.waits_for)
        self.waits_for = wait
        self._move(TaskEvent.WAIT)
        return is_news

    def settle(self, final_at: int) -> None:
        """Wait for the block that makes the result final."""
        # `final_at` first: the status, read by another thread, never shows a settling study without its block.
        self.final_at = final_at
        self.waits_for = Wait(WaitCause.CONFIRMATIONS, note=f"block {final_at}, which makes the result final")
        self._move(TaskEvent.SETTLE)

    def reopen(self) -> None:
        """Take turns again: the result does not stand."""
        self.final_at = None
        self._move(TaskEvent.REOPEN)

    def finish(self) -> None:
        """The result is here."""
        self._end(TaskEvent.FINISH)

    def decline(self, ending: str) -> None:
        """This site's people do not want the study; `ending` says so in words."""
        self.ending = ending
        self._end(TaskEvent.DECLINE)

    def abort(self, ending: str = "") -> None:
        """The study has ended without a result; `ending` says who ended it, why, and whose fault it was."""
        self.ending = ending
        self._end(TaskEvent.ABORT)

    def stop(self, fault: Exception, retry_at: float, decisions: int) -> bool:
        """Stop for a fault until `retry_at`, or until people decide again; True if the fault is a new one."""
        # The proposal and the joining are dropped: people may correct the rows before the next try.
        is_news = self.note_fault(fault)
        self.close()
        self.final_at = self.proposal = self.joining = self.waits_for = None
        self._retry_at, self._decisions_at_stop = retry_at, decisions
        self._move(TaskEvent.STOP)
        return is_news

    def note_fault(self, fault: Exception) -> bool:
        """Note the fault while the study goes on trying; True if it is a new fault."""
        is_news = self.fault is None or str(fault) != str(self.fault)
        self.fault = fault
        return is_news

    def note_losses(self, losses: tuple[str, ...]) -> tuple[str, ...]:
        """Keep the study's losses in words; returns the new ones."""
        news = losses[len(self.losses) :] if losses[: len(self.losses)] == self.losses else losses
        self.losses = losses
        return news

    def clear_fault(self) -> None:
        """Forget the fault: a turn went well."""
        if self.supervisor is None or self.supervisor.fault is None:
            self.fault = None

    def close(self) -> None:
        """Leave the interactive step that this site is in, if any."""
        if self.supervisor is not None:
            self.supervisor.close()
        self.supervisor = None

    def count_progress(self) -> int:
        """Take the runner's counts over; returns how often it has started again since the last call."""
        runner = self.runner
        if runner is None:
            return 0
        self.posted = max(self.posted, runner.payload_bytes)
        restarts, self.restarts = max(runner.restarts - self.restarts, 0), max(runner.restarts, self.restarts)
        return restarts

    def _end(self, event: TaskEvent) -> None:
        # A final state keeps nothing: the supervisor's thread and its session end before the state changes.
        self.close()
        self.fault = self.waits_for = self.final_at = self.proposal = self.joining = self.flow = None
        self._move(event)

    def _move(self, event: TaskEvent) -> None:
        self.state = MOVES.get((self.state, event), self.state)
