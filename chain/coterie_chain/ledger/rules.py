"""The rules of Catalog.sol in Python: membership, votes, proposals, turns, silence, disputes and ends.

One state machine with three users: the memory ledger runs on it, a differential fuzz compares the contract with it move
by move, and the auditor replays a chain's history through it, so that a chain that broke its own rules is found. Sites
are ids here and callers are addresses, as in the contract. Every refusal is a PostRejected with the name and the
arguments of the contract's custom error, checked in the contract's order. Only what an address is (`NotExternal`, and
whether a successor has code) is the contract's to know.

Theory of operation. A study is in one of six states. A move checks everything before it changes anything, so a refused
move leaves no trace:

    move          state before         state after          condition
    propose       none                 proposed             the caller takes part and has fewer than 16 open proposals
    join          proposed             proposed             same hash, before the deadline
    join, last    proposed             running              all sites have joined
    decline       proposed             aborted              one site is enough
    post          running              running              open step, its attempt, its basis, a free slot
    post, last    running              completed            the last slot of the last step
    skip          running              running              server step; the server is late or gone
    exclude       running              running              each step; vote; the site is late or gone
    unavailable   running              running or aborted   vote on a post of the open or the last finished step
    dispute       running              paused               another digest was recomputed than was posted
    dispute       completed            completed            likewise; it is only recorded
    pause         running              paused               once for each site and position
    resume        paused               running              vote, or the pause has run out
    abort         proposed to paused   aborted or the same  alone, by vote, or the caller leaves; see `End`
    supersede     completed            completed            the proposer, or a vote
    attest        completed, aborted   the same             a site recomputed its own posts

Invariants: only `post` moves a study forward, and only skip, exclude, unavailable and leaving begin a step again; each
of these raises the attempt, so that a post for an earlier attempt is refused. A strict majority of those who can vote
today carries a motion. A vote counts only while the voter has the key that it had when it voted. A site whose key has
changed since the proposal neither posts nor votes while that study runs.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from coterie_chain.errors import PostRejected
from coterie_chain.ledger import motions
from coterie_chain.ledger.protocol import ZERO, Post, Silence, State
from coterie_chain.ledger.record_chain import flatten_post
from coterie_chain.ledger.study_state import EACH, SERVER, Proposal, SchedulePosition, StudyState
from coterie_chain.store.cid import DAG_PB, RAW
from coterie_chain.store.protocol import MAX_BLOB

MAX_SITES = 253
MAX_STEPS = 32
# What a store returns of one payload is what the contract takes of one.
MAX_SIZE = MAX_BLOB
MAX_OPEN = 16
VOTE_BLOCKS, VOTE_TIME = 250_000, 14 * 86400
MIN_TIMEOUT = 60
MAX_TIMEOUT = PROPOSAL_TIME = 30 * 86400
PAUSE_TIME = 7 * 86400
ZERO_ADDRESS = "0x" + "00" * 20
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


class End(Enum):
    """What became of a move to end a study: the caller left, ended it alone, voted, or its vote passed."""

    LEFT = 1
    ALONE = 2
    VOTED = 3
    PASSED = 4


@dataclass(frozen=True)
class Moment:
    """When a move is made: the time of its block in seconds, and the block's number."""

    time: int
    block: int


@dataclass
class Seat:
    """A site's place in the Catalog; `changed` is the network's count of key changes when it got its key."""

    id: int
    name: str
    key: str
    sealing: bytes
    peer: bytes
    active: bool = True
    changed: int = 0
    offered: tuple[str, bytes] | None = None


