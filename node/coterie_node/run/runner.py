"""One machine, one ledger, one store. Simulation, daemon and audit all call `turn()`; there is no other loop body."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import numpy as np

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
)
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core.payload import Payload, decode, unpack
from coterie_learners.core.protocol import Machine, Sealed, Step
from coterie_learners.errors import LearnerError, ProtocolError, SealedInput, SessionLost, WrongPost
from coterie_node.errors import ConfigError, PayloadCorrupt, ReleaseRefused, StudyStopped
from coterie_node.peers.interactive_session import Exchange, InteractiveStep
from coterie_node.release.gate import Gate
from coterie_node.run.codec import PayloadCodec, pack
from coterie_node.run.opened_results import OpenedResults
from coterie_node.run.reasons import Reason, abort_reason, describe_reason

# The contract's answers to a move about a silent site when others were faster, or when it is for people to decide.
OVERTAKEN = (
    *("NotYet", "WrongStep", "BadState", "AlreadyVoted", "NotSilent"),
    *("NotAServerStep", "NotAnEachStep", "NotParticipant", "SiteNeeded"),
)


@dataclass(frozen=True)
class Progress:
    """One finished step, for whoever watches: its place, who posted, the ledger's time.

    `figures` are the single numbers of a server's post, such as the deviance. `recomputed`: whether this reader worked
    a server's post out itself; `sealed`: whose posts it could not open.
    """

    position: int
    topic: str
    kind: str
    round: int
    sites: tuple[str, ...]
    time: int
    figures: Mapping[str, float]
    recomputed: bool = False
    sealed: tuple[str, ...] = ()


@dataclass(frozen=True)
class PredictedPost:
    """The post of a server that this site worked out itself and builds on before it is on the ledger.

    `followed`: whether this site has sent what comes next.
    """

    step: Step
    open: OpenStep
    server: str
    post: Post
    figures: Mapping[str, float]
    followed: bool = False


class Runner:
    """A machine fed from the ledger; at a participant's node it also drafts and records.

    `seconds` splits the time spent by "compute", "ledger" and "store". `poster=False` makes an auditor of it. Without a
    `gate` everything leaves, and the records say that nothing was judged. With `ahead` it does not wait for a server's
    post: it works the post out itself, goes on, and sends its next record behind it. Should the ledger hold another
    post then, or none, or after a reorganisation not what it held before, the machine is built anew from what it holds.
    """

    def __init__(
        self,
        machine: Machine,
        ledger: Ledger,
        blobs: BlobStore,
        study: int,
        codec: PayloadCodec,
        *,
        poster: bool = True,
        gate: Gate | None = None,
        exchange: Exchange | None = None,
        observe: Callable[[Progress], None] = lambda _: None,
        ahead: PipelinedLedger | None = None,
    ) -> None:
        self.machine = machine
        self.position = 0
        self.payload_bytes = 0
        self.restarts = 0
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._ledger, self._blobs, self._study, self._codec = ledger, blobs, study, codec
        self._poster, self._gate, self._exchange, self._observe = poster, gate, exchange, observe
        self._session: InteractiveStep | None = None
        self._awaiting_approval: tuple[OpenStep, Payload] | None = None
        self._sent_post: Post | None = None
        self._ahead = ahead
        self._prediction: PredictedPost | None = None
        self._heads: dict[int, tuple[bytes, ...]] = {}
        self._observed_until = 0
        self._initial_codec = codec

    def turn(self) -> bool:
        """Do the next thing there is to do; False if this site has to wait for others, or the protocol has ended.

        Raises LearnerError, ReleaseRefused or BlobCorrupt for what ends this site's part; what ends the study for all
        is on the ledger by then: a dispute over a wrong server post, an abort with its reason for the rest.
        """
        try:
            return self._turn()
        except LearnerError as error:
            if self._handle_error(error):
                return True
            raise
        except ReleaseRefused:
            self._abort(Reason.RELEASE_REFUSED)
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

    def close(self) -> None:
        """Leave an interactive step that this party is in."""
        if self._session is not None:
            self._session.end()
            self._session = None

    def matches_ledger(self) -> bool:
        """Whether the ledger still holds what this machine was fed last; not so after some reorganisations."""
        # Each head stands for all that its site ever recorded, so two steps stand for all.
        return all(
            (recorded := self._ledger.read_finished(self._study, at)) is not None
            and _heads(recorded) == self._heads[at]
            for at in sorted(self._heads)[-2:]
        )

    def check_end(self) -> bool:
        """Whether the result still stands; if a reorganisation took its records, the study is followed anew."""
        return self.matches_ledger() or not self._restart_from_ledger()

    def _turn(self) -> bool:
        if self._prediction is not None:
            return self._await_predicted(self._prediction)
        step = self.machine.awaits
        if step is None:
            return False
        with self._measure("ledger"):
            # In this order: a step that is over in the view is then surely found finished, however the ledger moves on.
            view = self._ledger.view(self._study)
            records = self._ledger.read_finished(self._study, self.position)
        if records is not None:
            return self._continue(step, view, records)
        if view.open is None:
            return self._check_stopped(step, view)
        if view.open.position < self.position and self._poster and not self.matches_ledger():
            return self._restart_from_ledger()
        if not self._poster or view.open.position != self.position:
            return False
        return self._act(step, view, view.open)

    def _restart_from_ledger(self) -> bool:
        """Forget everything and follow the ledger from its first record, as after a restart."""
        self.machine = self.machine.restarted()
        self.position = 0
        self.restarts += 1
        # A session goes on if the same step is open again, built on the same records.
        self._prediction = self._awaiting_approval = self._sent_post = None
        self._codec = self._initial_codec
        self._heads.clear()
        return True

    def _act(self, step: Step, view: StudyView, open_: OpenStep) -> bool:
        if step.who != open_.kind:
            message = (
                f"Position {self.position} is {open_.kind!r} on the ledger but {step.who!r} in the learner's script."
            )
            raise ProtocolError("CO-P114", message, topic=step.topic)
        # A site that was excluded follows to the end, but has no say in what becomes of the others.
        involved = self._codec.name in view.parties
        is_poster = self._codec.name in open_.posters and self._codec.name not in open_.posted
        foresees = self._ahead is not None and step.public and step.readers is None and involved
        if (is_poster or foresees) and not self.matches_ledger():
            return self._restart_from_ledger()
        if foresees and self._predict(step, open_):
            return True
        if is_poster:
            moved = self._post(step, open_)
            if moved or not step.talks:
                return moved
        late = self._ledger.now() > open_.deadline and involved
        return late and self._overdue(view, open_)

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
            payload = self._find_kept_payload(open_) or self._draft(step, open_)
            verdict = None if payload is None else self._admit(step, open_, payload)
            # What people are asked about is kept as it is until they have answered.
            self._awaiting_approval = (open_, payload) if payload is not None and verdict is None else None
            if payload is None or verdict is None:
                return None
            blob = self._codec.write(step, open_.attempt, payload)
        return self._store(blob, open_, bool(payload.get("converged", False)), verdict)

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
            self.close()  # borne as any other; then this site tries to meet the others once more
            raise

    def _start_session(self, session: tuple[int, int, int, str], open_: OpenStep) -> InteractiveStep:
        if self._exchange is None:
            message = "This step needs a channel between the sites, and this node has none"
            raise ConfigError("CO-F342", f"{message}. Fill in [talk] in node.toml, or talk.json.")
        channel = self._exchange.channel(self._codec.name, session, open_.parties)
        machine = self.machine  # this one, also should the ledger be followed anew meanwhile

        def program() -> Payload:
            payload = machine.draft(open_.parties, open_.attempt, channel)
            with suppress(ChainError):  # then a crash before the record costs the session, and nothing else
                OpenedResults(machine.site).save(open_, payload)
            return payload

        return InteractiveStep(session, channel, program)

    def _continue(self, step: Step, view: StudyView, records: tuple[Record, ...]) -> bool:
        try:
            self._read_records(step, records)
        except BlobMissing:
            if view.state == State.ABORTED:
                raise self._make_abort_error() from None  # nobody needs the payload any more
            if not self._supply(step, records[-1]):
                raise
        return True

    def _supply(self, step: Step, record: Record) -> bool:
        """Put the post of a server that is gone into the store: whoever has the earlier posts can make it again."""
        if not (step.public and step.readers is None and self._poster):
            return False
        with self._measure("compute"), suppress(SealedInput):
            blob = pack(self._codec.study, step, record.site, record.post.attempt, self.machine.draft((), 0))
            if hashlib.sha256(blob).digest() == record.post.sha256:
                return self._blobs.put(blob) == record.post.cid
        return False

    def _read_records(self, step: Step, records: tuple[Record, ...]) -> None:
        with self._measure("store"):
            posts = self._read_posts(step, records)
        self._heads[self.position] = _heads(records)
        self.position += 1
        if step.announces:
            self._codec = self._codec.with_announced_keys(posts)
        before = self.machine.checked
        with self._measure("compute"):
            self.machine.feed(posts)
        figures = _figures(posts[records[-1].site]) if step.public else {}
        sealed = tuple(name for name, post in posts.items() if isinstance(post, Sealed))
        self._notify(step, records, figures, self.machine.checked > before, sealed)

    def _read_posts(self, step: Step, records: tuple[Record, ...]) -> dict[str, Payload | Sealed]:
        """The posts of a finished step; this site's privacy log hears whether its sum exists, or who spoiled it."""
        parties = tuple(r.site for r in records)
        seat = self.machine.seat(parties, records[-1].post.attempt)
        try:
            posts = {r.site: self._codec.read(step, r, self._blobs) for r in records}
        except (ProtocolError, PayloadCorrupt) as error:
            if self._gate is not None and self._poster:
                self._gate.note_sum(step, seat, (error.site,))
            raise
        if self._gate is not None and self._poster:
            self._gate.note_sum(step, seat, ())
        return posts

    def _notify(
        self,
        step: Step,
        records: tuple[Record, ...],
        figures: Mapping[str, float],
        recomputed: bool = True,
        sealed: tuple[str, ...] = (),
    ) -> None:
        last = records[-1]
        if last.post.position < self._observed_until:
            return  # heard before this machine was built anew
        self._observed_until = last.post.position + 1
        sites = tuple(r.site for r in records)
        place = (last.post.position, step.topic, last.kind, last.round)
        self._observe(Progress(*place, sites, last.time, figures, recomputed, sealed))

    # Ahead of the ledger

    def _predict(self, step: Step, open_: OpenStep) -> bool:
        """Go on with the server's post before it is recorded; False if it is not to be known.

        The records of both steps then fit into one block: the contract compares each with the post that it builds on.
        """
        (server,) = open_.posters
        with self._measure("compute"):
            try:
                payload = self.machine.draft(open_.parties, open_.attempt)
            except SealedInput:
                return False
            blob = pack(self._codec.study, step, server, open_.attempt, payload)
        # Stored by every site: the post is there to be read, whatever becomes of the server's own store.
        post = self._store(blob, open_, bool(payload.get("converged", False)))
        if server == self._codec.name:
            self._send(post, priority=True)
            self.payload_bytes += post.size
        self._prediction = PredictedPost(step, open_, server, post, _figures(payload))
        self.position += 1
        with self._measure("compute"):
            # As every site will read it, to the type of each number.
            self.machine.accept({server: decode(unpack(blob))[1]})
        return True

    def _send_next(self, open_: OpenStep, basis: bytes) -> None:
        step = self.machine.awaits
        if step is None or step.who != "each" or step.talks:
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
        """Send what comes next; hold the guess against the ledger once the server has recorded its post.

        What comes next waits for a turn, so that the servers' posts of other studies go first: a block takes the moves
        of one site in their order, and would else take what builds on such a post before it. Another post is a new
        start.
        """
        if not guess.followed:
            self._prediction = replace(guess, followed=True)
            self._send_next(guess.open, guess.post.sha256)
            return True
        with self._measure("ledger"):
            view = self._ledger.view(self._study)
            records = self._ledger.read_finished(self._study, guess.open.position)
        if records is not None:
            return self._confirm(guess, records)
        open_ = view.open
        if open_ is None or (open_.position, open_.attempt) != (guess.open.position, guess.open.attempt):
            return self._restart_from_ledger()
        if self._ledger.now() > open_.deadline and self._codec.name in view.parties:
            return self._overdue(view, open_)
        if guess.server == self._codec.name:
            self._send(guess.post, priority=True)  # the node may have lost it; nothing is doubled
        return False

    def _confirm(self, guess: PredictedPost, records: tuple[Record, ...]) -> bool:
        if [(r.site, _post_content(r.post)) for r in records] != [
            (guess.server, _post_content(guess.post))
        ] or not self.matches_ledger():
            return self._restart_from_ledger()
        self._prediction = None
        self._heads[guess.open.position] = _heads(records)
        self._notify(guess.step, records, guess.figures)
        return True

    # When something is wrong

    def _overdue(self, view: StudyView, open_: OpenStep) -> bool:
        """Do what the study says about a site that is silent after the deadline; every participant may."""
        silence = view.terms.silence
        try:
            if open_.kind == "server":
                self._ledger.skip(self._study)
            elif silence == Silence.ABORT:
                self._ledger.abort(self._study, Reason.SILENT_SITE)
            elif silence == Silence.EXCLUDE and open_.kind == "each":
                for site in set(open_.parties) - set(open_.posted):
                    self._ledger.exclude(self._study, site)
            else:
                return False
        except PostRejected as error:
            if error.name not in OVERTAKEN:
                raise
            return False
        return True

    def _check_stopped(self, step: Step, view: StudyView) -> bool:
        if view.state in (State.PROPOSED, State.PAUSED):
            return False
        if view.state == State.COMPLETED:
            message = f"The ledger has completed the study, but the learner's script still awaits {step.topic!r}."
            raise ProtocolError("CO-P115", message, topic=step.topic)
        if step.public:
            # A server that could not compute its step has aborted; the same computation says why, in words.
            self.machine.draft(view.parties, 0)
        raise self._make_abort_error()

    def _make_abort_error(self) -> StudyStopped:
        events = [e for e in self._ledger.history(self._study) if isinstance(e, Event) and e.name == "StudyAborted"]
        site, code = (events[-1].site, int(dict(events[-1].details)["reason"])) if events else ("a site", 0)
        message = f"{site} ended study {self._study} at position {self.position}: {describe_reason(code)}."
        return StudyStopped("CO-R101", f"{message} Nothing was published; see `coterie audit history`.")

    def _handle_error(self, error: LearnerError) -> bool:
        """Whether an error is only that of records which a reorganisation took; if not, the ledger is told of it."""
        if not self._poster:
            return False
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
        if isinstance(error, WrongPost):
            self._dispute(error)
        else:
            self._abort(abort_reason(error))

    def _dispute(self, error: WrongPost) -> None:
        position = self.position - 1
        records = self._ledger.read_finished(self._study, position)
        if not records or self.machine.awaits is None:
            return
        record = next(r for r in records if r.site == error.site)
        is_poster = pack(self._codec.study, self.machine.awaits, record.site, record.post.attempt, error.recomputed)
        with suppress(PostRejected):  # another site has disputed it, or the study has been stopped
            self._ledger.dispute(self._study, position, record.post.sha256, hashlib.sha256(is_poster).digest())

    def _abort(self, reason: Reason | None) -> None:
        if reason is not None:
            with suppress(PostRejected):  # the study has ended already
                self._ledger.abort(self._study, reason)

    @contextmanager
    def _measure(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - start


def _figures(payload: Payload) -> dict[str, float]:
    if isinstance(payload, Sealed):
        return {}
    arrays = {name: np.asarray(value) for name, value in payload.items()}
    return {name: float(a) for name, a in arrays.items() if a.ndim == 0 and a.dtype.kind == "f"}


def _heads(records: tuple[Record, ...]) -> tuple[bytes, ...]:
    return tuple(r.head for r in records)


def _post_content(post: Post) -> tuple[str, bytes, int, bool]:
    return post.cid, post.sha256, post.size, post.converged
