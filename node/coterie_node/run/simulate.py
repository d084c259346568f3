"""A whole study in one process: the same runners as in the daemon, over the memory ledger and the memory store."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

from coterie_chain.keys.site_keys import SiteKeys, is_usable_key
from coterie_chain.ledger.memory import MemoryChain
from coterie_chain.ledger.protocol import Ledger, SiteEntry
from coterie_chain.store.protocol import BlobStore, MemoryBlobs
from coterie_learners.core.protocol import Machine, Site, derive_pad
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import StudyError
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Data
from coterie_node.peers.interactive_session import Exchange, MemoryTransport
from coterie_node.release.gate import Gate
from coterie_node.run.codec import PayloadCodec
from coterie_node.run.follower import Progress
from coterie_node.run.runner import Runner
from coterie_node.run.study_files import study_terms
from coterie_node.run.view_grants import View, join_views

ProgressObserver = Callable[[Progress], None]
# Bytes of pads that wait for the second site of their pair: those of 200 sites and ten columns are 21 MB.
MOST_PAD_BYTES = 1 << 26


@dataclass(frozen=True)
class World:
    """A simulated network: its chain, its store, the keys of its sites, and the study's id on the ledger."""

    study: Study
    chain: MemoryChain
    blobs: BlobStore
    keys: Mapping[str, SiteKeys]
    number: int
    pairs: PairSecrets = field(default_factory=lambda: PairSecrets(), repr=False)

    def ledger(self, site: str | None = None) -> Ledger:
        """One site's handle on the ledger, or a reader's."""
        return self.chain.ledger(None if site is None else self.keys[site].address)

    def view(self) -> View:
        """What all sites together can grant an auditor."""
        return join_views(self.ledger(), self.blobs, self.number, {name: [keys] for name, keys in self.keys.items()})


def make_world(study: Study, clock: Callable[[], int] = lambda: 0) -> World:
    """A network of the study's sites with fresh keys, on whose ledger all have joined the study."""
    keys = {name: SiteKeys.of(secrets.token_bytes(32), secrets.token_bytes(32)) for name in study.sites}
    founders = [SiteEntry(0, name, k.address, k.sealing) for name, k in keys.items()]
    chain = MemoryChain(founders, clock)
    first, *others = study.sites
    number = chain.ledger(keys[first].address).propose(study_terms(study))
    for name in others:
        chain.ledger(keys[name].address).join(number, study.hash)
    blobs = MemoryBlobs()
    blobs.put(study.document)
    return World(study, chain, blobs, keys, number)


def site_of(
    study: Study,
    name: str,
    rows: Data | None,
    keys: SiteKeys,
    entries: Iterable[SiteEntry],
    session: str,
    pairs: PairSecrets | None = None,
) -> Site:
    """What a learner sees at one site: its rows, its secret stream, and a shared key for every other participant.

    `session` is the same at all sites and never twice: the ledger's own name and the study's number on it. A peer whose
    key is unusable has no shared key: it may have taken that key after the study began. `pairs`: of a simulation.
    """
    names = frozenset(study.sites) - {name}
    others = (e for e in entries if e.name in names)
    peers = {e.name: e.sealing for e in others if is_usable_key(e.sealing)}
    share = keys.derive_shared_secret if pairs is None else partial(pairs.share, keys)
    shared = {peer: share(public) for peer, public in peers.items()}
    derive = derive_pad if pairs is None else pairs.derive
    return Site(study, name, rows, keys.stream, shared, session=session, sealing=keys.sealing, derive=derive)


class PairSecrets:
    """What two sites of one process derive from each other's keys, worked out for the first and handed to the second.

    The bytes are those that each derives alone. They are dropped once both have them; at most `MOST_PAD_BYTES` wait.
    """

    def __init__(self) -> None:
        self._shared: dict[frozenset[bytes], bytes] = {}
        self._pads: dict[tuple[bytes, str, int], bytes] = {}
        self._waiting_bytes = 0
        self._lock = Lock()

    def share(self, keys: SiteKeys, peer: bytes) -> bytes:
        """The secret of a pair of sealing keys."""
        pair = frozenset((keys.sealing, peer))
        known = self._shared.pop(pair, None)
        return self._shared.setdefault(pair, keys.derive_shared_secret(peer)) if known is None else known

    def derive(self, key: bytes, label: str, size: int) -> bytes:
        """The pad of a pair."""
        with self._lock:
            known = self._pads.pop((key, label, size), None)
            if known is not None:
                self._waiting_bytes -= size
                return known
        pad = derive_pad(key, label, size)
        with self._lock:
            if self._waiting_bytes + size <= MOST_PAD_BYTES and (key, label, size) not in self._pads:
                self._pads[key, label, size] = pad
                self._waiting_bytes += size
        return pad


def make_runner(
    world: World,
    name: str,
    rows: Data | None,
    exchange: Exchange | None = None,
    observe: ProgressObserver = lambda _: None,
    gate: Gate | None = None,
) -> Runner:
    """A participant's runner in a simulated network."""
    ledger, keys = world.ledger(name), world.keys[name]
    entries = ledger.sites()
    site = site_of(world.study, name, rows, keys, entries, str(world.number), world.pairs)
    machine = Machine(learner_of(world.study).script, site if gate is None else gate.seat(site))
    codec = PayloadCodec(world.study, name, keys, {e.name: e.sealing for e in entries})
    return Runner(machine, ledger, world.blobs, world.number, codec, gate=gate, exchange=exchange, observe=observe)


def run(runners: Iterable[Runner]) -> None:
    """Let every runner take turns until none has anything to do; parties that talk are waited for."""
    crew = list(runners)
    while not all(r.done for r in crew):
        # Before the turns: what ends between a party's turn and the question is taken up at the next turn.
        talking = any(r.talking for r in crew)
        moved = [r.turn() for r in crew]
        if not any(moved) and not talking and not any(r.talking for r in crew):
            return


def simulate(
    study: Study,
    rows: Mapping[str, Data],
    observe: ProgressObserver = lambda _: None,
    gates: Mapping[str, Gate] | None = None,
) -> tuple[World, dict[str, Runner], float]:
    """Run a study over its sites' rows; returns the world, the runners with their results, and the seconds taken.

    Without `gates` nothing is judged before it leaves a site.
    """
    check_sites(study, rows)
    world, hub, start = make_world(study), MemoryTransport(), time.perf_counter()
    first = study.sites[0]
    runners = {
        name: make_runner(
            world, name, rows.get(name), hub, observe if name == first else lambda _: None, (gates or {}).get(name)
        )
        for name in study.sites
    }
    run(runners.values())
    return world, runners, time.perf_counter() - start


def check_sites(study: Study, site_names: Iterable[str]) -> None:
    """StudyError unless rows are given for exactly the study's sites."""
    wanted = set(study.owners)
    missing, unknown = sorted(wanted - set(site_names)), sorted(set(site_names) - wanted)
    if missing or unknown:
        lacks = [f"data is missing for {', '.join(missing)}"] * bool(missing)
        has = [f"data is given for {', '.join(unknown)}, of which it takes none"] * bool(unknown)
        message = f"The study {study.name!r} has the sites {', '.join(study.sites)}; {'; '.join([*lacks, *has])}"
        raise StudyError("CO-S105", f"{message}. Give one --data SITE=FILE for each site that has rows.")
