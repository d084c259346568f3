"""A later site enters by an invitation that opens for its card alone, for some days, and once."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from support.node.founded_sites import FoundedSites

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ethereum.network import Network
from coterie_node.errors import ConfigError
from coterie_node.network.founding import FounderCard, build_seat
from coterie_node.network.membership.entry import (
    VALID_SECONDS,
    EntryInvitation,
    check_against_ledger,
    follow_invitation,
    note_entry,
    write_invitation,
)
from coterie_node.network.membership.known_members import add_member, drop_member
from coterie_node.network.systemd_units import mark_sealer, render_units

NOW = 1_800_000_000
NETWORK = Network("http://127.0.0.1:1", 20240, "0x" + "12" * 20, "0x" + "00" * 32, 3)


@pytest.fixture
def sites(tmp_path: Path) -> FoundedSites:
    """Three sites that have founded a network."""
    return FoundedSites(tmp_path)


@pytest.fixture
def east(sites: FoundedSites) -> FounderCard:
    """A newcomer's card; its keys are in its folder."""
    return sites.newcomers["east"]


def invite(sites: FoundedSites, card: FounderCard, by: str = "north") -> EntryInvitation:
    """A member's invitation, as it comes back from its file."""
    listed = sites.ledger(by).sites()
    made = write_invitation(sites.home(by), sites.keys(by), NETWORK, listed, card, head=9, now=NOW)
    (sites.root / "invitation.json").write_text(made.to_json())
    return EntryInvitation.load(sites.root / "invitation.json")


def follow(sites: FoundedSites, invitation: EntryInvitation, site: str = "east", now: int = NOW) -> None:
    """What the newcomer does with it."""
    (sites.root / "invitation.json").write_text(invitation.to_json())
    folder = sites.root / site
    follow_invitation(folder, sites.keys(site), sites.root / "invitation.json", invitation, now)


def refuse(code: str, sites: FoundedSites, invitation: EntryInvitation, site: str = "east", now: int = NOW) -> str:
    """The words with which the newcomer refuses, and writes nothing."""
    with pytest.raises(ConfigError) as refused:
        follow(sites, invitation, site, now)
    assert refused.value.code == code
    assert not (sites.root / site / "geth" / "genesis.json").exists()
    return refused.value.message


def test_a_newcomer_gets_genesis_swarm_key_and_peers_of_the_network(sites: FoundedSites, east: FounderCard) -> None:
    invitation = invite(sites, east)
    follow(sites, invitation)
    for name in ("geth/genesis.json", "kubo/repo/swarm.key"):
        assert (sites.root / "east" / name).read_bytes() == (sites.root / "north" / name).read_bytes()
    peers = tomllib.loads((sites.root / "east" / "geth" / "config.toml").read_text())["Node"]["P2P"]["StaticNodes"]
    assert peers == [card.enode for card in sites.cards]
    assert invitation.network("http://x").catalog.lower() == NETWORK.catalog


def test_an_invitation_holds_no_secret_in_the_clear(sites: FoundedSites, east: FounderCard) -> None:
    text = invite(sites, east).to_json()
    assert sites.swarm_key("north").split()[-1] not in text


@pytest.mark.parametrize("field", ["swarm_key", "cards", "until", "contracts", "members", "genesis_file", "signature"])
def test_an_altered_invitation_is_refused_whatever_was_altered(
    field: str, sites: FoundedSites, east: FounderCard
) -> None:
    whole, other = invite(sites, east), invite(sites, east, "south")
    changes: dict[str, object] = {
        "swarm_key": other.swarm_key,
        "cards": whole.cards[1:],
        "until": whole.until + 1,
        "contracts": whole.contracts.model_copy(update={"block": 4}),
        "members": (whole.members[0].model_copy(update={"address": other.members[1].address}), *whole.members[1:]),
        "genesis_file": {**whole.genesis_file, "difficulty": "0x2"},
        "signature": other.signature,
    }
    altered = whole.model_copy(update={field: changes[field]})
    assert "signature is not that of 'north'" in refuse("CO-F511", sites, altered)


def test_an_invitation_for_another_site_or_other_keys_is_refused(sites: FoundedSites, east: FounderCard) -> None:
    assert "'east'" in refuse("CO-F512", sites, invite(sites, east), "far")
    moved = replace(east, enode=east.enode.replace("10.0.0.1", "10.0.0.9"))
    refuse("CO-F512", sites, invite(sites, moved))


