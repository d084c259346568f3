"""A small world of Clique sealers in memory, with a clock of its own: the twin of Geth's administrator socket.

It keeps those of Clique's and Geth's rules on which sleeping depends (consensus/clique, miner/worker): turns, recent
signers, the random wait out of turn, the fork choice by total difficulty with a coin for equals, a seal that goes on
after miner_stop, and a node that drops gossip until its miner was started once.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.network.programs.ipc import Question
from coterie_chain.network.sealer_driver import SealerDriver

TICK = 0.01
START = 1_700_000_000.0


@dataclass(frozen=True, eq=False)
class Block:
    """A block; `weight` is the total difficulty of its chain."""

    number: int
    hash: str
    parent: Block | None
    time: int
    sealer: str
    weight: int
    transactions: tuple[str, ...]

    def walk_back(self, blocks: int) -> list[Block]:
        """This block and those below it, at most so many, the newest first."""
        chain: list[Block] = []
        at: Block | None = self
        while at is not None and len(chain) < blocks:
            chain.append(at)
            at = at.parent
        return chain


@dataclass
class Seal:
    """A block in the making, which comes out at `due`."""

    block: Block
    due: float


@dataclass
class MemoryGeth:
    """One sealing node; calling it answers what its administrator's socket would."""

    world: World
    name: str
    head: Block
    mining: bool = True
    synced: bool = True
    alive: bool = True
    pool: set[str] = field(default_factory=set)
    mined: set[str] = field(default_factory=set)
    seal: Seal | None = None
    calls: list[str] = field(default_factory=list)

    def __call__(self, questions: Sequence[Question]) -> list[Any]:
        if not self.alive:
            raise LedgerUnreachable("CO-C301", f"{self.name} is down.")
        return [self._answer(name, params) for name, params in questions]

    def _answer(self, method: str, params: Sequence[object]) -> Any:
        self.calls.append(method)
        answers: dict[str, Callable[..., Any]] = {
            "eth_coinbase": lambda: self.name,
            "admin_nodeInfo": lambda: {"protocols": {"eth": {"config": {"clique": {"period": 1}}}}},
            "txpool_status": lambda: {"pending": hex(len(self.pool)), "queued": "0x0"},
            "eth_mining": lambda: self.mining,
            "net_peerCount": lambda: hex(len(self.world.list_others(self))),
            "eth_getBlockByNumber": lambda which, _: self._describe(which),
            "clique_getSnapshot": lambda number: self._describe_snapshot(int(number, 16)),
            "miner_start": self.start_miner,
            "miner_stop": self.stop_miner,
            "eth_sendTransaction": lambda transfer: self.world.send(self, f"nudge {next(self.world.numbers)}"),
            "admin_peers": lambda: [
                {"enode": f"enode://{n.name}@", "network": {"inbound": False}} for n in self.world.list_others(self)
            ],
            "admin_removePeer": lambda enode: True,
            "admin_addPeer": lambda enode: self._greet(enode),
        }
        return answers[method](*params)

    def _describe(self, which: str) -> dict[str, Any]:
        number = self.head.number if which == "latest" else int(which, 16)
        block = self.head.walk_back(self.head.number - number + 1)[-1]
        head = {"number": hex(block.number), "hash": block.hash, "timestamp": hex(block.time)}
        return {**head, "transactions": list(block.transactions)}

    def _describe_snapshot(self, number: int) -> dict[str, Any]:
        chain = self.head.walk_back(self.head.number - number + self.world.limit)[self.head.number - number :]
        recents = {str(b.number): b.sealer for b in chain[: self.world.limit] if b.number}
        return {"signers": {name: {} for name in self.world.names}, "recents": recents}

    def _greet(self, enode: str) -> bool:
        other = next(node for node in self.world.nodes if node.name in enode)
        if other.alive:
            self.world.later(lambda: self.take(other.head), 0.05)
            self.world.later(lambda: other.take(self.head), 0.05)
        return True

    def start_miner(self) -> None:
        self.mining = self.synced = True
        self.assemble()

    def stop_miner(self) -> None:
        # A seal that waits goes on: nothing interrupts it but another one.
        self.mining = False

    def assemble(self) -> None:
        """Begin to seal on top of the head, unless this sealer signed recently."""
        world, number = self.world, self.head.number + 1
        recent = {b.sealer for b in self.head.walk_back(world.limit - 1) if b.number}
        if not self.mining or self.name in recent:
            return
        in_turn = world.names[number % len(world.names)] == self.name
        second = max(self.head.time + 1, math.floor(world.now))
        content = (self.head, second, tuple(sorted(self.pool)))
        if self.seal and (self.seal.block.parent, self.seal.block.time, self.seal.block.transactions) == content:
            return
        wait = 0.0 if in_turn else world.random.random() * 0.5 * world.limit
        weight = self.head.weight + (2 if in_turn else 1)
        block = Block(number, f"0x{next(world.numbers):x}", self.head, second, self.name, weight, content[2])
        self.seal = Seal(block, world.now + max(second - world.now + wait, 0.0) + 0.004)

    def finish_seal(self) -> None:
        """Take the own block that is due, and send it to the others."""
        if self.seal is not None and self.alive and self.seal.due <= self.world.now:
            block, self.seal = self.seal.block, None
            self.world.sealed.append(block)
            self.take(block)
            self.world.spread(self, block)

    def take(self, block: Block) -> None:
        """Choose between the head and a block, as Geth does."""
        if not self.alive or not self.synced or block is self.head:
            return
        known = block in self.head.walk_back(100)
        equal = block.weight == self.head.weight and self.world.random.random() < 0.5
        if known or not (block.weight > self.head.weight or equal):
            return
        gone = {tx for b in self.head.walk_back(100) for tx in b.transactions}
        self.head = block
        self.mined = {tx for b in block.walk_back(1_000_000) for tx in b.transactions}
        self.pool = (self.pool | gone) - self.mined
        self.assemble()

    def hear(self, transaction: str) -> None:
        """Take a transaction into the pool."""
        if self.alive and self.synced and transaction not in self.mined:
            self.pool.add(transaction)


