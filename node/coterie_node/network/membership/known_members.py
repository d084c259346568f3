"""The other sites' chain nodes and stores, as a site's own programs know them: its cards, and the two lists of peers.

Invariant: the peers in Geth's config.toml and Kubo's config.json are those of the cards in `founders/`, without this
site's own. Programs read the files when they start; a chain node with a socket and a store learn of a new peer at once.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from coterie_chain.errors import ChainError
from coterie_chain.keys.private_files import read_private, replace_private
from coterie_chain.network.programs.geth import Geth
from coterie_chain.network.programs.ipc import ask_all
from coterie_chain.network.swarm import Kubo
from coterie_node.errors import ConfigError
from coterie_node.network.founding import ANY, FOUNDERS, FounderCard, check_distinct
from coterie_node.network.site_ports import SitePorts
from coterie_node.site.cards import check_site_name
from coterie_node.site.folder import SiteFolder

# The folder for the cards of revoked sites: their keys are never used again, and the record stays.
REVOKED_FOLDER = "revoked"


def read_cards(folder: Path) -> dict[str, FounderCard]:
    """The cards in a site's folder, its own too, by name."""
    cards = [FounderCard.read(path) for path in sorted((folder / FOUNDERS).glob("*.json"))]
    return {card.site: card for card in cards}


def check_newcomer(home: SiteFolder, card: FounderCard) -> None:
    """ConfigError (CO-F502) where another site's card has one of the keys of this card."""
    check_distinct([other for name, other in read_cards(home.root).items() if name != card.site] + [card])


def add_member(home: SiteFolder, card: FounderCard) -> None:
    """Keep a newcomer's card, and let this site's programs call it; ConfigError as `check_newcomer` has it."""
    check_newcomer(home, card)
    (home.root / FOUNDERS).mkdir(exist_ok=True)
    replace_private(home.root / FOUNDERS / f"{check_site_name(card.site)}.json", card.to_json())
    write_peers(home)
    with suppress(ChainError):
        ask_all(home.ipc, [("admin_addPeer", (card.enode,)), ("admin_addTrustedPeer", (card.enode,))])


def drop_member(home: SiteFolder, name: str) -> FounderCard | None:
    """Put a site's card aside, and end the chain node's connection to it; None if there is no card."""
    path = home.root / FOUNDERS / f"{check_site_name(name)}.json"
    if not path.exists():
        return None
    card = FounderCard.read(path)
    aside = home.root / FOUNDERS / REVOKED_FOLDER
    aside.mkdir(exist_ok=True)
    path.replace(aside / path.name)
    write_peers(home)
    with suppress(ChainError):
        ask_all(home.ipc, [("admin_removeTrustedPeer", (card.enode,)), ("admin_removePeer", (card.enode,))])
    return card


def write_peers(home: SiteFolder) -> None:
    """Write the lists of peers again from the cards; a site whose programs are not of our making is left alone."""
    others = [card for name, card in read_cards(home.root).items() if name != home.name]
    node, store = Geth(home.root / "geth"), Kubo(home.root / "kubo")
    if node.config.exists():
        node.listen(ANY, SitePorts.read(home.root).chain, [card.enode for card in others])
    if store.config.exists():
        swarm, api = _read_addresses(store)
        store.listen(swarm, api, {card.peer: card.swarm for card in others})


def _read_addresses(store: Kubo) -> tuple[str, str]:
    """The address at which a store listens, by its configuration: in a container it is not loopback."""
    try:
        addresses = json.loads(read_private(store.config, "the store's configuration"))["Addresses"]
        return str(addresses["Swarm"][0]), str(addresses["API"])
    except (ValueError, KeyError, TypeError, IndexError):
        message = f"{store.config} is not a configuration that `coterie` wrote"
        raise ConfigError("CO-F330", f"{message}. Write it again: coterie network files.") from None
