"""What an administrator does twice, late, early or with the wrong file ends in a code, and writes nothing half."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pyrage  # type: ignore[import-untyped]
import pytest
from support.node.commands import refusal, run
from support.node.founded_sites import FoundedSites
from support.node.houses import NETWORK, NodeNetwork, study_file

from coterie_chain.ledger.memory import MemoryLedger
from coterie_chain.network.swarm import Kubo
from coterie_node.errors import ConfigError
from coterie_node.network.backup import PublicKey, SecretKey, restore_backup, write_backup
from coterie_node.network.founding import FounderCard, build_seat
from coterie_node.network.guided_founding import format_card
from coterie_node.network.membership.entry import check_invitation, follow_invitation, write_invitation
from coterie_node.network.membership.rekey import RekeyOrder, take_order, write_order
from coterie_node.site.config import CONFIG, load_config
from coterie_node.site.decisions import make_decision
from coterie_node.site.folder import SiteFolder, find_node
from coterie_node.verbs.members import has_voted

NOW = 1_800_000_000
IDENTITY = pyrage.x25519.Identity.generate()
LOCK, KEY = PublicKey(str(IDENTITY.to_public())), SecretKey(str(IDENTITY))


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FoundedSites:
    """Three sites and two newcomers, whose commands find the ledger in memory."""
    founded = FoundedSites(tmp_path)

    def open_ledger(home: SiteFolder) -> nullcontext[MemoryLedger]:
        return nullcontext(founded.ledger(home.name))

    monkeypatch.setattr(SiteFolder, "open_ledger", open_ledger)
    monkeypatch.setattr(SiteFolder, "network", lambda home: NETWORK)
    return founded


def read_files(root: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def refuse_whole(code: str, root: Path, *words: object) -> str:
    """A command ends with a code and changes no file; returns its sentence."""
    before = read_files(root)
    error = refusal(*words)
    assert (error.code, read_files(root)) == (code, before)
    return str(error.message)


def order_key(sites: FoundedSites, by: str, now: int) -> RekeyOrder:
    """A site makes a new swarm's key, and takes it over."""
    listed = sites.chain.ledger(None).sites()
    order = write_order(sites.home(by), sites.keys(by), NETWORK.scope, listed, now)
    take(sites, by, order)
    return order


def take(sites: FoundedSites, site: str, order: RekeyOrder, now: int = NOW) -> None:
    """A site takes an order over."""
    take_order(sites.home(site), sites.keys(site), NETWORK.scope, sites.chain.ledger(None).sites(), order, now)


def cast(sites: FoundedSites, site: str) -> None:
    """The site's daemon casts its votes."""
    box = sites.home(site).ballots
    for path in box.waiting():
        box.read(path).cast(sites.ledger(site), None)  # type: ignore[arg-type]
        box.settle(path, "cast")


def tick(network: NodeNetwork) -> None:
    """One beat of each daemon."""
    for daemon in network.daemons.values():
        daemon.tick()


# A new swarm's key


def test_a_site_that_was_away_through_two_rekeys_takes_the_second_and_never_the_first(sites: FoundedSites) -> None:
    first = order_key(sites, "north", NOW)
    take(sites, "south", first)
    second = order_key(sites, "south", NOW + 60)
    take(sites, "north", second)
    assert len({sites.swarm_key(site) for site in ("north", "south", "west")}) == 2
    take(sites, "west", second)
    assert len({sites.swarm_key(site) for site in ("north", "south", "west")}) == 1
    with pytest.raises(ConfigError) as refused:
        take(sites, "west", first)
    assert refused.value.code == "CO-F517"


def test_a_site_whose_store_is_elsewhere_neither_orders_a_key_nor_takes_one(sites: FoundedSites) -> None:
    order, west = sites.root / "rekey.json", sites.root / "west"
    order.write_text(order_key(sites, "north", NOW).to_json())
    shutil.rmtree(west / "kubo")
    for words in ((), (order,)):
        said = refuse_whole("CO-F330", west, "network", "rekey", *words, "--node", west)
        assert "not in its folder" in said


def test_an_order_is_not_written_where_this_site_would_not_take_it_itself(sites: FoundedSites) -> None:
    """Its clock was years ahead when it took the last order, and is right again."""
    north = sites.root / "north"
    future = write_order(
        sites.home("north"), sites.keys("north"), NETWORK.scope, sites.chain.ledger(None).sites(), NOW * 2
    )
    take(sites, "north", future, NOW * 2)
    assert "ahead of this machine's clock" in refuse_whole("CO-F525", north, "network", "rekey", "--node", north)


def test_an_order_is_no_file_a_folder_or_another_text(sites: FoundedSites, tmp_path: Path) -> None:
    south = sites.root / "south"
    (tmp_path / "order.json").write_text("{}")
    for order in (tmp_path / "none.json", tmp_path, tmp_path / "order.json", sites.root / "north" / "founder.json"):
        refuse_whole("CO-F515", south, "network", "rekey", order, "--node", south)


