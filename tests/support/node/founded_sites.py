"""Sites of one machine that have founded a network on a memory ledger: their folders, cards, keys and seats."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from coterie_chain.keys.private_files import read_private
from coterie_chain.keys.site_keys import SiteKeys, read_passphrase
from coterie_chain.ledger.memory import MemoryChain, MemoryLedger
from coterie_chain.network.swarm import Kubo
from coterie_node.cli.site.init import make_node
from coterie_node.network.founding import FounderCard, make_keys, propose_addresses, write_network_files
from coterie_node.network.guided_founding import OWN_CARD
from coterie_node.network.site_ports import SitePorts
from coterie_node.site.folder import KEYS, PASSPHRASE, SiteFolder, find_node

FOUNDERS_OF_TESTS, NEWCOMERS_OF_TESTS = ("north", "south", "west"), ("east", "far")
LIGHT_SCRYPT_OF_TESTS = 1 << 12
FIRST_PORT = 7000


def make_founder(folder: Path, site: str, first_port: int = FIRST_PORT) -> FounderCard:
    """A site's keys, ports and card in a new folder."""
    folder.mkdir()
    SitePorts.count_from(first_port).write(folder)
    card = make_keys(folder, site, "10.0.0.1", "10.0.0.1", scrypt=LIGHT_SCRYPT_OF_TESTS)
    (folder / OWN_CARD).write_text(card.to_json())
    return card


def open_keys(folder: Path) -> SiteKeys:
    """The keys of a site's folder."""
    return SiteKeys.load(folder / KEYS, read_passphrase(folder / PASSPHRASE))


@cache
def make_first_sites() -> tuple[Path, Mapping[str, SiteKeys]]:
    """The folders and the opened keys of all sites; key derivation is slow, and runs once in a process."""
    root = Path(mkdtemp(prefix="coterie-"))
    atexit.register(shutil.rmtree, root)
    names = (*FOUNDERS_OF_TESTS, *NEWCOMERS_OF_TESTS)
    cards = [make_founder(root / name, name, FIRST_PORT + 10 * k) for k, name in enumerate(names)]
    cards = cards[: len(FOUNDERS_OF_TESTS)]
    secret = read_private(Kubo(root / "north" / "kubo").key, "key")
    for card in cards:
        folder = root / card.site
        Kubo(folder / "kubo").join(secret)
        write_network_files(folder, card.site, cards)
        make_node(folder, card.site, "data.csv", propose_addresses(folder), SitePorts.read(folder).health)
    return root, {name: open_keys(root / name) for name in names}


class FoundedSites:
    """Three sites with all their files and one swarm's key, the memory ledger that lists them, and two newcomers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        first, self._keys = make_first_sites()
        for site in (*FOUNDERS_OF_TESTS, *NEWCOMERS_OF_TESTS):
            shutil.copytree(first / site, root / site)
        self.cards = [FounderCard.read(root / site / OWN_CARD) for site in FOUNDERS_OF_TESTS]
        self.newcomers = {site: FounderCard.read(root / site / OWN_CARD) for site in NEWCOMERS_OF_TESTS}
        self.chain = MemoryChain([replace(card.entry(k), id=k) for k, card in enumerate(self.cards, 1)])

    def home(self, site: str) -> SiteFolder:
        """A site's folder."""
        return find_node(self.root / site)

    def keys(self, site: str) -> SiteKeys:
        """A site's keys."""
        return self._keys[site]

    def ledger(self, site: str) -> MemoryLedger:
        """The ledger as a site."""
        return self.chain.ledger(self.keys(site).address)

    def swarm_key(self, site: str) -> str:
        """The swarm's key in a site's folder."""
        return read_private(Kubo(self.root / site / "kubo").key, "key")
