"""Files with which sites found a network: the same cards give the same genesis, secrets stay private."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coterie_chain.errors import StoreFault
from coterie_chain.keys.private_files import write_private
from coterie_node.cli.main import app
from coterie_node.errors import ConfigError
from coterie_node.network.founding import FounderCard, make_keys, make_trial, write_network_files
from coterie_node.site.folder import find_node

SITES = ("north", "south", "west", "east")
LIGHT = 1 << 12


def cards(folder: Path, chain: str) -> list[FounderCard]:
    return [
        make_keys(folder / site, site, f"10.0.0.{k}", f"10.0.0.{k}", chain=chain, scrypt=LIGHT)
        for k, site in enumerate(SITES, start=1)
    ]


@pytest.mark.parametrize(("chain", "home"), [("clique", "geth"), ("qbft", "besu")])
def test_the_same_cards_give_every_site_the_same_genesis(tmp_path: Path, chain: str, home: str) -> None:
    site_cards = cards(tmp_path, chain)
    for site in SITES:
        write_network_files(tmp_path / site, site, site_cards[::-1] if site == "west" else site_cards)
    texts = {(tmp_path / site / home / "genesis.json").read_text() for site in SITES}
    assert len(texts) == 1
    alloc = json.loads(texts.pop())["alloc"]
    assert set(alloc) == {card.operator[2:].lower() for card in site_cards}
    peers = json.loads((tmp_path / "south" / "kubo" / "config.json").read_text())["Peering"]["Peers"]
    assert {p["ID"] for p in peers} == {card.peer for card in site_cards if card.site != "south"}


def test_a_chain_that_sleeps_is_founded_by_three_sites_and_every_node_is_told(tmp_path: Path) -> None:
    site_cards = cards(tmp_path, "clique")[:3]
    for card in site_cards:
        write_network_files(tmp_path / card.site, card.site, site_cards, sleep=True)
        run_command("init", tmp_path / card.site, "--site", card.site)
        assert find_node(tmp_path / card.site).config.chain.sleep
    texts = {(tmp_path / card.site / "geth" / "genesis.json").read_text() for card in site_cards}
    (content,) = map(json.loads, texts)
    assert content["config"]["clique"]["period"] == 1
    wanted = {account[2:].lower() for card in site_cards for account in (card.operator, card.sealer)}
    assert set(content["alloc"]) == wanted


def test_a_besu_chain_that_sleeps_makes_empty_blocks_seldom(tmp_path: Path) -> None:
    site_cards = cards(tmp_path, "qbft")
    write_network_files(tmp_path / "north", "north", site_cards, sleep=True)
    qbft = json.loads((tmp_path / "north" / "besu" / "genesis.json").read_text())["config"]["qbft"]
    assert (qbft["blockperiodseconds"], qbft["emptyblockperiodseconds"], qbft["requesttimeoutseconds"]) == (1, 300, 2)
    write_network_files(tmp_path / "north", "north", site_cards)
    qbft = json.loads((tmp_path / "north" / "besu" / "genesis.json").read_text())["config"]["qbft"]
    assert (qbft["blockperiodseconds"], "emptyblockperiodseconds" in qbft) == (5, False)


@pytest.mark.parametrize(("chain", "count"), [("clique", 2), ("clique", 4), ("qbft", 3)])
def test_a_chain_of_a_number_of_sites_for_which_sleep_is_not_proven_is_not_founded(
    tmp_path: Path, chain: str, count: int
) -> None:
    site_cards = cards(tmp_path, chain)[:count]
    with pytest.raises(StoreFault) as refused:
        write_network_files(tmp_path / "north", "north", site_cards, sleep=True)
    assert refused.value.code == "CO-C338"
    assert not list((tmp_path / "north").glob("*/genesis.json"))


def test_a_socket_with_a_long_path_is_refused_where_the_chain_shall_sleep(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25)
    own = make_keys(folder, "north", "10.0.0.1", "10.0.0.1", scrypt=LIGHT)
    others = [replace(own, site=site) for site in ("south", "west")]
    with pytest.raises(StoreFault, match="100 letters"):
        write_network_files(folder, "north", [own, *others], sleep=True)


def test_keys_are_made_once_and_a_card_survives_its_file(tmp_path: Path) -> None:
    first = make_keys(tmp_path, "north", "10.0.0.1", "10.0.0.1", scrypt=LIGHT)
    assert make_keys(tmp_path, "north", "10.0.0.1", "10.0.0.1", scrypt=LIGHT) == first
    file = tmp_path / "founder.json"
    file.write_text(first.to_json())
    assert FounderCard.read(file) == first
    assert len(first.entry(1).peer) == 32
    file.write_text('{"site": 3}')
    with pytest.raises(ConfigError, match="not a site's card"):
        FounderCard.read(file)


def test_cards_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    site_cards = cards(tmp_path, "clique")
    for wrong in (site_cards[1:], [*site_cards, site_cards[0]], [site_cards[0], replace(site_cards[1], chain="qbft")]):
        with pytest.raises(ConfigError) as caught:
            write_network_files(tmp_path / "north", "north", wrong)
        assert caught.value.code == "CO-F502"


def test_no_secret_of_a_trial_is_open_to_others(tmp_path: Path) -> None:
    variables = make_trial(tmp_path, SITES[:3])
    assert set(variables) == {"NORTH_SEALER", "SOUTH_SEALER", "WEST_SEALER"}
    secret = ("passphrase", "nodekey", "jwt.hex", "token", "swarm.key", "identity.json", "config.json", "operator.json")
    secret_files = [p for p in tmp_path.rglob("*") if p.name.endswith(secret)]
    assert len(secret_files) >= 3 * len(secret)
    assert [p for p in secret_files if stat.S_IMODE(os.stat(p).st_mode) & 0o077] == []
    keys = {(tmp_path / site / "kubo" / "repo" / "swarm.key").read_text() for site in SITES[:3]}
    assert len(keys) == 1


def test_a_site_that_comes_later_takes_the_networks_genesis_and_no_other(tmp_path: Path) -> None:
    site_cards = cards(tmp_path, "clique")
    write_network_files(tmp_path / "north", "north", site_cards[:3])
    of_network = tmp_path / "north" / "geth" / "genesis.json"
    shuffled = tmp_path / "invited.json"
    shuffled.write_text(json.dumps(json.loads(of_network.read_text())))
    write_network_files(tmp_path / "east", "east", site_cards, of_network=shuffled)
    assert (tmp_path / "east" / "geth" / "genesis.json").read_bytes() == of_network.read_bytes()
    mixed = dict(reversed(json.loads(of_network.read_text()).items()))
    shuffled.write_text(json.dumps({"genesis_file": mixed}))
    write_network_files(tmp_path / "east", "east", site_cards, of_network=shuffled)
    assert (tmp_path / "east" / "geth" / "genesis.json").read_bytes() == of_network.read_bytes()
    for wrong in ("{", "[]", "{}"):
        shuffled.write_text(wrong)
        with pytest.raises(ConfigError) as caught:
            write_network_files(tmp_path / "east", "east", site_cards, of_network=shuffled)
        assert caught.value.code == "CO-F324"


def test_kubo_is_set_to_serve_this_machine_only_unless_a_container_asks(tmp_path: Path) -> None:
    def api(**options: str) -> object:
        write_network_files(tmp_path / "north", "north", site_cards, **options)  # type: ignore[arg-type]
        return json.loads((tmp_path / "north" / "kubo" / "config.json").read_text())["Addresses"]["API"]

    site_cards = cards(tmp_path, "clique")
    assert api() == "/ip4/127.0.0.1/tcp/5001"
    assert api(api="0.0.0.0") == "/ip4/0.0.0.0/tcp/5001"


def test_a_sealers_key_opens_at_once_so_that_it_loses_no_block_while_it_starts(tmp_path: Path) -> None:
    make_keys(tmp_path, "north", "10.0.0.1", "10.0.0.1", scrypt=LIGHT)
    stored_key = json.loads((tmp_path / "geth" / "keystore" / "sealer.json").read_text())
    assert stored_key["crypto"]["kdfparams"]["n"] <= 1 << 12
    assert len((tmp_path / "geth" / "sealer.passphrase").read_text()) > 30


def test_a_name_that_is_none_makes_no_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_keys(tmp_path / "n", "North", "10.0.0.1", "10.0.0.1", scrypt=LIGHT)
    assert caught.value.code == "CO-F325"
    assert not (tmp_path / "n").exists()


def run_command(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    error = done.exception
    return str(getattr(error, "code", "")) or done.stdout


def test_the_commands_refuse_what_would_split_a_network(tmp_path: Path) -> None:
    site_cards = cards(tmp_path, "clique")
    for card in site_cards:
        (tmp_path / card.site / "founder.json").write_text(card.to_json())
    north, founders = tmp_path / "north", [w for s in SITES for w in ("--founder", tmp_path / s / "founder.json")]
    assert run_command("network", "keys", north, "--site", "south", "--host", "10.0.0.2") == "CO-F203"
    wrong = tmp_path / "swarm.key"
    write_private(wrong, "garbage")
    stored_key = (north / "kubo" / "repo" / "swarm.key").read_bytes()
    assert run_command("network", "files", north, "--site", "north", *founders, "--swarm-key", wrong) == "CO-C104"
    assert (north / "kubo" / "repo" / "swarm.key").read_bytes() == stored_key
    assert run_command("network", "files", north, "--site", "north", *founders, "--sleep") == "CO-C338"
    files = run_command("network", "files", north, "--site", "north", *founders)
    assert hashlib.sha256((north / "geth" / "genesis.json").read_bytes()).hexdigest() in files
    (north / "network.json").write_text("{}")
    assert run_command("network", "deploy", north, "--chain", "http://127.0.0.1:1", *founders) == "CO-F203"


def test_a_node_in_a_founders_folder_is_offered_what_lies_there(tmp_path: Path) -> None:
    site_cards = cards(tmp_path, "clique")
    write_network_files(tmp_path / "north", "north", site_cards[:3])
    run_command("init", tmp_path / "north", "--site", "north")
    config = find_node(tmp_path / "north").config
    assert config.chain.url == "http://127.0.0.1:8551?jwt_file=geth/jwt.hex"
    assert config.store.url == "kubo+http://127.0.0.1:5001?token_file=kubo/token"
    assert (config.chain.confirmations, config.chain.sleep) == (2, False)


def test_units_start_what_a_devnet_starts_and_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    for name in ("COTERIE_GETH", "COTERIE_IPFS"):
        monkeypatch.setenv(name, str(program))
    site_cards, north, east = cards(tmp_path, "clique"), tmp_path / "north", tmp_path / "east"
    assert run_command("network", "unit", north, "geth") == "CO-F330"
    assert run_command("network", "unit", north, "besu") == "CO-F305"
    write_network_files(north, "north", site_cards[:3])
    write_network_files(east, "east", site_cards, of_network=north / "geth" / "genesis.json")
    seals = [f"--mine --miner.etherbase {card.sealer}" for card in (site_cards[0], site_cards[3])]
    assert [
        seal in run_command("network", "unit", home, "geth") for seal, home in zip(seals, (north, east), strict=True)
    ] == [
        True,
        False,
    ]
    both = run_command("network", "unit", north, "geth") + run_command("network", "unit", north, "kubo")
    assert "--authrpc.addr 127.0.0.1" in both
    assert "Environment=LIBP2P_FORCE_PNET=1" in both
    for secret in ("geth/jwt.hex", "geth/sealer.passphrase", "kubo/token", "kubo/repo/swarm.key"):
        assert (north / secret).read_text().strip() not in both
