"""Three sites whose chain sleeps: no block at rest, studies at a block a second, and deadlines that fire in silence."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.devnet.bed import SITES, STUDY, scale_with_load, skip_without_programs
from support.node.commands import run
from support.node.results import read_result

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ledger.protocol import Event, State
from coterie_chain.network.programs.ipc import ask
from coterie_chain.network.programs.service import Service
from coterie_node.demo.cases.nhefs import VARIABLES
from coterie_node.network.devnet import services
from coterie_node.site.run_folder import RunFolder

pytestmark = [pytest.mark.devnet, pytest.mark.xdist_group("network")]

QUIET_SECONDS = 30.0
STEP_SECONDS = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """A devnet that sleeps, with its daemons; at the start it has gone to sleep."""
    skip_without_programs()
    folder = tmp_path_factory.mktemp("sleep") / "net"
    try:
        run("devnet", "up", folder, "--sleep", "--json")
        place = RunFolder(folder)
        await_sleep(place)
        yield place
    finally:
        run("devnet", "down", folder)


def read_head(place: RunFolder, site: str = "north") -> int:
    return int(ask(place.site(site).ipc, "eth_blockNumber"), 16)


def await_that(condition: Callable[[], bool], what: str, within: float = 240.0) -> None:
    deadline, said = time.monotonic() + scale_with_load(within), ""
    while True:
        try:
            if condition():
                return
        except LedgerUnreachable as away:  # as a node on a busy machine, or one that starts
            said = str(away)
        assert time.monotonic() < deadline, f"{what} {said}"
        time.sleep(0.2)


def is_asleep(place: RunFolder, sites: tuple[str, ...]) -> bool:
    """Whether no sealer seals, nothing waits, and the nodes have the same block."""
    heads = {read_head(place, site) for site in sites}
    pools = [int(ask(place.site(site).ipc, "txpool_status")["pending"], 16) for site in sites]
    return len(heads) == 1 and not any(pools) and not any(ask(place.site(site).ipc, "eth_mining") for site in sites)


def await_sleep(place: RunFolder, sites: tuple[str, ...] = SITES) -> None:
    """Wait until the chain sleeps, and stays asleep for longer than any sealer's turn takes to come."""

    def sleeps() -> bool:
        head = read_head(place, sites[0])
        if not is_asleep(place, sites):
            return False
        time.sleep(4.0)
        return is_asleep(place, sites) and read_head(place, sites[0]) == head

    await_that(sleeps, "the chain does not go to sleep")


def program(place: RunFolder, site: str, name: str) -> Service:
    return services(place)[site, name]


def propose(place: RunFolder, name: str, silent_site: str = "wait") -> int:
    """Let north propose a study; returns its number."""
    text = STUDY.format(step_seconds=STEP_SECONDS, tolerance=1e-10).replace('"trial"', f'"{name}"').rstrip()
    file = place.root / f"{name}.toml"
    file.write_text(f'{text}\nsilent_site = "{silent_site}"\n\n{VARIABLES}')
    run("study", "propose", file, "--node", place.site_root("north"))

    def find() -> list[dict[str, Any]]:
        rows = json.loads(run("study", "list", "--node", place.site_root("north"), "--json"))
        return [row for row in rows if row["name"] == name and str(row["study"]).isdigit()]

    await_that(lambda: bool(find()), f"{name} is not on the ledger")
    return int(find()[0]["study"])


def approve(place: RunFolder, study: int, *sites: str) -> None:
    for site in sites:
        run("study", "approve", study, "--node", place.site_root(site))


def await_results(place: RunFolder, study: int) -> None:
    """All sites have the result, and the run replays."""
    files = [place.site_root(site) / "results" / f"{study}.json" for site in SITES]
    await_that(lambda: all(file.exists() for file in files), f"study {study} has no result")
    fits = [read_result(file)["fit"] for file in files]
    assert fits[0] == fits[1] == fits[2]
    verdict = json.loads(run("audit", "replay", study, "--node", place.site_root("north"), "--json"))
    assert (verdict["verdict"], verdict["grade"]) == ("PASS", "identical")


def read_state(place: RunFolder, study: int, site: str = "north") -> tuple[State, tuple[str, ...]]:
    with EthereumLedger(place.network(site), None) as ledger:
        view = ledger.view(study)
        return view.state, view.joined


def test_a_chain_at_rest_makes_no_block_and_is_called_well(place: RunFolder) -> None:
    head = read_head(place)
    time.sleep(QUIET_SECONDS)
    assert {read_head(place, site) for site in SITES} == {head}
    checks = {c["check"]: c for c in json.loads(run("doctor", "--node", place.site_root("south"), "--json"))}
    assert {name: checks[name]["result"] for name in ("clock", "sealer")} == {"clock": "ok", "sealer": "ok"}
    assert checks["sealer"]["found"] == "asleep, 0 transactions wait"


def test_a_study_completes_and_replays_and_the_chain_sleeps_again(place: RunFolder) -> None:
    study = propose(place, "first")
    approve(place, study, "south", "west")
    await_results(place, study)
    await_sleep(place)


def test_a_geth_killed_in_its_sleep_delays_the_next_study_only_until_it_is_back(place: RunFolder) -> None:
    await_sleep(place)
    geth = program(place, "west", "geth")
    geth.kill()
    study = propose(place, "second")  # two of three sealers take the proposal
    approve(place, study, "south")
    await_that(lambda: read_state(place, study)[1] == ("north", "south"), "south did not join")
    await_sleep(place, ("north", "south"))
    geth.start()
    await_that(lambda: geth.pid is not None and place.site("west").ipc.exists(), "west's Geth does not start")
    await_that(lambda: is_on_ledger(place, study, "west"), "west's Geth did not catch up")
    approve(place, study, "west")
    await_results(place, study)
    await_sleep(place)


def is_on_ledger(place: RunFolder, study: int, site: str) -> bool:
    try:
        with EthereumLedger(place.network(site), None) as ledger:
            return study in ledger.studies()
    except LedgerUnreachable:
        return False


def test_the_deadline_of_a_silent_site_fires_although_no_block_comes(place: RunFolder) -> None:
    study = propose(place, "third", "abort")
    approve(place, study, "south", "west")
    await_that(lambda: read_state(place, study)[0] == State.RUNNING, "the study does not run")
    node = program(place, "west", "node")
    node.pause()
    try:
        await_that(lambda: read_state(place, study)[0] == State.ABORTED, "the deadline did not fire")
    finally:
        node.wake()
    with EthereumLedger(place.network("north"), None) as ledger:
        entries = list(ledger.history(study))
    end = entries[-1]
    assert isinstance(end, Event)
    assert end.name == "StudyAborted"
    assert dict(end.details)["culprit"] == "west"
    # The silence was a sleep: the block before the end's is as old as the deadline.
    before = int(ask(place.site("north").ipc, "eth_getBlockByNumber", hex(end.block - 1), False)["timestamp"], 16)
    assert end.time - before > STEP_SECONDS / 2
    await_sleep(place)
