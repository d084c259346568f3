"""One sealing Geth: its keys, its configuration and its command line, on a devnet and in a container alike.

The RPC of other programs is Geth's authenticated port: it serves `eth_*` to a program that signs with the secret in the
token file. The port without tokens stays closed, because a sealer's account is unlocked.
"""

from __future__ import annotations

import json
import secrets
import shlex
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coincurve import PrivateKey
from eth_utils.address import to_checksum_address

from coterie_chain.keys.private_files import replace_private, supply_private

P2P_PORT, RPC_PORT = 30303, 8551
# Light, because the passphrase is 24 random bytes, and a Geth that takes a second to open its key may stall the chain:
# it has peers already and drops their new blocks until it seals itself. Sealers that start together may all lose the
# block that would have decided between them, and none may seal the next one ("signed recently") until one reconnects.
SEALER_SCRYPT = 1 << 12
SEALER_KEY = "sealer.json"
# The unix socket's address has room for so many letters; a longer one gets no socket.
MAX_IPC_PATH = 100


@dataclass(frozen=True)
class Geth:
    """One site's Geth in its folder; `period` of blocks in seconds belongs to the genesis, not to it."""

    folder: Path

    @property
    def data(self) -> Path:
        """Geth's own data."""
        return self.folder / "data"

    @property
    def config(self) -> Path:
        """Its configuration file, which lists its peers."""
        return self.folder / "config.toml"

    @property
    def passphrase(self) -> Path:
        """The passphrase of the sealer's key."""
        return self.folder / "sealer.passphrase"

    @property
    def jwt(self) -> Path:
        """The secret that opens its RPC."""
        return self.folder / "jwt.hex"

    @property
    def ipc(self) -> Path:
        """The socket for its administrator."""
        return self.folder / "geth.ipc"

    @property
    def keystore(self) -> Path:
        """The folder of the sealer's key: outside of the data, which one deletes to read the chain again."""
        return self.folder / "keystore"

    @property
    def nodekey(self) -> Path:
        """The key by which its peers know it: outside of the data as well."""
        return self.folder / "nodekey"

    @property
    def sealer(self) -> str:
        """Address that signs its blocks."""
        keyfile = next(self.keystore.glob("[!.]*"))
        return to_checksum_address("0x" + json.loads(keyfile.read_text())["address"].removeprefix("0x"))

    @property
    def is_made(self) -> bool:
        """Whether it has all of its keys; what is written last is there."""
        return self.data.is_dir() and self.jwt.exists()

    def create(self) -> None:
        """Make what it lacks of keys: the sealer's, the peer's, and the secret of the RPC."""
        self.data.mkdir(parents=True, mode=0o700, exist_ok=True)
        self.keystore.mkdir(mode=0o700, exist_ok=True)
        if not (self.keystore / SEALER_KEY).exists():
            passphrase = secrets.token_urlsafe(24)
            replace_private(self.passphrase, passphrase + "\n")
            replace_private(self.keystore / SEALER_KEY, _make_sealer_key(passphrase))
        supply_private(self.nodekey, lambda: secrets.token_hex(32))
        supply_private(self.jwt, lambda: secrets.token_hex(32) + "\n")

    def enode(self, host: str, port: int) -> str:
        """Its address for peers."""
        key = PrivateKey(bytes.fromhex(self.nodekey.read_text().strip()))
        public = key.public_key.format(compressed=False)[1:].hex()
        return f"enode://{public}@{host}:{port}?discport=0"

    def listen(self, host: str, port: int, peers: Sequence[str]) -> None:
        """Write the configuration: where peers reach it, and the only peers it talks to."""
        self.config.write_text(render_geth_config(host, port, peers))


def _make_sealer_key(passphrase: str) -> str:
    """The file of a new key."""
    from eth_account import Account
    from eth_keyfile.keyfile import create_keyfile_json

    key = bytes(Account.create().key)
    return json.dumps(create_keyfile_json(key, passphrase.encode(), kdf="scrypt", iterations=SEALER_SCRYPT))


