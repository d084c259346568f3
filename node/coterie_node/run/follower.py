"""One machine fed from the ledger, step by step: what every reader of a study does, an auditor as a participant.

A follower reads the records of each finished step, checks the payloads behind them, and feeds the machine. It writes
nothing. One turn at `position`:

    the ledger                          what the follower does            position
    the step is finished                reads all posts, feeds them       + 1
    the step is open                    nothing: it waits                 the same
    no step is open, the study goes on  nothing: another look will tell   the same
    the study is aborted                raises StudyStopped               the same
    a record that it read is gone       starts again (Runner)             0

Invariants. The machine has the posts of exactly the steps below `position`. `_heads` has their chain heads.
A head stands for all that its site ever recorded, so a reorganisation that took any record shows in a later head.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from coterie_chain.errors import BlobMissing
from coterie_chain.ledger.protocol import Ledger, Record, State, StudyView
from coterie_chain.store.protocol import BlobStore
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Machine, Sealed, Step
from coterie_learners.errors import ProtocolError
from coterie_node.errors import StudyStopped
from coterie_node.run.codec import PayloadCodec
from coterie_node.run.endings import StudyEnd, find_end


@dataclass(frozen=True)
class Progress:
    """One finished step, for observers: its place, the sites that posted, the ledger's time.

    `figures` are the single numbers of a server's post, such as the deviance. `recomputed`: whether this reader worked
    a server's post out itself; `sealed`: whose posts it could not open. `concludes`: nobody reads the posts.
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
    concludes: bool = False


class Follower:
    """A machine fed from the ledger; `seconds` splits the time spent by "compute", "ledger" and "store".

    `turn` feeds it with the next finished step. Subclasses say what else there is to do (`_take_turn`, `_supply`).
    """

    def __init__(
        self,
        machine: Machine,
        ledger: Ledger,
        blobs: BlobStore,
        study: int,
        codec: PayloadCodec,
        *,
        observe: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.machine = machine
        self.position = 0
        self.restarts = 0
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._ledger, self._blobs, self._study, self._observe = ledger, blobs, study, observe
        # The keys change once the sites have announced those of this run; a restart begins with the first codec.
        self._codec = self._initial_codec = codec
        # Heads of the records of each step that the machine was fed, by position.
        self._heads: dict[int, tuple[bytes, ...]] = {}
        # Steps below this one have been reported to `observe`; a restart does not report them again.
        self._observed_until = 0

    @property
    def done(self) -> bool:
        """Whether the protocol has ended."""
        return self.machine.awaits is None

    @property
    def talking(self) -> bool:
        """Whether this party is in the middle of an interactive step; a reader never is."""
        return False

    def turn(self) -> bool:
        """Feed the next finished step; False if there is none, or the protocol has ended."""
        return self._take_turn()

    def matches_ledger(self) -> bool:
        """Whether the ledger still holds what this machine was fed last; not so after some reorganisations."""
        # Each head stands for all that its site ever recorded, so two steps stand for all.
        return all(
            (recorded := self._ledger.read_finished(self._study, at)) is not None
            and read_heads(recorded) == self._heads[at]
            for at in sorted(self._heads)[-2:]
        )

    def _take_turn(self) -> bool:
        step = self.machine.awaits
        if step is None:
            return False
        view, records = self._read_ledger(self.position)
        if records is not None:
            return self._continue(step, view, records)
        return view.open is None and self._check_stopped(step, view)

    def _read_ledger(self, position: int) -> tuple[StudyView, tuple[Record, ...] | None]:
        with self._measure("ledger"):
            # In this order: a step that is over in the view is finished in the later read, even if the ledger moves on.
            view = self._ledger.view(self._study)
            return view, self._ledger.read_finished(self._study, position)

    def _restart_from_ledger(self) -> bool:
        """Forget everything and follow the ledger from its first record, as after a restart."""
        self.machine = self.machine.copy_initial()
        self.position = 0
        self.restarts += 1
        self._codec = self._initial_codec
        self._heads.clear()
        return True

    def _continue(self, step: Step, view: StudyView, records: tuple[Record, ...]) -> bool:
        try:
            self._read_records(step, records)
        except BlobMissing as error:
            if view.state == State.ABORTED:
                raise self._make_abort_error() from None  # nobody needs the payload any more
            if not self._supply(step, view, records, error):
                raise
        return True

    def _supply(self, step: Step, view: StudyView, records: tuple[Record, ...], error: BlobMissing) -> bool:
        """Whether a payload that is out of reach was put into the store again; a reader cannot."""
        return False

    def _read_records(self, step: Step, records: tuple[Record, ...]) -> None:
        with self._measure("store"):
            posts = self._read_posts(step, records)
        # Before the machine computes: if it finds a wrong post, the runner disputes the step at `position - 1`.
        self._heads[self.position] = read_heads(records)
        self.position += 1
        if step.announces:
            self._codec = self._codec.with_announced_keys(posts)
        before = self.machine.checked
        with self._measure("compute"):
            self.machine.feed(posts)
        figures = read_figures(posts[records[-1].site]) if step.public else {}
        sealed = tuple(name for name, post in posts.items() if isinstance(post, Sealed))
        self._notify(step, records, figures, self.machine.checked > before, sealed)

    def _read_posts(self, step: Step, records: tuple[Record, ...]) -> dict[str, Payload | Sealed]:
        """The posts of a finished step, by site."""
        return {r.site: self._codec.read(step, r, self._blobs) for r in records}

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
            return  # reported before this machine was restarted
        self._observed_until = last.post.position + 1
        sites = tuple(r.site for r in records)
        place = (last.post.position, step.topic, last.kind, last.round)
        self._observe(Progress(*place, sites, last.time, figures, recomputed, sealed, step.concludes))

    def _check_stopped(self, step: Step, view: StudyView) -> bool:
        """False while the study can go on; an error that says why it does not."""
        if view.state in (State.PROPOSED, State.PAUSED):
            return False
        if view.state == State.COMPLETED:
            message = (
                f"The ledger has completed the study, but the learner's script still awaits {step.topic!r}."
                " Use the version of the learner that the study names."
            )
            raise ProtocolError("CO-P115", message, topic=step.topic)
        if step.public:
            # A server that could not compute its step has aborted; the same computation says why, in words.
            self.machine.draft(view.parties, 0)
        raise self._make_abort_error()

    def _make_abort_error(self) -> StudyStopped:
        end = find_end(self._ledger, self._study) or StudyEnd("a site", 0, "")
        message = end.describe(f"study {self._study} at position {self.position}")
        return StudyStopped("CO-R101", f"{message} Nothing was published; see `coterie audit history`.")

    @contextmanager
    def _measure(self, what: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - start


def read_figures(payload: Payload) -> dict[str, float]:
    """The single numbers of a server's post, such as the deviance."""
    if isinstance(payload, Sealed):
        return {}
    arrays = {name: np.asarray(value) for name, value in payload.items()}
    return {name: float(a) for name, a in arrays.items() if a.ndim == 0 and a.dtype.kind == "f"}


def read_heads(records: tuple[Record, ...]) -> tuple[bytes, ...]:
    """The head of its site's hash chain after each record."""
    return tuple(r.head for r in records)
