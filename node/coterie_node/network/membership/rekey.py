"""A new key of the swarm for all members, as after a revocation: one site makes it, and each takes it over.

    1. one site    makes the key, and an order: the key sealed to each active site of the Catalog, signed by this site
    2. every site  checks the order, writes the key and the peers of its store, and starts the store again

Stores with the old key and with the new one do not talk to each other. Until all have taken the order over, a study
waits for payloads of the others (CO-C201), and goes on by itself. Invariant: an order is newer than every one that the
site took over before, so that nobody brings an old key back. If two orders are of the same second, the one with the
larger fingerprint counts as newer at every site.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from coterie_chain.errors import BlobCorrupt
from coterie_chain.keys.private_files import replace_private
from coterie_chain.keys.site_keys import SiteKeys
from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.network.programs.kubo import create_swarm_key, fingerprint_swarm_key, is_swarm_key
from coterie_chain.network.swarm import Kubo
from coterie_node.errors import ConfigError
from coterie_node.network.checks.peer_checks import Peers, find_swarm_peers, name_swarm_peers
from coterie_node.network.founding import FOUNDERS
from coterie_node.network.membership.known_members import drop_member, read_cards, write_peers
from coterie_node.network.membership.signed_statement import SignedStatement
from coterie_node.site.folder import SiteFolder
from coterie_node.site.strict_file import read_strict

TAKEN = "swarm-key.json"
# An order's number is its author's clock. One that is further ahead would let no later order count.
MAX_AHEAD_SECONDS = 24 * 3600
MAX_ORDER_BYTES = 1 << 19
_CONTEXT = b"coterie/1 swarm key for all"


class RekeyOrder(SignedStatement):
    """A new swarm's key for the members of a network; `number` grows from order to order (seconds since 1970)."""

    purpose: ClassVar[str] = "swarm key"
    format: Literal[1] = 1
    network: Annotated[str, Field(max_length=200)]
    issuer: Annotated[str, Field(max_length=31)]
    number: Annotated[int, Field(ge=0, lt=1 << 53)]
    swarm_key: Annotated[str, Field(pattern="^[0-9a-f]*$", max_length=1 << 18)]
    swarm_fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]

    @classmethod
    def load(cls, path: Path) -> RekeyOrder:
        """Read an order; ConfigError (CO-F515) for another file."""
        cure = " A member writes one: coterie network rekey."
        return read_strict(path, cls, MAX_ORDER_BYTES, "CO-F515", "an order for a new swarm's key", cure)


@dataclass(frozen=True)
class Takeover:
    """Which sites' stores are seen under the new key, and which are not yet."""

    seen: tuple[str, ...]
    missing: tuple[str, ...]


def write_order(home: SiteFolder, keys: SiteKeys, scope: str, sites: Sequence[SiteEntry], now: int) -> RekeyOrder:
    """Make a new key and the order for it; ConfigError (CO-F329) where this site has no seat, (CO-F330) no store."""
    _require_store(home)
    readers = {site.name: site.sealing for site in sites if site.active}
    if home.name not in readers:
        raise ConfigError("CO-F329", f"{home.name} has no seat in this network, so it cannot order a key.")
    secret = create_swarm_key()
    return RekeyOrder(
        network=scope,
        issuer=home.name,
        number=max(now, read_order_number(home.root) + 1),
        swarm_key=keys.seal(secret.encode(), readers, _CONTEXT + scope.encode()).hex(),
        swarm_fingerprint=fingerprint_swarm_key(secret),
    ).sign(keys)


