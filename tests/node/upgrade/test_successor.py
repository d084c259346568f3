"""A site goes over to the Catalog that most sites voted for, with its keys, and without a decision of the old one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from support.chain.bench import GLORE_TERMS, build_entry, derive_account

from coterie_chain.errors import StoreFault
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network
from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.network.deploy import deploy
from coterie_chain.network.devnet import Anvil
from coterie_node.cli.site.init import make_node
from coterie_node.errors import ConfigError
from coterie_node.network.founding import Addresses
from coterie_node.site.folder import NETWORK, SiteFolder, find_node
from coterie_node.upgrade.successor import OLD_CATALOGS, follow_successor

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("bundle")]


@dataclass
class Move:
    """A site's folder on a Catalog, the next one with the same members, and the two members' ledgers on the old one."""

    home: SiteFolder
    old: Network
    following: Network
    north: EthereumLedger
    south: EthereumLedger

    def vote(self) -> None:
        for ledger in (self.north, self.south):
            ledger.vote_succession(self.following.catalog)

    def fail(self) -> str:
        with pytest.raises(ConfigError) as caught:
            follow_successor(self.home)
        return caught.value.code


@pytest.fixture
def move(tmp_path: Path) -> Iterator[Move]:
    with Anvil() as anvil:
        addresses = Addresses(anvil.url, f"folder:{tmp_path / 'store'}", 0, sleep=False)
        keys = make_node(tmp_path / "north", "north", "data.csv", addresses, 0, scrypt=1 << 12)
        south = derive_account("south")
        entries = (SiteEntry(1, "north", keys.address, keys.sealing), replace(build_entry("south"), id=2))
        old, following = deploy(anvil.url, entries), deploy(anvil.url, entries)
        (tmp_path / "north" / NETWORK).write_text(old.to_json())
        with EthereumLedger(old, keys.signer) as ours, EthereumLedger(old, south) as theirs:
            yield Move(find_node(tmp_path / "north"), old, following, ours, theirs)


def test_a_site_goes_over_with_its_keys_and_without_the_old_decisions(move: Move) -> None:
    root = move.home.root
    for name in ("decisions", "results", "privacy", "copies"):
        (root / name).mkdir(mode=0o700)
        (root / name / "1.json").write_text("{}")
    for name in ("history.sqlite", "history.sqlite-wal"):
        (root / name).write_bytes(b"a copy")
    with SqliteJournal(move.home.journal) as journal:
        journal.vault["private"] = b"memory"
    assert move.fail() == "CO-F526"
    move.vote()
    network, aside = follow_successor(move.home)
    assert network == replace(move.following, block=network.block)
    assert find_node(root).network() == network
    assert aside == root / OLD_CATALOGS / move.old.catalog
    assert Network.from_json((aside / NETWORK).read_text()) == move.old
    assert sorted(path.name for path in aside.iterdir()) == ["decisions", NETWORK, "results"]
    assert (root / "privacy" / "1.json").exists()
    assert not (root / "copies").exists()
    assert not list(root.glob("history.sqlite*"))
    with SqliteJournal(move.home.journal) as journal:
        assert journal.vault["private"] == b"memory"
    assert move.fail() == "CO-F526"


def test_nobody_leaves_an_open_study_behind(move: Move) -> None:
    move.vote()
    study = move.north.propose(replace(GLORE_TERMS, sites=("north", "south")))
    assert move.fail() == "CO-F527"
    assert Network.from_json((move.home.root / NETWORK).read_text()) == move.old
    move.south.decline([study], 1)
    assert follow_successor(move.home)[0].catalog == move.following.catalog


def test_a_site_does_not_go_over_while_its_daemon_runs(move: Move) -> None:
    move.vote()
    with SqliteJournal(move.home.journal), pytest.raises(StoreFault, match="holds the journal"):
        follow_successor(move.home)
    assert Network.from_json((move.home.root / NETWORK).read_text()) == move.old


def test_what_a_daemon_left_between_two_tries_is_kept_as_well(move: Move) -> None:
    move.vote()
    aside = move.home.root / OLD_CATALOGS / move.old.catalog
    for folder, text in ((aside, "first"), (move.home.root, "second")):
        (folder / "decisions").mkdir(parents=True)
        (folder / "decisions" / "1.json").write_text(text)
    follow_successor(move.home)
    assert (aside / "decisions" / "1.json").read_text() == "first"
    assert (aside / "decisions-2" / "1.json").read_text() == "second"
