"""From three empty machines to a fitted, audited study, by the commands of the first page and nothing else."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.devnet.bed import SITES, STUDY, skip_without_programs
from support.devnet.founding import await_true
from support.devnet.machines import Machines, finish, open_machines
from support.node.rows_files import file_of

from coterie_chain.network.programs.ipc import ask
from coterie_node.demo.cases.glore import CASE
from coterie_node.demo.cases.nhefs import VARIABLES
from coterie_node.network.guided_founding import CARD_PREFIX

pytestmark = [pytest.mark.devnet, pytest.mark.long, pytest.mark.xdist_group("nine"), pytest.mark.timeout(900)]
PAGE = Path(__file__).parents[2] / "README.md"
PERIOD, OUTAGE = 5, 45.0


def read_commands() -> list[list[str]]:
    """The words of the commands on the first page, each without `coterie`."""
    text = PAGE.read_text().partition("## Three hospitals, nine commands")[2].partition("\n## ")[0]
    lines = [line.partition("#")[0] for line in text.splitlines() if line.startswith("    coterie ")]
    return [shlex.split(line)[1:] for line in lines]


def fill_in(machines: Machines, site: str, words: list[str], cards: dict[str, str]) -> list[str]:
    """The words as a site's people type them: with their own folder, address, and what the others sent."""
    hosts = {f"10.0.0.{k}": machines.host(name) for k, name in enumerate(SITES, 1)}
    plan = str(machines.folder("north") / "coterie" / "founding.json")
    known = {"/srv/coterie": "coterie", "SOUTH": cards.get("south", ""), "WEST": cards.get("west", "")}
    filled = [(known | hosts | {"founding.json": plan}).get(word, word) for word in words]
    filled = [str(machines.folder(site) / "rows.csv") if word == "rows.csv" else word for word in filled]
    return filled + machines.locate(site) * ("--host" in words)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """Three machines with nothing but each site's rows, and north's study."""
    skip_without_programs()
    with open_machines(SITES) as machines:
        CASE.write_sites(machines.root / "rows", SITES)
        for site in SITES:
            shutil.copy(file_of(machines.root / "rows" / site / "data.csv"), machines.folder(site) / "rows.csv")
        study = STUDY.format(step_seconds=3600, tolerance=1e-9) + VARIABLES
        (machines.folder("north") / "study.toml").write_text(study)
        yield machines


def create_network(machines: Machines, commands: list[list[str]]) -> None:
    """The first five commands."""
    cards: dict[str, str] = {}
    for site, words in zip(("south", "west"), commands[:2], strict=True):
        printed = machines.run(site, *fill_in(machines, site, words, cards))
        cards[site] = next(line for line in printed.splitlines() if line.startswith(CARD_PREFIX))
    north = machines.start("north", *fill_in(machines, "north", commands[2], cards))
    await_true((machines.folder("north") / "coterie" / "founding.json").exists, "founding.json")
    rest = [
        machines.start(site, *fill_in(machines, site, words, cards))
        for site, words in zip(("south", "west"), commands[3:5], strict=True)
    ]
    for process in (north, *rest):
        assert "chain peers: 2; seen: " in finish(process)


def has_study(machines: Machines, site: str) -> bool:
    """Whether a site sees the proposal."""
    return bool(json.loads(machines.run(site, "study", "list", "--node", "coterie", "--json")))


def test_nine_commands_lead_to_a_fitted_and_audited_study(
    machines: Machines, capsys: pytest.CaptureFixture[str]
) -> None:
    commands, begun = read_commands(), time.monotonic()
    assert len(commands) == 9
    create_network(machines, commands)
    founded = time.monotonic() - begun
    machines.run("north", *fill_in(machines, "north", commands[5], {}))
    for site, words in zip(("south", "west"), commands[6:8], strict=True):
        await_true(lambda site=site: has_study(machines, site), "the proposal")  # type: ignore[misc]
        machines.run(site, *fill_in(machines, site, words, {}))
    results = [machines.folder(site) / "coterie" / "results" / "1.json" for site in SITES]
    await_true(lambda: all(path.exists() for path in results), "three results")
    verdict = machines.run("west", *fill_in(machines, "west", commands[8], {}))
    assert "PASS" in verdict
    with capsys.disabled():
        print(
            f"\nfounded after {founded:.0f} s, audited after {time.monotonic() - begun:.0f} s; apart: {machines.apart}"
        )


def read_block_times(socket_path: Path, since: int) -> list[int]:
    """When the blocks from a number on were made, by the chain itself."""
    newest = int(ask(socket_path, "eth_blockNumber"), 16)
    blocks = [ask(socket_path, "eth_getBlockByNumber", hex(number), False) for number in range(since, newest + 1)]
    return [int(block["timestamp"], 16) for block in blocks]


def test_blocks_go_on_while_a_cable_is_pulled_and_the_site_catches_up(machines: Machines) -> None:
    if not machines.apart:
        pytest.skip("Machines that share a network have no cables: root can make namespaces.")
    south, north = (machines.folder(site) / "coterie" / "geth" / "geth.ipc" for site in ("south", "north"))
    before = int(ask(south, "eth_blockNumber"), 16)
    machines.set_cable("north", plugged=False)
    time.sleep(OUTAGE)
    machines.set_cable("north", plugged=True)
    times = read_block_times(south, before)
    assert len(times) >= OUTAGE / PERIOD / 3
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) <= OUTAGE
    goal = int(ask(south, "eth_blockNumber"), 16) + 4
    await_true(lambda: min(int(ask(path, "eth_blockNumber"), 16) for path in (south, north)) >= goal, "one chain again")
    hashes = {ask(path, "eth_getBlockByNumber", hex(goal - 3), False)["hash"] for path in (south, north)}
    assert len(hashes) == 1
