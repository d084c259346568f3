"""The rules of Catalog.sol in Python: membership, schedule, turns, slots, skips, exclusions, disputes.

One state machine with three users: the memory ledger runs on it, a differential fuzz holds the contract against it
move by move, and the auditor replays a chain's history through it, so that a chain that broke its own rules is found.
Sites are ids here and callers are addresses, as in the contract; times are seconds. Every refusal is a PostRejected
with the name and the arguments of the contract's custom error, checked in the contract's order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from coterie_chain.errors import PostRejected
from coterie_chain.ledger.protocol import ZERO, Silence, State

EACH = 0xFF
SERVER = 0xFE
MAX_SITES = 253
MAX_STEPS = 32
CLOSED_STATES = 3
ZERO_ADDRESS = "0x" + "00" * 20


@dataclass
class Seat:
    """A site's place in the Catalog."""

    id: int
    name: str
    key: str
    sealing: bytes
    peer: bytes
    active: bool = True
    offered: tuple[str, bytes] | None = None


@dataclass
class StudyState:
    """One study's row in the Catalog. `phase` counts opening, loop, closing and, at 3, the end."""

    hash: bytes
    order: tuple[int, ...]
    schedule: tuple[tuple[int, ...], ...]
    max_rounds: int
    timeout: int
    silence: Silence
    basis: bytes
    active: set[int]
    state: State = State.PROPOSED
    joined: set[int] = field(default_factory=set)
    posted: set[int] = field(default_factory=set)
    position: int = 0
    attempt: int = 0
    round: int = 0
    phase: int = 0
    index: int = 0
    turn: int = 0
    deadline: int = 0
    done: bool = False

    def kind(self) -> int:
        """Kind of the open step: EACH, SERVER or the id of one site."""
        return self.schedule[self.phase][self.index]

    def server(self) -> int:
        """The site whose turn it is: the first active one from `turn` on, in the study's order."""
        n = len(self.order)
        return next(p for p in (self.order[(self.turn + k) % n] for k in range(n)) if p in self.active)

    def posters(self) -> tuple[int, ...]:
        """Who may post at the open step."""
        kind = self.kind()
        if kind == EACH:
            return tuple(p for p in self.order if p in self.active)
        return (self.server(),) if kind == SERVER else (kind,)