# Votes about members


def test_a_site_neither_puts_itself_out_of_its_network_nor_anybody_twice(sites: FoundedSites) -> None:
    north, words = sites.root / "north", ("--and-network", "--node", sites.root / "north")
    refuse_whole("CO-F329", north, "site", "revoke", "north", *words)
    run("site", "revoke", "west", *words)
    waits = refuse_whole("CO-F528", north, "site", "revoke", "west", "--node", north)
    assert "waits for the daemon" in waits
    cast(sites, "north")
    counted = refuse_whole("CO-F528", north, "site", "revoke", "west", "--node", north)
    assert "1 of 2 votes" in counted
    assert "coterie site withdraw west" in counted
    run("site", "revoke", "west", "--node", sites.root / "south")
    cast(sites, "south")
    assert "not an active site" in refuse_whole("CO-F329", north, "site", "revoke", "west", "--node", north)


def test_a_second_vote_counts_where_it_passes_the_motion_as_fewer_sites_are_left(sites: FoundedSites) -> None:
    east = build_seat(sites.newcomers["east"]).entry
    for member in ("north", "south"):
        sites.ledger(member).admit(east)
    for member in ("north", "south"):  # 2 of 3 votes, as four have a seat
        sites.ledger(member).revoke("west")
    assert sites.chain.ledger(None).sites()[2].active
    for member in ("north", "south", "west"):
        sites.ledger(member).revoke("east")
    assert has_voted(sites.home("north"), "revoke", "west") == ""
    run("site", "revoke", "west", "--node", sites.root / "north")
    cast(sites, "north")
    assert not sites.chain.ledger(None).sites()[2].active


def test_two_proposals_for_one_name_do_not_get_the_votes_of_one_site(sites: FoundedSites, tmp_path: Path) -> None:
    north, east, far = sites.root / "north", sites.newcomers["east"], sites.newcomers["far"]
    for name, card in (("first", east), ("second", replace(far, site="east"))):
        (tmp_path / f"{name}.json").write_text(card.to_json())
    run("site", "admit", tmp_path / "first.json", "--node", north)
    cast(sites, "north")
    said = refuse_whole("CO-F528", north, "site", "admit", tmp_path / "second.json", "--node", north)
    assert east.operator in said
    # Another site that votes for the second card keeps both from passing, and sees it.
    run("site", "admit", tmp_path / "second.json", "--node", sites.root / "south")
    cast(sites, "south")
    rows = json.loads(run("site", "list", "--node", north, "--json"))
    assert {row["address"] for row in rows if row["state"] == "to admit"} == {east.operator, far.operator}


@pytest.mark.parametrize("verb", ["admit", "revoke"])
def test_a_card_that_is_refused_leaves_no_vote_behind(verb: str, sites: FoundedSites, tmp_path: Path) -> None:
    north, west, east = sites.root / "north", sites.cards[2], sites.newcomers["east"]
    subject = east if verb == "admit" else west
    bad: dict[str, tuple[FounderCard, str]] = {
        "CO-F502": (replace(subject, sealer=sites.cards[1].sealer), "names another site's sealer"),
        "CO-F305": (replace(subject, chain="qbft"), "has no Clique"),
    }
    for code, (card, _) in bad.items():
        file = tmp_path / "card.json"
        file.write_text(card.to_json())
        words = ("admit", file) if verb == "admit" else ("revoke", "west", "--card", file)
        refuse_whole(code, north, "site", *words, "--and-network", "--node", north)
    assert sites.home("north").ballots.waiting() == []


def test_a_vote_about_a_sealer_takes_a_card_that_names_one(sites: FoundedSites, tmp_path: Path) -> None:
    north = sites.root / "north"
    seat = tmp_path / "seat.json"
    seat.write_text(build_seat(sites.newcomers["east"]).model_dump_json())
    refuse_whole("CO-F501", north, "site", "admit", seat, "--and-network", "--node", north)
    (north / "founders" / "west.json").unlink()
    refuse_whole("CO-F501", north, "site", "revoke", "west", "--and-network", "--node", north)


@pytest.mark.long
def test_a_study_with_a_site_that_is_revoked_meanwhile_says_that_it_waits_in_vain(node_network: NodeNetwork) -> None:
    number, daemons = 1, node_network.daemons
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    while not (ledger := node_network.chain.ledger(None)).studies() or ledger.view(number).open is None:
        tick(node_network)
    for member in ("north", "south"):
        node_network.chain.ledger(node_network.keys[member].address).revoke("west")
    for _ in range(8):
        tick(node_network)
        node_network.seconds += 300
    for site in ("north", "south"):
        assert (
            "the seat of west was revoked, so no further post will come from there" in daemons[site].tasks[number].cause
        )
    fault = daemons["west"].tasks[number].fault
    assert fault is not None
    assert "coterie site list" in str(fault)
    node_network.decisions("north").record(make_decision(study, "abort"))
    for _ in range(2):
        tick(node_network)
    assert {daemon.tasks[number].phase for daemon in daemons.values()} == {"aborted"}


