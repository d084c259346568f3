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

from coterie_chain.private_files import write_private
from coterie_node.cli import app
from coterie_node.consortium import Card, make_keys, make_trial, write_files
from coterie_node.errors import ConfigError
from coterie_node.site_config import Home

SITES = ("north", "south", "west", "east")
LIGHT = 1 << 12


def cards(folder: Path, chain: str) -> list[Card]:
    return [
        make_keys(folder / site, site, f"10.0.0.{k}", f"10.0.0.{k}", chain=chain, scrypt=LIGHT)
        for k, site in enumerate(SITES, start=1)
    ]


@pytest.mark.parametrize(("chain", "home"), [("clique", "geth"), ("qbft", "besu")])
def test_the_same_cards_give_every_site_the_same_genesis(tmp_path: Path, chain: str, home: str) -> None:
    made = cards(tmp_path, chain)
    for site in SITES:
        write_files(tmp_path / site, site, made[::-1] if site == "west" else made)
    texts = {(tmp_path / site / home / "genesis.json").read_text() for site in SITES}
    assert len(texts) == 1
    alloc = json.loads(texts.pop())["alloc"]
    assert set(alloc) == {card.operator[2:].lower() for card in made}
    peers = json.loads((tmp_path / "south" / "kubo" / "config.json").read_text())["Peering"]["Peers"]
    assert {p["ID"] for p in peers} == {card.peer for card in made if card.site != "south"}


def test_keys_are_made_once_and_a_card_survives_its_file(tmp_path: Path) -> None:
    first = make_keys(tmp_path, "north", "10.0.0.1", "10.0.0.1", scrypt=LIGHT)
    assert make_keys(tmp_path, "north", "10.0.0.1", "10.0.0.1", scrypt=LIGHT) == first
    file = tmp_path / "founder.json"
    file.write_text(first.to_json())
    assert Card.read(file) == first
    assert len(first.entry(1).peer) == 32
    file.write_text('{"site": 3}')
    with pytest.raises(ConfigError, match="no site's card"):
        Card.read(file)


def test_cards_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    made = cards(tmp_path, "clique")
    for wrong in (made[1:], [*made, made[0]], [made[0], replace(made[1], chain="qbft")]):
        with pytest.raises(ConfigError) as caught:
            write_files(tmp_path / "north", "north", wrong)
        assert caught.value.code == "CO-F502"


def test_no_secret_of_a_trial_is_open_to_others(tmp_path: Path) -> None:
    variables = make_trial(tmp_path, SITES[:3])
    assert set(variables) == {"NORTH_SEALER", "SOUTH_SEALER", "WEST_SEALER"}
    secret = ("passphrase", "nodekey", "jwt.hex", "token", "swarm.key", "identity.json", "config.json", "operator.json")
    found = [p for p in tmp_path.rglob("*") if p.name.endswith(secret)]
    assert len(found) >= 3 * len(secret)
    assert [p for p in found if stat.S_IMODE(os.stat(p).st_mode) & 0o077] == []
    keys = {(tmp_path / site / "kubo" / "repo" / "swarm.key").read_text() for site in SITES[:3]}
    assert len(keys) == 1


def test_a_site_that_comes_later_takes_the_networks_genesis_and_no_other(tmp_path: Path) -> None:
    made = cards(tmp_path, "clique")
    write_files(tmp_path / "north", "north", made[:3])
    of_network = tmp_path / "north" / "geth" / "genesis.json"
    shuffled = tmp_path / "invited.json"
    shuffled.write_text(json.dumps(json.loads(of_network.read_text())))
    write_files(tmp_path / "east", "east", made, of_network=shuffled)
    assert (tmp_path / "east" / "geth" / "genesis.json").read_bytes() == of_network.read_bytes()
    mixed = dict(reversed(json.loads(of_network.read_text()).items()))
    shuffled.write_text(json.dumps({"genesis_file": mixed}))
    write_files(tmp_path / "east", "east", made, of_network=shuffled)
    assert (tmp_path / "east" / "geth" / "genesis.json").read_bytes() == of_network.read_bytes()
    for wrong in ("{", "[]", "{}"):
        shuffled.write_text(wrong)
        with pytest.raises(ConfigError) as caught:
            write_files(tmp_path / "east", "east", made, of_network=shuffled)
        assert caught.value.code == "CO-F324"