class Rules:
    """The Catalog's state and moves."""

    def __init__(self, founders: Iterable[tuple[str, str, bytes, bytes]]) -> None:
        """Found the network with (name, key, sealing key, peer) of each first site."""
        self.seats: dict[int, Seat] = {}
        self.studies: dict[int, StudyState] = {}
        self._ballots: defaultdict[tuple[object, ...], set[int]] = defaultdict(set)
        for name, key, sealing, peer in founders:
            self._require_new(name, key)
            self._admit(name, key, sealing, peer)

    # Membership

    def find_site(self, key: str) -> int:
        """Id of the active site that holds the key, else 0."""
        return next((s.id for s in self.seats.values() if s.key == key and s.active), 0)

    def admit(self, caller: str, name: str, key: str, sealing: bytes, peer: bytes) -> bool:
        """Vote to admit a site; True when the vote passed."""
        me = self._require_site(caller)
        self._require_new(name, key)
        passed = self._vote(me, "admit", name, key, sealing, peer)
        if passed:
            self._admit(name, key, sealing, peer)
        return passed

    def revoke(self, caller: str, site: int) -> bool:
        """Vote to revoke a site."""
        me = self._require_site(caller)
        self._require_known(site)
        passed = self._vote(me, "revoke", site)
        if passed:
            self.seats[site].active = False
        return passed

    def recover(self, caller: str, site: int, key: str, sealing: bytes) -> bool:
        """Vote to give a site a new key."""
        me = self._require_site(caller)
        self._require_known(site)
        self._require_free(key)
        passed = self._vote(me, "recover", site, key, sealing)
        if passed:
            self._rekey(site, key, sealing)
        return passed

    def offer(self, caller: str, key: str, sealing: bytes) -> None:
        """Offer the caller's seat to a new key."""
        me = self._require_site(caller)
        self._require_free(key)
        self.seats[me].offered = (key, sealing)

    def accept(self, caller: str, site: int) -> None:
        """Take a seat that was offered to the caller."""
        self._require_known(site)
        offered = self.seats[site].offered
        if offered is None or offered[0] != caller:
            raise PostRejected("NotOffered")
        self._require_free(caller)
        self._rekey(site, *offered)

    # Studies

    def propose(
        self,
        caller: str,
        hash: bytes,
        order: tuple[int, ...],
        schedule: tuple[tuple[int, ...], ...],
        max_rounds: int,
        timeout: int,
        silence: Silence,
        now: int,
    ) -> int:
        """Propose a study and join it; returns its id."""
        me = self._require_site(caller)
        if hash == ZERO or max_rounds == 0 or timeout == 0 or silence > Silence.ABORT:
            raise PostRejected("BadTerms")
        if not order or len(set(order)) != len(order) or not all(self._is_active(p) for p in order):
            raise PostRejected("BadOrder")
        kinds = {k for word in schedule for k in word}
        if not kinds or not kinds <= {EACH, SERVER, *order} or max(map(len, schedule)) > MAX_STEPS:
            raise PostRejected("BadSchedule")
        if me not in order:
            raise PostRejected("NotParticipant")
        study = len(self.studies) + 1
        self.studies[study] = StudyState(
            hash, order, schedule, max_rounds, timeout, silence, basis=hash, active=set(order)
        )
        self.join(caller, study, hash, now)
        return study

    def join(self, caller: str, study: int, hash: bytes, now: int) -> None:
        """Join a proposed study; it runs once every participant has joined."""
        me, s = self._require_participant(caller, study)
        _require(s, State.PROPOSED)
        if hash != s.hash:
            raise PostRejected("HashMismatch")
        if me in s.joined:
            raise PostRejected("AlreadyVoted")
        s.joined.add(me)
        if s.joined == s.active:
            s.state = State.RUNNING
            _enter(s)
            s.deadline = now + s.timeout

    def post(
        self,
        caller: str,
        site: int,
        study: int,
        position: int,
        attempt: int,
        basis: bytes,
        converged: bool,
        sha: bytes,
        now: int,
    ) -> tuple[int, int]:
        """Accept a record of `site`; returns the kind and the round of the step it stands at."""
        if not self._is_active(site) or self.seats[site].key != caller:
            raise PostRejected("NotOwner")
        if sha == ZERO:
            raise PostRejected("EmptyPost")
        s = self._require_study(study)
        _require(s, State.RUNNING)
        if (position, attempt) != (s.position, s.attempt):
            raise PostRejected("WrongStep", s.position, s.attempt)
        if basis != s.basis:
            raise PostRejected("BasisMismatch", "0x" + s.basis.hex())
        kind, round_ = s.kind(), s.round
        if _take_slot(s, site, kind):
            _advance(s, kind, converged, sha, now)
        return kind, round_

    def skip(self, caller: str, study: int, now: int) -> int:
        """Pass over a silent server; returns its id."""
        _, s = self._require_running(caller, study)
        if s.kind() != SERVER:
            raise PostRejected("NotAServerStep")
        _require_late(s, now)
        silent = s.server()
        s.turn = (s.order.index(silent) + 1) % len(s.order)
        s.attempt += 1
        s.deadline = now + s.timeout
        return silent

    def exclude(self, caller: str, study: int, site: int, now: int) -> bool:
        """Vote to exclude a silent site; True when the vote passed."""
        me, s = self._require_running(caller, study)
        if s.silence != Silence.EXCLUDE:
            raise PostRejected("NotAllowed")
        if s.kind() != EACH:
            raise PostRejected("NotAnEachStep")
        _require_late(s, now)
        # a caller is not silent: it cannot vote on itself, so that a study keeps at least one site
        if site == me or site in s.posted or site not in s.active:
            raise PostRejected("NotSilent")
        if any(site in word for word in s.schedule):
            raise PostRejected("SiteNeeded", site)
        ballot = self._ballots[("exclude", study, s.position, s.attempt, site)]
        if not _count_vote(ballot, me, s.active):
            return False
        s.active.discard(site)
        s.posted.clear()
        s.attempt += 1
        s.deadline = now + s.timeout
        return True

    def dispute(self, caller: str, study: int, position: int) -> None:
        """Pause a running or completed study over the post at `position`."""
        _, s = self._require_participant(caller, study)
        if s.state not in (State.RUNNING, State.COMPLETED):
            raise PostRejected("BadState", int(s.state))
        if position >= s.position:
            raise PostRejected("WrongStep", s.position, s.attempt)
        s.state = State.PAUSED

    def pause(self, caller: str, study: int) -> None:
        """Pause a running study."""
        _, s = self._require_running(caller, study)
        s.state = State.PAUSED

    def resume(self, caller: str, study: int, now: int) -> bool:
        """Vote to go on with a paused study; True when the vote passed."""
        me, s = self._require_participant(caller, study)
        _require(s, State.PAUSED)
        ballot = self._ballots[("resume", study)]
        if not _count_vote(ballot, me, s.active):
            return False
        ballot.clear()
        s.state = State.COMPLETED if s.phase == CLOSED_STATES else State.RUNNING
        s.deadline = now + s.timeout
        return True

    def abort(self, caller: str, study: int) -> None:
        """End a study that has not run to its end; a completed one stays so, even while it is disputed."""
        _, s = self._require_participant(caller, study)
        if s.state >= State.COMPLETED or s.phase == CLOSED_STATES:
            raise PostRejected("BadState", int(s.state))
        s.state = State.ABORTED

    # What the moves share

    def _is_active(self, site: int) -> bool:
        return site in self.seats and self.seats[site].active

    def _require_site(self, key: str) -> int:
        me = self.find_site(key)
        if me == 0:
            raise PostRejected("NotSite")
        return me

    def _require_known(self, site: int) -> None:
        if not self._is_active(site):
            raise PostRejected("UnknownSite")

    def _require_free(self, key: str) -> None:
        if key == ZERO_ADDRESS or any(s.key == key for s in self.seats.values()):
            raise PostRejected("KeyTaken")

    def _require_new(self, name: str, key: str) -> None:
        self._require_free(key)
        if any(s.name == name for s in self.seats.values()):
            raise PostRejected("NameTaken")
        if len(self.seats) >= MAX_SITES:
            raise PostRejected("TooManySites")

    def _admit(self, name: str, key: str, sealing: bytes, peer: bytes) -> None:
        site = len(self.seats) + 1
        self.seats[site] = Seat(site, name, key, sealing, peer)

    def _rekey(self, site: int, key: str, sealing: bytes) -> None:
        seat = self.seats[site]
        seat.key, seat.sealing, seat.offered = key, sealing, None

    def _vote(self, me: int, *motion: object) -> bool:
        ballot = self._ballots[motion]
        passed = _count_vote(ballot, me, {s.id for s in self.seats.values() if s.active})
        if passed:
            ballot.clear()
        return passed

    def _require_study(self, study: int) -> StudyState:
        if study not in self.studies:
            raise PostRejected("BadState", int(State.NONE))
        return self.studies[study]

    def _require_participant(self, caller: str, study: int) -> tuple[int, StudyState]:
        me = self._require_site(caller)
        if study not in self.studies or me not in self.studies[study].active:
            raise PostRejected("NotParticipant")
        return me, self.studies[study]

    def _require_running(self, caller: str, study: int) -> tuple[int, StudyState]:
        me, s = self._require_participant(caller, study)
        _require(s, State.RUNNING)
        return me, s