class Rules:
    """The Catalog's state and moves."""

    def __init__(self, founders: Iterable[tuple[str, str, bytes, bytes]]) -> None:
        """Found the network with (name, key, sealing key, peer) of each first site."""
        self.seats: dict[int, Seat] = {}
        self.studies: dict[int, StudyState] = {}
        self.changes = 0
        self.successor = ZERO_ADDRESS
        # the sites that have voted for a motion, with the seat's `changed` and the moment of the vote
        self._ballots: defaultdict[bytes, dict[int, tuple[int, Moment]]] = defaultdict(dict)
        for name, key, sealing, peer in founders:
            self._require_new(name, key, sealing)
            self._admit(name, key, sealing, peer)

    # Membership

    def find_site(self, key: str) -> int:
        """Id of the active site that holds the key, else 0."""
        return next((s.id for s in self.seats.values() if s.key == key and s.active), 0)

    def admit(self, caller: str, name: str, key: str, sealing: bytes, peer: bytes, now: Moment) -> bool:
        """Vote to admit a site; True when the vote passed."""
        me = self._require_site(caller)
        self._require_new(name, key, sealing)
        passed = self._vote(motions.hash_admission(name, key, sealing, peer), me, self.list_members(), now)
        if passed:
            self._admit(name, key, sealing, peer)
        return passed

    def revoke(self, caller: str, site: int, now: Moment) -> bool:
        """Vote to revoke a site."""
        me = self._require_site(caller)
        self._require_known(site)
        passed = self._vote(motions.hash_revocation(site), me, self.list_members(), now)
        if passed:
            self.seats[site].active = False
        return passed

    def recover(self, caller: str, site: int, key: str, sealing: bytes, now: Moment) -> bool:
        """Vote to give a site a new key."""
        me = self._require_site(caller)
        self._require_known(site)
        self._require_free(key, sealing)
        motion = motions.hash_recovery(site, key, sealing, self.seats[site].changed)
        passed = self._vote(motion, me, self.list_members(), now)
        if passed:
            self._rekey(site, key, sealing)
        return passed

    def offer(self, caller: str, key: str, sealing: bytes) -> None:
        """Offer the caller's seat to a new key."""
        me = self._require_site(caller)
        self._require_free(key, sealing)
        self.seats[me].offered = (key, sealing)

    def accept(self, caller: str, site: int) -> None:
        """Take a seat that was offered to the caller."""
        self._require_known(site)
        offered = self.seats[site].offered
        if offered is None or offered[0] != caller:
            raise PostRejected("NotOffered")
        self._require_free(*offered)
        self._rekey(site, *offered)

    def vote_succession(self, caller: str, successor: str, now: Moment) -> bool:
        """Vote for the Catalog that succeeds this one."""
        me = self._require_site(caller)
        if successor == ZERO_ADDRESS:
            raise PostRejected("BadTerms")
        passed = self._vote(motions.hash_succession(successor), me, self.list_members(), now)
        if passed:
            self.successor = successor
        return passed

    def withdraw(self, caller: str, motion: bytes, now: Moment) -> None:
        """Withdraw the caller's vote."""
        me = self._require_site(caller)
        if me not in self.list_voters(motion, now):
            raise PostRejected("NoVote")
        del self._ballots[motion][me]

    def list_members(self) -> set[int]:
        """The active sites."""
        return {s.id for s in self.seats.values() if s.active}

    def list_voters(self, motion: bytes, now: Moment) -> set[int]:
        """The active sites whose votes for a motion count now."""
        return self._list_valid_votes(motion, self.list_members(), now)

    # Proposals

    def propose(self, caller: str, terms: Proposal, now: Moment) -> int:
        """Propose a study and join it; returns its id."""
        me = self._require_site(caller)
        self._require_terms(terms)
        if me not in terms.order:
            raise PostRejected("NotParticipant")
        if sum(s.proposer == me and self._is_open(s, now) for s in self.studies.values()) >= MAX_OPEN:
            raise PostRejected("TooManyProposals")
        study = len(self.studies) + 1
        self.studies[study] = StudyState.of(terms, me, self.changes, now.time + PROPOSAL_TIME)
        self._join(self.studies[study], me, now)
        return study

    def join(self, caller: str, study: int, hash: bytes, now: Moment) -> None:
        """Join a proposed study; it runs once every participant has joined."""
        me, s = self._require_participant(caller, study)
        _require(s, State.PROPOSED)
        if now.time > s.deadline:
            raise PostRejected("Expired", s.deadline)
        if hash != s.hash:
            raise PostRejected("HashMismatch")
        self._join(s, me, now)

    def decline(self, caller: str, studies: Sequence[int]) -> None:
        """Decline proposed studies, all or none."""
        if not studies:
            raise PostRejected("BadTerms")
        declined: dict[int, StudyState] = {}
        for study in studies:
            _, s = self._party(caller, study)
            if study in declined:
                raise PostRejected("BadState", int(State.ABORTED))
            _require(s, State.PROPOSED)
            declined[study] = s
        # Two passes: a refusal of one study must leave all of them as they are.
        for s in declined.values():
            s.state = State.ABORTED

    # Steps

    def post(self, caller: str, site: int, post: Post, now: Moment) -> tuple[int, int]:
        """Accept a record of `site`; returns the kind and the round of the step it stands at."""
        if not self._is_active(site) or self.seats[site].key != caller:
            raise PostRejected("NotOwner")
        _require_payload(post)
        s = self._require_study(post.study)
        _require(s, State.RUNNING)
        self._require_key(s, site)
        if (post.position, post.attempt) != (s.position, s.attempt):
            raise PostRejected("WrongStep", s.position, s.attempt)
        if post.basis != s.basis:
            raise PostRejected("BasisMismatch", "0x" + s.basis.hex())
        kind, round_ = s.kind(), s.round
        # `take_slot` can still refuse: it comes before the first change of state.
        complete = s.take_slot(site, kind)
        s.digests[post.position, post.attempt, site] = post.sha256
        if complete:
            s.advance(kind, post.converged, post.sha256, now.time)
        return kind, round_

    def skip(self, caller: str, study: int, now: Moment) -> int:
        """Pass over a server that is gone or silent; returns its id."""
        _, s = self._require_running(caller, study)
        if s.kind() != SERVER:
            raise PostRejected("NotAServerStep")
        server = s.server()
        if not self.is_gone(s, server):
            _require_late(s, now)
        s.pass_turn(server)
        s.begin_again(now.time)
        return server

    def exclude(self, caller: str, study: int, site: int, now: Moment) -> bool:
        """Vote to exclude a silent site; True when the vote passed."""
        me, s = self._require_running(caller, study)
        if s.silence != Silence.EXCLUDE:
            raise PostRejected("NotAllowed")
        if s.kind() != EACH:
            raise PostRejected("NotAnEachStep")
        gone = self.is_gone(s, site)
        if not gone:
            _require_late(s, now)
        if site == me or site in s.posted or site not in s.active:
            raise PostRejected("NotSilent")
        if not s.is_dispensable(site):
            raise PostRejected("SiteNeeded", site)
        motion = motions.hash_exclusion(study, s.position, s.attempt, site)
        # The motion names position and attempt, so votes of an earlier attempt do not count. A site that is gone cannot
        # come back into the study: no vote is needed.
        passed = gone or self._vote(motion, me, self.list_able(s) - {site}, now)
        if passed:
            s.remove(site)
            s.begin_again(now.time)
        return passed

    def unavailable(self, caller: str, study: int, position: int, attempt: int, site: int, now: Moment) -> bool:
        """Vote that a site's post cannot be used; True when the vote passed."""
        me, s = self._require_running(caller, study)
        step = s.locate() if position == s.position else s.last
        is_recent = step and (step.position, step.attempt) == (position, attempt) and position + 1 >= s.position
        if step is None or not is_recent:
            raise PostRejected("WrongStep", s.position, s.attempt)
        if site == me or site not in s.active or (position, attempt, site) not in s.digests:
            raise PostRejected("NotPosted")
        motion = motions.hash_unavailability(study, position, attempt, site)
        passed = self._vote(motion, me, self.list_able(s) - {site}, now)
        if passed:
            _blame(s, step, site, now)
        return passed

    # Stops

    def dispute(
        self, caller: str, study: int, position: int, attempt: int, site: int, recomputed: bytes, now: Moment
    ) -> bytes:
        """Say that another digest was recomputed than a site posted, which is returned; pauses a running study."""
        me, s = self._party(caller, study)
        if s.state not in (State.RUNNING, State.COMPLETED):
            raise PostRejected("BadState", int(s.state))
        if position >= s.position:
            raise PostRejected("WrongStep", s.position, s.attempt)
        posted = s.digests.get((position, attempt, site))
        if posted is None or recomputed in (posted, ZERO):
            raise PostRejected("NotPosted")
        if me in s.disputed[position]:
            raise PostRejected("AlreadyVoted")
        if s.state == State.RUNNING:
            self._require_key(s, me)
            _pause(s, now)
        s.disputed[position].add(me)
        return posted

    def pause(self, caller: str, study: int, now: Moment) -> None:
        """Pause a running study."""
        me, s = self._require_running(caller, study)
        if me in s.paused[s.position]:
            raise PostRejected("AlreadyVoted")
        s.paused[s.position].add(me)
        _pause(s, now)

    def resume(self, caller: str, study: int, now: Moment) -> bool:
        """Vote to go on with a paused study; True when the vote passed."""
        me, s = self._require_participant(caller, study)
        _require(s, State.PAUSED)
        motion = motions.hash_resumption(study)
        if now.time <= s.deadline and not self._vote(motion, me, self.list_able(s), now):
            return False
        self._ballots[motion].clear()
        s.state = State.RUNNING
        s.deadline = now.time + s.timeout
        return True

    def abort(self, caller: str, study: int, reason: int, culprit: int, now: Moment) -> End:
        """End a study without a result, or leave it, or vote to end it."""
        me, s = self._require_participant(caller, study)
        if s.state >= State.COMPLETED:
            raise PostRejected("BadState", int(s.state))
        if culprit and culprit not in s.active:
            raise PostRejected("UnknownSite")
        if culprit == me and s.state != State.PROPOSED and s.is_dispensable(me):
            s.remove(me)
            s.begin_again(now.time)
            return End.LEFT
        outcome = End.ALONE
        if not self._ends_alone(s, me, culprit, now):
            motion = motions.hash_abortion(study, reason, culprit)
            if not self._vote(motion, me, self.list_able(s) - {culprit}, now):
                return End.VOTED
            outcome = End.PASSED
        s.state = State.ABORTED
        return outcome

    # After the end

    def supersede(self, caller: str, study: int, by: int, reason: bytes, now: Moment) -> bool:
        """Vote that a completed study's result is superseded; True when the vote passed."""
        me, s = self._party(caller, study)
        _require(s, State.COMPLETED)
        if by == study or by > len(self.studies) or reason == ZERO:
            raise PostRejected("BadTerms")
        if s.superseded:
            raise PostRejected("AlreadyVoted")
        motion = motions.hash_supersession(study, by, reason)
        s.superseded = me == s.proposer or self._vote(motion, me, s.active & self.list_members(), now)
        return s.superseded

    def attest(self, caller: str, study: int, snapshot: bytes) -> None:
        """Say that the caller computed its own posts again."""
        _, s = self._party(caller, study)
        if s.state < State.COMPLETED:
            raise PostRejected("BadState", int(s.state))
        if snapshot == ZERO:
            raise PostRejected("BadTerms")

    # What the moves share

    def is_gone(self, s: StudyState, site: int) -> bool:
        """Whether a site can take no further part: revoked, or its key has changed since the study was proposed."""
        return not self._is_active(site) or self.seats[site].changed > s.changes

    def list_able(self, s: StudyState) -> set[int]:
        """The participants that can act: who votes in the study."""
        seats = self.seats
        seated = ((site, seats.get(site)) for site in s.active)
        return {site for site, seat in seated if seat is not None and seat.active and seat.changed <= s.changes}

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

    def _require_free(self, key: str, sealing: bytes) -> None:
        if key == ZERO_ADDRESS or any(s.key == key for s in self.seats.values()):
            raise PostRejected("KeyTaken")
        if sealing == ZERO:
            raise PostRejected("BadTerms")

    def _require_new(self, name: str, key: str, sealing: bytes) -> None:
        self._require_free(key, sealing)
        if any(s.name == name for s in self.seats.values()):
            raise PostRejected("NameTaken")
        if not _NAME.fullmatch(name):
            raise PostRejected("BadName")
        if len(self.seats) >= MAX_SITES:
            raise PostRejected("TooManySites")

    def _admit(self, name: str, key: str, sealing: bytes, peer: bytes) -> None:
        site = len(self.seats) + 1
        self.seats[site] = Seat(site, name, key, sealing, peer, changed=self.changes)

    def _rekey(self, site: int, key: str, sealing: bytes) -> None:
        self.changes += 1
        seat = self.seats[site]
        seat.key, seat.sealing, seat.changed, seat.offered = key, sealing, self.changes, None

    def _vote(self, motion: bytes, me: int, electorate: set[int], now: Moment) -> bool:
        """Add a vote; True, and the ballot is emptied, when a strict majority of today's electorate is for it.

        A site that has voted already may vote again only if the motion then passes: the electorate may have shrunk.
        """
        counted = self._list_valid_votes(motion, electorate, now)
        passed = 2 * len((counted | {me}) & electorate) > len(electorate)
        if me in counted and not passed:
            raise PostRejected("AlreadyVoted")
        votes = {site: vote for site, vote in self._ballots[motion].items() if site in counted}
        self._ballots[motion] = {} if passed else votes | {me: (self.seats[me].changed, now)}
        return passed

    def _list_valid_votes(self, motion: bytes, electorate: set[int], now: Moment) -> set[int]:
        """The votes that count: of the electorate, not expired, and of a seat that has the key that it had then."""
        return {
            site
            for site, (changed, cast) in self._ballots[motion].items()
            if site in electorate and changed == self.seats[site].changed and _is_young(cast, now)
        }

    def _require_terms(self, terms: Proposal) -> None:
        if terms.hash == ZERO or terms.max_rounds == 0 or terms.silence > Silence.ABORT:
            raise PostRejected("BadTerms")
        if not MIN_TIMEOUT <= terms.timeout <= MAX_TIMEOUT:
            raise PostRejected("BadTerms")
        order = terms.order
        if not order or len(set(order)) != len(order) or not all(self._is_active(p) for p in order):
            raise PostRejected("BadOrder")
        if not 1 <= terms.least <= len(order):
            raise PostRejected("BadTerms")
        kinds = {k for word in terms.schedule for k in word}
        if not kinds or not kinds <= {EACH, SERVER, *order} or max(map(len, terms.schedule)) > MAX_STEPS:
            raise PostRejected("BadSchedule")

    def _is_open(self, s: StudyState, now: Moment) -> bool:
        return s.state == State.PROPOSED and now.time <= s.deadline

    def _join(self, s: StudyState, me: int, now: Moment) -> None:
        if me in s.joined:
            raise PostRejected("AlreadyVoted")
        s.joined.add(me)
        if s.joined == s.active:
            s.start(now.time)

    def _ends_alone(self, s: StudyState, me: int, culprit: int, now: Moment) -> bool:
        """Whether one caller alone can end the study."""
        if culprit == me:
            return True
        if culprit == 0:
            return s.state == State.PROPOSED or s.silence != Silence.EXCLUDE
        return not s.is_dispensable(culprit) and (self.is_gone(s, culprit) or s.is_silent(culprit, now.time))

    def _require_study(self, study: int) -> StudyState:
        if study not in self.studies:
            raise PostRejected("BadState", int(State.NONE))
        return self.studies[study]

    def _party(self, caller: str, study: int) -> tuple[int, StudyState]:
        """A caller that takes part in the study, or took part in it to its end."""
        me = self._require_site(caller)
        if study not in self.studies or me not in self.studies[study].active:
            raise PostRejected("NotParticipant")
        return me, self.studies[study]

    def _require_participant(self, caller: str, study: int) -> tuple[int, StudyState]:
        """A caller that takes part with the key that it had when the study was proposed."""
        me, s = self._party(caller, study)
        self._require_key(s, me)
        return me, s

    def _require_running(self, caller: str, study: int) -> tuple[int, StudyState]:
        me, s = self._require_participant(caller, study)
        _require(s, State.RUNNING)
        return me, s

    def _require_key(self, s: StudyState, site: int) -> None:
        if self.seats[site].changed > s.changes:
            raise PostRejected("SeatChanged")


