"""Attacks on who belongs to a network: cards, invitations, orders for a new swarm's key, votes, backups."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from dataclasses import asdict, replace
from pathlib import Path

import pyrage  # type: ignore[import-untyped]
import pytest
from support.node.founded_sites import FoundedSites

from coterie_chain.errors import PostRejected
from coterie_chain.ethereum.network import Network
from coterie_node.errors import ConfigError
from coterie_node.network.backup import PublicKey, SecretKey, restore_backup
from coterie_node.network.founding import FOUNDERS, FounderCard, write_network_files
from coterie_node.network.guided_founding import format_card, parse_card
from coterie_node.network.membership.entry import write_invitation
from coterie_node.network.membership.known_members import add_member, read_cards
from coterie_node.network.membership.rekey import MAX_AHEAD_SECONDS, RekeyOrder, take_order, write_order
from coterie_node.network.membership.sealer_votes import FOLDER, record_sealer_vote

SCOPE, NOW = "20240/0x00/0x12", 1_800_000_000
NETWORK = Network("http://127.0.0.1:1", 20240, "0x" + "12" * 20, "0x" + "00" * 32, 3)
OWN_LINES = ("sealer", "operator", "sealing", "enode", "peer")


@pytest.fixture
def sites(tmp_path: Path) -> FoundedSites:
    """Three sites that have founded a network."""
    return FoundedSites(tmp_path)


def order(sites: FoundedSites, by: str, now: int = NOW) -> RekeyOrder:
    """A member's order for a new swarm's key."""
    return write_order(sites.home(by), sites.keys(by), SCOPE, sites.chain.ledger(None).sites(), now)


def take(sites: FoundedSites, site: str, given: RekeyOrder, now: int = NOW) -> str:
    """A site takes an order over; the code with which it refuses, empty if it does not."""
    try:
        take_order(sites.home(site), sites.keys(site), SCOPE, sites.chain.ledger(None).sites(), given, now)
    except ConfigError as error:
        return error.code
    return ""


# Cards


@pytest.mark.parametrize("line", OWN_LINES)
def test_a_newcomer_s_card_with_a_line_of_a_member_s_card(line: str, sites: FoundedSites) -> None:
    """Its seat would stand for two: votes against its sealer, or calls to its store, would meet that member."""
    card, home = replace(sites.newcomers["east"], **{line: getattr(sites.cards[1], line)}), sites.home("north")
    listed = sites.chain.ledger(None).sites()
    with pytest.raises(ConfigError) as refused:
        write_invitation(home, sites.keys("north"), NETWORK, listed, card, head=9, now=NOW)
    assert refused.value.code in {"CO-F329", "CO-F502"}
    with pytest.raises(ConfigError) as refused:
        add_member(home, card)
    assert refused.value.code == "CO-F502"
    assert "east" not in read_cards(home.root)


@pytest.mark.parametrize("line", OWN_LINES)
def test_two_founders_with_one_key(line: str, sites: FoundedSites) -> None:
    north, south, west = sites.cards
    copied = replace(west, **{line: getattr(south, line)})
    with pytest.raises(ConfigError) as refused:
        write_network_files(sites.root / "north", "north", [north, south, copied])
    assert refused.value.code == "CO-F502"


def test_a_member_s_sealing_key_in_capital_letters(sites: FoundedSites) -> None:
    card = replace(sites.newcomers["east"], sealing=sites.cards[1].sealing.upper())
    with pytest.raises(ConfigError) as refused:
        parse_card(format_card(card))
    assert refused.value.code == "CO-F501"


def test_a_card_that_names_another_site_s_sealer_when_its_own_is_voted_out(sites: FoundedSites) -> None:
    home, far = sites.home("north"), sites.newcomers["far"]
    with pytest.raises(ConfigError) as refused:
        record_sealer_vote(home.root, replace(far, sealer=sites.cards[1].sealer.lower()), seals=False)
    assert refused.value.code == "CO-F502"
    assert not (home.root / FOLDER).exists()


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("site", "../../etc/cron.d/x"),
        ("site", "north.json"),
        ("enode", "enode://x@10.0.0.1:1"),
        ("enode", "enode://" + "a" * 128 + '@10.0.0.1:1"]\nListenAddr = "0.0.0.0:1'),
        ("swarm", "/unix/etc/passwd"),
        ("peer", "../x"),
        ("sealer", "0x12"),
    ],
)
def test_a_card_with_a_path_or_a_setting_in_a_line(line: str, text: str, sites: FoundedSites) -> None:
    card, file = replace(sites.newcomers["east"], **{line: text}), sites.root / "card.json"
    file.write_text(json.dumps(asdict(card)))
    with pytest.raises(ConfigError) as of_file:
        FounderCard.read(file)
    with pytest.raises(ConfigError) as of_text:
        parse_card(format_card(card))
    assert of_file.value.code == of_text.value.code == ("CO-F325" if line == "site" else "CO-F501")
    assert sorted(path.stem for path in (sites.root / "north" / FOUNDERS).glob("*.json")) == ["north", "south", "west"]


# Orders for a new swarm's key


def test_an_order_of_a_day_far_ahead_lets_later_orders_count(sites: FoundedSites) -> None:
    for number in ((1 << 53) - 1, NOW + MAX_AHEAD_SECONDS + 1):
        ahead = order(sites, "west").model_copy(update={"number": number}).sign(sites.keys("west"))
        assert take(sites, "north", ahead) == "CO-F525"
    assert take(sites, "north", order(sites, "south")) == ""


def test_two_orders_at_once_end_with_one_key_whichever_comes_first(sites: FoundedSites) -> None:
    orders = [order(sites, "north"), order(sites, "south")]
    assert orders[0].number == orders[1].number
    for site, (first, second) in zip(("north", "south", "west"), itertools.cycle(itertools.permutations(orders))):
        take(sites, site, first)
        take(sites, site, second)
    (key,) = {sites.swarm_key(site) for site in ("north", "south", "west")}
    assert take(sites, "north", orders[0]) == take(sites, "north", orders[1]) == "CO-F517"
    assert sites.swarm_key("north") == key


def test_an_order_with_the_key_that_a_member_has_lost(sites: FoundedSites) -> None:
    old, listed = order(sites, "west"), sites.chain.ledger(None).sites()
    recovered = [replace(s, address=sites.newcomers["far"].operator) if s.name == "west" else s for s in listed]
    with pytest.raises(ConfigError) as refused:
        take_order(sites.home("north"), sites.keys("north"), SCOPE, recovered, old, NOW)
    assert refused.value.code == "CO-F516"


# Votes


def test_a_member_that_votes_all_others_out_stays_alone_with_its_votes(sites: FoundedSites) -> None:
    for victim in ("south", "west"):
        sites.ledger("north").revoke(victim)
        with pytest.raises(PostRejected, match="AlreadyVoted"):
            sites.ledger("north").revoke(victim)
    assert all(site.active for site in sites.chain.ledger(None).sites())


# Backups


def pack(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """An archive of these members; a size need not be that of what follows."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for info, content in members:
            tar.addfile(info, None)
            tar.fileobj.write(content)
    return out.getvalue()


