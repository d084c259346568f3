"""A ledger over a broker: every site makes every move of the log in the log's order, on rules of its own.

Theory of operation. A move is a message. A site appends it, reads the log until its own message comes back, and makes
each move on the way, its own at its place, on its own MemoryChain. All sites read the same messages in the same order
and the rules are deterministic, so that all hold the same ledger and see the same refusals.

A read looks at the messages that have come by then. On RabbitMQ those that another site has just appended may come a
moment later; a site's own are always there.

What the contracts prove and this does not: who made a move. An address in a message is a claim. Anybody who
reaches the broker can write as any site. It is the twin of an experiment, on one machine, and no node opens it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from coterie_chain.broker.message_log import MessageLog
from coterie_chain.broker.moves import Move, decode_move
from coterie_chain.errors import LedgerUnreachable, PostRejected
from coterie_chain.ledger.memory import MemoryChain, MemoryLedger
from coterie_chain.ledger.protocol import ZERO, Event, Head, Mark, Post, Record, SiteEntry, StudyView, Terms

_PATIENCE = 60.0


class BrokerLedger:
    """One site's handle: its place in the log, and the ledger that follows from the messages up to there."""

    def __init__(
        self,
        log: MessageLog,
        founders: Iterable[SiteEntry],
        address: str | None,
        clock: Callable[[], int] = lambda: int(time.time()),
        patience: float = _PATIENCE,
    ) -> None:
        self._log, self._address, self._clock, self._patience = log, address or "", clock, patience
        self._moving: int | None = None
        self._chain = MemoryChain(founders, self._read_clock)
        self._ledger = self._chain.ledger(address)

    def _read_clock(self) -> int:
        """The time that a move's message states while it is made; else this site's."""
        return self._clock() if self._moving is None else self._moving

    def close(self) -> None:
        """Leave the broker."""
        self._log.close()

    # What is read

    @property
    def me(self) -> str | None:
        """Name of the site that this handle speaks for."""
        return self._current().me

    def now(self) -> int:
        """Time of this site."""
        return self._clock()

    def sites(self) -> tuple[SiteEntry, ...]:
        """All seats, by id."""
        return self._current().sites()

    def studies(self) -> tuple[int, ...]:
        """Ids of all studies."""
        return self._current().studies()

    def list_proposals(self, after: int) -> tuple[Event, ...]:
        """The entries of the proposals with a number above `after`."""
        return self._current().list_proposals(after)

    def view(self, study: int) -> StudyView:
        """The study's terms and state."""
        return self._current().view(study)

    def read_finished(self, study: int, position: int) -> tuple[Record, ...] | None:
        """Records of a finished step's last attempt."""
        return self._current().read_finished(study, position)

    def read_at_one_block(self) -> AbstractContextManager[None]:
        """Each read takes what the broker has by then."""
        return nullcontext()

    def history(self, study: int | None = None) -> Iterator[Record | Event]:
        """Everything written, of one study or of all."""
        return self._current().history(study)

    def read_new(self, mark: Mark) -> tuple[Mark, tuple[Record | Event, ...]]:
        """The entries after a mark."""
        return self._current().read_new(mark)

    def heads(self) -> dict[str, Head]:
        """Each site's chain of records."""
        return self._current().heads()

    def list_voters(self, motion: bytes) -> tuple[str, ...]:
        """The sites whose votes for a motion count now."""
        return self._current().list_voters(motion)

    def read_successor(self) -> str:
        """Address of the Catalog that succeeds this one."""
        return self._current().read_successor()

    def wait(self, seconds: float) -> None:
        """Return with the next messages, or after `seconds`."""
        self._make_all(seconds, "")

    # What is written

    def propose(self, terms: Terms, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> int:
        """Propose a study and join it."""
        return int(self._move("propose", terms, snapshot, approvals, release))

    def join(self, study: int, hash: bytes, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> None:
        """Join by repeating the study's hash."""
        self._move("join", study, hash, snapshot, approvals, release)

    def decline(self, studies: Sequence[int], reason: int) -> None:
        """Decline proposed studies, all or none."""
        self._move("decline", tuple(studies), reason)

    def record(self, post: Post) -> None:
        """Append a post to this site's records."""
        self._move("record", post)

    def skip(self, study: int) -> None:
        """Pass over a silent server."""
        self._move("skip", study)

    def exclude(self, study: int, site: str) -> None:
        """Vote to exclude a silent site."""
        self._move("exclude", study, site)

    def report_unavailable(self, study: int, position: int, attempt: int, site: str, reason: int) -> None:
        """Vote that a site's post cannot be used."""
        self._move("report_unavailable", study, position, attempt, site, reason)

    def dispute(self, study: int, position: int, posted: bytes, recomputed: bytes) -> None:
        """Say that this site recomputed another digest than the one posted."""
        self._move("dispute", study, position, posted, recomputed)

    def pause(self, study: int, reason: int) -> None:
        """Pause a running study."""
        self._move("pause", study, reason)

    def resume(self, study: int) -> None:
        """Vote to go on."""
        self._move("resume", study)

    def abort(self, study: int, reason: int, culprit: str = "") -> None:
        """End a study without a result, or leave it."""
        self._move("abort", study, reason, culprit)

    def supersede(self, study: int, successor: int, reason: bytes) -> None:
        """Vote that a completed study's result is superseded."""
        self._move("supersede", study, successor, reason)

    def attest(self, study: int, snapshot: bytes, verdict: int) -> None:
        """Say that this site computed its own posts again."""
        self._move("attest", study, snapshot, verdict)

    def withdraw(self, motion: bytes) -> None:
        """Withdraw this site's vote."""
        self._move("withdraw", motion)

    def admit(self, entry: SiteEntry) -> None:
        """Vote to admit a site."""
        self._move("admit", entry)

    def revoke(self, site: str) -> None:
        """Vote to revoke a site."""
        self._move("revoke", site)

    def recover(self, site: str, address: str, sealing: bytes) -> None:
        """Vote to give a site a new key."""
        self._move("recover", site, address, sealing)

    def offer(self, address: str, sealing: bytes) -> None:
        """Offer this seat to a new key."""
        self._move("offer", address, sealing)

    def accept(self, site: str) -> None:
        """Accept a seat."""
        self._move("accept", site)

    def vote_succession(self, catalog: str) -> None:
        """Vote that another Catalog succeeds this one."""
        self._move("vote_succession", catalog)

    # The log

    def _current(self) -> MemoryLedger:
        """The ledger after all messages that are there by now."""
        self._make_all(0.0, "")
        return self._ledger

    def _move(self, name: str, *arguments: object) -> Any:
        """Append a move, and make all moves up to it; its value, or its PostRejected."""
        move = Move(secrets.token_hex(16), self._address, self._clock(), name, arguments)
        self._log.append(move.encode())
        deadline = time.monotonic() + self._patience
        while (left := deadline - time.monotonic()) > 0:
            outcome = self._make_all(left, move.token)
            if outcome is not None:
                refusal, value = outcome
                if refusal is not None:
                    raise refusal
                return value
        message = f"The broker has not given back this site's own message within {self._patience:g} s"
        raise LedgerUnreachable("CO-C361", f"{message}. Check that it runs.")

    def _make_all(self, seconds: float, token: str) -> tuple[PostRejected | None, Any] | None:
        """Make the moves of all new messages; the outcome of the one with this token, if it is among them."""
        outcome = None
        for message in self._log.read(seconds):
            move = decode_move(message)
            if move is not None:
                result = self._make(move)
                outcome = result if move.token == token else outcome
        return outcome

    def _make(self, move: Move) -> tuple[PostRejected | None, Any]:
        self._moving = move.time
        try:
            return None, getattr(self._chain.ledger(move.by), move.name)(*move.arguments)
        except PostRejected as refusal:
            return refusal, None
        finally:
            self._moving = None
