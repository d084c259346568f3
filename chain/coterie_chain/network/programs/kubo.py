"""One Kubo of a private swarm: its configuration and its environment, on a devnet and in a container alike.

Nothing of it leads out: no bootstrap, no routing, no announcements, no gateway, no relay, no telemetry; it talks TCP to
the peers in its settings, and only to holders of the swarm's key. (Kubo 0.43: docs/config.md and
environment-variables.md.)
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from coterie_chain.store.cid import encode_base58

SWARM_PORT, API_PORT = 4001, 5001
# FORCE_PNET: without the swarm's key the daemon refuses to start.
ENVIRONMENT = {"LIBP2P_FORCE_PNET": "1", "IPFS_TELEMETRY": "off", "LIBP2P_TCP_MUX": "false"}
# What a node of Coterie and its launcher ask for; the rest of the administrator's interface stays closed.
ALLOWED = (
    *("id", "version", "block", "pin", "swarm/peers", "swarm/connect", "repo/stat"),
    # `coterie prune`: what is unpinned goes from the disk
    "repo/gc",
    # the heartbeats of the sites' daemons
    *("pubsub/pub", "pubsub/sub"),
)
OFF: dict[str, Any] = {
    "AutoConf": {"Enabled": False},
    "AutoNAT": {"ServiceMode": "disabled"},
    "AutoTLS": {"Enabled": False},
    "Bootstrap": [],
    "DNS": {"Resolvers": {}},
    "Discovery": {"MDNS": {"Enabled": False}},
    "Gateway": {"NoFetch": True},
    "HTTPRetrieval": {"Enabled": False},
    "Ipns": {"DelegatedPublishers": [], "UsePubsub": False},
    "Plugins": {"Plugins": {"telemetry": {"Disabled": True}}},
    "Provide": {"Enabled": False},
    "Routing": {"Type": "none", "DelegatedRouters": []},
    "Version": {"SwarmCheckEnabled": False},
}
# One file per block, each on the disk before it is acknowledged: a record must not outlive its payload.
DATASTORE: dict[str, Any] = {
    "BloomFilterSize": 0,
    "GCPeriod": "1h",
    "HashOnRead": False,
    "StorageGCWatermark": 90,
    "StorageMax": "50GB",
    "Spec": {
        "type": "mount",
        "mounts": [
            {
                "mountpoint": "/blocks",
                "path": "blocks",
                "prefix": "flatfs.datastore",
                "shardFunc": "/repo/flatfs/shard/v1/next-to-last/2",
                "sync": True,
                "type": "flatfs",
            },
            {
                "compression": "none",
                "mountpoint": "/",
                "path": "datastore",
                "prefix": "leveldb.datastore",
                "type": "levelds",
            },
        ],
    },
}
TRANSPORTS = ("QUIC", "WebTransport", "WebRTCDirect", "Websocket", "Relay")


def create_swarm_key() -> str:
    """A new key of a private swarm, as its file holds it."""
    return f"/key/swarm/psk/1.0.0/\n/base16/\n{secrets.token_hex(32)}\n"


def is_swarm_key(text: str) -> bool:
    """Whether a text is the key of a private swarm."""
    return re.fullmatch(r"/key/swarm/psk/1\.0\.0/\n/base16/\n[0-9a-f]{64}\n?", text.replace("\r\n", "\n")) is not None


def fingerprint_swarm_key(text: str) -> str:
    """The fingerprint of a swarm's key as Kubo prints it at its start; empty for another text.

    It is 16 bytes of SHAKE-128 over 64 bytes of Salsa20 under the key (Kubo, core/node/libp2p/pnet.go).
    """
    if not is_swarm_key(text):
        return ""
    from Crypto.Cipher import Salsa20  # few commands show a fingerprint

    stream = Salsa20.new(bytes.fromhex(text.split()[2]), nonce=b"finprint").encrypt(bytes(64))
    return hashlib.shake_128(stream).hexdigest(16)


def format_multiaddr(host: str, port: int) -> str:
    """A host's TCP port as libp2p writes it."""
    kind = "ip4" if host.replace(".", "").isdigit() else "dns4"
    return f"/{kind}/{host}/tcp/{port}"


def create_identity() -> dict[str, str]:
    """A new peer: its id and its key, Ed25519 as libp2p writes it (specs/peer-ids)."""
    key = SigningKey.generate()
    public = bytes(key.verify_key)
    # the protobuf {type: Ed25519, data}; an id is the identity multihash of the public one, whose first byte is 0
    private = b"\x08\x01\x12\x40" + bytes(key) + public
    return {
        "PeerID": "1" + encode_base58(b"\x00\x24\x08\x01\x12\x20" + public),
        "PrivKey": base64.b64encode(private).decode(),
    }


def build_kubo_config(
    own: Mapping[str, str], *, swarm: str, api: str, token: str, peers: Mapping[str, str]
) -> dict[str, Any]:
    """A daemon's configuration.

    `own` is its identity, `swarm` and `api` the addresses to listen on, `peers` the other sites' ids with addresses.
    """
    return {
        **OFF,
        "Addresses": {"Swarm": [swarm], "API": api, "Gateway": [], "Announce": [], "AppendAnnounce": []},
        "API": {"Authorizations": {"coterie": build_authorization(token)}, "HTTPHeaders": {}},
        "Datastore": DATASTORE,
        "Identity": dict(own),
        # bitswap's thinned broadcasts are made for the public network
        "Internal": {"Bitswap": {"BroadcastControl": {"Enable": False}}},
        # the room for heartbeats, among the holders of the swarm's key
        "Pubsub": {"Enabled": True},
        "Peering": {"Peers": [{"ID": peer, "Addrs": [at]} for peer, at in peers.items()]},
        "Swarm": build_swarm_section(),
    }


def build_authorization(token: str) -> dict[str, Any]:
    """The tokens that may use the daemon's RPC, and the commands that they may call."""
    return {"AuthSecret": f"bearer:{token}", "AllowedPaths": [f"/api/v0/{path}" for path in ALLOWED]}


def build_swarm_section() -> dict[str, Any]:
    """A private swarm speaks TCP only, and reaches only the peers in its settings."""
    return {
        "AddrFilters": None,
        "DisableNatPortMap": True,
        "EnableHolePunching": False,
        "RelayClient": {"Enabled": False},
        "RelayService": {"Enabled": False},
        "Transports": {"Network": dict.fromkeys(TRANSPORTS, False)},
    }


def build_kubo_init_script(program: str, repo: Path | str, config: Path | str) -> str:
    """A line of shell that makes a repository of a configuration where there is none, or half of one.

    `ipfs init` writes the version last, and refuses a folder in which it was cut short. The swarm's key stays.
    """
    rest = shlex.join(["rm", "-f", f"{repo}/config", f"{repo}/datastore_spec"])
    init = shlex.join([program, "init", "--empty-repo", str(config)])
    return f"[ -e {shlex.quote(f'{repo}/version')} ] || ({rest} && {init})"


def build_daemon_arguments() -> Sequence[str]:
    """Arguments of the daemon; without --enable-gc what is pinned and what is not stays until somebody decides."""
    return ("daemon", "--migrate=false")