def test_a_key_that_was_sealed_for_another_card_does_not_open(sites: FoundedSites, east: FounderCard) -> None:
    moved = invite(sites, replace(east, peer=sites.newcomers["far"].peer))
    swapped = invite(sites, east).model_copy(update={"swarm_key": moved.swarm_key}).sign(sites.keys("north"))
    assert "no swarm's key" in refuse("CO-F511", sites, swapped)


def test_an_invitation_serves_for_some_days_and_once(sites: FoundedSites, east: FounderCard) -> None:
    invitation = invite(sites, east)
    assert "2.0 days ago" in refuse("CO-F513", sites, invitation, now=NOW + VALID_SECONDS + 172800)
    follow(sites, invitation)
    follow(sites, invitation)  # a command that was interrupted goes on
    note_entry(sites.root / "east", invitation, NOW)
    with pytest.raises(ConfigError) as refused:
        follow(sites, invitation)
    assert refused.value.code == "CO-F514"


def test_a_file_that_is_no_invitation_is_refused(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"format": 2}', json.dumps({"format": 1, "contracts": {}})):
        (tmp_path / "invitation.json").write_text(text)
        with pytest.raises(ConfigError) as refused:
            EntryInvitation.load(tmp_path / "invitation.json")
        assert refused.value.code == "CO-F510"


@pytest.mark.parametrize("same", ["site", "operator", "sealing"])
def test_a_card_with_a_member_s_name_or_key_is_not_invited(same: str, sites: FoundedSites, east: FounderCard) -> None:
    with pytest.raises(ConfigError) as refused:
        invite(sites, replace(east, **{same: getattr(sites.cards[1], same)}))
    assert refused.value.code == "CO-F329"


def test_the_chain_says_who_the_inviter_is_and_whether_the_seat_is_there(
    sites: FoundedSites, east: FounderCard
) -> None:
    invitation, reader = invite(sites, east), sites.chain.ledger(None)
    with pytest.raises(LedgerUnreachable):
        check_against_ledger(invitation, reader, newest=8)
    assert not check_against_ledger(invitation, reader, newest=9)
    for member in ("north", "south"):
        sites.ledger(member).admit(build_seat(east).entry)
    assert check_against_ledger(invitation, reader, newest=9)
    for member in ("south", "west", "east"):
        sites.ledger(member).revoke("north")
    with pytest.raises(ConfigError) as refused:
        check_against_ledger(invitation, reader, newest=9)
    assert refused.value.code == "CO-F511"


def test_a_seat_that_was_revoked_is_not_entered_again(sites: FoundedSites, east: FounderCard) -> None:
    invitation = invite(sites, east)
    for member in ("north", "south"):
        sites.ledger(member).admit(build_seat(east).entry)
    for member in ("north", "south", "west"):
        sites.ledger(member).revoke("east")
    with pytest.raises(ConfigError) as refused:
        check_against_ledger(invitation, sites.chain.ledger(None), newest=9)
    assert refused.value.code == "CO-F329"


def test_a_member_s_programs_call_a_newcomer_and_no_longer_a_site_that_left(
    sites: FoundedSites, east: FounderCard
) -> None:
    home = sites.home("north")

    def list_peers() -> tuple[list[str], list[str]]:
        chain = tomllib.loads((home.root / "geth" / "config.toml").read_text())["Node"]["P2P"]["TrustedNodes"]
        store = json.loads((home.root / "kubo" / "config.json").read_text())
        assert store["Addresses"]["API"] == "/ip4/127.0.0.1/tcp/7003"
        return chain, [peer["ID"] for peer in store["Peering"]["Peers"]]

    add_member(home, east)
    assert [east.enode in list_peers()[0], east.peer in list_peers()[1]] == [True, True]
    assert drop_member(home, "east") == east
    assert [east.enode in list_peers()[0], east.peer in list_peers()[1]] == [False, False]
    assert drop_member(home, "east") is None


def test_a_later_site_makes_blocks_only_where_it_says_so(
    sites: FoundedSites, east: FounderCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = sites.root / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    for name in ("COTERIE_GETH", "COTERIE_IPFS"):
        monkeypatch.setenv(name, str(program))
    follow(sites, invite(sites, east))
    seals = f"--mine --miner.etherbase {east.sealer}"
    assert seals not in render_units(sites.root / "east")["coterie-geth.service"]
    mark_sealer(sites.root / "east")
    assert seals in render_units(sites.root / "east")["coterie-geth.service"]