def name(path: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """A member of an archive."""
    info = tarfile.TarInfo(path)
    info.size, info.type, info.linkname = size, kind, link
    return info


HOSTILE = {
    "a terabyte": pack((name("journal.sqlite", 1 << 40), b"")),
    "a file outside": pack((name("../outside"), b"")),
    "a file of the machine": pack((name("/tmp/coterie-outside"), b"")),
    "a link outside": pack((name("keys", kind=tarfile.SYMTYPE, link="/etc"), b"")),
    "a hard link": pack((name("keys", kind=tarfile.LNKTYPE, link="../../x"), b"")),
    "a device": pack((name("keys", kind=tarfile.CHRTYPE), b"")),
    "no archive": b"no archive",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_backup_that_somebody_else_closed_for_this_site_s_public_key(what: str, tmp_path: Path) -> None:
    """A public key closes, and everybody has it: who can put a file in the backup's place chooses what it holds."""
    identity = pyrage.x25519.Identity.generate()
    file, folder = tmp_path / "site.backup", tmp_path / "restored"
    file.write_bytes(PublicKey(str(identity.to_public())).seal(HOSTILE[what]))
    with pytest.raises(ConfigError) as refused:
        restore_backup(file, folder, SecretKey(str(identity)))
    assert refused.value.code == "CO-F504"
    assert list(tmp_path.iterdir()) == [file]