def _require(s: StudyState, state: State) -> None:
    if s.state != state:
        raise PostRejected("BadState", int(s.state))


def _is_young(cast: Moment, now: Moment) -> bool:
    """Whether a vote still counts."""
    return cast.block + VOTE_BLOCKS >= now.block and cast.time + VOTE_TIME >= now.time


def _require_late(s: StudyState, now: Moment) -> None:
    if now.time <= s.deadline:
        raise PostRejected("NotYet", s.deadline)


def _require_payload(post: Post) -> None:
    _, _, _, codec, size, _, cid, sha, _, _ = flatten_post(post)
    if ZERO in (sha, cid):
        raise PostRejected("EmptyPost")
    if codec not in (RAW, DAG_PB) or not 1 <= size <= MAX_SIZE:
        raise PostRejected("BadPayload")


def _pause(s: StudyState, now: Moment) -> None:
    s.state = State.PAUSED
    s.deadline = now.time + PAUSE_TIME


def _blame(s: StudyState, step: SchedulePosition, site: int, now: Moment) -> None:
    """End the study, or go back to the step at which a site's post cannot be used, without the site if it can be."""
    kind = s.kind(step)
    if s.silence == Silence.ABORT and kind != SERVER:
        s.state = State.ABORTED
        return
    # Decided before `go_back` changes the study's state.
    excluded = kind == EACH and s.is_dispensable(site)
    if step.position != s.position:
        s.go_back(step)
    if excluded:
        s.remove(site)
    s.posted.clear()
    s.begin_again(now.time)
