"""Whether an IPFS swarm is really private: asked of the daemon's open port, not of its configuration.

A daemon of a private network begins every connection with 24 random bytes, the nonce of its pre-shared key's cipher
(libp2p specs, pnet/Private-Networks-PSK-V1.md); one that talks to anybody begins with multistream-select's greeting.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable

_NONCE_BYTES = 24
GREETING = b"/multistream/"
_TCP = re.compile(r"^/(?:ip4|ip6|dns4|dns6|dns)/([^/]+)/tcp/([0-9]{1,5})(?:/p2p/[A-Za-z0-9]+)?$")


def is_private_swarm(addresses: Iterable[str], seconds: float = 3.0) -> bool | None:
    """Whether the daemon that listens at these libp2p addresses asks its peers for the swarm's key.

    None if no TCP address of it answers in time.
    """
    for host, port in _parse_addresses(addresses):
        try:
            first = _read_first_bytes(host, port, seconds)
        except OSError:
            continue
        return GREETING not in first and len(first) == _NONCE_BYTES
    return None


def _parse_addresses(addresses: Iterable[str]) -> list[tuple[str, int]]:
    matches = [match for match in map(_TCP.match, addresses) if match is not None]
    return list(dict.fromkeys((match[1], int(match[2])) for match in matches if int(match[2]) < 1 << 16))


def _read_first_bytes(host: str, port: int, seconds: float) -> bytes:
    deadline, first = time.monotonic() + seconds, b""
    with socket.create_connection((host, port), timeout=seconds) as connection:
        while len(first) < _NONCE_BYTES and (seconds_left := deadline - time.monotonic()) > 0:
            connection.settimeout(seconds_left)
            try:
                part = connection.recv(_NONCE_BYTES - len(first))
            except TimeoutError:
                break
            if not part:
                break
            first += part
    return first
