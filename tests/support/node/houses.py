"""Sites' nodes as `coterie init` makes them, with rows that hold canaries: values that must turn up nowhere else."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from coterie_chain.errors import PostRejected
from coterie_chain.ethereum.network import Network
from coterie_chain.keys.journal import Journal, MemoryJournal
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_chain.ledger.memory import MemoryChain
from coterie_chain.ledger.protocol import ZERO, Ledger, Post, SiteEntry, Terms
from coterie_chain.store.protocol import MemoryBlobs
from coterie_node.cli.site.init import init_command
from coterie_node.run.study_files import load_study
from coterie_node.site.daemon import Daemon, NodeServices
from coterie_node.site.decisions import DecisionFolder, make_decision
from coterie_node.site.folder import SiteFolder, find_node
from coterie_node.site.watch.log import EventLog

SITES = ("north", "south", "west")
CANARY = 4.123456789
NETWORK = Network("http://127.0.0.1:1", 20240, "0x" + "12" * 20, "0x" + "00" * 32, 0)
STUDY = """
name = "{name}"
sites = ["north", "south", "west"]
formula = "died ~ age + male"
[learner]
name = "glore"
[ledger]
step_seconds = {seconds}
[variables.died]
type = "binary"
[variables.male]
type = "binary"
[variables.age]
type = "number"
range = [-5, 5]
"""


@cache
def make_first_node(site: str) -> tuple[Path, SiteKeys]:
    """A site's node as `coterie init` makes it, and its opened keys; scrypt is slow, and runs once in a process."""
    parent = Path(mkdtemp(prefix="coterie-"))
    atexit.register(shutil.rmtree, parent)
    root = parent / site
    init_command(root, site, "data.csv", "http://127.0.0.1:1", "folder:../store", port=0, light=True)
    write_rows(root / "data.csv", SITES.index(site) if site in SITES else 9)
    node = find_node(root)
    return root, SiteKeys.load(node.keys, read_passphrase(node.passphrase))


def make_node_folder(root: Path, site: str) -> SiteFolder:
    """A site's node with 120 rows of its own. All nodes of one name have the same keys."""
    shutil.copytree(make_first_node(site)[0], root)
    return find_node(root)


def write_rows(path: Path, seed: int, n: int = 120) -> None:
    """Simulated rows; the first age is the canary."""
    rng = np.random.default_rng(seed)
    age, male = rng.normal(size=n).clip(-4, 4), rng.integers(0, 2, n)
    age[0] = CANARY
    died = rng.random(n) < 1 / (1 + np.exp(-(0.5 * age - 0.3 * male)))
    lines = [f"{int(d)},{a!r},{m}" for d, a, m in zip(died, age.tolist(), male.tolist(), strict=True)]
    path.write_text("died,age,male\n" + "\n".join(lines) + "\n")


def study_file(
    root: Path, name: str = "cohort", seconds: int = 600, texts: Mapping[str, str] | None = None, **words: str
) -> Path:
    """A study file; `texts` and `words` replace what stands in it."""
    text = STUDY.format(name=name, seconds=seconds)
    for old, new in {**(texts or {}), **words}.items():
        text = text.replace(old, new)
    path = root / f"{name}.toml"
    path.write_text(text)
    return path


class TransactionPool:
    """Moves that wait for the next block, the better paid first; `mined` counts blocks."""

    def __init__(self) -> None:
        self.moves: dict[tuple[object, ...], tuple[int, Callable[[], object]]] = {}
        self.mined = 0
        self.refused: list[str] = []

    def mine(self) -> None:
        """One block."""
        moves, self.moves = self.moves, {}
        self.mined += 1
        for _, move in sorted(moves.values(), key=lambda entry: entry[0]):
            try:
                move()
            except PostRejected as error:
                self.refused.append(error.name)


class PooledSender:
    """One site's moves on their way into a pool."""

    def __init__(self, pool: TransactionPool, ledger: Ledger) -> None:
        self._pool, self._ledger = pool, ledger
        self._proposed: set[bytes] = set()

    def submit_proposal(self, terms: Terms, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0) -> None:
        if terms.hash not in self._proposed:
            self._proposed.add(terms.hash)
            self._wait((terms.hash,), lambda: self._ledger.propose(terms, snapshot, approvals, release))

    def submit_join(
        self, study: int, hash: bytes, snapshot: bytes = ZERO, approvals: bytes = ZERO, release: int = 0
    ) -> None:
        self._wait((study,), lambda: self._ledger.join(study, hash, snapshot, approvals, release))

    def submit(self, post: Post) -> None:
        self._wait((post.study, post.position, post.attempt), lambda: self._ledger.record(post))

    def submit_early(self, post: Post, *, priority: bool) -> None:
        self._wait((post.study, post.position, post.attempt), lambda: self._ledger.record(post), 0 if priority else 1)

    def _wait(self, what: tuple[object, ...], move: Callable[[], object], rank: int = 1) -> None:
        self._pool.moves.setdefault((self._ledger.me, *what), (rank, move))


class NodeNetwork:
    """Three daemons, or more, in one process, on a memory ledger and a memory store; tests move the clock.

    With `pool` the ledger has blocks, which tests make.
    """

    def __init__(
        self,
        root: Path,
        confirmations: int = 0,
        pool: TransactionPool | None = None,
        names: tuple[str, ...] = SITES,
    ) -> None:
        self.root, self.seconds, self.blocks, self.pool = root, 1_000_000.0, 0, pool
        self.homes = {name: make_node_folder(root / name, name) for name in names}
        self.keys = {name: make_first_node(name)[1] for name in names}
        entries = [SiteEntry(k, n, s.address, s.sealing) for k, (n, s) in enumerate(self.keys.items(), 1)]
        self.chain = MemoryChain(entries, lambda: int(self.seconds))
        self.blobs = MemoryBlobs()
        self.journals: dict[str, Journal] = {name: MemoryJournal() for name in names}
        self.logs = {name: (root / name / "log.jsonl").open("a+") for name in names}
        self.daemons = {name: self.daemon(name) for name in names}

    def daemon(self, name: str) -> Daemon:
        """A site's daemon, as a fresh process would make it."""
        ledger = self.chain.ledger(self.keys[name].address)
        return Daemon(
            NodeServices(
                home=find_node(self.root / name),
                keys=self.keys[name],
                network=NETWORK,
                ledger=ledger,
                ahead=None if self.pool is None else PooledSender(self.pool, ledger),
                blobs=self.blobs,
                journal=self.journals[name],
                clock=lambda: self.seconds,
                epoch=lambda: int(self.seconds),
                newest=lambda: self.blocks,
                log=EventLog(self.logs[name]),
            )
        )

    def decisions(self, name: str) -> DecisionFolder:
        return DecisionFolder(self.root / name / "decisions")

    def propose(self, path: Path, by: str = "north") -> bytes:
        """Let a site's people propose a study; returns its hash."""
        study = load_study(path)
        self.decisions(by).save_document(study.hash, study.document)
        self.decisions(by).record(make_decision(study.hash, "propose"))
        return study.hash

    def approve(self, study: bytes, *names: str) -> None:
        for name in names:
            self.decisions(name).record(make_decision(study, "approve"))

    def settle(self) -> None:
        """Beats until nobody has anything to do."""
        moved = True
        while moved:
            moved = False
            for daemon in self.daemons.values():
                moved |= daemon.tick()

    def log(self, name: str) -> str:
        self.logs[name].seek(0)
        return self.logs[name].read()

    def phases(self) -> dict[str, list[str]]:
        return {name: [e.phase for e in daemon.tasks.values()] for name, daemon in self.daemons.items()}
