"""The ledger as the node sees it: values, and the Protocol that every ledger obeys.

A ledger handle speaks for one site (or for none: a reader). It holds membership, studies, the state machine of
each study and the append-only records of each site. Payloads are elsewhere; a record names them by digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

ZERO = bytes(32)


class State(IntEnum):
    """State of a study, with the numbers that the Catalog uses."""

    NONE = 0
    PROPOSED = 1
    RUNNING = 2
    PAUSED = 3
    COMPLETED = 4
    ABORTED = 5


class Silence(IntEnum):
    """The rule of a study for a site that is silent after the deadline, or whose post is unusable."""

    WAIT = 0
    EXCLUDE = 1
    ABORT = 2


@dataclass(frozen=True)
class SiteEntry:
    """One admitted site: id 1..253, signing address, X25519 sealing key (32 bytes), Ed25519 key of its swarm peer."""

    id: int
    name: str
    address: str
    sealing: bytes
    peer: bytes = ZERO
    active: bool = True


@dataclass(frozen=True)
class Terms:
    """The facts about a study that the contract needs.

    `sites` in turn order. `opening`, `loop` and `closing` list step kinds: "each", "server" or "only:<site>".
    `timeout` in seconds per step, 60 to 2,592,000. Nobody is excluded when only `least` sites are left.
    """

    hash: bytes
    sites: tuple[str, ...]
    opening: tuple[str, ...]
    loop: tuple[str, ...]
    closing: tuple[str, ...]
    max_rounds: int
    timeout: int
    silence: Silence = Silence.WAIT
    least: int = 1


@dataclass(frozen=True, slots=True)
class Post:
    """A site's post at one position: the CID of its payload, its SHA-256, its size in bytes.

    `basis` is the digest of the last server (or only) post that the payload builds on; the study's hash before the
    first. `verdict` is the digest of the release gate's decision.
    """

    study: int
    position: int
    attempt: int
    cid: str
    sha256: bytes
    size: int
    converged: bool
    basis: bytes
    verdict: bytes = ZERO


@dataclass(frozen=True, slots=True)
class Record:
    """A post on the ledger: its site, the site's sequence number (from 1), kind, round, chain head, time."""

    site: str
    seq: int
    kind: str
    round: int
    post: Post
    head: bytes
    block: int
    time: int
    tx: str


@dataclass(frozen=True)
class Head:
    """A site's hash chain: where it starts, how many records it has, and the hash after the last one."""

    genesis: bytes
    seq: int
    head: bytes


@dataclass(frozen=True, slots=True)
class Event:
    """Any other entry of the history: kind of event, study (0 for membership), acting site, details, when."""

    name: str
    study: int
    site: str
    details: tuple[tuple[str, str | int], ...]
    block: int
    time: int
    tx: str


@dataclass(frozen=True)
class OpenStep:
    """The step that the contract waits for."""

    position: int
    attempt: int
    round: int
    kind: str
    posters: tuple[str, ...]
    posted: tuple[str, ...]
    parties: tuple[str, ...]
    basis: bytes
    deadline: int


@dataclass(frozen=True)
class StudyView:
    """A study as the contract holds it; `open` only while it runs.

    `able` are the parties that can act: neither revoked nor with another key than at the proposal. `deadline` is the
    last second of a proposal, of the open step or of a pause.
    """

    id: int
    terms: Terms
    state: State
    joined: tuple[str, ...]
    parties: tuple[str, ...]
    open: OpenStep | None
    able: tuple[str, ...] = ()
    proposer: str = ""
    deadline: int = 0
    superseded: bool = False


@dataclass(frozen=True)
class Mark:
    """How far a reader has read a history: so many entries. `branch` is another one after entries were taken back."""

    branch: int = 0
    count: int = 0


def select_last_attempt(records: Iterable[Record], sites: Sequence[str]) -> tuple[Record, ...]:
    """The records of a step's last attempt, in the order of the study's sites."""
    step_records = tuple(records)
    last = max((r.post.attempt for r in step_records), default=0)
    place = {name: at for at, name in enumerate(sites)}
    return tuple(sorted((r for r in step_records if r.post.attempt == last), key=lambda r: place[r.site]))


def get_study_number(entry: Record | Event) -> int:
    """The study that an entry belongs to; 0 for membership."""
    return entry.post.study if isinstance(entry, Record) else entry.study


def select_proposals(entries: Iterable[Record | Event], after: int) -> tuple[Event, ...]:
    """The entries of a history that propose studies with a number above `after`."""
    return tuple(e for e in entries if isinstance(e, Event) and e.name == "StudyProposed" and e.study > after)


