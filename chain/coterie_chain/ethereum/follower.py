"""Reading the chain's history: complete, in order, and right again after a reorganisation.

Each `sync` asks for the newest block. If it does not continue what was read, the last block that both chains share is
found by the hashes of the blocks seen, everything above it is dropped, and the logs are read again from there.
Logs are not subscribed to: a subscription loses some at a reorganisation.

Theory of operation. A follower is in one of two states. A sync that meets a gap reads everything again, once:

    state       `_tip`   event                                      next state
    empty       None     a page of blocks is read                   following
    following   a Tip    the newest block is the tip                following; nothing is read
    following   a Tip    the chain continues the tip                following, one page further
    following   a Tip    the chain left the tip                     following, back at the last shared block
    following   a Tip    no landmark is shared, or none from the    LedgerMismatch CO-C314
                         Catalog's block on
    following   a Tip    ... and the node has fewer blocks, none    the same; LedgerUnreachable CO-C302
                         of them another one than was read
    any         any      a page is too long, or does not come       the same; the next page is half as long
    any         any      records or blocks are missing              empty; everything is read again
    any         any      ... and the chain has left the block       empty; everything is read again up to another block,
                         up to which was read                       a few times, then LedgerUnreachable CO-C302
    any         any      records or blocks are missing once more    empty, and LedgerMismatch CO-C315
    any         any      logs are of another branch than the block  the same; the newest block is asked for again,
                         up to which they were asked for            a few times, then LedgerUnreachable CO-C302
    any         any      no site is seen, and the chain has no      empty, and LedgerUnreachable CO-C302
                         Catalog in the last block
    any         any      no site is seen, and there is a Catalog    empty, and LedgerMismatch CO-C315
    any         any      logs that were not asked for, or one twice the same, and LedgerMismatch CO-C315
    any         any      the end of the chain does not come nearer  as far as was read; LedgerUnreachable CO-C302
                         than this for `SYNC_SECONDS`

Invariants: the log has the entries of the blocks up to its tip, all of them, and of no other block. A page changes the
state as a whole, after the last answer of the node: an answer that fails leaves the state as it was. Each site's
records have the numbers 1, 2, 3 and so on without a gap, which shows a node that leaves some out. The landmarks hold at
least one block deeper than any reorganisation, so that a shared block can be found. A log from an earlier process is
only a copy: if the chain shares no landmark with it, everything is read again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from coterie_chain.errors import LedgerMismatch, LedgerUnreachable
from coterie_chain.ethereum.decode import (
    MEMBERSHIP,
    Decoder,
    Log,
    describe_log,
    find_stray_log,
    list_new_models,
    locate_log,
    parse_quantity,
)
from coterie_chain.ethereum.entries.entry_log import Entry, EntryLog, Extent, MemoryEntryLog, Tip
from coterie_chain.ethereum.network import Network
from coterie_chain.ethereum.rpc import AnswerTooLong, ChainNode, NodeRefused, Request
from coterie_chain.ledger.protocol import Event, Mark, Record

MAX_BLOCKS_PER_QUERY = 2000
HEADERS_PER_BATCH = 100
# Deeper than any reorganisation of a proof-of-authority chain that still has a majority of honest sealers.
MAX_REORG_DEPTH = 64
# A node that goes over to another branch more often during one sync is asked again later.
MAX_MOVES = 5
# A node that invents blocks has no last one. In this time ten million records are read.
SYNC_SECONDS = 600.0
# So many headers between two looks are asked for with the logs: each log is of a block of the chain that is followed.
MAX_EARLY_HEADERS = 8


def ask_block(which: int | str) -> Request:
    """The request of a block's header, by its number or by a name as "pending"."""
    return "eth_getBlockByNumber", (hex(which) if isinstance(which, int) else which, False)


def read_block(rpc: ChainNode, which: str) -> Tip:
    """A block by its number in hex, or "latest" or "pending"."""
    block = rpc.call("eth_getBlockByNumber", which, False)
    if block is None:
        raise LedgerUnreachable(
            "CO-C302",
            f"The chain node {rpc.where} has no block {which} (any more). "
            "Wait until it has caught up, or read its log.",
        )
    return _decode_block(rpc, which, block)


