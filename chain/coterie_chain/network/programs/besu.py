"""One Besu of a QBFT chain: its key, its peers and its configuration file, for consortia that outlive Clique.

QBFT is final at once and keeps going while more than two thirds of the validators are up: four for one to fail. Written
for Besu 26 (its configuration file takes the command line's option names).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coincurve import PrivateKey

from coterie_chain.keys.private_files import read_private, supply_private

_P2P_PORT, _RPC_PORT = 30303, 8545


@dataclass(frozen=True)
class Besu:
    """One site's Besu in its folder."""

    folder: Path

    @property
    def key(self) -> Path:
        """The validator's key."""
        return self.folder / "key"

    @property
    def validator(self) -> str:
        """Address that signs its blocks."""
        from eth_account import Account

        return str(Account.from_key(bytes.fromhex(read_private(self.key, "the validator's key").strip())).address)

    def create(self) -> None:
        """A new key, unless there is one."""
        self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        supply_private(self.key, lambda: secrets.token_hex(32) + "\n")

    def enode(self, host: str, port: int = _P2P_PORT) -> str:
        """Its address for peers."""
        key = PrivateKey(bytes.fromhex(read_private(self.key, "the validator's key").strip()))
        return f"enode://{key.public_key.format(compressed=False)[1:].hex()}@{host}:{port}"

    def listen(self, host: str, peers: Sequence[str]) -> None:
        """Write the configuration and the list of the only peers it talks to."""
        (self.folder / "static-nodes.json").write_text(json.dumps(list(peers), indent=2) + "\n")
        (self.folder / "besu.toml").write_text(render_besu_config(host))


def render_besu_config(host: str) -> str:
    """Besu's configuration file, for a folder that is mounted or copied to /besu; RPC on loopback only."""
    return "\n".join(
        [
            'data-path = "/besu/data"',
            'genesis-file = "/besu/genesis.json"',
            'node-private-key-file = "/besu/key"',
            'static-nodes-file = "/besu/static-nodes.json"',
            "discovery-enabled = false",
            f'p2p-host = "{host}"',
            f"p2p-port = {_P2P_PORT}",
            "rpc-http-enabled = true",
            'rpc-http-host = "127.0.0.1"',
            f"rpc-http-port = {_RPC_PORT}",
            'rpc-http-api = ["ETH", "NET", "WEB3", "QBFT"]',
            'host-allowlist = ["localhost", "127.0.0.1"]',
            "min-gas-price = 0",
            'sync-mode = "FULL"',
            'data-storage-format = "FOREST"',
            "",
        ]
    )
