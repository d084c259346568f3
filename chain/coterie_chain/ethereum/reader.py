"""Reading a network: the follower's history, and the contracts' views at the follower's block, so that they agree."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from eth_utils.address import to_checksum_address

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable, PostRejected
from coterie_chain.ethereum.calldata import Codec, load_codec
from coterie_chain.ethereum.entries.entry_log import EntryLog, Tip
from coterie_chain.ethereum.follower import ChainFollower, ask_block, read_block
from coterie_chain.ethereum.network import Network
from coterie_chain.ethereum.rpc import MAX_BATCH, EarlyAnswers, Request, Rpc
from coterie_chain.ethereum.views import Status, build_study_view, decode_seat, decode_terms
from coterie_chain.head_listener import HeadListener
from coterie_chain.ledger.protocol import (
    Event,
    Head,
    Mark,
    Post,
    Record,
    SiteEntry,
    State,
    StudyView,
    Terms,
    select_last_attempt,
)
from coterie_chain.ledger.record_chain import compute_genesis_head
from coterie_chain.retry import Backoff, RetryPolicy

# First pause in seconds, and its growth from look to look.
POLL_PAUSES = (0.004, 1.4)
# For a chain of this machine: a round of a small study waits twice, and each pause lasts to its end.
EAGER_PAUSES = (0.0015, 1.15)
# If the node reports its blocks, a look in between is only a safeguard.
HEARD_PAUSES = RetryPolicy(first=0.05, longest=0.25, factor=1.5)
# A chain that makes a block every few seconds is looked at seldom until the next one may come, less this margin.
QUIET_POLL, QUIET_MARGIN = 0.25, 0.05
# The clock of the sealer that makes the next block may be behind this one's by so many seconds.
CLOCK_MARGIN = 2.0
# Studies whose terms are kept in memory: more than run at a time.
MAX_TERMS = 256
# The most states that are requested with a new block in advance: those of the studies that were read at the block
# before.
MAX_EARLY_STATES = MAX_BATCH // 2
# After so many looks in a row at new blocks that had nothing for this network, each takes the longest pause at least.
MAX_VAIN_LOOKS = 20
_CATALOG, MODEL = load_codec("Catalog"), load_codec("Model")

# A view: its contract's name, address, its own name and its arguments.
View = tuple[Codec, str, str, Sequence[object]]


class Rhythm:
    """The shortest time that a chain was seen to take from one block to the next, by the blocks' own times.

    Clique and QBFT make no block sooner than a period after the last. A clock that is wrong costs `QUIET_POLL`.
    """

    def __init__(self) -> None:
        self._number, self._time = -1, 0
        self._shortest: int | None = None

    def note(self, number: int, time: int) -> None:
        """Take note of the newest block, with its time in seconds since 1970."""
        if number == self._number + 1 and self._number >= 0:
            gap = max(time - self._time, 0)
            self._shortest = gap if self._shortest is None else min(self._shortest, gap)
        self._number, self._time = number, time

    def count_quiet_seconds(self, now: float) -> float:
        """Seconds until the next block may come; `now` in seconds since 1970."""
        return max(self._time + self._shortest - QUIET_MARGIN - now, 0.0) if self._shortest else 0.0


class Reader:
    """The entries and state of a network, `confirmations` blocks below the newest.

    `poll` is the longest pause in seconds between two looks at the chain in `wait`; `clock` is the block ("latest" or
    "pending") that gives the time. On a chain that sleeps, the newest block's time stands still, and `wall` gives the
    time in seconds since 1970 instead; None elsewhere. `periodic`: blocks come at the chain's own times, and not as
    they are wanted. `eager`: the chain is this machine's own, and frequent looks cost nobody else anything. `heads`
    hears of its blocks, so that looks are not as frequent.
    """

    def __init__(
        self,
        rpc: Rpc,
        network: Network,
        *,
        confirmations: int,
        poll: float,
        clock: str,
        wall: Callable[[], float] | None = None,
        log: EntryLog | None = None,
        periodic: bool = False,
        eager: bool = False,
        heads: HeadListener | None = None,
    ) -> None:
        self._heads = heads
        self._rpc, self._early = rpc, EarlyAnswers(rpc)
        self._network = network
        first, growth = EAGER_PAUSES if eager else POLL_PAUSES
        self._pauses = RetryPolicy(first=min(first, poll), longest=poll, factor=growth)
        self._rhythm = Rhythm() if periodic else None
        self._clock, self._wall = clock, wall
        self._follower = ChainFollower(self._early, network, confirmations, log=log)
        self._confirmations = confirmations
        self._entries = self._vain = 0  # entries read at the last wait, and waits since then without any
        self._looked = 0.0
        self._coming = -1  # the number of a block that the node has, if this reader has not read so far
        self._lock = threading.RLock()
        self._read_at = ("", -1)
        self._readers_of_one_block = 0
        self._block: Tip | None = None  # what they read
        self._sites: tuple[SiteEntry, ...] | None = None
        self._terms: dict[int, tuple[tuple[int, ...], Terms]] = {}
        self._statuses: dict[int, Status] = {}
        self._study_count: int | None = None

    @property
    def models(self) -> dict[int, str]:
        """Address of each site's Model."""
        return {site: model for model, site in self._follower.decoder.models.items()}

    def now(self) -> int:
        """Time of the chain, in seconds since 1970: the newest block's, or nearly that of a block made now."""
        newest = self._read_time_of_look() if self._block is not None else self.read_block_time()
        return newest if self._wall is None else max(newest, int(self._wall() - CLOCK_MARGIN))

    def read_block_time(self) -> int:
        """Time of the newest block, in seconds since 1970."""
        return read_block(self._rpc, self._clock).time

    def _read_time_of_look(self) -> int:
        """The same at the one block that is read."""
        with self._lock:
            if self._clock == "latest":
                return self._follower.newest_time
            return read_block(self._early, self._clock).time

    def expect(self, block: int) -> None:
        """Note that the node has a block with this number: the next look is one exchange if it is the newest."""
        self._coming = max(block, self._coming)

    @contextmanager
    def read_at_one_block(self) -> Iterator[None]:
        """Inside, all reads are of the block that is the newest at the first of them; other threads wait."""
        with self._lock:
            self._readers_of_one_block += 1
            try:
                yield
            finally:
                self._readers_of_one_block -= 1
                self._block = self._block if self._readers_of_one_block else None

    def sites(self) -> tuple[SiteEntry, ...]:
        """All seats, by id."""
        with self._lock:
            tip = self._sync()
            if self._sites is None:
                ids = sorted(self._follower.decoder.names)
                answers = self.ask([self._catalog_view("seat", i) for i in ids], hex(tip.number))
                self._sites = tuple(decode_seat(i, answer) for i, answer in zip(ids, answers, strict=True))
            return self._sites

    def list_known_sites(self) -> tuple[SiteEntry, ...]:
        """The seats as last read, without asking the node again."""
        with self._lock:
            return self.sites() if self._sites is None else self._sites

    def studies(self) -> tuple[int, ...]:
        """Ids of all studies."""
        with self._lock:
            tip = self._sync()
            if self._study_count is None:
                (self._study_count,) = self.ask([self._catalog_view("studyCount")], hex(tip.number))
            return tuple(range(1, self._study_count + 1))

    def view(self, study: int) -> StudyView:
        """The study's terms and state; PostRejected (BadState) if there is none."""
        with self._lock:
            status = self._read_status(study)
            order, decode_terms = self._terms[study]
            with self._explain_strangers(study):
                return build_study_view(study, order, decode_terms, status, self._follower.decoder)

    def read_finished(self, study: int, position: int) -> tuple[Record, ...] | None:
        """Records of a finished step's last attempt, in the study's order."""
        with self._lock:
            status = self._read_status(study)
            if position >= status.position:
                return None
            last = select_last_attempt(self._follower.records(study, position), self._terms[study][1].sites)
            parties = self._name_parties(status)
            # A present party posted at each earlier step of all sites; any other step has one record.
            if not last or (last[0].kind == "each" and not parties <= {r.site for r in last}):
                raise self._explain_incomplete(study, position)
        return last

    @contextmanager
    def _explain_strangers(self, study: int) -> Iterator[None]:
        """LedgerMismatch (CO-C315) for a study whose state has sites or values that no log of the node speaks of."""
        try:
            yield
        except (KeyError, ValueError, IndexError):
            message = f"The state of study {study} at the node {self._rpc.where} does not go with the logs that it sent"
            raise LedgerMismatch("CO-C315", f"{message}. Compare it with another site's node.") from None

    def _name_parties(self, status: Status) -> set[str]:
        return {name for i, name in self._follower.decoder.names.items() if status.active >> i & 1}

    def _explain_incomplete(self, study: int, position: int) -> LedgerUnreachable:
        """The node announced a block before it had all of its logs: the next try reads everything again."""
        self._follower.forget()
        self._statuses.clear()
        message = f"The node {self._rpc.where} has not all records of study {study}, position {position}"
        return LedgerUnreachable("CO-C306", f"{message}, although the step is over. They are asked for again.")

    def records(self, study: int, position: int) -> tuple[Record, ...]:
        """Records of a step, of all attempts."""
        with self._lock:
            self._sync()
            return self._follower.records(study, position)

    def find_digest(self, site: str, post: Post) -> bytes | None:
        """Digest of the site's record in a post's slot, in what was read so far; None if there is none."""
        records = self._follower.records(post.study, post.position)
        return next((r.post.sha256 for r in records if (r.site, r.post.attempt) == (site, post.attempt)), None)

    def history(self, study: int | None) -> Iterator[Record | Event]:
        """Everything written, of one study or of all."""
        with self._lock:
            self._sync()
            return self._follower.read(study)

    def read_new(self, mark: Mark) -> tuple[Mark, tuple[Record | Event, ...]]:
        """The entries after a mark of this reader, or all of them after a reorganisation."""
        with self._lock:
            self._sync()
            return self._follower.read_new(mark)

    def list_proposals(self, after: int) -> tuple[Event, ...]:
        """The proposals of studies with a number above `after`, in their order."""
        with self._lock:
            self._sync()
            return self._follower.list_proposals(after)

    def heads(self) -> dict[str, Head]:
        """Each site's chain of records, as its Model holds it."""
        with self._lock:
            tip, decoder, models = self._sync(), self._follower.decoder, self.models
            ids = sorted(decoder.names)
            answers = self.ask(
                [(MODEL, models[i], name, ()) for i in ids for name in ("next", "head")], hex(tip.number)
            )
        firsts = (compute_genesis_head(self._network.catalog, self._network.chain_id, i) for i in ids)
        rows = zip(ids, firsts, answers[::2], answers[1::2], strict=True)
        return {decoder.names[i]: Head(first, following - 1, head) for i, first, following, head in rows}

    def read_successor(self) -> str:
        """Address of the Catalog that succeeds this one; empty if none does."""
        (address,) = self.ask([self._catalog_view("successor")], hex(self._sync().number))
        return "" if int(address, 16) == 0 else str(to_checksum_address(address))

    def list_voters(self, motion: bytes) -> tuple[str, ...]:
        """The sites whose votes for a motion count now, also where no block comes that lets one expire."""
        if self._wall is not None:
            return self._recount_voters(motion)
        (bitmap,) = self.ask([self._catalog_view("votes", motion)], hex(self._sync().number))
        return tuple(name for i, name in sorted(self._follower.decoder.names.items()) if bitmap >> i & 1)

    def _recount_voters(self, motion: bytes) -> tuple[str, ...]:
        """The same from the history, by this site's clock: while the chain sleeps, the contract's time stands still."""
        from coterie_chain.ledger.history_check import check_history  # all rules of the contract, for few commands
        from coterie_chain.ledger.rules import Moment

        entries, names = list(self.history(None)), self._follower.decoder.names
        catalog, chain = self._network.catalog, self._network.chain_id
        judge = check_history(entries, {name: compute_genesis_head(catalog, chain, i) for i, name in names.items()})
        counted = judge.rules.list_voters(motion, Moment(self.now(), self._follower.newest))
        return tuple(name for i, name in sorted(names.items()) if i in counted)

    def wait(self, seconds: float) -> None:
        """Return when there is another block than the one last read, or after `seconds`."""
        deadline = time.monotonic() + seconds
        self._pace(seconds)
        reports = self._heads is not None and self._heads.open()
        backoff = Backoff(HEARD_PAUSES if reports else self._pauses)
        number = self._follower.newest if reports else self._rpc.call_quantity("eth_blockNumber")
        while number == self._follower.newest:
            seconds_left = deadline - time.monotonic()
            if seconds_left <= 0:
                return
            number = self._await_number(min(self._find_quiet_pause() or backoff.next_pause(), seconds_left))
        self.expect(number)

    def _pace(self, seconds: float) -> None:
        """Pause where the node shows one block after the other, and none has an entry."""
        entries = self._follower.taken
        self._vain = self._vain + 1 if entries == self._entries else 0
        self._entries = entries
        if self._vain > MAX_VAIN_LOOKS:
            time.sleep(max(min(self._looked + self._pauses.longest - time.monotonic(), seconds), 0.0))
        self._looked = time.monotonic()

    def _await_number(self, seconds: float) -> int:
        """The number of the newest block: as soon as the node reports one, or after these seconds."""
        if self._heads is None:
            time.sleep(seconds)
        else:
            heard = self._heads.listen(seconds)
            if heard is not None:
                # What is heard late was read since.
                return max(heard, self._follower.newest)
        return self._rpc.call_quantity("eth_blockNumber")

    def _find_quiet_pause(self) -> float:
        """Seconds until the next look while no block can come; 0 once one may."""
        quiet = 0.0 if self._rhythm is None else self._rhythm.count_quiet_seconds(time.time())
        return min(quiet, QUIET_POLL)

    def ask(self, views: Sequence[View], block: str) -> list[Any]:
        """Answers of views at one block."""
        with self._lock:
            answers = self._early.batch([_ask_view(view, block) for view in views])
        pairs = zip(views, answers, strict=True)
        return [codec.decode(name, answer, self._rpc.where) for (codec, _, name, _), answer in pairs]

    def _catalog_view(self, name: str, *args: object) -> View:
        return _CATALOG, self._network.catalog, name, args

    def _sync(self) -> Tip:
        """Read what is new, and forget what was cached of older blocks."""
        if self._block is not None:
            return self._block
        self._prepare_look()
        tip = self._follower.sync()
        if self._rhythm is not None:
            self._rhythm.note(self._follower.newest, self._follower.newest_time)
        self._block = tip if self._readers_of_one_block else None
        read_at = (tip.hash, self._follower.changes)
        if read_at[1] != self._read_at[1]:
            self._sites = None
            self._terms.clear()
        if read_at != self._read_at:
            self._statuses.clear()
            self._study_count = None
        self._read_at = read_at
        return tip

    def _prepare_look(self) -> None:
        """Ask together for what a look will want: one exchange if the newest block was expected, or if it was read.

        The look makes all of its comparisons, and asks again for what they make useless.
        """
        coming, self._coming = self._coming, -1
        clock = [ask_block(self._clock)] if self._readers_of_one_block and self._clock != "latest" else []
        self._early.prepare([ask_block("latest"), *self._list_requests(coming), *clock])
        newest = self._early.find_number("latest")
        if newest is not None and newest != coming:
            self._early.add(self._list_requests(newest))

    def _list_requests(self, newest: int) -> list[Request]:
        """What is asked with a new block: its logs, and the states that were read last."""
        if newest <= self._follower.newest:
            return []
        block = hex(max(newest - self._confirmations, 0))
        states = [self._catalog_view("status", study) for study in list(self._statuses)[-MAX_EARLY_STATES:]]
        return [*self._follower.list_requests(newest), *(_ask_view(view, block) for view in states)]

    def _read_status(self, study: int) -> Status:
        tip = self._sync()
        if study not in self._statuses or study not in self._terms:
            wanted = [self._catalog_view("status", study)]
            wanted += [] if study in self._terms else [self._catalog_view("terms", study)]
            answers = self.ask(wanted, hex(tip.number))
            status = Status(*answers[0])
            if status.state == State.NONE:
                raise PostRejected("BadState", int(State.NONE))
            if len(answers) > 1:
                with self._explain_strangers(study):
                    self._terms[study] = decode_terms(self._follower.decoder, answers[1])
                if len(self._terms) > MAX_TERMS:
                    del self._terms[next(iter(self._terms))]
            self._statuses[study] = status
        return self._statuses[study]


def _ask_view(view: View, block: str) -> Request:
    """The request of a view's answer at a block."""
    codec, to, name, args = view
    return "eth_call", ({"to": to, "data": _encode_view(codec, name, tuple(args))}, block)


@lru_cache(maxsize=MAX_TERMS)
def _encode_view(codec: Codec, name: str, args: tuple[object, ...]) -> str:
    return codec.encode(name, *args)