def _decode_block(rpc: ChainNode, which: str, block: Any) -> Tip:
    """The block that was asked for; LedgerUnreachable (CO-C303) if it is another one, or has no hash."""
    number, hash_ = block.get("number"), block.get("hash")
    if number is None or (hash_ is None and which != "pending"):
        raise rpc.explain_garbled("eth_getBlockByNumber")
    tip = Tip(parse_quantity(number), str(hash_), block["parentHash"], parse_quantity(block["timestamp"]))
    if which.startswith("0x") and tip.number != int(which, 16):
        message = f"The chain node {rpc.where} was asked for block {int(which, 16)} and answered with {tip.number}"
        raise LedgerUnreachable("CO-C303", f"{message}. Check that the address names one chain node.")
    return tip


class ChainFollower:
    """The entries of one network, up to `confirmations` blocks below the newest; `page` in blocks.

    `log` keeps them: in memory by default. A log of an earlier process is gone on with.
    """

    def __init__(
        self,
        rpc: ChainNode,
        network: Network,
        confirmations: int = 0,
        page: int = MAX_BLOCKS_PER_QUERY,
        log: EntryLog | None = None,
    ) -> None:
        self._log = MemoryEntryLog() if log is None else log
        self._rpc = rpc
        self._network = network
        self._confirmations = confirmations
        # Blocks of a page: as asked for, as the node was found to take in this sync, and of the next request.
        self._limit = self._most = self._page = page
        self._lock = threading.RLock()
        self.changes = self.taken = 0
        self._branch = -1
        self.newest, self.newest_time = -1, 0
        self._go_on()
        # Until the chain has shown a block of it, a log from before is no more than a copy.
        self._is_copy = self._tip is not None

    @property
    def decoder(self) -> Decoder:
        """Names of the sites seen so far, and their Models."""
        return self._decoder

    @property
    def entries(self) -> tuple[Record | Event, ...]:
        """Everything read so far, in chain order."""
        return tuple(self.read())

    def read(self, study: int | None = None) -> Iterator[Entry]:
        """The entries read so far, of all or of one study (0: of the membership), in chain order."""
        with self._lock:
            return self._log.read(study)

    def read_new(self, mark: Mark) -> tuple[Mark, tuple[Entry, ...]]:
        """The entries read since a mark, and the mark of now; all of them if the log was cut since then."""
        with self._lock:
            known = mark.count if mark.branch == self._branch else 0
            new = self._log.list_after(known)
            return Mark(self._branch, known + len(new)), new

    def records(self, study: int, position: int) -> tuple[Record, ...]:
        """Records of a step, of all attempts, in chain order."""
        return self._log.list_records(study, position)

    def list_proposals(self, after: int) -> tuple[Event, ...]:
        """The proposals of studies with a number above `after`, as far as they were read."""
        with self._lock:
            return self._log.list_proposals(after)

    def sync(self) -> Tip:
        """Read what is new; returns the block up to which the history is read.

        `changes` counts whatever may change the list of sites: membership events and reorganisations. `taken` counts
        the entries, again those that were read again.
        `newest` is the number of the newest block, confirmed or not, and `newest_time` its time (seconds since 1970).
        LedgerMismatch if the chain was rewound further than any reorganisation, or if the node leaves out records.
        LedgerUnreachable for a node that fetches the blocks again that were read already.
        """
        with self._lock:
            tip, suspect, moves = self._fetch_newest(), False, 0
            branch, deadline = self._branch, time.monotonic() + SYNC_SECONDS
            while self._tip is None or self._tip.hash != tip.hash:
                self._check_progress(tip, self._branch - branch, deadline)
                try:
                    if not self._advance(tip):
                        break
                except _OtherBranch:
                    tip, moves = self._fetch_newest(), moves + 1
                    if moves > MAX_MOVES:
                        raise self._explain_moves(tip) from None
                except _Gap:
                    # A reorganisation between two requests looks like that, too: read all again, and then believe it.
                    # Nothing of either reading is kept: the missing entry may lie on a page that was taken before.
                    self._reset()
                    if self._fetch_hashes([tip.number]) != [tip.hash]:
                        # One answer can mix blocks of two branches while the node goes over from one to the other.
                        tip, moves = self._fetch_newest(), moves + 1
                        if moves > MAX_MOVES:
                            raise self._explain_moves(tip) from None
                        continue
                    if suspect:
                        raise
                    suspect = True
            self._page = self._most = self._limit
            self._check_founders()
            return self._tip or tip

    def _check_progress(self, tip: Tip, branches: int, deadline: float) -> None:
        """LedgerUnreachable (CO-C302) for a node that changes its branch, or adds blocks, without end."""
        if branches > 2 * MAX_MOVES:
            raise self._explain_moves(tip)
        if time.monotonic() > deadline:
            read = -1 if self._tip is None else self._tip.number
            message = f"The chain node {self._rpc.where} has blocks up to {tip.number}, of which {read} are read"
            advice = "Compare its newest block with another site's node; if it is right, try again: reading goes on."
            raise LedgerUnreachable("CO-C302", f"{message} after {SYNC_SECONDS:g} s. {advice}")

    def _check_founders(self) -> None:
        """A Catalog begins with its founders, so that a history without a site is not whole.

        LedgerUnreachable (CO-C302) where the chain has no Catalog in the last block that was read: the block that
        deployed it was replaced. LedgerMismatch (CO-C315) where it has one, and the node sent no log of it.
        """
        tip = self._tip
        if tip is None or tip.number < self._network.block or self._decoder.names:
            return
        self._reset()
        code = self._rpc.call("eth_getCode", self._network.catalog, hex(tip.number))
        if code == "0x" or self._fetch_hashes([tip.number]) != [tip.hash]:
            message = f"The chain node {self._rpc.where} has no Catalog in block {tip.number} (any more)"
            advice = "Its deployment may come in a later block: wait. If this stays, ask another site's node."
            raise LedgerUnreachable("CO-C302", f"{message}. {advice}")
        message = f"The node {self._rpc.where} sent no log of the Catalog's founding up to block {tip.number}"
        raise LedgerMismatch("CO-C315", f"{message}. Do not rely on this node.")

    def list_requests(self, newest: int) -> list[Request]:
        """What a sync asks after the newest block, which has this number, if the chain goes on from what was read."""
        with self._lock:
            target, old = max(newest - self._confirmations, 0), self._tip
            wanted = [ask_block(target)] if self._confirmations else []
            if old is None or not old.number < target <= old.number + self._page:
                return wanted
            # A child of the last block needs no comparison: it names its parent.
            fork = [ask_block(old.number)] if target > old.number + 1 else []
            few = target - old.number <= MAX_EARLY_HEADERS
            between = [ask_block(number) for number in range(old.number + 1, target)] if few else []
            logs = self._ask_for_logs(set(self._decoder.addresses), old.number + 1, target)
            return [*wanted, *fork, *between, logs]

    def forget(self) -> None:
        """Read everything again at the next sync."""
        with self._lock:
            self._reset()

    def _reset(self) -> None:
        self._log.clear()
        self._go_on()

    def _go_on(self) -> None:
        """Take the state over from the log."""
        place = self._log.place
        self._decoder = Decoder(self._network.catalog, f"The node {self._rpc.where}")
        self._decoder.names, self._decoder.models = dict(place.names), dict(place.models)
        self._seqs = self._log.count_records()
        self._hashes: dict[int, str] = dict(place.landmarks)
        self._tip: Tip | None = place.tip
        self.changes += 1
        self._branch += 1

    def _fetch_newest(self) -> Tip:
        tip = self._fetch_block("latest")
        self.newest, self.newest_time = tip.number, tip.time
        return tip if self._confirmations == 0 else self._fetch_block(hex(max(tip.number - self._confirmations, 0)))

    def _fetch_block(self, which: str) -> Tip:
        return read_block(self._rpc, which)

    def _advance(self, tip: Tip) -> bool:
        """Read one page on the way to `tip`, all of it or nothing; False if a node that lags has nothing new."""
        start = self._find_fork(tip) + 1
        if start > tip.number:
            return False
        end = tip if tip.number - start < self._page else self._fetch_block(hex(start + self._page - 1))
        try:
            logs = self._fetch_logs(start, end.number)
        except (NodeRefused, AnswerTooLong):
            # Nodes bound the blocks or the logs of an answer, each at another number; so does this reader. Anybody who
            # may send transactions can fill blocks with entries, so that a page is too long for good.
            if self._page == 1:
                raise
            self._most = self._page = self._halve_page(start, end)
            return True
        except LedgerUnreachable:
            self._page = self._halve_page(start, end)  # at the next sync: it may be the logs that take too long
            raise
        times = self._fetch_recent_times(logs, end)
        times |= self._fetch_times([log for log in logs if log["blockHash"] not in times])
        hashes = self._choose_landmarks(logs, end)
        # Nothing is asked of the node from here on: a page is kept whole or not at all.
        self._take(self._decoder.entries(logs, lambda log: times[log["blockHash"]]), end, hashes)
        self._page = min(2 * self._page, self._most)
        return True

    def _halve_page(self, start: int, end: Tip) -> int:
        return max(min(self._page, end.number - start + 1) // 2, 1)

    # If the chain is the one that was read

    def _find_fork(self, tip: Tip) -> int:
        """Number of the last block that the chain shares with what was read; what lies above it is dropped."""
        old = self._tip
        if old is None:
            return self._network.block - 1
        if (tip.number == old.number + 1 and tip.parent == old.hash) or self._fetch_hashes([old.number]) == [old.hash]:
            return old.number
        numbers = sorted(self._hashes)
        found = dict(zip(numbers, self._fetch_hashes(numbers), strict=True))
        # From the oldest to the first that differs: a page can mix blocks of two chains, so later matches do not count.
        shared = [number for number, _ in takewhile(lambda pair: self._hashes[pair[0]] == pair[1], found.items())]
        if (not shared or shared[-1] < self._network.block) and self._is_copy:
            self._reset()
            return self._network.block - 1
        if not shared or shared[-1] < self._network.block <= old.number:
            differs = any(hash_ not in (None, self._hashes[number]) for number, hash_ in found.items())
            if tip.number < old.number and not differs and self._fetch_hashes([0]) == [self._network.genesis]:
                raise self._explain_lag(old, tip)
            # If the Catalog's block was replaced, there is no Catalog, and its history would seem to be empty.
            raise self._explain_rewind(old, tip, next(n for n in numbers if n not in shared))
        self._drop(shared[-1])
        return shared[-1]

    def _fetch_hashes(self, numbers: list[int]) -> list[str | None]:
        return [None if block is None else block.hash for block in self._fetch_blocks(numbers)]

    def _fetch_blocks(self, numbers: list[int]) -> list[Tip | None]:
        answers = zip(numbers, self._rpc.batch([ask_block(n) for n in numbers]), strict=True)
        return [None if block is None else _decode_block(self._rpc, hex(number), block) for number, block in answers]

    def _explain_moves(self, tip: Tip) -> LedgerUnreachable:
        message = (
            f"The chain node {self._rpc.where} went over to another branch {MAX_MOVES} times "
            f"while its blocks up to {tip.number} were read"
        )
        return LedgerUnreachable("CO-C302", f"{message}. Wait until it has settled, or read its log.")

    def _explain_lag(self, old: Tip, tip: Tip) -> LedgerUnreachable:
        message = (
            f"The chain node {self._rpc.where} is at block {tip.number}, and this site has read it up to {old.number}"
        )
        advice = "Its blocks are those that were read, as far as it has them: wait until it has caught up."
        return LedgerUnreachable("CO-C302", f"{message}. {advice}")

    def _explain_rewind(self, old: Tip, tip: Tip, oldest: int) -> LedgerMismatch:
        return LedgerMismatch(
            "CO-C314",
            f"The chain at {self._rpc.where} was rewound or replaced: this site has read it up to block {old.number}, "
            f"the node is now at block {tip.number}, and already block {oldest} is another one. "
            "Ask the other sites what their nodes hold before going on.",
        )

    def _drop(self, above: int) -> None:
        # Names of sites are taken back as well: a site that was admitted above the fork may never be admitted.
        decoder, hashes = self._decoder, {number: hash_ for number, hash_ in self._hashes.items() if number <= above}
        decoder.forget(self._log.count_events(["SiteAdmitted"], above))
        self._log.drop_above(above, Extent(Tip(above, hashes[above], "", 0), hashes, decoder.names, decoder.models))
        self._go_on()

    def _choose_landmarks(self, logs: list[Log], tip: Tip) -> dict[int, str]:
        """Hashes by which a reorganisation is found: of the last blocks read and of one below them."""
        floor = max(tip.number - MAX_REORG_DEPTH, 0)
        recent = {parse_quantity(log["blockNumber"]): str(log["blockHash"]) for log in logs}
        landmarks = self._hashes | recent | {tip.number: tip.hash}
        if not any(floor - MAX_REORG_DEPTH <= number <= floor for number in landmarks):
            landmarks[floor] = self._fetch_block(hex(floor)).hash
        below = max(number for number in landmarks if number <= floor)
        return {number: hash_ for number, hash_ in landmarks.items() if number >= below}

    # Logs

    def _fetch_logs(self, start: int, end: int) -> list[Log]:
        asked = set(self._decoder.addresses)
        logs = self._ask(asked, start, end)
        # A site admitted on this page has records in its own Model, which was not asked for.
        models = list_new_models(logs, self._network.catalog) - asked
        return self._ask(asked | models, start, end) if models else logs

    def _ask(self, addresses: set[str], start: int, end: int) -> list[Log]:
        method, params = self._ask_for_logs(addresses, start, end)
        answer = self._rpc.call(method, *params)
        try:
            # One without a block waits for it.
            logs: list[Log] = [log for log in answer if log["blockHash"]]
            logs.sort(key=locate_log)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise self._rpc.explain_garbled("eth_getLogs") from None
        blocks = {(log["blockNumber"], log["blockHash"]) for log in logs}
        if any(log.get("removed") for log in logs) or len(blocks) > len({number for number, _ in blocks}):
            raise self._explain_branches(end)
        stray = find_stray_log(logs, addresses, range(start, end + 1))
        if stray is not None:
            message = (
                f"The node {self._rpc.where} sent a log that was not asked for, or one twice: {describe_log(stray)}"
            )
            raise LedgerMismatch("CO-C315", f"{message}. Do not rely on this node.")
        return logs

    def _ask_for_logs(self, addresses: set[str], start: int, end: int) -> Request:
        return "eth_getLogs", ({"fromBlock": hex(start), "toBlock": hex(end), "address": sorted(addresses)},)

    def _fetch_recent_times(self, logs: list[Log], tip: Tip) -> dict[str, int]:
        """Times of the newest blocks by their hashes; _OtherBranch if a log is of another block with such a number.

        A node can go over to another branch between two parts of one answer. Old blocks cannot be replaced.
        """
        hashes = {
            number: log["blockHash"] for log in logs if (number := locate_log(log)[0]) > tip.number - MAX_REORG_DEPTH
        }
        times = {tip.hash: tip.time}
        if hashes.pop(tip.number, tip.hash) != tip.hash:
            raise self._explain_branches(tip.number)
        blocks = self._fetch_blocks(sorted(hashes)) if hashes else []
        for block, number in zip(blocks, sorted(hashes), strict=True):
            if block is None or block.hash != hashes[number]:
                raise self._explain_branches(number)
            times[block.hash] = block.time
        return times

    def _explain_branches(self, number: int) -> _OtherBranch:
        message = f"The chain node {self._rpc.where} sent logs of another branch than its block {number}"
        return _OtherBranch("CO-C302", f"{message}. Wait until it has settled, or read its log.")

    def _fetch_times(self, logs: list[Log]) -> dict[str, int]:
        times = {log["blockHash"]: parse_quantity(log["blockTimestamp"]) for log in logs if log.get("blockTimestamp")}
        missing = list(dict.fromkeys(log["blockHash"] for log in logs if log["blockHash"] not in times))
        for at in range(0, len(missing), HEADERS_PER_BATCH):
            wanted: list[Request] = [
                ("eth_getBlockByHash", (hash_, False)) for hash_ in missing[at : at + HEADERS_PER_BATCH]
            ]
            for block in self._rpc.batch(wanted):
                if block is None:
                    raise _Gap(
                        "CO-C315",
                        f"The node {self._rpc.where} lost a block while its logs were read. "
                        "Compare it with another site's node.",
                    )
                times[block.get("hash")] = parse_quantity(block["timestamp"])
        if any(log["blockHash"] not in times for log in logs):
            raise self._rpc.explain_garbled("eth_getBlockByHash")
        return times

    # Entries

    def _take(self, entries: list[Record | Event], tip: Tip, hashes: dict[int, str]) -> None:
        """Keep a page, all of it or nothing."""
        numbers = dict(self._seqs)
        for entry in entries:
            if isinstance(entry, Record):
                self._check_number(entry, numbers.get(entry.site, 0) + 1)
                numbers[entry.site] = entry.seq
        self._log.extend(entries, Extent(tip, hashes, dict(self._decoder.names), dict(self._decoder.models)))
        self._seqs, self._hashes, self._tip, self._is_copy = numbers, hashes, tip, False
        self.taken += len(entries)
        self.changes += sum(isinstance(entry, Event) and entry.name in MEMBERSHIP for entry in entries)

    def _check_number(self, record: Record, expected: int) -> None:
        if record.seq != expected:
            raise _Gap(
                "CO-C315",
                f"The node {self._rpc.where} leaves out records of {record.site}: after number {expected - 1} it sent "
                f"number {record.seq} (block {record.block}). Do not rely on this node.",
            )


class _Gap(LedgerMismatch):
    """Records or blocks are missing between those that the node sent."""


class _OtherBranch(LedgerUnreachable):
    """Parts of one answer are of several branches."""
