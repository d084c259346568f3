"""On real Geth and Kubo: the matrix of the network, a site that enters and makes blocks, and one that is put out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.devnet.bed import SITES, skip_without_programs
from support.devnet.founding import (
    await_true,
    examine_site,
    find_first_ports,
    found_network,
    make_card,
    run_and_fail,
    run_coterie,
)

from coterie_chain.network.programs.ipc import ask
from coterie_node.network.site_programs import SitePrograms

pytestmark = [pytest.mark.devnet, pytest.mark.long, pytest.mark.xdist_group("membership"), pytest.mark.timeout(900)]
ALL = (*SITES, "east")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A network of three sites, beside which a fourth one may come."""
    skip_without_programs()
    root = tmp_path_factory.mktemp("m")
    try:
        found_network(root, find_first_ports(len(ALL))[:-1])
        yield root
    finally:
        for site in ALL:
            if (root / site / "node.toml").exists():
                SitePrograms(root / site).stop()


def read_matrix(folder: Path) -> dict[str, Any]:
    """The network as a site sees it."""
    matrix: dict[str, Any] = json.loads(run_coterie("doctor", "--network", "--node", folder, "--json", code=None))
    return matrix


def name_troubled(folder: Path) -> set[str]:
    """The sites in whose name something is wrong, as a site sees it."""
    return {trouble["site"] for trouble in read_matrix(folder)["troubles"]}


def count_sealers(folder: Path) -> int:
    """How many accounts make blocks."""
    return len(ask(folder / "geth" / "geth.ipc", "clique_getSigners", "latest"))


def test_any_site_shows_which_site_sees_which(network: Path) -> None:
    for site in SITES:
        await_true(lambda site=site: not read_matrix(network / site)["troubles"], f"{site} without troubles")  # type: ignore[misc]
    rows = {row["site"]: row["sees"] for row in read_matrix(network / "south")["rows"]}
    assert rows == {site: {other: "-" if other == site else "both" for other in SITES} for site in SITES}
    printed = run_coterie("doctor", "--network", "--node", network / "north")
    assert "sees south" in printed


def test_a_later_site_enters_by_two_commands_and_makes_blocks(network: Path) -> None:
    north, east = network / "north", network / "east"
    card = make_card(network, "east", find_first_ports(1)[0], "enter")
    printed = run_coterie("site", "invite", card, "--and-network", "--node", north)
    entered = run_coterie("site", "enter", east, north / "invitation-east.json", "--seal")
    assert "1 of 2 votes (north)" in entered or "0 of 2 votes" in entered
    prints = [line for line in printed.splitlines() if line.startswith("  the ")]
    assert len(prints) == 2
    assert all(line in entered for line in prints)
    assert "chain peers: 3; seen: north, south, west" in entered
    run_coterie("site", "admit", card, "--and-network", "--node", network / "south")
    await_true(lambda: examine_site(east)["seat"]["result"] == "ok", "east's seat")
    await_true(lambda: count_sealers(north) == 4, "the fourth sealer")
    again = run_and_fail("site", "enter", east, north / "invitation-east.json")
    assert "CO-F514" in again


def test_a_revoked_site_is_out_of_chain_and_swarm_once_all_have_the_new_key(network: Path) -> None:
    east, order = network / "east", network / "north" / "rekey.json"
    for site in SITES:
        words = ("--and-network", "--card", east / "founder.json", "--node", network / site)
        printed = run_coterie("site", "revoke", "east", *words)
        assert "read what it has fetched before: for ever" in printed
    await_true(lambda: examine_site(east)["seat"]["found"] == "revoked", "the end of east's seat")
    await_true(lambda: count_sealers(network / "north") == 3, "three sealers")
    first = run_coterie("network", "rekey", "--wait", "2", "--node", network / "north")
    assert "Not yet, or away: south, west" in first
    run_coterie("network", "rekey", order, "--wait", "2", "--node", network / "south")
    last = run_coterie("network", "rekey", order, "--wait", "60", "--node", network / "west")
    assert "Seen under the new key: north, south." in last
    assert "CO-F516" in run_and_fail("network", "rekey", order, "--node", east)
    await_true(lambda: examine_site(east)["swarm peers"]["result"] == "FAILED", "an east that is alone in its swarm")
    # What east said between its revocation and the new key is remembered for some minutes.
    await_true(lambda: name_troubled(network / "west") <= {"east"}, "three sites without troubles")
