"""A network is founded by cards and one file: no secret of it is open, and who changes it on its way is found."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from support.node.founded_sites import FoundedSites

from coterie_chain.errors import LedgerUnreachable, StoreFault
from coterie_chain.keys.private_files import read_private
from coterie_chain.network.swarm import Kubo
from coterie_node.cli.site.init import locate_typed_rows
from coterie_node.errors import ConfigError
from coterie_node.network.founding import FounderCard, make_keys, propose_addresses
from coterie_node.network.guided_founding import (
    CARD_PREFIX,
    OWN_CARD,
    FoundingPlan,
    await_chain,
    follow_plan,
    format_card,
    parse_card,
    write_plan,
)
from coterie_node.network.site_ports import SitePorts
from coterie_node.network.site_programs import SitePrograms
from coterie_node.network.systemd_units import render_units

SITES = ("north", "south", "west")
LIGHT = 1 << 12


def make_site(folder: Path, site: str, first_port: int | None = None) -> FounderCard:
    """A site's keys and its card in its folder, as the first step leaves them."""
    folder.mkdir()
    if first_port is not None:
        SitePorts.count_from(first_port).write(folder)
    card = make_keys(folder, site, "10.0.0.1", "10.0.0.1", scrypt=LIGHT)
    (folder / OWN_CARD).write_text(card.to_json())
    return card


@pytest.fixture
def cards(tmp_path: Path) -> list[FounderCard]:
    """The cards of three sites on one machine."""
    return [make_site(tmp_path / site, site, 7000 + 10 * k) for k, site in enumerate(SITES)]


@pytest.fixture
def plan(cards: list[FounderCard], tmp_path: Path) -> FoundingPlan:
    """The first founder's file."""
    write_plan(tmp_path / "north", cards, sleep=False)
    return FoundingPlan.load(tmp_path / "north" / "founding.json")


def refuse(code: str, plan: FoundingPlan, folder: Path) -> str:
    """The words with which a site refuses a plan."""
    with pytest.raises(ConfigError) as refused:
        follow_plan(folder, plan)
    assert refused.value.code == code
    return refused.value.message


def test_all_sites_get_one_swarm_key_one_genesis_and_each_other_s_addresses(plan: FoundingPlan, tmp_path: Path) -> None:
    for site in SITES[1:]:
        follow_plan(tmp_path / site, plan)
    for name in ("kubo/repo/swarm.key", "geth/genesis.json"):
        assert len({(tmp_path / site / name).read_bytes() for site in SITES}) == 1
    assert (tmp_path / "south" / "kubo" / "repo" / "swarm.key").stat().st_mode & 0o077 == 0
    peers = (tmp_path / "south" / "geth" / "config.toml").read_text()
    assert [f"@10.0.0.1:{port}" in peers for port in (7000, 7010, 7020)] == [True, False, True]


def test_founding_json_holds_no_secret_that_a_stranger_opens(plan: FoundingPlan, tmp_path: Path) -> None:
    secret = read_private(Kubo(tmp_path / "north" / "kubo").key, "key").split()[-1]
    assert secret not in (tmp_path / "north" / "founding.json").read_text()
    stranger = make_site(tmp_path / "east", "east")
    changed = plan.model_copy(update={"cards": (*plan.cards, type(plan.cards[0])(**vars(stranger)))})
    assert "no swarm's key" in refuse("CO-F507", changed, tmp_path / "east")


def test_a_card_that_was_changed_on_its_way_is_found_at_its_own_site(plan: FoundingPlan, tmp_path: Path) -> None:
    for field, value in (("operator", "0x" + "12" * 20), ("sealing", "34" * 32), ("enode", "enode://x@10.0.0.9:1")):
        cards = tuple(c.model_copy(update={field: value}) if c.site == "south" else c for c in plan.cards)
        changed = plan.model_copy(update={"cards": cards})
        assert "another card of this site" in refuse("CO-F502", changed, tmp_path / "south")
        assert changed.fingerprint != plan.fingerprint
    without = plan.model_copy(update={"cards": tuple(c for c in plan.cards if c.site != "south")})
    assert "no card of this site" in refuse("CO-F502", without, tmp_path / "south")


def test_the_fingerprint_covers_all_of_the_plan(plan: FoundingPlan) -> None:
    sealed = plan.swarm_key[:-2] + ("00" if plan.swarm_key[-2:] != "00" else "01")
    others = (plan.model_copy(update={"sleep": True}), plan.model_copy(update={"swarm_key": sealed}))
    assert len({plan.fingerprint, *(other.fingerprint for other in others)}) == 3


