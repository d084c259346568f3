"""Checks of the other sites: who is seen on the chain and in the swarm, and whether this site is what its card says.

The names of the peers come from the cards in `founders/` (`coterie network files` leaves them there) and, of the swarm,
from the Catalog, which lists the key of each site's store. A peer that is not seen is this site's failure only where
none is seen: else it may be that other site that is away, and its ports say so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.keys.private_files import read_private
from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.network.peers import (
    ChainPeers,
    Place,
    find_open_ports,
    read_chain_peers,
    read_enode_key,
    read_enode_place,
    read_swarm_place,
)
from coterie_chain.network.programs.geth import P2P_PORT, Geth
from coterie_chain.network.programs.kubo import fingerprint_swarm_key
from coterie_chain.network.swarm import Kubo
from coterie_chain.network.swarm_probe import is_private_swarm
from coterie_chain.store.cid import decode_base58
from coterie_chain.store.kubo import KuboBlobs
from coterie_node.network.checks.check_result import CheckResult, run_check
from coterie_node.network.founding import FOUNDERS, FounderCard
from coterie_node.site.folder import SiteFolder


@dataclass(frozen=True)
class Peers:
    """The other sites in a site's folder, and those that its chain node and its store report; None: not asked."""

    home: SiteFolder
    cards: Mapping[str, FounderCard]

    @property
    def own_card(self) -> FounderCard | None:
        """The card of this site."""
        return self.cards.get(self.home.name)

    @property
    def others(self) -> Mapping[str, FounderCard]:
        """The cards of the other sites."""
        return {name: card for name, card in self.cards.items() if name != self.home.name}

    @cached_property
    def chain(self) -> ChainPeers | None:
        """What the chain node says at its administrator's socket, where there is one."""
        return read_chain_peers(self.home.ipc) if self.home.ipc.is_socket() else None

    @cached_property
    def store(self) -> KuboBlobs | None:
        """The site's Kubo."""
        blobs = self.home.blobs()
        return blobs if isinstance(blobs, KuboBlobs) else None

    @classmethod
    def load(cls, home: SiteFolder) -> Peers:
        """Read the cards in a site's folder; its own is also founder.json. ConfigError for a file that is no card."""
        files = [*sorted((home.root / FOUNDERS).glob("*.json")), home.root / "founder.json"]
        cards = [FounderCard.read(path) for path in files if path.exists()]
        return cls(home, {card.site: card for card in cards})


def check_store_of(peers: Peers) -> Iterator[CheckResult]:
    """All checks of the store's peers that need no chain."""
    yield run_check("swarm", lambda: _check_swarm(peers))
    key = Kubo(peers.home.root / "kubo").key
    if key.exists():
        yield run_check("swarm key", lambda: _show_swarm_key(key))
    yield run_check("card", lambda: _check_card(peers))


def check_peers_of(peers: Peers, ledger: EthereumLedger) -> Iterator[CheckResult]:
    """The sites that are seen on the chain and in the swarm, and the ports of other sites that answer."""
    yield run_check("chain peers", lambda: _check_chain_peers(peers, ledger))
    yield run_check("swarm peers", lambda: _check_swarm_peers(peers, ledger))
    if peers.others:
        yield run_check("ports of others", lambda: _check_ports(peers))


def _check_swarm(peers: Peers) -> CheckResult:
    """Ask the daemon's own port whether it wants the swarm's key from everybody who connects."""
    if peers.store is None:
        return CheckResult(
            "swarm", None, "no Kubo: the store is a folder, and only sites that share it can read each other's payloads"
        )
    private = is_private_swarm(peers.store.list_addresses())
    if private is None:
        cure = "Kubo names no TCP address that answers from here: does it listen on TCP (Addresses.Swarm)?"
        return CheckResult("swarm", False, "no answer", cure)
    cure = (
        "This Kubo talks to anybody. Stop it; put the network's swarm.key into its repository, set "
        "LIBP2P_FORCE_PNET=1, and start it again."
    )
    return CheckResult("swarm", private, "private" if private else "PUBLIC", cure)


def _show_swarm_key(key: Path) -> CheckResult:
    """The fingerprint that all sites must have in common; Kubo's log has the same at each start."""
    fingerprint = fingerprint_swarm_key(read_private(key, "the swarm's key"))
    cure = f"{key} is not a swarm's key. Ask another site for the file again, and start Kubo again."
    return CheckResult("swarm key", bool(fingerprint), f"fingerprint {fingerprint or 'none'}", cure)


def _check_card(peers: Peers) -> CheckResult:
    """Whether chain node and store have the keys that the site's card names: the others wait for these alone."""
    card = peers.own_card
    if card is None:
        return CheckResult("card", None, "no founder.json, so chain node and store cannot be compared with it")
    differing = [name for name, (mine, listed) in _list_identities(peers, card).items() if mine != listed]
    cure = (
        f"The other sites know this site by its founder.json, and its {' and '.join(differing)} differ now. "
        "Put the keys back from the backup (coterie restore), or send the new card to all sites."
    )
    return CheckResult("card", not differing, f"differs: {', '.join(differing)}" if differing else "as founded", cure)


