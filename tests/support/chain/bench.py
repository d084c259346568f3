"""One network under test, in memory or on Anvil, with the same sites and the same moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256
from typing import Protocol

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount
from support.chain.anvil import AnvilClient, RpcError

from coterie_chain.broker.broker_ledger import BrokerLedger
from coterie_chain.broker.message_log import MemoryBroker, MessageLog, OpenLog
from coterie_chain.errors import PostRejected
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ledger.memory import MemoryChain
from coterie_chain.ledger.protocol import Event, Ledger, Post, Record, Silence, SiteEntry, Terms
from coterie_chain.network.deploy import Network, deploy
from coterie_chain.store.cid import compute_raw_cid

BENCH_FOUNDERS = ("ana", "bob", "cyd")
STUDY_HASH = sha256(b"the study file").digest()
GLORE_TERMS = Terms(STUDY_HASH, BENCH_FOUNDERS, (), ("each", "server"), (), max_rounds=3, timeout=60)


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
        self._chain = MemoryChain(map(build_entry, BENCH_FOUNDERS), lambda: self._now)

    def ledger(self, account: LocalAccount | None) -> Ledger:
        return self._chain.ledger(account.address if account else None)

    def sleep(self, seconds: int) -> None:
        self._now += seconds


class BrokerBench:
    """The network over the logs of a broker, by default of the memory twin."""

    def __init__(self, open_log: OpenLog | None = None, name: str = "moves") -> None:
        self._now = 1_800_000_000
        self._open_log, self._name = open_log or MemoryBroker().open, name
        self._open: list[BrokerLedger] = []

    def ledger(self, account: LocalAccount | None) -> BrokerLedger:
        founders = map(build_entry, BENCH_FOUNDERS)
        address = account.address if account else None
        self._open.append(BrokerLedger(self._open_log(self._name), founders, address, lambda: self._now))
        return self._open[-1]

    def sleep(self, seconds: int) -> None:
        self._now += seconds

    def close(self) -> None:
        for ledger in self._open:
            ledger.close()


class PatientLog:
    """A log whose reads have every message that any handle of a bench has appended; RabbitMQ takes its time."""

    def __init__(self, log: MessageLog, appended: list[bytes]) -> None:
        self._log, self._appended, self._count = log, appended, 0
        self.close = log.close

    def append(self, message: bytes) -> None:
        self._appended.append(message)
        self._log.append(message)

    def read(self, seconds: float) -> list[bytes]:
        messages: list[bytes] = []
        deadline = time.monotonic() + 30
        while self._count + len(messages) < len(self._appended) and time.monotonic() < deadline:
            messages += self._log.read(1)
        self._count += len(messages)
        return messages


class AnvilBench:
    """The network on Anvil."""

    def __init__(self, anvil: AnvilClient) -> None:
        self._anvil = anvil
        self.network: Network = deploy(anvil.url, map(build_entry, BENCH_FOUNDERS))
        self._open: list[EthereumLedger] = []

    def ledger(self, account: LocalAccount | None) -> EthereumLedger:
        self._open.append(EthereumLedger(self.network, account))
        return self._open[-1]

    def sleep(self, seconds: int) -> None:
        self._anvil.rpc("evm_increaseTime", seconds)

    def close(self) -> None:
        for ledger in self._open:
            ledger.close()


class AddressBench(AnvilBench):
    """The network on any node, named by its address: its clock is moved where the node lets us, and waited for else.

    The accounts of the bench have no ether: gas is free on the chain, or the node's own keys fund them first.
    """

    def __init__(self, url: str) -> None:
        self._client = AnvilClient(url)
        super().__init__(self._client)

    def close(self) -> None:
        super().close()
        self._client.close()

    def sleep(self, seconds: int) -> None:
        try:
            super().sleep(seconds)
        except RpcError:
            time.sleep(seconds)


class Sites:
    """Handles of the founders on a bench, by name."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self._ledgers: dict[str, Ledger] = {}

    def __getitem__(self, name: str) -> Ledger:
        if name not in self._ledgers:
            self._ledgers[name] = self.bench.ledger(derive_account(name))
        return self._ledgers[name]

    def start(self, terms: Terms = GLORE_TERMS) -> int:
        """Propose a study and let everybody join."""
        first, *others = terms.sites
        study = self[first].propose(terms)
        for name in others:
            self[name].join(study, terms.hash)
        return study

    def draft(self, study: int, site: str, converged: bool = False) -> Post:
        """The post that the open step wants from a site."""
        step = self[site].view(study).open
        assert step is not None
        payload = f"{step.position}/{step.attempt}/{site}".encode()
        digest = sha256(payload).digest()
        position, attempt, basis = step.position, step.attempt, step.basis
        verdict = sha256(b"verdict").digest()
        return Post(study, position, attempt, compute_raw_cid(payload), digest, len(payload), converged, basis, verdict)

    def post(self, study: int, site: str, converged: bool = False) -> Post:
        """Record that post."""
        post = self.draft(study, site, converged)
        self[site].record(post)
        return post

    def step(self, study: int, converged: bool = False) -> None:
        """Let each site post that the open step waits for."""
        step = self["ana"].view(study).open
        assert step is not None
        for site in step.posters:
            if site not in step.posted:
                self.post(study, site, converged)


def derive_account(name: str) -> LocalAccount:
    """The signing account of a test's site."""
    signing_account: LocalAccount = Account.from_key(sha256(b"key of " + name.encode()).digest())
    return signing_account


def derive_sealing_key(name: str) -> bytes:
    """Its sealing key."""
    return sha256(b"sealing key of " + name.encode()).digest()


def build_entry(name: str) -> SiteEntry:
    """Its entry in the Catalog."""
    return SiteEntry(
        0, name, derive_account(name).address, derive_sealing_key(name), sha256(b"peer " + name.encode()).digest()
    )


def catch_refusal(move: Callable[..., object], *args: object) -> tuple[object, ...]:
    """Name and values of the error with which a move is refused."""
    with pytest.raises(PostRejected) as caught:
        move(*args)
    return (caught.value.name, *caught.value.values)


def strip_times(entries: Iterable[Record | Event]) -> list[Record | Event]:
    """Entries without what two ledgers cannot have in common: block, time, transaction and hash chain."""
    return [
        replace(e, block=0, time=0, tx="", head=b"") if isinstance(e, Record) else replace(e, block=0, time=0, tx="")
        for e in entries
    ]


EXCLUDING_TERMS = replace(GLORE_TERMS, silence=Silence.EXCLUDE)
RECOMPUTED = sha256(b"recomputed").digest()