class World:
    """Sealers with their drivers, and a clock that moves by hundredths of a second.

    `loss` is the part of announcements that never come.
    """

    def __init__(
        self, sealers: int, seed: int = 0, *, loss: float = 0.0, heartbeat: float = 3600.0, asleep: bool = True
    ) -> None:
        self.random, self.now, self.loss = random.Random(seed), START, loss
        self.names = [f"0x{i:040x}" for i in range(1, sealers + 1)]
        self.limit, self.numbers = sealers // 2 + 1, count(1)
        self.sealed: list[Block] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        first = self._found(sealers) if asleep else Block(0, "0x0", None, 0, "", 1, ())
        self.nodes = [MemoryGeth(self, name, first) for name in self.names]
        self.notices: list[str] = []
        self.drivers = [
            SealerDriver(
                node,
                confirmations=self.limit,
                notice=lambda error: self.notices.append(error.code),
                clock=lambda: self.now,
                heartbeat=heartbeat,
                sealers=sealers,
            )
            for node in self.nodes
        ]
        self._looks = [START + 0.01 * i for i in range(sealers)]
        for node in self.nodes:
            node.mining = not asleep
            node.assemble()

    def _found(self, sealers: int) -> Block:
        """A chain that has had its first blocks, a moment ago."""
        block = Block(0, "0x0", None, 0, "", 1, ())
        for number in range(1, self.limit + sealers):
            sealer, second = self.names[number % sealers], int(START) - 60 + number
            block = Block(number, f"0xf{number:x}", block, second, sealer, block.weight + 2, ())
        return block

    def list_others(self, node: MemoryGeth) -> list[MemoryGeth]:
        """The peers of a node that are up."""
        return [other for other in self.nodes if other is not node and other.alive]

    def later(self, act: Callable[[], None], seconds: float) -> None:
        """Let something happen after a while."""
        heapq.heappush(self._queue, (self.now + seconds, next(self.numbers), act))

    def spread(self, node: MemoryGeth, block: Block) -> None:
        """Announce a block."""
        for other in self.list_others(node):
            if self.random.random() >= self.loss:
                self.later(lambda other=other: other.take(block), 0.01 + 0.05 * self.random.random())  # type: ignore[misc]

    def send(self, node: MemoryGeth, transaction: str) -> str:
        """Put a transaction into a node's pool, from which it gets to all others."""
        node.hear(transaction)
        for other in self.list_others(node):
            self.later(lambda other=other: other.hear(transaction), 0.005 + 0.02 * self.random.random())  # type: ignore[misc]
        return transaction

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """Let time pass until something holds; returns the seconds that it took."""
        begun = self.now
        while self.now < begun + seconds and not until():
            self.now += TICK
            while self._queue and self._queue[0][0] <= self.now:
                heapq.heappop(self._queue)[2]()
            for node in self.nodes:
                node.finish_seal()
            for i, driver in enumerate(self.drivers):
                if self.now >= self._looks[i]:
                    self._looks[i] = self.now + driver.step()
        return self.now - begun

    def kill(self, node: MemoryGeth) -> None:
        """End a node: its pool and its seal are lost."""
        node.alive, node.seal, node.pool = False, None, set()

    def revive(self, node: MemoryGeth) -> None:
        """Start a node again with its miner on; it greets its peers."""
        node.alive = node.mining = True
        for other in self.list_others(node):
            self.later(lambda other=other: node.take(other.head), 1.0)  # type: ignore[misc]
        node.assemble()

    def is_mined(self, transaction: str) -> bool:
        """Whether all nodes that are up have it in a block."""
        return all(transaction in node.mined for node in self.nodes if node.alive)

    def is_confirmed(self, transaction: str) -> bool:
        """Whether so many blocks follow it at all nodes that are up."""
        return all(
            transaction in {tx for b in node.head.walk_back(1000)[self.limit :] for tx in b.transactions}
            for node in self.nodes
            if node.alive
        )