def _list_identities(peers: Peers, card: FounderCard) -> dict[str, tuple[str, str]]:
    """What the files and the running programs say, each beside what the card says."""
    found, root = {}, peers.home.root
    geth = Geth(root / "geth")
    if card.chain == "clique" and geth.nodekey.exists():
        found["enode's key"] = read_enode_key(geth.enode("host", P2P_PORT)), read_enode_key(card.enode)
    if card.chain == "clique" and geth.keystore.is_dir():
        found["sealer"] = geth.sealer.lower(), card.sealer.lower()
    if Kubo(root / "kubo").identity.exists():
        found["peer of the store"] = Kubo(root / "kubo").peer, card.peer
    if peers.chain is not None:
        found["running chain node's key"] = peers.chain.own, read_enode_key(card.enode)
    if peers.store is not None:
        found["running store's peer"] = peers.store.read_peer_id(), card.peer
    return found


def _check_chain_peers(peers: Peers, ledger: EthereumLedger) -> CheckResult:
    if ledger.mines_at_once:
        return CheckResult("chain peers", None, "a development chain of one process")
    if peers.chain is None:
        return _count_chain_peers(ledger)
    keys, seen = peers.others, find_chain_peers(peers, peers.chain)
    count = len(peers.chain.connected)
    cure = (
        "The chain node talks to nobody, so that no block and no record comes or goes. Look at the row `ports of "
        "others`, at the cable and the firewall (port 30303), and whether config.toml lists the others' enodes."
    )
    return CheckResult("chain peers", count > 0, _describe_peers(count, seen, keys), cure)


def _count_chain_peers(ledger: EthereumLedger) -> CheckResult:
    count = ledger.peers
    if count is None:
        found = "the chain node's socket is not at `ipc` of node.toml, and its port does not report them"
        return CheckResult("chain peers", None, found)
    cure = "Give the chain node the peers of peers.json, and open its port."
    return CheckResult("chain peers", count > 0, str(count), cure)


def _check_swarm_peers(peers: Peers, ledger: EthereumLedger) -> CheckResult:
    if peers.store is None:
        return CheckResult("swarm peers", None, "no Kubo")
    connected = peers.store.list_peers()
    names = name_swarm_peers(peers, ledger.sites())
    seen = find_swarm_peers(names, connected)
    key = Kubo(peers.home.root / "kubo").key
    fingerprint = fingerprint_swarm_key(read_private(key, "the swarm's key")) if key.exists() else "not here"
    cure = (
        "The store talks to nobody, so that no payload comes or goes. Either the swarm's key differs from the others' "
        f"(fingerprint here: {fingerprint}; compare it with another site's `coterie doctor`), or port 4001 is closed."
    )
    alone = not names and not connected
    return CheckResult(
        "swarm peers", None if alone else bool(connected), _describe_peers(len(connected), seen, names), cure
    )


def find_chain_peers(peers: Peers, chain: ChainPeers) -> frozenset[str]:
    """The names of the sites that a chain node is connected to, by their cards."""
    keys = {name: read_enode_key(card.enode) for name, card in peers.others.items()}
    return frozenset(name for name, key in keys.items() if key in chain.connected)


def find_swarm_peers(names: Mapping[str, bytes], connected: Collection[str]) -> frozenset[str]:
    """The names of the sites whose stores are among the peers (ids) that a store is connected to."""
    there = {decode_base58(peer)[-32:] for peer in connected}
    return frozenset(name for name, key in names.items() if key in there)


def name_swarm_peers(peers: Peers, sites: Sequence[SiteEntry]) -> dict[str, bytes]:
    """The keys of the other sites' stores: by the Catalog, or by their cards where a seat names none."""
    listed = {s.name: s.peer for s in sites if s.active and any(s.peer)}
    known = {name: decode_base58(card.peer)[-32:] for name, card in peers.others.items()} | listed
    return {name: key for name, key in known.items() if name != peers.home.name}


def _describe_peers(count: int, seen: Collection[str], names: Collection[str]) -> str:
    away = [name for name in names if name not in seen]
    parts = [str(count)] + [f"seen: {', '.join(sorted(seen))}"] * bool(seen)
    return "; ".join(parts + [f"not seen: {', '.join(sorted(away))}"] * bool(away))


def _check_ports(peers: Peers) -> CheckResult:
    """Whether the ports on the others' cards take a connection from here."""
    places: dict[str, Place] = {}
    for name, card in peers.others.items():
        for what, place in (("chain", read_enode_place(card.enode)), ("swarm", read_swarm_place(card.swarm))):
            if place is not None:
                places[f"{name} {what} {place[0]}:{place[1]}"] = place
    opened = find_open_ports(places)
    closed = [name for name in places if name not in opened]
    cure = "No port of any other site answers: look at this machine's cable, its routes and its firewall."
    found = f"{len(opened)} of {len(places)} answer" + f"; silent: {', '.join(closed)}" * bool(closed)
    return CheckResult("ports of others", True if not closed else (None if opened else False), found, cure)


def check_store_answers(home: SiteFolder, probe: bytes) -> CheckResult:
    """Whether the store gives back what it got."""
    blobs = home.blobs()
    well = blobs.get(blobs.put(probe), len(probe)) == probe
    url = home.config.store.url.partition("?")[0]
    return CheckResult(
        "store", well, url, "The store does not give back what it got. Read its log, and start it again."
    )
