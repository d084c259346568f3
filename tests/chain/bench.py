"""One network under test, in memory or on Anvil, with the same sites and the same moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from typing import Protocol

import pytest
from chain.anvil import Anvil
from eth_account import Account
from eth_account.signers.local import LocalAccount

from coterie_chain.cid import raw_cid
from coterie_chain.deploy import Network, deploy
from coterie_chain.errors import PostRejected
from coterie_chain.ethereum import EthereumLedger
from coterie_chain.ledger import Event, Ledger, Post, Record, Silence, SiteEntry, Terms
from coterie_chain.memory import MemoryChain

FOUNDERS = ("ana", "bob", "cyd")
HASH = sha256(b"the study file").digest()
GLORE = Terms(HASH, FOUNDERS, (), ("each", "server"), (), max_rounds=3, timeout=60)


class Bench(Protocol):
    """A network of three founders."""

    def ledger(self, account: LocalAccount | None) -> Ledger:
        """A handle for an account."""

    def sleep(self, seconds: int) -> None:
        """Let time pass on the ledger."""


class MemoryBench:
    """The network in memory."""

    def __init__(self) -> None:
        self._now = 1_800_000_000
        self._chain = MemoryChain(map(entry, FOUNDERS), lambda: self._now)

    def ledger(self, account: LocalAccount | None) -> Ledger:
        return self._chain.ledger(account.address if account else None)

    def sleep(self, seconds: int) -> None:
        self._now += seconds


class AnvilBench:
    """The network on Anvil."""

    def __init__(self, anvil: Anvil) -> None:
        self._anvil = anvil
        self.network: Network = deploy(anvil.url, map(entry, FOUNDERS))
        self._open: list[EthereumLedger] = []

    def ledger(self, account: LocalAccount | None) -> EthereumLedger:
        self._open.append(EthereumLedger(self.network, account))
        return self._open[-1]

    def sleep(self, seconds: int) -> None:
        self._anvil.rpc("evm_increaseTime", seconds)

    def close(self) -> None:
        for ledger in self._open:
            ledger.close()


class Sites:
    """Handles of the founders on a bench, by name."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._ledgers: dict[str, Ledger] = {}

    def __getitem__(self, name: str) -> Ledger:
        if name not in self._ledgers:
            self._ledgers[name] = self.bench.ledger(account(name))
        return self._ledgers[name]

    def start(self, terms: Terms = GLORE) -> int:
        """Propose a study and let everybody join."""
        first, *others = terms.sites
        study = self[first].propose(terms)
        for name in others:
            self[name].join(study, terms.hash)
        return study

    def draft(self, study: int, site: str, converged: bool = False) -> Post:
        """The post that the open step wants from a site."""
        opened = self[site].view(study).open
        assert opened is not None
        payload = f"{opened.position}/{opened.attempt}/{site}".encode()
        digest = sha256(payload).digest()
        position, attempt, basis = opened.position, opened.attempt, opened.basis
        verdict = sha256(b"verdict").digest()
        return Post(study, position, attempt, raw_cid(payload), digest, len(payload), converged, basis, verdict)

    def post(self, study: int, site: str, converged: bool = False) -> Post:
        """Record that post."""
        post = self.draft(study, site, converged)
        self[site].record(post)
        return post

    def step(self, study: int, converged: bool = False) -> None:
        """Let everybody post whom the open step waits for."""
        opened = self["ana"].view(study).open
        assert opened is not None
        for site in opened.posters:
            if site not in opened.posted:
                self.post(study, site, converged)


def account(name: str) -> LocalAccount:
    """The signing account of a test's site."""
    made: LocalAccount = Account.from_key(sha256(b"key of " + name.encode()).digest())
    return made


def sealing(name: str) -> bytes:
    """Its sealing key."""
    return sha256(b"sealing key of " + name.encode()).digest()


def entry(name: str) -> SiteEntry:
    """Its entry in the Catalog."""
    return SiteEntry(0, name, account(name).address, sealing(name), sha256(b"peer " + name.encode()).digest())


def refused(move: Callable[..., object], *args: object) -> tuple[object, ...]:
    """Name and values of the error with which a move is refused."""
    with pytest.raises(PostRejected) as caught:
        move(*args)
    return (caught.value.name, *caught.value.values)


def timeless(entries: Iterable[Record | Event]) -> list[Record | Event]:
    """Entries without what two ledgers cannot have in common: block, time, transaction and hash chain."""
    return [
        replace(e, block=0, time=0, tx="", head=b"") if isinstance(e, Record) else replace(e, block=0, time=0, tx="")
        for e in entries
    ]


EXCLUDING = replace(GLORE, silence=Silence.EXCLUDE)
RECOMPUTED = sha256(b"recomputed").digest()