class Ledger(Protocol):
    """Membership, studies and records. Every refusal is a PostRejected with the contract's error name."""

    @property
    def me(self) -> str | None:
        """Name of the site that this handle speaks for; None for a reader."""

    def now(self) -> int:
        """Time of the ledger, in seconds since 1970."""

    def sites(self) -> tuple[SiteEntry, ...]:
        """All sites ever admitted, by id."""

    def studies(self) -> tuple[int, ...]:
        """Ids of all studies proposed, oldest first."""

    def list_proposals(self, after: int) -> tuple[Event, ...]:
        """The entries of the proposals with a number above `after`, oldest first: for less than a view of each."""

    def view(self, study: int) -> StudyView:
        """The study's terms and state."""

    def read_finished(self, study: int, position: int) -> tuple[Record, ...] | None:
        """Records of a finished step in the study's site order (its last attempt only); None while it is open."""

    def read_at_one_block(self) -> AbstractContextManager[None]:
        """Several reads that agree with each other: of the block that is the newest at the first of them."""

    def history(self, study: int | None = None) -> Iterator[Record | Event]:
        """Everything on the ledger in the order it was written, of one study or of all."""

    def read_new(self, mark: Mark) -> tuple[Mark, tuple[Record | Event, ...]]:
        """The entries after a mark of this handle, in their order, and the mark for the next call.

        The branch of the new mark is that of the old one, or the entries are all from the first on: a reorganisation
        has taken some back. `Mark()` is the begin.
        """

    def heads(self) -> dict[str, Head]:
        """Each site's chain of records, as the contract's state holds it."""

    def propose(self, terms: Terms, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> int:
        """Propose a study and join it; returns its id. The rest commits this site, as in `join`."""

    def join(self, study: int, hash: bytes, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> None:
        """Join by repeating the hash of the study that this site's people approved.

        `snapshot` (32 bytes) commits this site to the rows that it will use, `approvals` (32 bytes) to the signatures
        of its people; zero commits to none. `release` is that of its software (major * 1,000,000 + minor * 1,000 +
        patch), 0 if unsaid.
        """

    def decline(self, studies: Sequence[int], reason: int) -> None:
        """Decline proposed studies, or withdraw one's own, all or none; `reason` is a code, never text."""

    def record(self, post: Post) -> None:
        """Append a post to this site's Model."""

    def skip(self, study: int) -> None:
        """Pass over a server that is silent after the deadline; the next site takes the turn."""

    def exclude(self, study: int, site: str) -> None:
        """Vote to exclude a site that is gone, or silent at an `each` step after the deadline."""

    def report_unavailable(self, study: int, position: int, attempt: int, site: str, reason: int) -> None:
        """Vote that a site's post, at the open step or the last one finished, cannot be fetched or used.

        A majority of the others makes the study go back to that step, as its rule on silence says.
        """

    def dispute(self, study: int, position: int, posted: bytes, recomputed: bytes) -> None:
        """Say that this site recomputed another digest than the one posted at `position`; pauses a running study."""

    def pause(self, study: int, reason: int) -> None:
        """Pause a running study; `reason` is a code, never text."""

    def resume(self, study: int) -> None:
        """Vote to go on with a paused study; after seven days one vote is enough."""

    def abort(self, study: int, reason: int, culprit: str = "") -> None:
        """End a study without a result, or leave it by naming oneself; `reason` is a code, never text.

        Ends it at once, leaves it, or is a vote: ICatalog.abort says when.
        """

    def supersede(self, study: int, successor: int, reason: bytes) -> None:
        """Vote that a completed study's result is superseded, by another study's or (0) none; the proposer decides.

        `reason` is the SHA-256 of a text.
        """

    def attest(self, study: int, snapshot: bytes, verdict: int) -> None:
        """Say that this site computed its own posts again from the rows of a snapshot; `verdict` is a code."""

    def withdraw(self, motion: bytes) -> None:
        """Withdraw this site's vote for a motion that has not passed; the motion is in the vote's entry."""

    def list_voters(self, motion: bytes) -> tuple[str, ...]:
        """The sites whose votes for a motion count now."""

    def admit(self, entry: SiteEntry) -> None:
        """Vote to admit a site (the entry's id is ignored)."""

    def revoke(self, site: str) -> None:
        """Vote to revoke a site."""

    def recover(self, site: str, address: str, sealing: bytes) -> None:
        """Vote to give a site that lost its key a new one."""

    def offer(self, address: str, sealing: bytes) -> None:
        """Offer this site's seat to a new key of its own; the new key must accept."""

    def accept(self, site: str) -> None:
        """Accept a seat that was offered to this handle's key."""

    def vote_succession(self, catalog: str) -> None:
        """Vote that another Catalog succeeds this one."""

    def read_successor(self) -> str:
        """Address of the Catalog that succeeds this one; empty if none does."""

    def wait(self, seconds: float) -> None:
        """Return when something may have changed, or after `seconds`."""


class PipelinedLedger(Protocol):
    """A ledger whose blocks take time, seen by a site that does not wait for its own moves.

    Each may be made again until the ledger shows it: nothing is sent twice. LedgerUnreachable (CO-C304) if no block
    takes it in time.
    """

    def submit(self, post: Post) -> None:
        """Send a post to a step that is open on the ledger, and return at once; PostRejected if it is not taken now."""

    def submit_proposal(self, terms: Terms, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> None:
        """Propose a study as `Ledger.propose` does, and return at once; the same proposal is never made twice."""

    def submit_join(
        self, study: int, hash: bytes, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0
    ) -> None:
        """Join a proposed study as `Ledger.join` does, and return at once."""

    def submit_early(self, post: Post, *, priority: bool) -> None:
        """Send a post to a step that is not open yet, and return at once.

        `first` puts it in front of the posts of the same block that build on it. A post that the ledger refuses is
        never seen again: the sender reads the ledger.
        """
