"""An invitation: what a new site must know about a network, in a file without secrets.

The passphrases, the swarm key and tokens go another way. Both ends compare the fingerprint by telephone.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from coterie_chain.ethereum.network import Network, read_keys
from coterie_learners.study.document import Frozen, Name, Text
from coterie_node.site.strict_file import read_strict

MAX_INVITATION_BYTES = 1 << 20
Hex32 = Annotated[str, Field(pattern="^0x[0-9a-f]{64}$")]
KeyAddress = Annotated[str, Field(pattern="^0x[0-9a-fA-F]{40}$")]
Peer = Annotated[str, Field(max_length=300, pattern=r"^[\x21-\x7e]*$")]


class Contracts(Frozen):
    """The Catalog's address, and the keys of the sites that founded it."""

    chain_id: Annotated[int, Field(ge=1, lt=1 << 63)]
    catalog: Annotated[str, Field(pattern="^0x[0-9a-fA-F]{40}$")]
    genesis: Hex32
    block: Annotated[int, Field(ge=0)]
    founders: Annotated[dict[Name, KeyAddress], Field(default_factory=dict, max_length=253)]


class Member(Frozen):
    """A site of the network, as the Catalog lists it."""

    name: Name
    address: KeyAddress
    sealing: Hex32


class Invitation(Frozen):
    """A network: its contracts, its sites, the peers of its chain and its swarm, and the chain's genesis file."""

    format: Literal[1] = 1
    title: Text = ""
    contracts: Contracts
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=253)]
    chain_peers: Annotated[tuple[Peer, ...], Field(max_length=1000)] = ()
    swarm_peers: Annotated[tuple[Peer, ...], Field(max_length=1000)] = ()
    genesis_file: dict[str, Any] | None = None

    @property
    def fingerprint(self) -> str:
        """Sixteen groups of four letters of the SHA-256, to be read aloud."""
        digest = hashlib.sha256(self.text().encode()).hexdigest()
        return " ".join(digest[at : at + 4] for at in range(0, 64, 4))

    def text(self) -> str:
        """The file, the same for equal contents."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=2) + "\n"

    def network(self, url: str) -> Network:
        """The network through one's own chain node."""
        contracts_part = self.contracts
        place = (contracts_part.chain_id, contracts_part.catalog, contracts_part.genesis, contracts_part.block)
        return Network(url, *place, read_keys(contracts_part.founders))

    @classmethod
    def load(cls, path: Path) -> Invitation:
        """Read an invitation from a file; ConfigError for another file."""
        return read_strict(path, cls, MAX_INVITATION_BYTES, "CO-F324", "an invitation")
