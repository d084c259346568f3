"""Which peers a site's programs have, which they are connected to, and whether another site's port can be reached."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from coterie_chain.network.programs.ipc import ask_all

REACH_SECONDS = 3.0
# With more programs on one machine each has some of the others as peers.
ALL_TO_ALL = 16
_ENODE = re.compile(r"^enode://([0-9a-f]{128})@([^/?#]+):([0-9]{1,5})(?:\?.*)?$")
_MULTIADDR = re.compile(r"^/(?:ip4|ip6|dns4|dns6|dns)/([^/]+)/tcp/([0-9]{1,5})$")

# A host and a TCP port.
Place = tuple[str, int]


@dataclass(frozen=True)
class ChainPeers:
    """What a Geth says over its administrator's socket: its own public key and its peers' (hexadecimal)."""

    own: str
    connected: frozenset[str]


def read_chain_peers(socket_path: Path) -> ChainPeers:
    """The chain node's own key and those of its peers; LedgerUnreachable if it does not answer there."""
    peers, own = ask_all(socket_path, [("admin_peers", ()), ("admin_nodeInfo", ())])
    return ChainPeers(read_enode_key(str(own["enode"])), frozenset(read_enode_key(str(p["enode"])) for p in peers))


def read_enode_key(enode: str) -> str:
    """The public key in the address of a chain node (hexadecimal); empty for another text."""
    match = _ENODE.match(enode)
    return match[1] if match else ""


def read_enode_place(enode: str) -> Place | None:
    """Host and port in the address of a chain node."""
    match = _ENODE.match(enode)
    return (match[2].strip("[]"), int(match[3])) if match and int(match[3]) < 1 << 16 else None


def read_swarm_place(multiaddr: str) -> Place | None:
    """Host and port in the libp2p address of a store."""
    match = _MULTIADDR.match(multiaddr)
    return (match[1], int(match[2])) if match and int(match[2]) < 1 << 16 else None


def find_open_ports(places: Mapping[str, Place], seconds: float = REACH_SECONDS) -> frozenset[str]:
    """The names of those places at which something takes a TCP connection within so many seconds."""
    if not places:
        return frozenset()
    with ThreadPoolExecutor(max_workers=min(len(places), 32)) as pool:
        answers = pool.map(lambda place: _can_connect(place, seconds), places.values())
        return frozenset(name for name, well in zip(places, answers, strict=True) if well)


def _can_connect(place: Place, seconds: float) -> bool:
    try:
        with socket.create_connection(place, timeout=seconds):
            return True
    except OSError:
        return False


def list_neighbours(place: int, count: int) -> list[int]:
    """The places of a program's peers among so many of one machine: all others, or those 1, 2, 4, ... away in a ring.

    In the ring everybody has at most 2 log2(count) + 2 peers and is no more steps away than that. What each program
    sends to all its peers is sent some count log(count) times, and not count^2 times.
    """
    if count <= ALL_TO_ALL:
        return [other for other in range(count) if other != place]
    far = [1 << power for power in range((count // 2).bit_length())]
    return sorted({(place + sign * step) % count for step in far for sign in (1, -1)} - {place})
