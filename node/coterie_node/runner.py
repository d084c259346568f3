"""One machine, one ledger, one store. Simulation, daemon and audit all call `turn()`; there is no other loop body."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from coterie_chain.blobs import BlobStore
from coterie_chain.errors import PostRejected
from coterie_chain.ledger import Event, Ledger, OpenStep, Post, Record, Silence, State, StudyView
from coterie_learners.errors import LearnerError, ProtocolError, WrongPost
from coterie_learners.payload import Payload
from coterie_learners.protocol import Machine, Sealed, Step
from coterie_node.errors import ReleaseRefused, StudyStopped
from coterie_node.gate import Gate
from coterie_node.letters import Desk, pack
from coterie_node.reasons import Reason, reason_of, words_of
from coterie_node.talk import Exchange, Talk


@dataclass(frozen=True)
class Progress:
    """One finished step, for whoever watches: its place, who posted, the ledger's time.

    `figures` are the single numbers of a server's post, such as the deviance.
    """

    position: int
    topic: str
    kind: str
    round: int
    sites: tuple[str, ...]
    time: int
    figures: Mapping[str, float]


class Runner:
    """A machine fed from the ledger; at a participant's node it also drafts and records.

    `seconds` splits the time spent by "compute", "ledger" and "store". `poster=False` makes an auditor of it. Without a
    `gate` everything leaves, and the records say that nothing was judged.
    """

    def __init__(
        self,
        machine: Machine,
        ledger: Ledger,
        blobs: BlobStore,
        study: int,
        desk: Desk,
        *,
        poster: bool = True,
        gate: Gate | None = None,
        exchange: Exchange | None = None,
        observe: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.machine = machine
        self.position = 0
        self.payload_bytes = 0
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._ledger, self._blobs, self._study, self._desk = ledger, blobs, study, desk
        self._poster, self._gate, self._exchange, self._observe = poster, gate, exchange, observe
        self._talk: Talk | None = None
        self._held: Payload | None = None

    def turn(self) -> bool:
        """Do the next thing there is to do; False if this site has to wait for others, or the protocol has ended.

        Raises LearnerError, ReleaseRefused or BlobCorrupt for what ends this site's part; what ends the study for all
        is on the ledger by then: a dispute over a wrong server post, an abort with its reason for the rest.
        """
        try:
            return self._turn()
        except WrongPost as error:
            self._dispute(error)
            raise
        except LearnerError as error:
            self._abort(reason_of(error))
            raise
        except ReleaseRefused:
            self._abort(Reason.RELEASE_REFUSED)
            raise

    @property
    def done(self) -> bool:
        """Whether the protocol has ended."""
        return self.machine.awaits is None

    @property
    def talking(self) -> bool:
        """Whether this party is in the middle of an interactive step."""
        return self._talk is not None and self._talk.alive

    def _turn(self) -> bool:
        step = self.machine.awaits
        if step is None:
            return False
        with self._timed("ledger"):
            # In this order: a step that is over in the view is then surely found finished, however the ledger moves on.
            view = self._ledger.view(self._study)
            records = self._ledger.finished(self._study, self.position)
        if records is not None:
            self._feed(step, records)
            return True
        if view.open is None:
            return self._stopped(step, view)
        if not self._poster or view.open.position != self.position:
            return False
        return self._act(step, view, view.open)

    def _act(self, step: Step, view: StudyView, open_: OpenStep) -> bool:
        if step.who != open_.kind:
            told = f"Position {self.position} is {open_.kind!r} on the ledger but {step.who!r} in the learner's script."
            raise ProtocolError("CO-P114", told, topic=step.topic)
        if self._desk.name in open_.posters and self._desk.name not in open_.posted:
            return self._post(step, open_)
        # A site that was excluded follows to the end, but has no say in what becomes of the others.
        late = self._ledger.now() > open_.deadline and self._desk.name in view.parties
        return late and self._overdue(view, open_)

    def _post(self, step: Step, open_: OpenStep) -> bool:
        with self._timed("compute"):
            payload = self._held or self._draft(step, open_)
            verdict = None if payload is None else self._admit(step, open_, payload)
            # What people are asked about is kept as it is until they have answered.
            self._held = payload if verdict is None else None
            if payload is None or verdict is None:
                return False
            blob = self._desk.write(step, open_.attempt, payload)
        with self._timed("store"):
            cid = self._blobs.put(blob)
        post = Post(
            study=self._study,
            position=open_.position,
            attempt=open_.attempt,
            cid=cid,
            sha256=hashlib.sha256(blob).digest(),
            size=len(blob),
            converged=bool(payload.get("converged", False)),
            basis=open_.basis,
            verdict=verdict,
        )
        with self._timed("ledger"):
            return self._record(post)

    def _admit(self, step: Step, open_: OpenStep, payload: Payload) -> bytes | None:
        """The gate's verdict on a payload, as the record holds it; None while this site's people are asked."""
        if self._gate is None:
            return bytes(32)
        return self._gate.admit(step, self.machine.seat(open_.parties, open_.attempt), open_.position, payload)

    def _record(self, post: Post) -> bool:
        try:
            self._ledger.record(post)
        except PostRejected as error:
            # The step was skipped, excluded or stopped while this site computed: read the ledger again.
            if error.name in ("WrongStep", "NotYourTurn", "BadState"):
                return False
            raise
        self.payload_bytes += post.size
        return True

    def _draft(self, step: Step, open_: OpenStep) -> Payload | None:
        if not step.talks:
            return self.machine.draft(open_.parties, open_.attempt)
        session = (self._study, open_.position, open_.attempt)
        if self._talk is None or self._talk.session != session:
            self._talk = self._start_talk(session, open_)
        return self._talk.outcome()

    def _start_talk(self, session: tuple[int, int, int], open_: OpenStep) -> Talk:
        if self._exchange is None:
            raise ProtocolError("CO-P602", "This step needs a channel between the sites, and this node has none.")
        channel = self._exchange.channel(self._desk.name, session)
        return Talk(session, lambda: self.machine.draft(open_.parties, open_.attempt, channel))

    def _feed(self, step: Step, records: tuple[Record, ...]) -> None:
        with self._timed("store"):
            posts = {r.site: self._desk.read(step, r, self._blobs) for r in records}
        self.position += 1
        if step.announces:
            self._desk = self._desk.announced(posts)
        with self._timed("compute"):
            self.machine.feed(posts)
        last = records[-1]
        sites = tuple(r.site for r in records)
        figures = _figures(posts[last.site]) if step.public else {}
        self._observe(Progress(last.post.position, step.topic, last.kind, last.round, sites, last.time, figures))

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
            # Another participant was faster, or this site has voted already.
            if error.name not in ("NotYet", "WrongStep", "BadState", "AlreadyVoted", "NotSilent", "NotAServerStep"):
                raise
            return False
        return True

    def _stopped(self, step: Step, view: StudyView) -> bool:
        if view.state in (State.PROPOSED, State.PAUSED):
            return False
        if view.state == State.COMPLETED:
            told = f"The ledger has completed the study, but the learner's script still awaits {step.topic!r}."
            raise ProtocolError("CO-P115", told, topic=step.topic)
        if step.public:
            # A server that could not compute its step has aborted; the same computation says why, in words.
            self.machine.draft(view.parties, 0)
        raise self._aborted()

    def _aborted(self) -> StudyStopped:
        events = [e for e in self._ledger.history(self._study) if isinstance(e, Event) and e.name == "StudyAborted"]
        site, code = (events[-1].site, int(dict(events[-1].details)["reason"])) if events else ("a site", 0)
        told = f"{site} ended study {self._study} at position {self.position}: {words_of(code)}."
        return StudyStopped("CO-R101", f"{told} Nothing was published; see `coterie audit history`.")

    def _dispute(self, error: WrongPost) -> None:
        position = self.position - 1
        records = self._ledger.finished(self._study, position) if self._poster else None
        if not records or self.machine.awaits is None:
            return
        record = next(r for r in records if r.site == error.site)
        mine = pack(self._desk.study, self.machine.awaits, record.site, record.post.attempt, error.recomputed)
        with suppress(PostRejected):  # another site has disputed it, or the study has been stopped
            self._ledger.dispute(self._study, position, record.post.sha256, hashlib.sha256(mine).digest())

    def _abort(self, reason: Reason | None) -> None:
        if self._poster and reason is not None:
            with suppress(PostRejected):  # the study has ended already
                self._ledger.abort(self._study, reason)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
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
