"""One study as Catalog.sol holds it: its terms, and how its posts move it from step to step.

Sites are ids here, times are seconds. Every refusal is a PostRejected with the contract's error.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from coterie_chain.errors import PostRejected
from coterie_chain.ledger.protocol import Silence, State

EACH = 0xFF
SERVER = 0xFE
CLOSED = 3
LOOP = 1


@dataclass(frozen=True)
class Proposal:
    """The terms of a study with ids for its sites: ICatalog's Terms."""

    hash: bytes
    order: tuple[int, ...]
    schedule: tuple[tuple[int, ...], ...]
    max_rounds: int
    timeout: int
    silence: int
    least: int = 1


@dataclass(frozen=True)
class SchedulePosition:
    """The position of a study in its schedule."""

    position: int
    attempt: int
    round: int
    phase: int
    index: int
    turn: int
    done: bool


@dataclass
class StudyState:
    """One study's row in the Catalog. `phase` counts opening, loop, closing and, at 3, the end.

    `changes` is the network's count of key changes at the proposal. `last` is the last finished step as it stood, and
    `before` the basis before it. A step begins with the attempt `first_attempt`. `digests` are those of the posts, by
    (position, attempt, site).
    """

    hash: bytes
    order: tuple[int, ...]
    schedule: tuple[tuple[int, ...], ...]
    max_rounds: int
    timeout: int
    silence: Silence
    least: int
    # `basis` is what the next post must name; `before` is the basis before it, for a step that is undone.
    basis: bytes
    active: set[int]
    proposer: int
    changes: int
    deadline: int
    before: bytes
    state: State = State.PROPOSED
    # From here on the fields move with the study. `posted` are the sites that took their slot in the open step; `turn`
    # is the place in `order` from which the next server is sought; `done` whether the loop's last server said
    # converged.
    joined: set[int] = field(default_factory=set)
    posted: set[int] = field(default_factory=set)
    position: int = 0
    attempt: int = 0
    round: int = 0
    phase: int = 0
    index: int = 0
    turn: int = 0
    done: bool = False
    # Attempts are never used twice at one position, also after `go_back`: the masks of an attempt depend on its number.
    first_attempt: int = 0
    last: SchedulePosition | None = None
    superseded: bool = False
    digests: dict[tuple[int, int, int], bytes] = field(default_factory=dict)
    disputed: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    paused: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    @classmethod
    def of(cls, terms: Proposal, proposer: int, changes: int, deadline: int) -> StudyState:
        """A study as it is proposed."""
        return cls(
            hash=terms.hash,
            order=terms.order,
            schedule=terms.schedule,
            max_rounds=terms.max_rounds,
            timeout=terms.timeout,
            silence=Silence(terms.silence),
            least=terms.least,
            basis=terms.hash,
            active=set(terms.order),
            proposer=proposer,
            changes=changes,
            deadline=deadline,
            before=terms.hash,
        )

    def kind(self, step: SchedulePosition | None = None) -> int:
        """Kind of a step, the open one by default: EACH, SERVER or the id of one site."""
        return self.schedule[step.phase][step.index] if step else self.schedule[self.phase][self.index]

    def server(self) -> int:
        """The site whose turn it is: the first active one from `turn` on, in the study's order."""
        n = len(self.order)
        return next(p for p in (self.order[(self.turn + k) % n] for k in range(n)) if p in self.active)

    def posters(self) -> tuple[int, ...]:
        """The sites that may post at the open step."""
        kind = self.kind()
        if kind == EACH:
            return tuple(p for p in self.order if p in self.active)
        return (self.server(),) if kind == SERVER else (kind,)

    def locate(self) -> SchedulePosition:
        """The position of the open step in the schedule."""
        turn = self.order.index(self.server()) if self.kind() == SERVER else self.turn
        return SchedulePosition(self.position, self.attempt, self.round, self.phase, self.index, turn, self.done)

    def is_dispensable(self, site: int) -> bool:
        """Whether the terms let the study go on without a site."""
        is_named = any(site in word for word in self.schedule)
        return self.silence == Silence.EXCLUDE and not is_named and len(self.active) > self.least

    def is_silent(self, site: int, now: int) -> bool:
        """Whether the open step waits for a site's post, after the deadline; a server is skipped."""
        if self.state != State.RUNNING or now <= self.deadline:
            return False
        kind = self.kind()
        return site not in self.posted if kind == EACH else kind == site

    # Moves

    def start(self, now: int) -> None:
        """Open the first step."""
        self.state = State.RUNNING
        self._enter()
        self.deadline = now + self.timeout
        self.last = SchedulePosition(
            self.position, self.attempt, self.round, self.phase, self.index, self.turn, self.done
        )

    def take_slot(self, site: int, kind: int) -> bool:
        """Take the site's slot in the open step; True when the step is complete with it."""
        # Server and only steps have one slot, so that the right post completes the step.
        if kind != EACH:
            expected = self.server() if kind == SERVER else kind
            if site != expected:
                raise PostRejected("NotYourTurn", expected)
            return True
        if site not in self.active:
            raise PostRejected("NotParticipant")
        if site in self.posted:
            raise PostRejected("Overwrite")
        self.posted.add(site)
        return self.posted == self.active

    def advance(self, kind: int, converged: bool, sha: bytes, now: int) -> None:
        """Go to the next step."""
        # The finished step is kept whole first: a vote that its post is unusable leads back to it.
        self.last = self.locate()
        if kind == EACH:
            self.posted.clear()
        else:
            # Only these posts are computed from others. A record on the wrong one is refused, so nobody builds on a
            # post that a reorganisation took.
            self.before, self.basis = self.basis, sha
        if kind == SERVER:
            self.pass_turn(self.server())
            # `converged` counts in the loop alone: it ends the loop, and with it the rounds.
            if self.phase == LOOP:
                self.done = converged
        self.position += 1
        self.attempt = self.first_attempt
        self.index += 1
        self.deadline = now + self.timeout
        self._enter()

    def pass_turn(self, server: int) -> None:
        """Give the next turn to the site after a server."""
        self.turn = (self.order.index(server) + 1) % len(self.order)

    def begin_again(self, now: int) -> None:
        """Begin the open step again: with another attempt and, while the study runs, the whole time."""
        self.attempt += 1
        if self.state == State.RUNNING:
            self.deadline = now + self.timeout

    def remove(self, site: int) -> None:
        """Go on without a site."""
        self.active.discard(site)
        # All post again: sums under masks are over the parties, and the parties have changed.
        self.posted.clear()

    def go_back(self, last: SchedulePosition) -> None:
        """Undo what the last finished step has changed; both steps begin above all their attempts so far."""
        # The posts of both steps stay on the ledger. New attempts make sure that no post of before fits a slot of now.
        highest, kind = max(self.attempt, last.attempt), self.kind(last)
        self.position, self.round, self.phase, self.index = last.position, last.round, last.phase, last.index
        self.turn, self.done = last.turn, last.done
        self.attempt, self.first_attempt = highest, highest + 1
        if kind != EACH:
            self.basis = self.before
        if kind == SERVER:
            self.turn = (last.turn + 1) % len(self.order)

    def _enter(self) -> None:
        """Walk to the next step: in this phase, in the next round of the loop, in the next phase, or to the end."""
        while self.index >= len(self.schedule[self.phase]):
            self.index = 0
            if self.phase == LOOP and self.schedule[LOOP] and not self.done and self.round + 1 < self.max_rounds:
                self.round += 1
                return
            self.phase += 1
            if self.phase == CLOSED:
                self.state = State.COMPLETED
                return
