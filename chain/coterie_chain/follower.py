"""Reading the chain's history: complete, in order, and right again after a reorganisation.

Each `sync` asks for the newest block. If it does not continue what was read, the last block that both chains share is
found by the hashes of the blocks seen, everything above it is dropped, and the logs are read again from there.
Subscriptions are not used: they lose logs at a reorganisation.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain, takewhile
from typing import Any

from coterie_chain.decode import MEMBERSHIP, Decoder, Log, integer_of
from coterie_chain.deploy import Network
from coterie_chain.errors import LedgerMismatch
from coterie_chain.ledger import Event, Record
from coterie_chain.rpc import NodeRefused, Request, Rpc

PAGE = 2000
# Deeper than any reorganisation of a proof-of-authority chain that still has a majority of honest sealers.
DEEPEST = 64


@dataclass(frozen=True)
class Tip:
    """The block up to which the history is read."""

    number: int
    hash: str
    parent: str
    time: int


class Follower:
    """The entries of one network, up to `confirmations` blocks below the newest."""

    def __init__(self, rpc: Rpc, network: Network, confirmations: int = 0, page: int = PAGE) -> None:
        self._rpc = rpc
        self._network = network
        self._confirmations = confirmations
        self._page = page
        self._lock = threading.RLock()
        self._times: dict[str, int] = {}
        self._reset()
        self.rewinds = 0

    def _reset(self) -> None:
        self.decoder = Decoder(self._network.catalog)
        self.entries: list[Record | Event] = []
        self.membership = 0
        self._steps: defaultdict[tuple[int, int], list[Record]] = defaultdict(list)
        self._seqs: dict[str, int] = {}
        self._seen: dict[int, str] = {}
        self._tip: Tip | None = None

    def records(self, study: int, position: int) -> tuple[Record, ...]:
        """Records of a step, of all attempts, in chain order."""
        return tuple(self._steps.get((study, position), ()))

    def sync(self) -> Tip:
        """Read what is new; returns the block up to which the history is read.

        LedgerMismatch if the chain was rewound by more than 64 blocks, or if the node leaves out logs.
        """
        with self._lock:
            tip = self._newest()
            if self._tip is None or tip.hash != self._tip.hash:
                self._advance(tip)
            return tip

    def _newest(self) -> Tip:
        tip = _tip(self._rpc.call("eth_getBlockByNumber", "latest", False))
        if self._confirmations == 0:
            return tip
        settled = max(tip.number - self._confirmations, 0)
        return _tip(self._rpc.call("eth_getBlockByNumber", hex(settled), False))

    def _advance(self, tip: Tip) -> None:
        start = self._common(tip) + 1
        try:
            self._read(start, tip)
        except _Gap:
            # A reorganisation between two requests looks like that, too. Once from the start; then it is the node.
            self._reset()
            self.rewinds += 1
            self._read(self._network.block, tip)
        self._tip = tip
        self._remember(tip)

    def _common(self, tip: Tip) -> int:
        """Number of the last block that the chain shares with what was read; what lies above it is dropped."""
        old = self._tip
        if old is None:
            return self._network.block - 1
        if tip.number == old.number + 1 and tip.parent == old.hash:
            return old.number
        numbers = sorted(self._seen)
        hashes = self._hashes(numbers[-1:])
        if hashes != [self._seen[numbers[-1]]]:
            return self._rewind(numbers, tip)
        return old.number

    def _rewind(self, numbers: list[int], tip: Tip) -> int:
        pairs = zip(numbers, self._hashes(numbers), strict=True)
        shared = [number for number, _ in takewhile(lambda pair: self._seen[pair[0]] == pair[1], pairs)]
        read = numbers[-1]
        if not shared or read - shared[-1] > DEEPEST:
            raise LedgerMismatch(
                "CO-C314",
                f"The chain at {self._rpc.where} was rewound or replaced: this site has read it up to block {read}, "
                f"the node is at block {tip.number}, and they agree up to block {shared[-1] if shared else 'none'}. "
                "Ask the other sites what their nodes hold before going on.",
            )
        self._drop(shared[-1])
        return shared[-1]

    def _drop(self, above: int) -> None:
        kept = list(takewhile(lambda e: e.block <= above, self.entries))
        seen = {number: hash_ for number, hash_ in self._seen.items() if number <= above}
        admitted = sum(isinstance(e, Event) and e.name == "SiteAdmitted" for e in kept)
        self.entries, self._seen = [], seen
        self._steps.clear()
        self._seqs.clear()
        self.decoder.forget(admitted)
        self.rewinds += 1
        self.membership += 1
        self._take(kept)

    def _hashes(self, numbers: list[int]) -> list[str | None]:
        blocks = self._rpc.batch([("eth_getBlockByNumber", (hex(n), False)) for n in numbers])
        return [block["hash"] if block else None for block in blocks]

    def _read(self, start: int, tip: Tip) -> None:
        page = self._page
        while start <= tip.number:
            end = min(start + page - 1, tip.number)
            try:
                logs = self._logs(start, end)
            except NodeRefused:
                # Nodes bound the blocks or the logs of an answer, each at another number.
                if page == 1 or start == end:
                    raise
                page = max(min(page, end - start + 1) // 2, 1)
                continue
            self._digest(logs, tip)
            start = end + 1

    def _logs(self, start: int, end: int) -> list[Log]:
        asked = self.decoder.addresses
        logs = _ordered(self._ask(asked, start, end))
        # A site admitted on this page has records in its own Model, which was not asked for.
        models = _models(logs, self._network.catalog)
        return _ordered(self._ask([*asked, *models], start, end)) if models - set(asked) else logs

    def _ask(self, addresses: list[str], start: int, end: int) -> list[Log]:
        found: list[Log] = self._rpc.call(
            "eth_getLogs", {"fromBlock": hex(start), "toBlock": hex(end), "address": addresses}
        )
        return [log for log in found if not log.get("removed")]

    def _digest(self, logs: list[Log], tip: Tip) -> None:
        self._times = self._block_times(logs, tip)
        self._take(self.decoder.entries(logs, lambda log: self._times[log["blockHash"]]))
        for log in logs:
            number = integer_of(log["blockNumber"])
            if number > tip.number - DEEPEST:
                self._seen[number] = log["blockHash"]

    def _block_times(self, logs: list[Log], tip: Tip) -> dict[str, int]:
        times = {log["blockHash"]: integer_of(log["blockTimestamp"]) for log in logs if log.get("blockTimestamp")}
        times[tip.hash] = tip.time
        missing = list(dict.fromkeys(log["blockHash"] for log in logs if log["blockHash"] not in times))
        requests: list[Request] = [("eth_getBlockByHash", (hash_, False)) for hash_ in missing]
        for at in range(0, len(requests), 100):
            for block in self._rpc.batch(requests[at : at + 100]):
                if block is None:
                    raise _Gap("CO-C315", "A block vanished while it was read.")
                times[block["hash"]] = integer_of(block["timestamp"])
        return times

    def _take(self, entries: list[Record | Event]) -> None:
        for entry in entries:
            if isinstance(entry, Record):
                self._follow(entry)
            elif entry.name in MEMBERSHIP:
                self.membership += 1
        self.entries = list(chain(self.entries, entries)) if entries else self.entries

    def _follow(self, record: Record) -> None:
        before = self._seqs.get(record.site, 0)
        if record.seq != before + 1:
            raise _Gap(
                "CO-C315",
                f"The node {self._rpc.where} leaves out records of {record.site}: after record {before} it sent record "
                f"{record.seq} (block {record.block}). Do not rely on this node.",
            )
        self._seqs[record.site] = record.seq
        self._steps[record.post.study, record.post.position].append(record)

    def _remember(self, tip: Tip) -> None:
        self._seen[tip.number] = tip.hash
        oldest = tip.number - DEEPEST
        # one block below the window stays, so that a fork of exactly that depth is still told from a longer one
        below = max((n for n in self._seen if n <= oldest), default=None)
        self._seen = {n: h for n, h in self._seen.items() if n > oldest or n == below}


class _Gap(LedgerMismatch):
    """Records are missing between those that the node sent."""


def _tip(block: dict[str, Any]) -> Tip:
    return Tip(integer_of(block["number"]), block["hash"], block["parentHash"], integer_of(block["timestamp"]))


def _ordered(logs: list[Log]) -> list[Log]:
    return sorted(logs, key=lambda log: (integer_of(log["blockNumber"]), integer_of(log["logIndex"])))


def _models(logs: list[Log], catalog: str) -> set[str]:
    """Models that the Catalog announces in these logs."""
    probe = Decoder(catalog)
    return {probe.model_of(log) for log in logs} - {None}