def read_order_number(root: Path) -> int:
    """The number of the order that a site took over last; 0 before the first."""
    try:
        return int(json.loads((root / TAKEN).read_bytes())["number"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def read_order_mark(root: Path) -> tuple[int, str]:
    """Number and fingerprint of the order that a site took over last: what a newer one is above."""
    try:
        return read_order_number(root), str(json.loads((root / TAKEN).read_bytes())["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return read_order_number(root), ""


def take_order(
    home: SiteFolder, keys: SiteKeys, scope: str, sites: Sequence[SiteEntry], order: RekeyOrder, now: int
) -> None:
    """Write the order's key and the peers of this site's programs; nothing is written of an order that is refused.

    ConfigError: of another network (CO-F518), not signed by an active member (CO-F516), not newer than the last one
    (CO-F517), of a day that has not come (CO-F525), or without a key for this site (CO-F516). A site whose store is not
    in its folder has no key to replace (CO-F330).
    """
    _require_store(home)
    check_order(home.root, scope, sites, order, now)
    secret = _open_key(home.name, keys, scope, order)
    names = {site.name for site in sites}
    active = {site.name for site in sites if site.active}
    for name in read_cards(home.root):
        if name in names - active:
            drop_member(home, name)
    Kubo(home.root / "kubo").join(secret)
    if (home.root / FOUNDERS).is_dir():
        write_peers(home)
    taken = {"number": order.number, "issuer": order.issuer, "fingerprint": order.swarm_fingerprint}
    replace_private(home.root / TAKEN, json.dumps(taken, indent=2) + "\n")


def compare_peers(home: SiteFolder, sites: Sequence[SiteEntry], connected: Sequence[str]) -> Takeover:
    """The other active sites that are seen in the swarm, by the ids of the store's peers."""
    there = find_swarm_peers(name_swarm_peers(Peers.load(home), sites), connected)
    others = sorted(site.name for site in sites if site.active and site.name != home.name)
    seen = tuple(name for name in others if name in there)
    return Takeover(seen, tuple(name for name in others if name not in seen))


def _require_store(home: SiteFolder) -> None:
    store = Kubo(home.root / "kubo")
    if not store.key.exists():
        message = f"{store.key} is missing: this site's store is not in its folder, or was not set up by `coterie`"
        raise ConfigError("CO-F330", f"{message}. Its swarm's key stays as it is. Change it at the store itself.")


def check_order(root: Path, scope: str, sites: Sequence[SiteEntry], order: RekeyOrder, now: int) -> None:
    """ConfigError for an order that this site does not take, as `take_order` has it."""
    if order.network != scope:
        raise ConfigError("CO-F518", "The order is for another network than this site's. Ask for the right file.")
    issuer = next((site for site in sites if site.name == order.issuer and site.active), None)
    if issuer is None or not order.signer or order.signer.lower() != issuer.address.lower():
        message = f"The order was altered, or {order.issuer[:40]!r} did not write it or has no seat"
        raise ConfigError("CO-F516", f"{message}. Do not use it; ask that site for it again.")
    if order.number > now + MAX_AHEAD_SECONDS:
        message = f"The order is {(order.number - now) / 86400:.1f} days ahead of this machine's clock"
        raise ConfigError("CO-F525", f"{message}. Set the clocks by NTP here and at {order.issuer}, and order again.")
    last, _ = mark = read_order_mark(root)
    if (order.number, order.swarm_fingerprint) <= mark:
        message = f"The order is no newer (number {order.number}) than the one that this site has taken over ({last})"
        raise ConfigError("CO-F517", f"{message}. Ask for the newest one; this site's key stays as it is.")


def _open_key(name: str, keys: SiteKeys, scope: str, order: RekeyOrder) -> str:
    try:
        raw = keys.unseal(bytes.fromhex(order.swarm_key), name, _CONTEXT + scope.encode()) or b""
    except BlobCorrupt:
        raw = b""
    text = raw.decode("ascii", "replace")
    if not is_swarm_key(text) or fingerprint_swarm_key(text) != order.swarm_fingerprint:
        message = f"The order holds no swarm's key that opens at {name} and has its fingerprint"
        raise ConfigError("CO-F516", f"{message}. Has this site a seat with these keys? Ask for a new order.")
    return text
