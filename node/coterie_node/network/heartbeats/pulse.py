"""The part of a daemon that says how this site is, and hears how the others are.

It sends no transaction, so that a chain that sleeps goes on sleeping. Its faults never end the daemon:
`coterie doctor --network` shows them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from threading import Event as Flag
from typing import Any

from coterie_chain.errors import ChainError
from coterie_chain.keys.private_files import read_private
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.network.gossip import Gossip
from coterie_chain.network.programs.kubo import fingerprint_swarm_key
from coterie_chain.network.swarm import Kubo
from coterie_node.errors import ConfigError
from coterie_node.network.checks.peer_checks import Peers, find_chain_peers, find_swarm_peers, name_swarm_peers
from coterie_node.network.heartbeats.heartbeat import Heartbeat, HeartbeatLog
from coterie_node.site.folder import SiteFolder
from coterie_node.site.watch.log import code_of

# Seconds between two heartbeats, of one listening, and after a fault.
SPEAK_SECONDS, LISTEN_SECONDS, FAULT_PAUSE = 120.0, 30.0, 10.0


@dataclass(frozen=True)
class Members:
    """The sites of the Catalog, and the number of the newest block, as of one look."""

    sites: Sequence[SiteEntry]
    head: int


@dataclass
class Pulse:
    """One site's heartbeats: `look` reads the ledger, `gossip` is the room, `clock` counts seconds since 1970."""

    home: SiteFolder
    keys: SiteKeys
    gossip: Gossip
    log: HeartbeatLog
    look: Callable[[], Members]
    clock: Callable[[], float] = time.time
    fault: str = ""
    _next: float = 0.0
    _seen: frozenset[str] = field(default_factory=frozenset)

    def run(self, stop: Flag) -> None:
        """Beat and listen until `stop` is set."""
        while not stop.is_set():
            if not self.step():
                stop.wait(FAULT_PAUSE)

    def step(self) -> bool:
        """Send a heartbeat if one is due or other sites are seen than before, then listen; False after a fault."""
        try:
            members = self.look()
            beat = self._observe(members)
            seen = frozenset(beat.swarm_peers or ())
            # The others believe nobody that the Catalog does not list: a newcomer waits for its seat.
            listed = any(site.name == self.home.name for site in members.sites)
            # A clock that was set back is no reason to say nothing until it has gone the same way again.
            due = not self._next - SPEAK_SECONDS <= self.clock() < self._next
            if listed and (due or seen != self._seen):
                self._send(beat, members.sites)
                self._next, self._seen = self.clock() + SPEAK_SECONDS, seen
            heard = self.gossip.listen(LISTEN_SECONDS)
            # A seat may have come while it listened.
            self.log.hear(heard, self.look().sites, self.clock())
        except (ChainError, ConfigError, OSError) as error:  # a card may be written just now, or the disk be full
            self.fault = f"{code_of(error)}: {error}"
            return False
        self.fault = ""
        return True

    def as_dict(self) -> dict[str, Any]:
        """What the API shows: all heartbeats as they were signed, the refusals, and the last fault."""
        return {
            "network": self.log.network,
            "fault": self.fault,
            "heartbeats": [beat.model_dump(mode="json") for _, beat in sorted(self.log.newest.items())],
            "refused": [[name, why.value, r.count, r.last] for (name, why), r in sorted(self.log.refused.items())],
        }

    def _send(self, beat: Heartbeat, sites: Sequence[SiteEntry]) -> None:
        message = beat.sign(self.keys).message
        # This site's own is in its log as the others have it.
        self.log.hear([message], sites, self.clock())
        self.gossip.publish(message)

    def _observe(self, members: Members) -> Heartbeat:
        peers = Peers.load(self.home)
        chain, swarm = _look_at_chain(peers), _look_at_swarm(peers, members.sites)
        others = {site.name for site in members.sites if site.active} - {self.home.name}
        key = Kubo(self.home.root / "kubo").key
        return Heartbeat(
            network=self.log.network,
            site=self.home.name,
            time=int(self.clock()),
            version=version("coterie"),
            head=members.head,
            chain_peers=_sort_seen(chain, others),
            swarm_peers=_sort_seen(swarm, others),
            chain_unknown=tuple(sorted(others - peers.others.keys())),
            swarm_unknown=tuple(sorted(others - name_swarm_peers(peers, members.sites).keys())),
            swarm_key=fingerprint_swarm_key(read_private(key, "the swarm's key")) if key.exists() else "",
            free=shutil.disk_usage(self.home.root).free,
        )


def _look_at_chain(peers: Peers) -> frozenset[str] | None:
    """The sites that the chain node is connected to; None where it cannot be asked."""
    return None if peers.chain is None else find_chain_peers(peers, peers.chain)


def _look_at_swarm(peers: Peers, sites: Sequence[SiteEntry]) -> frozenset[str] | None:
    """The sites that the store is connected to; None where there is no swarm."""
    return None if peers.store is None else find_swarm_peers(name_swarm_peers(peers, sites), peers.store.list_peers())


def _sort_seen(seen: frozenset[str] | None, others: set[str]) -> tuple[str, ...] | None:
    return None if seen is None else tuple(sorted(seen & others))