def _require(s: StudyState, state: State) -> None:
    if s.state != state:
        raise PostRejected("BadState", int(s.state))


def _require_late(s: StudyState, now: int) -> None:
    if now <= s.deadline:
        raise PostRejected("NotYet", s.deadline)


def _count_vote(ballot: set[int], me: int, electorate: set[int]) -> bool:
    """Add a vote; True when a strict majority of the electorate has voted for it."""
    if me in ballot:
        raise PostRejected("AlreadyVoted")
    ballot.add(me)
    return 2 * len(ballot & electorate) > len(electorate)


def _take_slot(s: StudyState, site: int, kind: int) -> bool:
    """Take the site's slot in the open step; True when the step is complete with it."""
    if kind != EACH:
        expected = s.server() if kind == SERVER else kind
        if site != expected:
            raise PostRejected("NotYourTurn", expected)
        return True
    if site not in s.active:
        raise PostRejected("NotParticipant")
    if site in s.posted:
        raise PostRejected("Overwrite")
    s.posted.add(site)
    return s.posted == s.active


def _advance(s: StudyState, kind: int, converged: bool, sha: bytes, now: int) -> None:
    if kind == EACH:
        s.posted.clear()
    else:
        s.basis = sha
    if kind == SERVER:
        s.turn = (s.order.index(s.server()) + 1) % len(s.order)
        if s.phase == 1:
            s.done = converged
    s.position += 1
    s.attempt = 0
    s.index += 1
    s.deadline = now + s.timeout
    _enter(s)


def _enter(s: StudyState) -> None:
    """Walk to the next step: in this phase, in the next round of the loop, in the next phase, or to the end."""
    while s.index >= len(s.schedule[s.phase]):
        s.index = 0
        if s.phase == 1 and s.schedule[1] and not s.done and s.round + 1 < s.max_rounds:
            s.round += 1
            return
        s.phase += 1
        if s.phase == CLOSED_STATES:
            s.state = State.COMPLETED
            return