def test_kubo_is_told_to_serve_this_machine_only_unless_a_container_asks(tmp_path: Path) -> None:
    def api(**told: str) -> object:
        write_files(tmp_path / "north", "north", made, **told)  # type: ignore[arg-type]
        return json.loads((tmp_path / "north" / "kubo" / "config.json").read_text())["Addresses"]["API"]

    made = cards(tmp_path, "clique")
    assert api() == "/ip4/127.0.0.1/tcp/5001"
    assert api(api="0.0.0.0") == "/ip4/0.0.0.0/tcp/5001"


def test_a_sealers_key_opens_at_once_so_that_it_loses_no_block_while_it_starts(tmp_path: Path) -> None:
    make_keys(tmp_path, "north", "10.0.0.1", "10.0.0.1", scrypt=LIGHT)
    held = json.loads((tmp_path / "geth" / "data" / "keystore" / "sealer.json").read_text())
    assert held["crypto"]["kdfparams"]["n"] <= 1 << 12
    assert len((tmp_path / "geth" / "sealer.passphrase").read_text()) > 30


def test_a_name_that_is_none_makes_no_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_keys(tmp_path / "n", "North", "10.0.0.1", "10.0.0.1", scrypt=LIGHT)
    assert caught.value.code == "CO-F325"
    assert not (tmp_path / "n").exists()


def told(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    error = done.exception
    return str(getattr(error, "code", "")) or done.stdout


def test_the_commands_refuse_what_would_split_a_network(tmp_path: Path) -> None:
    made = cards(tmp_path, "clique")
    for card in made:
        (tmp_path / card.site / "founder.json").write_text(card.to_json())
    north, founders = tmp_path / "north", [w for s in SITES for w in ("--founder", tmp_path / s / "founder.json")]
    assert told("network", "keys", north, "--site", "south", "--host", "10.0.0.2") == "CO-F203"
    wrong = tmp_path / "swarm.key"
    write_private(wrong, "garbage")
    held = (north / "kubo" / "repo" / "swarm.key").read_bytes()
    assert told("network", "files", north, "--site", "north", *founders, "--swarm-key", wrong) == "CO-C104"
    assert (north / "kubo" / "repo" / "swarm.key").read_bytes() == held
    files = told("network", "files", north, "--site", "north", *founders)
    assert hashlib.sha256((north / "geth" / "genesis.json").read_bytes()).hexdigest() in files
    (north / "network.json").write_text("{}")
    assert told("network", "deploy", north, "--chain", "http://127.0.0.1:1", *founders) == "CO-F203"


def test_a_node_in_a_founders_folder_is_offered_what_lies_there(tmp_path: Path) -> None:
    made = cards(tmp_path, "clique")
    write_files(tmp_path / "north", "north", made[:3])
    told("init", tmp_path / "north", "--site", "north")
    config = Home(tmp_path / "north").config
    assert config.chain.url == "http://127.0.0.1:8551?jwt_file=geth/jwt.hex"
    assert config.store.url == "kubo+http://127.0.0.1:5001?token_file=kubo/token"
    assert config.chain.confirmations == 2


def test_units_start_what_a_devnet_starts_and_hold_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    for name in ("COTERIE_GETH", "COTERIE_IPFS"):
        monkeypatch.setenv(name, str(program))
    made, north, east = cards(tmp_path, "clique"), tmp_path / "north", tmp_path / "east"
    assert told("network", "unit", north, "geth") == "CO-F330"
    assert told("network", "unit", north, "besu") == "CO-F305"
    write_files(north, "north", made[:3])
    write_files(east, "east", made, of_network=north / "geth" / "genesis.json")
    seals = [f"--mine --miner.etherbase {card.sealer}" for card in (made[0], made[3])]
    assert [seal in told("network", "unit", home, "geth") for seal, home in zip(seals, (north, east), strict=True)] == [
        True,
        False,
    ]
    both = told("network", "unit", north, "geth") + told("network", "unit", north, "kubo")
    assert "--authrpc.addr 127.0.0.1" in both
    assert "Environment=LIBP2P_FORCE_PNET=1" in both
    for secret in ("geth/jwt.hex", "geth/sealer.passphrase", "kubo/token", "kubo/repo/swarm.key"):
        assert (north / secret).read_text().strip() not in both
