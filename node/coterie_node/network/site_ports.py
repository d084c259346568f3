"""The ports of one site: two that the other sites reach, and three on loopback for its own programs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from coterie_chain.network.programs import geth, kubo
from coterie_chain.network.programs.ports import read_ports

FILE = "ports.json"
HEALTH_PORT = 9464


@dataclass(frozen=True)
class SitePorts:
    """`chain` and `swarm` are for the other sites; `rpc`, `store` and `health` stay on loopback."""

    chain: int = geth.P2P_PORT
    swarm: int = kubo.SWARM_PORT
    rpc: int = geth.RPC_PORT
    store: int = kubo.API_PORT
    health: int = HEALTH_PORT

    @classmethod
    def count_from(cls, first: int) -> SitePorts:
        """Five ports in a row, for several sites on one machine."""
        return cls(*range(first, first + 5))

    @classmethod
    def read(cls, folder: Path) -> SitePorts:
        """The ports of a site's folder; the usual ones where it names none."""
        named = {name: port for name, port in read_ports(folder / FILE).items() if name in cls.__dataclass_fields__}
        return replace(cls(), **named)

    def write(self, folder: Path) -> None:
        """Keep the ports in a site's folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")
