"""A site whose chain node, store and daemon are systemd's units, as `coterie site install` writes them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.devnet.bed import SITES, skip_without_programs
from support.devnet.founding import (
    await_true,
    examine_site,
    failed_checks,
    find_first_ports,
    found_network,
    run_coterie,
)
from support.devnet.transient_systemd import NUMBER, TransientSystemd, bind_python, skip_without_systemd, start_systemd

from coterie_chain.network.programs.executables import GETH, IPFS
from coterie_node.demo.cases.glore import CASE
from coterie_node.network.site_programs import SitePrograms
from coterie_node.network.systemd_units import render_units

pytestmark = [pytest.mark.devnet, pytest.mark.long, pytest.mark.xdist_group("units"), pytest.mark.timeout(1200)]
HOME = "/srv/coterie"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A network of three sites, of which south has stopped its programs."""
    skip_without_programs()
    skip_without_systemd()
    root = tmp_path_factory.mktemp("u")
    (root / "south").mkdir()
    shutil.copy(CASE.write_sites(root / "rows", SITES)["south"], root / "south" / "data.csv")
    try:
        found_network(root, find_first_ports(len(SITES)))
        run_coterie("site", "stop", "--node", root / "south")
        yield root
    finally:
        for site in SITES:
            if (root / site / "node.toml").exists():
                SitePrograms(root / site).stop()


def give_away(folder: Path) -> None:
    """Make the units' user the owner, as an administrator does."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NUMBER, NUMBER, follow_symlinks=False)


def move_units(site: Path, python: str) -> dict[str, str]:
    """The units of a site, whose folder and programs are elsewhere for the manager."""
    places = {str(site): HOME, str(GETH.find()): "/opt/geth", str(IPFS.find()): "/opt/ipfs", sys.executable: python}
    units = render_units(site)
    for here, there in places.items():
        units = {name: text.replace(here, there) for name, text in units.items()}
    return units


def is_well(manager: TransientSystemd, unit: str) -> bool:
    """Whether a unit runs."""
    return manager.read_state(unit)["ActiveState"] == "active"


def test_systemd_starts_a_site_under_the_hardened_units_starts_again_what_ends_and_stops_it(
    network: Path, tmp_path: Path
) -> None:
    south = network / "south"
    python, program = bind_python(tmp_path)
    units = move_units(south, program)
    give_away(south)
    binds = {south: HOME, GETH.find(): "/opt/geth", IPFS.find(): "/opt/ipfs", **python}
    with start_systemd(tmp_path / "manager", units, binds) as manager:
        await_true(lambda: all(is_well(manager, unit) for unit in units), manager.read_prints())
        await_true(lambda: not failed_checks(south), "a south that is well")
        checks = examine_site(south)
        assert checks["chain peers"]["found"] == "2; seen: north, west"
        assert checks["swarm peers"]["found"] == "2; seen: north, west"
        former = manager.read_state("coterie-geth.service")["MainPID"]
        manager.call("kill", "--kill-whom=main", "--signal=SIGKILL", "coterie-geth.service")
        await_true(lambda: manager.read_state("coterie-geth.service")["MainPID"] not in ("0", former), "a new Geth")
        await_true(lambda: not failed_checks(south), "a south that is well again")
        manager.call("stop", *units)
        ends = {unit: manager.read_state(unit) for unit in units}
    assert {unit: (end["ActiveState"], end["Result"]) for unit, end in ends.items()} == dict.fromkeys(
        units, ("inactive", "success")
    )
