"""Files with which sites found a network: the same cards give the same genesis, secrets stay private."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from coterie_node.consortium import Card, make_keys, make_trial, write_files
from coterie_node.errors import ConfigError

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