# Files of another time


def test_a_site_that_is_restored_from_before_a_rekey_takes_the_newest_order_again(
    sites: FoundedSites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coterie_node.network.backup.find_open_ports", lambda *_: [])
    west, former = sites.home("west"), sites.swarm_key("west")
    write_backup(west, tmp_path / "west.backup", LOCK)
    first = order_key(sites, "north", NOW)
    take(sites, "west", first)
    second = order_key(sites, "north", NOW + 60)
    take(sites, "west", second)
    shutil.rmtree(west.root)
    restore_backup(tmp_path / "west.backup", west.root, KEY)
    assert sites.swarm_key("west") == former
    take(sites, "west", second)
    assert sites.swarm_key("west") == sites.swarm_key("north")
    with pytest.raises(ConfigError) as refused:
        take(sites, "west", first)
    assert refused.value.code == "CO-F517"


@pytest.mark.parametrize("share", [0.0, 0.5, *(pytest.param(k, marks=pytest.mark.long) for k in (0.01, 0.99, 0.999))])
def test_a_backup_that_was_cut_off_restores_nothing(share: float, sites: FoundedSites, tmp_path: Path) -> None:
    file = tmp_path / "north.backup"
    write_backup(sites.home("north"), file, LOCK)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    before = read_files(tmp_path)
    with pytest.raises(ConfigError) as refused:
        restore_backup(file, tmp_path / "again", KEY)
    assert refused.value.code == "CO-F504"
    assert read_files(tmp_path) == before
    assert not (tmp_path / "again").exists()


def test_an_invitation_from_before_a_rekey_has_the_former_key_and_the_next_order_reaches_the_newcomer(
    sites: FoundedSites,
) -> None:
    east, listed = sites.newcomers["east"], sites.chain.ledger(None).sites()
    invitation = write_invitation(sites.home("north"), sites.keys("north"), NETWORK, listed, east, head=0, now=NOW)
    order = order_key(sites, "north", NOW)
    file = sites.root / "invitation.json"
    file.write_text(invitation.to_json())
    check_invitation(sites.root / "east", invitation, NOW)
    follow_invitation(sites.root / "east", sites.keys("east"), file, invitation, NOW)
    assert sites.swarm_key("east") != sites.swarm_key("north")
    (sites.root / "east" / CONFIG).write_text((sites.root / "north" / CONFIG).read_text().replace("north", "east"))
    with pytest.raises(ConfigError, match="Has this site a seat") as refused:
        take(sites, "east", order)
    assert refused.value.code == "CO-F516"
    for member in ("north", "south"):
        sites.ledger(member).admit(build_seat(east).entry)
    take(sites, "east", order_key(sites, "north", NOW + 60))
    assert sites.swarm_key("east") == sites.swarm_key("north")


def test_another_invitation_after_a_rekey_is_no_second_vote_and_a_refused_card_gets_none(
    sites: FoundedSites, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    north, east, words = (
        sites.root / "north",
        sites.newcomers["east"],
        ("--and-network", "--node", sites.root / "north"),
    )

    class Reader(MemoryLedger):
        """The ledger with the number of its newest block."""

        newest = 7

    def read(*_: object) -> nullcontext[Reader]:
        return nullcontext(Reader(sites.chain, None))

    monkeypatch.setattr("coterie_node.cli.site.enter.EthereumLedger", read)
    bad = tmp_path / "bad.txt"
    bad.write_text(format_card(replace(east, chain="qbft")))
    refuse_whole("CO-F305", north, "site", "invite", bad, *words)
    card = tmp_path / "card.txt"
    card.write_text(format_card(east))
    assert "north votes to admit east" in run("site", "invite", card, *words)
    cast(sites, "north")
    first = json.loads((north / "invitation-east.json").read_text())["swarm_fingerprint"]
    order_key(sites, "north", NOW)
    assert "has voted before (its vote is on the ledger (1 of 2 votes" in run("site", "invite", card, *words)
    assert json.loads((north / "invitation-east.json").read_text())["swarm_fingerprint"] != first
    assert sites.home("north").ballots.waiting() == []


@pytest.mark.parametrize("years", ["-1", "nan", "inf", "1000", '"ten"'])
def test_no_setting_makes_payloads_due_before_their_date(years: str, sites: FoundedSites) -> None:
    path = sites.root / "north" / CONFIG
    path.write_text(f"{path.read_text()}\n[retention]\nyears = {years}\n")
    with pytest.raises(ConfigError, match="retention") as refused:
        load_config(path)
    assert refused.value.code == "CO-F320"
    assert find_node(sites.root / "south").config.retention.years == 10.0
    assert Kubo(sites.root / "north" / "kubo").key.exists()
