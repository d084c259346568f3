"""The ledger's memory twin: the rules, a list of entries, and a clock that the caller injects.

Theory of operation. A MemoryChain is the twin of the chain, and a MemoryLedger that of one site's access to it. Each
call first makes its move in the Rules, which raise PostRejected, and then appends what the contracts would log. A
refused move therefore leaves no entry. The states of a study are in the table of `rules.py`; the entries that a call
appends are:

    call                 always                         with the move's outcome
    propose              StudyProposed, StudyJoined     StudyStarted, if no other site has to join
    join                 StudyJoined                    StudyStarted, with the last site
    decline              StudyDeclined, one per study   -
    record               the Record                     StudyCompleted, before the Record
    skip                 ServerSkipped                  -
    exclude              ExclusionVoted                 SiteExcluded
    report_unavailable   UnavailabilityVoted            StudyAborted, SiteExcluded or StepReopened
    dispute              Disputed                       -
    pause                StudyPaused                    -
    resume               ResumeVoted                    StudyResumed
    abort                AbortVoted, if it is a vote    StudyAborted or SiteLeft
    supersede            SupersessionVoted              StudySuperseded
    attest, withdraw     SiteAttested, VoteWithdrawn    -
    offer, accept        KeyOffered, KeyChanged         -
    votes on members     the vote's event               SiteAdmitted, SiteRevoked, KeyChanged, CatalogSucceeded

Invariants: each entry takes one block, and `idle_blocks` counts the blocks without one. Entries are never changed or
removed: the twin knows no reorganisation. A vote's entry stands before the entry of its outcome.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock

from coterie_chain.errors import PostRejected
from coterie_chain.ledger import motions
from coterie_chain.ledger.protocol import (
    ZERO,
    Event,
    Head,
    Mark,
    OpenStep,
    Post,
    Record,
    SiteEntry,
    State,
    StudyView,
    Terms,
    get_study_number,
    select_last_attempt,
    select_proposals,
)
from coterie_chain.ledger.record_chain import compute_genesis_head, compute_next_head
from coterie_chain.ledger.rules import ZERO_ADDRESS, End, Moment, Rules, Seat
from coterie_chain.ledger.study_state import EACH, SERVER, Proposal, StudyState


class RecordPlaces:
    """The places of each step's records in a log, so that a reader does not search all of it.

    A log that was replaced, or whose entries have moved, is searched from its beginning.
    """

    def __init__(self) -> None:
        self._log: list[Record | Event] = []
        self._last: Record | Event | None = None
        self._places: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        self._seen = 0
        self._lock = Lock()

    def find(self, log: list[Record | Event], study: int, position: int) -> list[Record]:
        """The records of a step, in the order of the log."""
        with self._lock:
            self._read_new(log)
            entries = [log[at] for at in self._places.get((study, position), ())]
        return [e for e in entries if type(e) is Record and e.post.position == position and e.post.study == study]

    def _read_new(self, log: list[Record | Event]) -> None:
        if log is not self._log or len(log) < self._seen or (self._seen and log[self._seen - 1] is not self._last):
            self._log, self._seen = log, 0
            self._places.clear()
        for at, entry in enumerate(log[self._seen :], self._seen):
            if type(entry) is Record:
                self._places[entry.post.study, entry.post.position].append(at)
            self._seen, self._last = at + 1, entry


class MemoryChain:
    """The state that the sites of one process share: the rules and all entries so far."""

    def __init__(self, founders: Iterable[SiteEntry], clock: Callable[[], int] = lambda: 0) -> None:
        self.rules = Rules((e.name, e.address, e.sealing, e.peer) for e in founders)
        self.clock = clock
        self.log: list[Record | Event] = []
        for seat in self.rules.seats.values():
            self.log.append(Event("SiteAdmitted", 0, seat.name, _describe_seat(seat), len(self.log), clock(), ""))
        self.heads: dict[int, Head] = {}
        self.idle_blocks = 0
        self._places = RecordPlaces()
        # For each finished step: its records, the study's sites, and the posts that all readers get.
        self._reported: dict[tuple[int, int], tuple[list[Record], tuple[int, ...], tuple[Record, ...]]] = {}

    def read_step(self, study: int, position: int, order: tuple[int, ...]) -> tuple[Record, ...]:
        """Records of a step's last attempt, in the order of the study's sites; made once for all readers."""
        records = self._places.find(self.log, study, position)
        known = self._reported.get((study, position))
        if known is None or known[0] != records or known[1] != order:
            known = records, order, select_last_attempt(records, _name_sites(self.rules, order))
            self._reported[study, position] = known
        return known[2]

    def moment(self) -> Moment:
        """The block and time of the next entry: each entry takes a block, and `idle_blocks` have none."""
        return Moment(self.clock(), len(self.log) + self.idle_blocks)

    def head(self, site: int) -> Head:
        """A site's chain of records."""
        first = compute_genesis_head(ZERO_ADDRESS, 0, site)
        return self.heads.get(site, Head(first, 0, first))

    def ledger(self, address: str | None) -> MemoryLedger:
        """A handle for the site that holds `address`; a reader for None."""
        return MemoryLedger(self, address)