def render_geth_config(host: str, port: int, peers: Sequence[str]) -> str:
    """Geth's config.toml: the listener, and static peers instead of any discovery."""
    listed = json.dumps(list(peers))
    return (
        "[Node.P2P]\nNoDiscovery = true\n"
        f'ListenAddr = "{host}:{port}"\nMaxPeers = 50\nStaticNodes = {listed}\nTrustedNodes = {listed}\n'
    )


def read_static_nodes(config: Path) -> tuple[str, ...]:
    """The peers that a configuration of ours lists; none if there is no such file."""
    try:
        return tuple(tomllib.loads(config.read_text())["Node"]["P2P"]["StaticNodes"])
    except (OSError, ValueError, KeyError):
        return ()


def build_init_arguments(data: Path | str, genesis: Path | str) -> tuple[str, ...]:
    """Arguments that write a genesis into a new data directory."""
    return ("init", "--datadir", str(data), "--state.scheme", "hash", str(genesis))


def build_geth_init_script(program: str, data: Path | str, genesis: Path | str) -> str:
    """A line of shell that writes a genesis into a data directory that has none, whole or not at all.

    A Geth that finds half of one writes another chain's genesis there when it starts.
    """
    place, aside = f"{data}/geth/chaindata", f"{data}/init.part"
    steps = (
        ["rm", "-rf", aside],
        [program, *build_init_arguments(aside, genesis)],
        ["mkdir", "-p", f"{data}/geth"],
        ["mv", f"{aside}/geth/chaindata", place],
        ["rm", "-rf", aside],
    )
    return f"[ -e {shlex.quote(place)} ] || ({' && '.join(map(shlex.join, steps))})"


def build_geth_arguments(
    *, data: Path | str, config: Path | str, jwt: Path | str, chain_id: int, rpc: tuple[str, int], names: str
) -> tuple[str, ...]:
    """Arguments of every Geth of ours: whole history kept, no discovery, `eth_*` behind tokens at `rpc`.

    `names` are the host names under which its RPC may be called.
    """
    return (
        *("--config", str(config), "--datadir", str(data), "--networkid", str(chain_id)),
        *("--syncmode", "full", "--gcmode", "archive", "--state.scheme", "hash", "--history.transactions", "0"),
        *("--nodiscover", "--nat", "none", "--bootnodes", "", "--cache", "128"),
        *("--authrpc.addr", rpc[0], "--authrpc.port", str(rpc[1]), "--authrpc.vhosts", names),
        *("--authrpc.jwtsecret", str(jwt), "--rpc.txfeecap", "0"),
    )


def build_identity_arguments(nodekey: Path | str) -> tuple[str, ...]:
    """Arguments that give it the key by which its peers know it."""
    return ("--nodekey", str(nodekey))


def build_sealing_arguments(
    sealer: str, passphrase: Path | str, keystore: Path | str, recommit: int = 1
) -> tuple[str, ...]:
    """Arguments that make it a sealer, with its key in the folder `keystore`.

    `recommit`: after so many seconds a block that waits for its turn is made again, with the transactions that came.
    Gas price 1 and not 0: at 0 Geth takes 1 gwei for its minimum, and each transaction waits for its own sealer's turn.
    Without `nolocals` a sealer would put its own site's transactions before better paid ones.
    """
    return (
        *("--mine", "--miner.etherbase", sealer, "--unlock", sealer, "--password", str(passphrase)),
        *("--keystore", str(keystore)),
        *("--miner.gasprice", "1", "--miner.recommit", f"{recommit}s", "--miner.gaslimit", "30000000"),
        *("--txpool.nolocals", "--txpool.lifetime", "24h"),
    )


def build_socket_arguments(ipc: Path) -> tuple[str, ...]:
    """Arguments for the administrator's socket, which a long path cannot have."""
    return ("--ipcpath", str(ipc)) if len(str(ipc)) <= MAX_IPC_PATH else ("--ipcdisable",)
