"""Daemons whose interactive steps go over TLS on loopback, and of which any may be killed at any message."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from support.node.houses import NETWORK, NodeNetwork

from coterie_chain.ledger.memory import MemoryChain
from coterie_learners.errors import SessionLost
from coterie_node.peers.interactive_session import SessionChannel
from coterie_node.peers.tls import TlsExchange
from coterie_node.peers.transport import Timeouts
from coterie_node.site.config import CONFIG
from coterie_node.site.daemon import Daemon

LOOPBACK = ("127.0.0.1", 0)
# Whether a site dies at what it sends now: the receiver, the bytes, and how many messages went before.
Fatal = Callable[[str, bytes, int], bool]


class MortalChannel:
    """A site's end of a session, which its process takes along when it dies."""

    def __init__(self, inner: SessionChannel, exchange: MortalExchange) -> None:
        self._inner, self._exchange = inner, exchange

    def connect(self, seconds: float) -> tuple[str, ...]:
        return self._inner.connect(seconds)

    def send(self, to: str, data: bytes) -> None:
        """Send, or die before the bytes leave: this thread does nothing more until a fresh process is there."""
        if self._exchange.is_fatal(to, data):
            self._exchange.die()
            self._exchange.replaced.wait(60.0)
            raise SessionLost("CO-P603", "This process was killed.", to)
        self._inner.send(to, data)

    def receive(self, sender: str) -> bytes:
        return self._inner.receive(sender)

    def close(self) -> None:
        if not self._exchange.dead.is_set():
            self._inner.close()

    def abandon(self) -> None:
        self._inner.abandon()


class MortalExchange:
    """A site's TLS exchange; `fatal` says at which message the site dies, `sizes` has those that it sent."""

    def __init__(self, inner: TlsExchange, fatal: Fatal | None = None) -> None:
        self.inner, self.fatal = inner, fatal
        self.sizes: list[int] = []
        self.dead, self.replaced = threading.Event(), threading.Event()

    def channel(self, me: str, session: Hashable, parties: Sequence[str]) -> SessionChannel:
        return MortalChannel(self.inner.channel(me, session, parties), self)

    def is_fatal(self, to: str, data: bytes) -> bool:
        self.sizes.append(len(data))
        return self.fatal is not None and self.fatal(to, data, len(self.sizes) - 1)

    def die(self) -> None:
        """Sockets close as the kernel closes those of a killed process."""
        self.inner.close()
        self.dead.set()


class TalkingNetwork(NodeNetwork):
    """Three daemons on a memory ledger that talk over TLS; one may die at a message of its own and come back."""

    def __init__(self, root: Path, fatal: Mapping[str, Fatal] | None = None) -> None:
        self.exchanges: dict[str, MortalExchange] = {}
        self.deaths: list[str] = []
        self._fatal = dict(fatal or {})
        super().__init__(root)
        for name in self.homes:
            self._open_exchange(name, LOOPBACK)
        for name in self.homes:
            self._write_addresses(name)
            self.daemons[name] = self.daemon(name)

    def daemon(self, name: str) -> Daemon:
        daemon = super().daemon(name)
        return Daemon(replace(daemon.services, exchange=self.exchanges.get(name)))

    def restart(self, name: str) -> None:
        """A fresh process of a site at the same address; it does not die again."""
        self.deaths.append(name)
        self._fatal.pop(name, None)
        killed = self.exchanges[name]
        killed.inner.close()
        self._open_exchange(name, killed.inner.addresses[name])
        self.daemons[name] = self.daemon(name)
        killed.replaced.set()

    def settle_talking(self, seconds: float = 60.0) -> None:
        """Beats until nobody moves or talks; whoever dies is started again. AssertionError after `seconds`."""
        latest = time.monotonic() + seconds
        quiet = 0
        while quiet < 2:
            assert time.monotonic() < latest, f"daemons still talk after {seconds:g} s: {self.phases()}"
            moved = False
            for name in list(self.daemons):
                if self.exchanges[name].dead.is_set():
                    self.restart(name)
                moved |= self.daemons[name].tick()
            talking = any(daemon._must_continue() for daemon in self.daemons.values())
            quiet = 0 if moved or talking else quiet + 1
            time.sleep(0.005)

    def close(self) -> None:
        """Close sockets and logs."""
        for exchange in self.exchanges.values():
            exchange.inner.close()
        for log in self.logs.values():
            log.close()

    def _write_addresses(self, name: str) -> None:
        """The part of node.toml without which a daemon takes no part in interactive steps."""
        places = {n: "{}:{}".format(*e.inner.addresses[n]) for n, e in self.exchanges.items()}
        peers = ", ".join(f'{n} = "{place}"' for n, place in places.items() if n != name)
        with (self.root / name / CONFIG).open("a") as file:
            file.write(f'\n[talk]\nlisten = "{places[name]}"\npeers = {{ {peers} }}\n')

    def _open_exchange(self, name: str, address: tuple[str, int]) -> None:
        chain: MemoryChain = self.chain

        def secret(peer: str) -> bytes:
            listed = {entry.name: entry.sealing for entry in chain.ledger(None).sites()}
            return self.keys[name].derive_shared_secret(listed[peer])

        places = {other: exchange.inner.addresses[other] for other, exchange in self.exchanges.items()}
        known = {**dict.fromkeys(self.homes, LOOPBACK), **places, name: address}
        inner = TlsExchange(name, known, secret, NETWORK.scope, Timeouts(20, 5))
        self.exchanges[name] = MortalExchange(inner, self._fatal.get(name))
        for exchange in self.exchanges.values():
            exchange.inner.addresses[name] = inner.addresses[name]
            inner.addresses.update({n: e.inner.addresses[n] for n, e in self.exchanges.items()})