class MemoryLedger:
    """One site's handle on a MemoryChain."""

    def __init__(self, chain: MemoryChain, address: str | None) -> None:
        self._chain = chain
        self._rules = chain.rules
        self._address = address or ""

    @property
    def me(self) -> str | None:
        """Name of the site that this handle speaks for."""
        site = self._rules.find_site(self._address)
        return self._find_name(site) if site else None

    def now(self) -> int:
        """Time of the injected clock."""
        return self._chain.clock()

    def sites(self) -> tuple[SiteEntry, ...]:
        """All seats, by id."""
        return list_sites(self._rules)

    def studies(self) -> tuple[int, ...]:
        """Ids of all studies."""
        return tuple(self._rules.studies)

    def list_proposals(self, after: int) -> tuple[Event, ...]:
        """The entries of the proposals with a number above `after`."""
        return select_proposals(self.history(), after)

    def view(self, study: int) -> StudyView:
        """The study's terms and state."""
        return build_view(self._rules, study)

    def read_finished(self, study: int, position: int) -> tuple[Record, ...] | None:
        """Records of a finished step's last attempt, in the study's order."""
        s = _require_study(self._rules, study)
        if position >= s.position:
            return None
        return self._chain.read_step(study, position, s.order)

    def read_at_one_block(self) -> AbstractContextManager[None]:
        """Nothing to ask: reads cost nothing here."""
        return nullcontext()

    def history(self, study: int | None = None) -> Iterator[Record | Event]:
        """Everything written, of one study or of all."""
        return (e for e in tuple(self._chain.log) if study is None or get_study_number(e) == study)

    def read_new(self, mark: Mark) -> tuple[Mark, tuple[Record | Event, ...]]:
        """The entries after a mark; nothing is ever taken back."""
        new = tuple(self._chain.log[mark.count :])
        return Mark(count=mark.count + len(new)), new

    def propose(self, terms: Terms, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> int:
        """Propose a study and join it."""
        ids = {s.name: s.id for s in self._rules.seats.values()}
        study = self._rules.propose(self._address, number_sites(terms, ids), self._chain.moment())
        self._write("StudyProposed", study, **describe_terms(terms))
        self._write_join(study, snapshot, approvals, release)
        return study

    def join(self, study: int, hash: bytes, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> None:
        """Join by repeating the study's hash."""
        self._rules.join(self._address, study, hash, self._chain.moment())
        self._write_join(study, snapshot, approvals, release)

    def decline(self, studies: Sequence[int], reason: int) -> None:
        """Decline proposed studies, all or none."""
        self._rules.decline(self._address, studies)
        for study in studies:
            self._write("StudyDeclined", study, reason=reason)

    def record(self, post: Post) -> None:
        """Append a post to this site's chain of records; quietly nothing if it is there already."""
        site = self._rules.find_site(self._address)
        try:
            kind, round_ = self._rules.post(self._address, site, post, self._chain.moment())
        except PostRejected:
            # A site that restarts posts again what it may have posted. The same bytes are no error, other bytes are.
            digest = self._find_digest(site, post)
            if digest not in (None, post.sha256):
                raise PostRejected("Overwrite") from None
            if digest is None:
                raise
            return
        # In the contract's order: the Catalog speaks before the Model does.
        if self._rules.studies[post.study].state == State.COMPLETED:
            self._write("StudyCompleted", post.study)
        self._append(site, kind, round_, post)

    def skip(self, study: int) -> None:
        """Pass over a silent server."""
        # Read before the move, which raises the attempt: the event names the step that was skipped.
        step = self._describe_step(study)
        silent = self._rules.skip(self._address, study, self._chain.moment())
        self._write("ServerSkipped", study, **step, server=self._find_name(silent))

    def exclude(self, study: int, site: str) -> None:
        """Vote to exclude a silent site."""
        step = self._describe_step(study)
        passed = self._rules.exclude(self._address, study, self._find_id(site), self._chain.moment())
        motion = motions.hash_exclusion(study, step["position"], step["attempt"], self._find_id(site))
        self._write_vote(passed, motion, "ExclusionVoted", "SiteExcluded", study, self.me, **step, silent=site)

    def report_unavailable(self, study: int, position: int, attempt: int, site: str, reason: int) -> None:
        """Vote that a site's post cannot be used."""
        culprit, step = self._find_id(site), {"position": position, "attempt": attempt}
        passed = self._rules.unavailable(self._address, study, position, attempt, culprit, self._chain.moment())
        motion = motions.hash_unavailability(study, position, attempt, culprit)
        details: dict[str, str | int] = {**step, "culprit": site, "reason": reason}
        self._write("UnavailabilityVoted", study, **details, motion=_to_hex(motion))
        s = self._rules.studies[study]
        if passed:
            name, outcome = describe_blame(s, culprit, details)
            self._write(name, study, **outcome)

    def dispute(self, study: int, position: int, posted: bytes, recomputed: bytes) -> None:
        """Say that this site recomputed another digest than the one posted."""
        attempt, site = find_post(self._list_records(study), position, posted)
        poster = self._find_id(site)
        self._rules.dispute(self._address, study, position, attempt, poster, recomputed, self._chain.moment())
        digests = {"posted": _to_hex(posted), "recomputed": _to_hex(recomputed)}
        self._write("Disputed", study, position=position, attempt=attempt, poster=site, **digests)

    def pause(self, study: int, reason: int) -> None:
        """Pause a running study."""
        self._rules.pause(self._address, study, self._chain.moment())
        self._write("StudyPaused", study, reason=reason)

    def resume(self, study: int) -> None:
        """Vote to go on."""
        passed = self._rules.resume(self._address, study, self._chain.moment())
        self._write_vote(passed, motions.hash_resumption(study), "ResumeVoted", "StudyResumed", study, self.me)

    def abort(self, study: int, reason: int, culprit: str = "") -> None:
        """End a study without a result, or leave it."""
        step, blamed_site = self._describe_step(study), self._find_id(culprit) if culprit else 0
        end = self._rules.abort(self._address, study, reason, blamed_site, self._chain.moment())
        details: dict[str, str | int] = {"reason": reason, "culprit": culprit}
        if end == End.LEFT:
            self._write("SiteLeft", study, reason=reason, **step)
        if end in (End.VOTED, End.PASSED):
            motion = motions.hash_abortion(study, reason, blamed_site)
            self._write("AbortVoted", study, **details, motion=_to_hex(motion))
        if end in (End.ALONE, End.PASSED):
            self._write("StudyAborted", study, **details)

    def supersede(self, study: int, successor: int, reason: bytes) -> None:
        """Vote that a completed study's result is superseded."""
        passed = self._rules.supersede(self._address, study, successor, reason, self._chain.moment())
        motion, details = motions.hash_supersession(study, successor, reason), {"reason_sha256": _to_hex(reason)}
        self._write_vote(
            passed, motion, "SupersessionVoted", "StudySuperseded", study, self.me, successor=successor, **details
        )

    def attest(self, study: int, snapshot: bytes, verdict: int) -> None:
        """Say that this site computed its own posts again."""
        self._rules.attest(self._address, study, snapshot)
        self._write("SiteAttested", study, snapshot=_to_hex(snapshot), verdict=verdict)

    def withdraw(self, motion: bytes) -> None:
        """Withdraw this site's vote."""
        self._rules.withdraw(self._address, motion, self._chain.moment())
        self._write("VoteWithdrawn", 0, motion=_to_hex(motion))

    def list_voters(self, motion: bytes) -> tuple[str, ...]:
        """The sites whose votes for a motion count now."""
        return _name_sites(self._rules, sorted(self._rules.list_voters(motion, self._chain.moment())))

    def admit(self, entry: SiteEntry) -> None:
        """Vote to admit a site."""
        seat = (entry.name, entry.address, entry.sealing, entry.peer)
        passed = self._rules.admit(self._address, *seat, self._chain.moment())
        details = {
            "name": entry.name,
            "key": entry.address,
            "sealing": _to_hex(entry.sealing),
            "peer": _to_hex(entry.peer),
        }
        self._write_vote(passed, motions.hash_admission(*seat), "AdmissionVoted", "SiteAdmitted", 0, self.me, **details)

    def revoke(self, site: str) -> None:
        """Vote to revoke a site."""
        # The name is read before the move: a site that revokes itself has none afterwards.
        by, number = self.me, self._find_id(site)
        passed = self._rules.revoke(self._address, number, self._chain.moment())
        self._write_vote(passed, motions.hash_revocation(number), "RevocationVoted", "SiteRevoked", 0, by, name=site)

    def recover(self, site: str, address: str, sealing: bytes) -> None:
        """Vote to give a site a new key."""
        by, number = self.me, self._find_id(site)
        changed = self._rules.seats[number].changed if number else 0
        passed = self._rules.recover(self._address, number, address, sealing, self._chain.moment())
        motion = motions.hash_recovery(number, address, sealing, changed)
        details = {"name": site, "key": address, "sealing": _to_hex(sealing)}
        self._write_vote(passed, motion, "RecoveryVoted", "KeyChanged", 0, by, **details)

    def offer(self, address: str, sealing: bytes) -> None:
        """Offer this seat to a new key."""
        self._rules.offer(self._address, address, sealing)
        self._write("KeyOffered", 0, name=self.me or "", key=address, sealing=_to_hex(sealing))

    def accept(self, site: str) -> None:
        """Accept a seat."""
        self._rules.accept(self._address, self._find_id(site))
        sealing = self._rules.seats[self._find_id(site)].sealing
        self._write("KeyChanged", 0, name=site, key=self._address, sealing=_to_hex(sealing))

    def vote_succession(self, catalog: str) -> None:
        """Vote that another Catalog succeeds this one."""
        passed = self._rules.vote_succession(self._address, catalog, self._chain.moment())
        motion = motions.hash_succession(catalog)
        self._write_vote(passed, motion, "SuccessionVoted", "CatalogSucceeded", 0, self.me, successor=catalog)

    def read_successor(self) -> str:
        """Address of the Catalog that succeeds this one."""
        return "" if self._rules.successor == ZERO_ADDRESS else self._rules.successor

    def wait(self, seconds: float) -> None:
        """Nothing changes while a single process waits for itself."""

    def heads(self) -> dict[str, Head]:
        """Each site's chain of records."""
        return {s.name: self._chain.head(s.id) for s in self._rules.seats.values()}

    def _append(self, site: int, kind: int, round_: int, post: Post) -> None:
        before = self._chain.head(site)
        seq, block = before.seq + 1, self._chain.moment().block
        head = compute_next_head(before.head, seq, kind, round_, post)
        self._chain.heads[site] = Head(before.genesis, seq, head)
        name = self._describe_kind(kind)
        self._chain.log.append(Record(self._find_name(site), seq, name, round_, post, head, block, self.now(), ""))

    def _find_digest(self, site: int, post: Post) -> bytes | None:
        slot = (post.study, post.position, post.attempt)
        own = (e for e in self._list_records(post.study) if self._find_id(e.site) == site)
        return next((e.post.sha256 for e in own if (e.post.study, e.post.position, e.post.attempt) == slot), None)

    def _list_records(self, study: int) -> list[Record]:
        return [e for e in self._chain.log if isinstance(e, Record) and e.post.study == study]

    def _write_join(self, study: int, snapshot: bytes, approvals: bytes, release: int) -> None:
        digests = {"snapshot": _to_hex(snapshot), "approvals": _to_hex(approvals)}
        self._write("StudyJoined", study, **digests, release=release)
        if self._rules.studies[study].state != State.PROPOSED:
            self._write("StudyStarted", study)

    def _write(self, event_name: str, study: int, /, **details: str | int) -> None:
        self._write_by(self.me, event_name, study, details)

    def _write_by(self, site: str | None, name: str, study: int, details: dict[str, str | int]) -> None:
        block = self._chain.moment().block
        self._chain.log.append(Event(name, study, site or "", tuple(details.items()), block, self.now(), ""))

    def _describe_step(self, study: int) -> dict[str, int]:
        s = self._rules.studies.get(study)
        return {"position": s.position, "attempt": s.attempt} if s else {}

    def _write_vote(
        self, passed: bool, motion: bytes, vote: str, outcome: str, study: int, by: str | None, /, **details: str | int
    ) -> None:
        # `by` is who voted: a site that votes itself out, or to a new key, is nobody afterwards
        self._write_by(by, vote, study, details | {"motion": _to_hex(motion)})
        if passed:
            self._write_by(by, outcome, study, details)

    def _find_id(self, name: str) -> int:
        return next((s.id for s in self._rules.seats.values() if s.name == name), 0)

    def _find_name(self, site: int) -> str:
        return self._rules.seats[site].name

    def _describe_kind(self, code: int) -> str:
        return describe_kind(self._rules, code)


def list_sites(rules: Rules) -> tuple[SiteEntry, ...]:
    """All seats as the rules hold them, by id."""
    return tuple(SiteEntry(s.id, s.name, s.key, s.sealing, s.peer, s.active) for s in rules.seats.values())


def build_view(rules: Rules, study: int) -> StudyView:
    """A study as the rules hold it; PostRejected (BadState) if there is none."""
    s = _require_study(rules, study)
    kinds = (tuple(describe_kind(rules, code) for code in word) for word in s.schedule)
    opening, loop, closing = kinds
    order = _name_sites(rules, s.order)
    terms = Terms(s.hash, order, opening, loop, closing, s.max_rounds, s.timeout, s.silence, s.least)
    joined, parties, able = (_name_some(s, order, some) for some in (s.joined, s.active, rules.list_able(s)))
    open_ = _build_open_step(rules, s, order, parties) if s.state == State.RUNNING else None
    proposer = rules.seats[s.proposer].name
    return StudyView(study, terms, s.state, joined, parties, open_, able, proposer, s.deadline, s.superseded)


def describe_kind(rules: Rules, code: int) -> str:
    """A step's kind as Terms name it."""
    return {EACH: "each", SERVER: "server"}.get(code) or f"only:{rules.seats[code].name}"


def _require_study(rules: Rules, study: int) -> StudyState:
    if study not in rules.studies:
        raise PostRejected("BadState", int(State.NONE))
    return rules.studies[study]


def _build_open_step(rules: Rules, s: StudyState, order: tuple[str, ...], parties: tuple[str, ...]) -> OpenStep:
    posted = _name_some(s, order, s.posted)
    posters = parties if s.kind() == EACH else _name_sites(rules, s.posters())
    kind = describe_kind(rules, s.kind())
    return OpenStep(s.position, s.attempt, s.round, kind, posters, posted, parties, s.basis, s.deadline)


def _name_sites(rules: Rules, ids: Iterable[int]) -> tuple[str, ...]:
    seats = rules.seats
    return tuple([seats[i].name for i in ids])


def _name_some(s: StudyState, order: tuple[str, ...], some: Collection[int]) -> tuple[str, ...]:
    """Names of some of a study's sites, in its order; `order` are the names of all."""
    if len(some) == len(order):
        return order
    return tuple([name for p, name in zip(s.order, order, strict=True) if p in some]) if some else ()


def _encode_kind(kind: str, ids: Mapping[str, int]) -> int:
    return {"each": EACH, "server": SERVER}.get(kind) or ids.get(kind.removeprefix("only:"), 0)


def number_sites(terms: Terms, ids: Mapping[str, int]) -> Proposal:
    """Terms with the ids of their sites; 0 for a name that is no site's."""
    order = tuple(ids.get(name, 0) for name in terms.sites)
    words = tuple(tuple(_encode_kind(k, ids) for k in w) for w in (terms.opening, terms.loop, terms.closing))
    return Proposal(terms.hash, order, words, terms.max_rounds, terms.timeout, terms.silence, terms.least)


def describe_blame(s: StudyState, culprit: int, details: dict[str, str | int]) -> tuple[str, dict[str, str | int]]:
    """The outcome of a vote that a site's post is unusable: the event and its details."""
    if s.state == State.ABORTED:
        return "StudyAborted", {"reason": details["reason"], "culprit": details["culprit"]}
    step = {"position": details["position"], "attempt": details["attempt"]}
    if culprit not in s.active:
        return "SiteExcluded", {**step, "silent": details["culprit"]}
    return "StepReopened", {**step, "culprit": details["culprit"]}


def find_post(records: Iterable[Record], position: int, digest: bytes) -> tuple[int, str]:
    """Attempt and site of the last post with a digest at a position; (0, "") if there is none."""
    posts = [r for r in records if r.post.position == position and r.post.sha256 == digest]
    return (posts[-1].post.attempt, posts[-1].site) if posts else (0, "")


def describe_terms(terms: Terms) -> dict[str, str | int]:
    """A proposal's terms as the details of its event."""
    return {
        "hash": _to_hex(terms.hash),
        "sites": ",".join(terms.sites),
        "opening": ",".join(terms.opening),
        "loop": ",".join(terms.loop),
        "closing": ",".join(terms.closing),
        "max_rounds": terms.max_rounds,
        "timeout": terms.timeout,
        "silence": int(terms.silence),
        "least": terms.least,
    }


def _describe_seat(seat: Seat) -> tuple[tuple[str, str | int], ...]:
    details = {"name": seat.name, "key": seat.key, "sealing": _to_hex(seat.sealing), "peer": _to_hex(seat.peer)}
    return tuple(details.items())


def _to_hex(data: bytes) -> str:
    return "0x" + data.hex()
