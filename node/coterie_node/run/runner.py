"""A participant's part in one study: a machine fed from the ledger, which also drafts and records this site's posts.

Simulation and daemon call `turn()`; there is no other loop body. An auditor is a Follower, which reads only.

The runner reads its state from the ledger and from few fields of its own, so that a crash loses nothing:

    state        how it shows                           what a turn does                                 next
    -----------  -------------------------------------  -----------------------------------------------  -----------
    following    the next step is finished on the       read it, check it, advance the machine           any
                 ledger
    posting      the step is open, this site posts      draft, ask the gate, store, record               sent
    asking       _awaiting_approval is set              ask the gate again: people have not answered     asking, sent
    talking      _session is set                        look whether the interactive step has a result   posting
    sent         _sent_post is set                      send it again until a block has it               following
    predicting   _prediction is set, not followed       send what comes next (lookahead.py)              predicted
    predicted    _prediction is set, followed           compare it with the ledger                       following
    late         the step is open past its deadline     skip, exclude or abort, as the study says        any
    done         machine.awaits is None, no prediction  nothing                                          done

From every state but done a reorganisation leads to `restart`: the machine starts again from the first record.

Invariants. Nothing is posted while the ledger's terms are not those that this site approved. Nothing is posted on top
of records that the ledger no longer holds. What was drafted for a step is posted or dropped, never changed: masks are
derived, so that two posts of one step would disclose their difference. A payload is stored before its record is sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from coterie_chain.errors import BlobMissing, ChainError, PostRejected
from coterie_chain.ledger.protocol import (
    ZERO,
    Event,
    Ledger,
    OpenStep,
    PipelinedLedger,
    Post,
    Record,
    Silence,
    State,
    StudyView,
    Terms,
)
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core.payload import Payload, decode, unpack
from coterie_learners.core.protocol import Channel, Machine, Sealed, Step
from coterie_learners.errors import LearnerError, ProtocolError, SealedInput, SessionLost, WrongPost
from coterie_node.errors import (
    ConfigError,
    PayloadCorrupt,
    PayloadMissing,
    PayloadTooLarge,
    PostUnusable,
    ReleaseRefused,
    TermsMismatch,
)
from coterie_node.peers.interactive_session import Exchange, InteractiveStep
from coterie_node.release.gate import Gate
from coterie_node.release.repeated_sums import RepeatedSums, is_masked, list_attempts
from coterie_node.run.codec import PayloadCodec, pack
from coterie_node.run.endings import end_part, is_closing
from coterie_node.run.follower import Follower, Progress, read_figures, read_heads
from coterie_node.run.lookahead import PredictedPost
from coterie_node.run.opened_results import OpenedResults
from coterie_node.run.reasons import Reason, abort_reason

# The contract's answers to a move about a silent site when others were faster, or when it is for people to decide.
OVERTAKEN = (
    *("NotYet", "WrongStep", "BadState", "AlreadyVoted", "NotSilent", "NotAllowed"),
    *("NotAServerStep", "NotAnEachStep", "NotParticipant", "SiteNeeded"),
)
# Every site that has the bytes behind a record sees these faults, also without a key.
FAULTS_OF_BYTES = ("CO-P111", "CO-P112", "CO-P113")


class Runner(Follower):
    """A participant's machine. Without a `gate` everything leaves, and the records say that nothing was judged.

    `terms` are those that this site approved; None checks nothing, for a ledger that is this process's own. With
    `ahead` it does not wait for a server's post: it works the post out itself, goes on, and sends its next record
    behind it. Should the ledger hold another post then, or none, or after a reorganisation another than before, the
    machine starts again from the ledger's first record.
    """

    def __init__(
        self,
        machine: Machine,
        ledger: Ledger,
        blobs: BlobStore,
        study: int,
        codec: PayloadCodec,
        *,
        gate: Gate | None = None,
        exchange: Exchange | None = None,
        observe: Callable[[Progress], None] = lambda _: None,
        ahead: PipelinedLedger | None = None,
        terms: Terms | None = None,
    ) -> None:
        super().__init__(machine, ledger, blobs, study, codec, observe=observe)
        self.payload_bytes = 0
        self._gate, self._exchange, self._ahead, self._terms = gate, exchange, ahead, terms
        self._session: InteractiveStep | None = None
        self._awaiting_approval: tuple[OpenStep, Payload] | None = None
        self._sent_post: Post | None = None
        self._prediction: PredictedPost | None = None
        self._sealed_steps: dict[str, Step] = {}  # those that this machine has read, by topic

    def turn(self) -> bool:
        """Do the next thing there is to do; False if this site has to wait for others, or the protocol has ended.

        Raises LearnerError, ReleaseRefused, PayloadTooLarge, TermsMismatch or BlobCorrupt for what ends this site's
        part; what ends the study for all is on the ledger by then: a dispute over a wrong server post, an abort or a
        vote for one, with its reason and the site at fault.
        """
        # The order of the handlers: a learner's error may only be that of records which a reorganisation took, so the
        # ledger is read again before anything about it goes on record.
        try:
            return self._take_turn()
        except LearnerError as error:
            if self._handle_error(error):
                return True
            raise
        except ReleaseRefused:
            self._leave(Reason.RELEASE_REFUSED)
            raise
        except PayloadTooLarge:
            self._leave(Reason.PAYLOAD_TOO_LARGE)
            raise

    @property
    def done(self) -> bool:
        """Whether the protocol has ended."""
        return self.machine.awaits is None and self._prediction is None

    @property
    def talking(self) -> bool:
        """Whether this party is in the middle of an interactive step."""
        return self._session is not None and self._session.alive and not self._session.missing_parties

    @property
    def missing_parties(self) -> tuple[str, ...]:
        """The parties of an interactive step that have not come to it yet."""
        return () if self._session is None else self._session.missing_parties

    @property
    def talk_progress(self) -> str:
        """How far this party has come in an interactive step, in words."""
        return "" if self._session is None else self._session.progress

    def close(self) -> None:
        """Leave an interactive step that this party is in."""
        if self._session is not None:
            self._session.end()
            self._session = None

    def check_end(self) -> bool:
        """Whether the result still stands; if a reorganisation took its records, the machine starts again."""
        return self.matches_ledger() or not self._restart_from_ledger()

    def _take_turn(self) -> bool:
        # Predicting and predicted come first: while a prediction is open, `position` runs one step ahead of the ledger.
        if self._prediction is not None:
            return self._await_predicted(self._prediction)
        step = self.machine.awaits
        if step is None:
            return False
        with self._ledger.read_at_one_block():
            view, records = self._read_ledger(self.position)
            lost = records is None and self._builds_on_lost_records(step, view)
            late = records is None and view.open is not None and self._ledger.now() > view.open.deadline
        if lost:
            return self._restart_from_ledger()
        if records is not None:
            return self._continue(step, view, records)
        # No open step: the study is proposed, paused or over.
        if view.open is None:
            return self._check_stopped(step, view)
        if view.open.position != self.position:
            return False
        return self._act(step, view, view.open, late)

    def _builds_on_lost_records(self, step: Step, view: StudyView) -> bool:
        """Whether the next turn would rest on records that the ledger no longer has."""
        open_ = view.open
        if open_ is None or open_.position > self.position:
            return False
        # A ledger behind this machine is no reorganisation by itself: a node may answer with an older block. The heads
        # of the records that this machine read decide. And nothing is drafted on records that are gone.
        behind = open_.position < self.position
        return (behind or self._posts(open_) or self._foresees(step, view)) and not self.matches_ledger()

    def _posts(self, open_: OpenStep) -> bool:
        """Whether this party posts now: once for each attempt; `posted` are the ledger's records of this attempt."""
        return self._codec.name in open_.posters and self._codec.name not in open_.posted

    def _foresees(self, step: Step, view: StudyView) -> bool:
        """Whether this party goes on with the server's post before it is recorded."""
        return self._ahead is not None and step.public and step.readers is None and self._codec.name in view.parties

    def _restart_from_ledger(self) -> bool:
        """Forget everything and follow the ledger from its first record, as after a restart."""
        # A session goes on if the same step is open again, built on the same records.
        self._prediction = self._awaiting_approval = self._sent_post = None
        return super()._restart_from_ledger()

    def _continue(self, step: Step, view: StudyView, records: tuple[Record, ...]) -> bool:
        position, moved = self.position, super()._continue(step, view, records)
        if self.position > position and is_masked(step) and view.terms.silence == Silence.EXCLUDE:
            RepeatedSums(self.machine.site).note(step, records[-1].post.attempt)
        return moved

    def _act(self, step: Step, view: StudyView, open_: OpenStep, late: bool) -> bool:
        if step.who != open_.kind:
            message = (
                f"Position {self.position} is {open_.kind!r} on the ledger but {step.who!r} in the learner's script."
            )
            raise ProtocolError("CO-P114", message, topic=step.topic)
        # Before each post: only these parties, this order and this deadline are what people approved.
        if self._terms is not None and view.terms != self._terms:
            message = f"The ledger has other terms of study {self._study} than this site approved"
            raise TermsMismatch(
                "CO-R401", f"{message}. Nothing more is posted. Ask {view.proposer}, which proposed it."
            )
        # A site that was excluded follows to the end, but has no say in what becomes of the others.
        involved = self._codec.name in view.parties
        if self._foresees(step, view) and self._predict(step, open_):
            return True
        if self._posts(open_):
            moved = self._post(step, open_)
            # An interactive step without a result falls through: a party that does not come is late like any other.
            if moved or not step.talks:
                return moved
        return late and involved and self._overdue(step, view, open_)

    def _post(self, step: Step, open_: OpenStep) -> bool:
        post = self._find_sent_post(open_) or self._prepare(step, open_)
        if post is None:
            return False
        with self._measure("ledger"):
            return self._record(post)

    def _find_sent_post(self, open_: OpenStep) -> Post | None:
        """What this site has sent to this very step, and no block has taken yet."""
        slot = (open_.position, open_.attempt, open_.basis)
        post_sent = self._sent_post
        return (
            post_sent
            if post_sent is not None and (post_sent.position, post_sent.attempt, post_sent.basis) == slot
            else None
        )

    def _prepare(self, step: Step, open_: OpenStep) -> Post | None:
        """Draft this site's payload and store it; None while the parties still talk about it."""
        with self._measure("compute"):
            if open_.attempt and is_masked(step):
                self._check_repeated(step, open_)
            # From here on the payload is fixed for this attempt: it is stored, then recorded, or dropped as a whole.
            payload = self._find_kept_payload(open_) or self._draft(step, open_)
            verdict = None if payload is None else self._admit(step, open_, payload)
            # What people are asked about is kept as it is until they have answered.
            self._awaiting_approval = (open_, payload) if payload is not None and verdict is None else None
            if payload is None or verdict is None:
                return None
            blob = self._codec.write(step, open_.attempt, payload)
        return self._store(blob, open_, bool(payload.get("converged", False)), verdict)

    def _check_repeated(self, step: Step, open_: OpenStep) -> None:
        """ReleaseRefused if a sum over fewer sites would show, beside an earlier attempt's, what one site holds."""
        history = self._ledger.history(self._study)
        attempts = list_attempts(history, self._codec.study.sites, open_.position)
        RepeatedSums(self.machine.site).check(step, open_, attempts)

    def _find_kept_payload(self, open_: OpenStep) -> Payload | None:
        """The payload that people are being asked about, if it is for this very step."""
        slot = (open_.position, open_.attempt)
        return (
            self._awaiting_approval[1]
            if self._awaiting_approval
            and (self._awaiting_approval[0].position, self._awaiting_approval[0].attempt) == slot
            else None
        )

    def _store(self, blob: bytes, open_: OpenStep, converged: bool, verdict: bytes = ZERO) -> Post:
        # The store comes before the record: a record whose payload nobody has would stop all sites.
        with self._measure("store"):
            cid = self._blobs.put(blob)
        return Post(
            study=self._study,
            position=open_.position,
            attempt=open_.attempt,
            cid=cid,
            sha256=hashlib.sha256(blob).digest(),
            size=len(blob),
            converged=converged,
            basis=open_.basis,
            verdict=verdict,
        )

    def _admit(self, step: Step, open_: OpenStep, payload: Payload) -> bytes | None:
        """The gate's verdict on a payload, as the record holds it; None while this site's people are asked."""
        if self._gate is None:
            return bytes(32)
        return self._gate.admit(step, self.machine.seat(open_.parties, open_.attempt), open_.position, payload)

    def _record(self, post: Post) -> bool:
        """Record a post; where blocks take time send it, and again at each turn until a block has it."""
        new = post != self._sent_post
        try:
            # `submit` of the same post is idempotent: the journal has the signed transaction, and sends the same bytes
            # again.
            if self._ahead is None:
                self._ledger.record(post)
            else:
                self._ahead.submit(post)
        except PostRejected as error:
            # The step was skipped, excluded or stopped while this site computed: read the ledger again.
            if error.name in ("WrongStep", "NotYourTurn", "BadState", "BasisMismatch"):
                return False
            raise
        self._sent_post = post
        self.payload_bytes += post.size if new else 0
        return new

    def _draft(self, step: Step, open_: OpenStep) -> Payload | None:
        if not step.talks:
            return self.machine.draft(open_.parties, open_.attempt)
        session = (self._study, open_.position, open_.attempt, open_.basis.hex())
        # Another attempt, or the same step on other records, is another session: its shares have nothing in common with
        # these.
        if self._session is None or self._session.session != session:
            self.close()
            result = OpenedResults(self.machine.site).load(open_)
            if result is not None:
                return result
            self._session = self._start_session(session, open_)
        return self._await_result(self._session, open_)

    def _await_result(self, session_step: InteractiveStep, open_: OpenStep) -> Payload | None:
        if session_step.missing_parties and open_.posted:
            # A site posts after a session with all of them: it had one with this site, before a crash, and has left it.
            message = f"{', '.join(open_.posted)} ended this interactive step while {self._codec.name} was restarted"
            raise SessionLost("CO-P604", f"{message}. Propose the study again.", self._codec.name)
        try:
            return session_step.outcome()
        except ChainError:
            self.close()  # retried as any other; then this site tries to meet the others once more
            raise

    def _start_session(self, session: tuple[int, int, int, str], open_: OpenStep) -> InteractiveStep:
        if self._exchange is None:
            message = "This step needs a channel between the sites, and this node has none"
            raise ConfigError("CO-F342", f"{message}. Fill in [talk] in node.toml, or talk.json.")
        channel = self._exchange.channel(self._codec.name, session, open_.parties)
        machine = self.machine  # this one, also if the machine starts again meanwhile

        def program(watched: Channel) -> Payload:
            payload = machine.draft(open_.parties, open_.attempt, watched)
            with suppress(ChainError):  # then a crash before the record costs the session, and nothing else
                OpenedResults(machine.site).save(open_, payload)
            return payload

        return InteractiveStep(session, channel, program)

    def _read_posts(self, step: Step, records: tuple[Record, ...]) -> dict[str, Payload | Sealed]:
        """The posts of a finished step; this site's privacy log notes whether its sum exists, or who spoiled it."""
        if step.readers is not None:
            self._sealed_steps[step.topic] = step
        try:
            posts = super()._read_posts(step, records)
        except (ProtocolError, PayloadCorrupt) as error:
            self._note_sum(step, records, (error.site,))
            raise
        self._note_sum(step, records, ())
        return posts

    def _note_sum(self, step: Step, records: tuple[Record, ...], missing: tuple[str, ...]) -> None:
        if self._gate is not None:
            seat = self.machine.seat(tuple(record.site for record in records), records[-1].post.attempt)
            self._gate.note_sum(step, seat, missing)

    # Payloads out of reach

    def _supply(self, step: Step, view: StudyView, records: tuple[Record, ...], error: BlobMissing) -> bool:
        """Put the post of a server that is gone into the store: anybody with the earlier posts can compute it again.

        If that is not possible, say on the ledger whose post cannot be had.
        """
        record = records[-1]
        if step.public and step.readers is None:
            with self._measure("compute"), suppress(SealedInput):
                blob = pack(self._codec.study, step, record.site, record.post.attempt, self.machine.draft((), 0))
                if hashlib.sha256(blob).digest() == record.post.sha256:
                    return self._blobs.put(blob) == record.post.cid
        if isinstance(error, PayloadMissing):
            self._report_missing(view, records, error.site)
        return False

    def _report_missing(self, view: StudyView, records: tuple[Record, ...], site: str) -> None:
        """Vote that a post cannot be had, in the second half of the open step's time.

        Not earlier, because a store may be slow. Not after the deadline, because then the others would skip a server
        that waits for the payload as this site does.
        """
        if view.open is None or self._ledger.now() <= view.open.deadline - view.terms.timeout // 2:
            return
        if self._report_unavailable(view, records, site, Reason.UNAVAILABLE) or site == self._codec.name:
            return
        # The study has left that step behind and cannot go back there: it ends. One that waits does so only where it
        # would be completed otherwise, because this site's own store may be the one at fault; for the same reason two
        # sites, where one vote is enough, wait on unless the study says that it ends.
        ends = view.terms.silence == Silence.EXCLUDE or is_closing(view.terms, view.open)
        if view.terms.silence == Silence.ABORT or (ends and len(view.parties) > 2):
            self._abort(Reason.UNAVAILABLE, site)

    def _report_unavailable(self, view: StudyView, records: tuple[Record, ...], site: str, reason: Reason) -> bool:
        """Vote that a site's post at a finished step cannot be used; False if the ledger takes no such vote.

        True also if this site has voted, or if the ledger has moved on from `view`: then there is another step to read.
        """
        record = next((record for record in records if record.site == site), None)
        if record is None or site == self._codec.name:
            return False
        if view.terms.silence == Silence.EXCLUDE and self._is_repeated(record):
            self._abort(reason, site)
            return True
        post = record.post
        try:
            self._ledger.report_unavailable(self._study, post.position, post.attempt, site, reason)
        except PostRejected as error:
            place = (view.open.position, view.open.attempt) if view.open is not None else ()
            return error.name in ("AlreadyVoted", "NotPosted") or (error.name == "WrongStep" and error.values != place)
        return True

    def _is_repeated(self, record: Record) -> bool:
        """Whether the same site has had its second chance at this step: the study cannot exclude it, and ends.

        A server has none: the next site takes its turn.
        """
        again = [e for e in self._ledger.history(self._study) if isinstance(e, Event) and e.name == "StepReopened"]
        places = [(str(details["culprit"]), details["position"]) for details in map(dict, (e.details for e in again))]
        return record.kind != "server" and (record.site, record.post.position) in places

    # Ahead of the ledger

    def _predict(self, step: Step, open_: OpenStep) -> bool:
        """Go on with the server's post before it is recorded; False if it cannot be known.

        The records of both steps then fit into one block: the contract compares each with the post that it builds on.
        """
        # The prediction is built before it is sent, and fed to the machine as every site will read it: rounding by the
        # payload's types is part of the post.
        (server,) = open_.posters
        with self._measure("compute"):
            try:
                payload = self.machine.draft(open_.parties, open_.attempt)
            except SealedInput:
                return False
            blob = pack(self._codec.study, step, server, open_.attempt, payload)
        # Stored by every site: the post can be read, whatever becomes of the server's own store.
        post = self._store(blob, open_, bool(payload.get("converged", False)))
        if server == self._codec.name:
            self._send(post, priority=True)
            self.payload_bytes += post.size
        self._prediction = PredictedPost(step, open_, server, post, read_figures(payload))
        self.position += 1
        with self._measure("compute"):
            # As every site will read it, to the type of each number.
            self.machine.accept({server: decode(unpack(blob))[1]})
        return True

    def _send_next(self, open_: OpenStep, basis: bytes) -> None:
        step = self.machine.awaits
        if step is None or step.who != "each" or step.talks or step.concludes:
            return
        following = replace(open_, position=self.position, attempt=0, kind="each", posters=open_.parties, basis=basis)
        post = self._prepare(step, following)
        if post is not None:
            self._send(post, priority=False)
            self._sent_post = post
            self.payload_bytes += post.size

    def _send(self, post: Post, *, priority: bool) -> None:
        if self._ahead is not None:
            with self._measure("ledger"):
                self._ahead.submit_early(post, priority=priority)

    def _await_predicted(self, guess: PredictedPost) -> bool:
        """Send what comes next; compare the guess with the ledger once the server has recorded its post.

        What comes next waits for a turn, so that the servers' posts of other studies go first: a block takes the moves
        of one site in their order, and would else take what builds on such a post before it.
        """
        if not guess.followed:
            self._prediction = replace(guess, followed=True)
            self._send_next(guess.open, guess.post.sha256)
            return True
        view, records = self._read_ledger(guess.open.position)
        if records is not None:
            return self._confirm(guess, records)
        if not guess.is_pending(view):
            return self._restart_from_ledger()
        if view.open is not None and self._ledger.now() > view.open.deadline and self._codec.name in view.parties:
            return self._overdue(guess.step, view, view.open)
        if guess.server == self._codec.name:
            self._send(guess.post, priority=True)  # the node may have lost it; nothing is doubled
        return False

    def _confirm(self, guess: PredictedPost, records: tuple[Record, ...]) -> bool:
        # Only now do the server's words count. Until here the machine ran on its own computation.
        if not guess.agrees_with(records) or not self.matches_ledger():
            return self._restart_from_ledger()
        self._prediction = None
        self._heads[guess.open.position] = read_heads(records)
        self._notify(guess.step, records, guess.figures)
        return True

    # When something is wrong

    def _overdue(self, step: Step, view: StudyView, open_: OpenStep) -> bool:
        """Do what the study says about a site that is silent after the deadline; every participant may."""
        # A server step has one rule for all studies: the next site takes the turn. The study's rule is for sites whose
        # rows are needed.
        silence = view.terms.silence
        if open_.kind == "server" and self._prediction is None:
            self._check_computable(step, open_)
        try:
            if open_.kind == "server":
                self._ledger.skip(self._study)
            elif silence == Silence.WAIT:
                return False
            elif silence == Silence.EXCLUDE and open_.kind == "each":
                self._exclude_silent(open_)
            else:
                self._abort_for_silence(open_)
        except PostRejected as error:
            if error.name not in OVERTAKEN:
                raise
            return False
        return True

    def _check_computable(self, step: Step, open_: OpenStep) -> None:
        """Compute a late server's step before it is skipped: LearnerError if nobody can, so that it is not to blame."""
        with self._measure("compute"), suppress(SealedInput):
            self.machine.draft(open_.parties, open_.attempt)

    def _exclude_silent(self, open_: OpenStep) -> None:
        """Vote to go on without the silent sites; where the study cannot, end it with the name of one."""
        for site in sorted(set(open_.parties) - set(open_.posted)):
            try:
                self._ledger.exclude(self._study, site)
            except PostRejected as error:
                if error.name != "SiteNeeded":
                    raise
                self._ledger.abort(self._study, Reason.SILENT_SITE, site)

    def _abort_for_silence(self, open_: OpenStep) -> None:
        """End the study, and name a silent site: the contract checks the deadline."""
        silent = [site for site in open_.posters if site not in open_.posted]
        self._ledger.abort(self._study, Reason.SILENT_SITE, silent[0] if silent else "")

    def _handle_error(self, error: LearnerError) -> bool:
        """Whether an error is only that of records which a reorganisation took; if not, it goes on the ledger."""
        try:
            if not self.matches_ledger():
                return self._restart_from_ledger()
            self._refuse(error)
        except ChainError:
            # The machine has stopped in the middle of a step: only a new one finds the same error again.
            self._restart_from_ledger()
            raise
        return False

    def _refuse(self, error: LearnerError) -> None:
        """Put on the ledger what this error means for all."""
        if isinstance(error, ProtocolError) and error.site not in ("", self._codec.name):
            self._blame(error)
        elif isinstance(error, WrongPost):  # this site's own, which it made otherwise before
            self._dispute(error)
        else:
            self._abort(abort_reason(error))

    def _blame(self, error: ProtocolError) -> None:
        """Name the site whose post the protocol does not allow.

        A study that excludes sites repeats the step without it, or a server's step with the next server (PostUnusable
        until the ledger has done so). In any other a wrong server post is disputed, which pauses the study; what cannot
        be used at all ends it by the votes of those who can read the post. If nobody else can, this site ends its own
        part.
        """
        # From the mildest to the strongest: repeat the step without the site, dispute (people decide), end the study.
        view = self._ledger.view(self._study)
        reason = abort_reason(error) or Reason.BAD_PAYLOAD
        if view.terms.silence == Silence.EXCLUDE and view.state == State.RUNNING:
            # Others have excluded that site meanwhile, or have excluded this one, which then has no vote.
            if not {error.site, self._codec.name} <= set(view.parties):
                message = f"{error.message} This site waits until the other sites have decided about {error.site}"
                raise PostUnusable(error.code, f"{message}. Nothing to do.", error.site)
            # A post that cannot be read stands at this position; one that the learner refused, at the one before.
            for position in (self.position, self.position - 1):
                records = self._ledger.read_finished(self._study, position) if position >= 0 else None
                if records and self._report_unavailable(view, records, error.site, reason):
                    message = f"{error.message} This site votes to repeat the step without {error.site}"
                    raise PostUnusable(error.code, f"{message}. The study goes on when most sites do.", error.site)
        if isinstance(error, WrongPost):
            self._dispute(error)
            return
        self._abort(reason, error.site)
        if self._is_only_reader(error):
            self._abort(reason)  # no other site can tell who is right; the vote names the poster

    def _is_only_reader(self, error: ProtocolError) -> bool:
        """Whether the fault is behind a seal that this site alone can open, so that no other can vote about it."""
        if error.code in FAULTS_OF_BYTES:
            return False
        step = self._sealed_steps.get(error.topic, self.machine.awaits)
        return step is not None and step.readers is not None and set(step.readers) <= {self._codec.name, error.site}

    def _dispute(self, error: WrongPost) -> None:
        position = self.position - 1
        records = self._ledger.read_finished(self._study, position)
        if not records or self.machine.awaits is None:
            return
        record = next(r for r in records if r.site == error.site)
        is_poster = pack(self._codec.study, self.machine.awaits, record.site, record.post.attempt, error.recomputed)
        with suppress(PostRejected):  # another site has disputed it, or the study has been stopped
            self._ledger.dispute(self._study, position, record.post.sha256, hashlib.sha256(is_poster).digest())

    def _abort(self, reason: Reason | None, culprit: str = "") -> None:
        if reason is not None:
            with suppress(PostRejected):  # the study has ended already, or this site has voted
                self._ledger.abort(self._study, reason, culprit)

    def _leave(self, reason: Reason) -> None:
        """End the study for a reason of this site's own, or leave it where it goes on without this site."""
        with suppress(PostRejected):  # the study has ended already
            end_part(self._ledger, self._ledger.view(self._study), self._codec.name, reason)