def test_a_card_is_one_line_of_text_and_comes_back_whole(cards: list[FounderCard], tmp_path: Path) -> None:
    text = format_card(cards[1])
    assert re.fullmatch(r"[\w:=-]+", text)
    assert parse_card(text) == parse_card(str(tmp_path / "south" / OWN_CARD)) == cards[1]
    saved = tmp_path / "south.card"
    saved.write_text(text + "\n")
    assert parse_card(str(saved)) == cards[1]


def test_rows_of_the_working_folder_are_written_with_their_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    site.mkdir()
    work.mkdir()
    monkeypatch.chdir(work)
    assert locate_typed_rows(site, "rows.csv") == "rows.csv"
    (work / "rows.csv").write_text("age\n")
    assert locate_typed_rows(site, "rows.csv") == str(work / "rows.csv")
    (site / "rows.csv").write_text("age\n")
    assert locate_typed_rows(site, "rows.csv") == "rows.csv"


@pytest.mark.parametrize("damage", ["cut", "bomb", "other", "nothing", "number"])
def test_a_text_that_is_no_whole_card_is_refused(damage: str, cards: list[FounderCard]) -> None:
    bomb = base64.urlsafe_b64encode(zlib.compress(b" " * (1 << 26))).decode()
    number = base64.urlsafe_b64encode(zlib.compress(json.dumps({**vars(cards[0]), "site": 3}).encode())).decode()
    texts = {
        "cut": format_card(cards[0])[:-40],
        "bomb": CARD_PREFIX + bomb,
        "other": CARD_PREFIX + "aGVsbG8=",
        "nothing": CARD_PREFIX,
        "number": CARD_PREFIX + number,
    }
    with pytest.raises(ConfigError) as refused:
        parse_card(texts[damage])
    assert refused.value.code == "CO-F501"


def test_a_name_that_is_no_site_s_name_writes_no_file(cards: list[FounderCard], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_plan(tmp_path / "north", [*cards, replace(cards[1], site="../evil")], sleep=False)
    assert not list(tmp_path.rglob("evil*"))


# Ports and units


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs to name in units, whether or not Geth and Kubo are installed."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    for name in ("COTERIE_GETH", "COTERIE_IPFS"):
        monkeypatch.setenv(name, str(program))


@pytest.mark.usefixtures("programs")
def test_the_ports_of_a_site_reach_its_settings_its_card_and_its_units(plan: FoundingPlan, tmp_path: Path) -> None:
    addresses = propose_addresses(tmp_path / "north")
    assert addresses.chain.startswith("http://127.0.0.1:7002?")
    assert addresses.store.startswith("kubo+http://127.0.0.1:7003?")
    assert addresses.confirmations == 2
    assert [card.swarm for card in plan.cards] == [f"/ip4/10.0.0.1/tcp/{port}" for port in (7001, 7011, 7021)]
    units = render_units(tmp_path / "north")
    assert "--authrpc.port 7002" in units["coterie-geth.service"]


@pytest.mark.usefixtures("plan", "programs")
def test_units_prepare_chain_and_store_and_are_shut_off_from_the_machine(tmp_path: Path) -> None:
    units = render_units(tmp_path / "north")
    assert "geth/chaindata ] || (rm -rf" in units["coterie-geth.service"]
    assert "repo/version ] || (rm -f" in units["coterie-kubo.service"]
    assert "After=network-online.target coterie-geth.service coterie-kubo.service" in units["coterie.service"]
    hard = ("CapabilityBoundingSet=", "SystemCallFilter=@system-service", "ProtectSystem=strict", "PrivateDevices=true")
    for text in units.values():
        assert all(f"\n{line}\n" in text for line in hard)
        assert "User=coterie" in text
        assert "{" not in text


def test_a_program_that_has_ended_ends_the_wait_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a port that another program has: the command waited an hour for a chain node that was not there."""
    sites, program, reasons = FoundedSites(tmp_path), tmp_path / "program", list[str]()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    for name in ("COTERIE_GETH", "COTERIE_IPFS"):
        monkeypatch.setenv(name, str(program))
    monkeypatch.setattr("coterie_node.network.guided_founding.PAUSE_SECONDS", 0.0)
    (sites.root / "north" / "geth" / "log").write_text("Fatal: bind: address already in use\n")

    def look() -> None:
        raise LedgerUnreachable("CO-C301", "nobody answers")

    with pytest.raises(StoreFault, match="address already in use") as refused:
        await_chain(look, 60.0, reasons.append, SitePrograms(sites.root / "north").check_alive)
    assert refused.value.code == "CO-C336"
    assert reasons == [
        "waiting: this site's chain node does not answer yet; if this stays, its log says why (geth/log)"
    ]
