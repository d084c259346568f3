"""On real Geth and Kubo: the matrix of the network, a site that enters and makes blocks, new keys of the swarm, and
sites that are put out, each to its end: studies go on, and who is out cannot seal, post or fetch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.devnet.bed import SITES, STUDY, skip_without_programs
from support.devnet.founding import (
    await_true,
    examine_site,
    find_first_ports,
    found_network,
    make_card,
    run_and_fail,
    run_coterie,
)
from support.node.rows_files import file_of

from coterie_chain.errors import BlobMissing, PostRejected
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.keys.journal import MemoryJournal
from coterie_chain.ledger.protocol import Record
from coterie_chain.network.programs.ipc import ask
from coterie_node.demo.cases.glore import CASE
from coterie_node.demo.cases.nhefs import VARIABLES
from coterie_node.network.site_programs import SitePrograms
from coterie_node.site.folder import find_node

pytestmark = [pytest.mark.devnet, pytest.mark.long, pytest.mark.xdist_group("membership"), pytest.mark.timeout(2400)]
ALL = (*SITES, "east")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A network of three sites, beside which a fourth one may come."""
    skip_without_programs()
    root = tmp_path_factory.mktemp("m")
    CASE.write_sites(root / "rows", SITES)
    for site in SITES:
        (root / site).mkdir()
        give_rows(root, site, fresh=False)
    try:
        found_network(root, find_first_ports(len(ALL))[:-1])
        yield root
    finally:
        for site in ALL:
            if (root / site / "node.toml").exists():
                SitePrograms(root / site).stop()


def give_rows(root: Path, site: str, *, fresh: bool) -> None:
    """Half of a site's rows as its data; the other half are fresh: no study has read them."""
    head, *lines = file_of(root / "rows" / site / "data.csv").read_text().splitlines(keepends=True)
    (root / site / "data.csv").write_text("".join([head, *lines[int(fresh) :: 2]]))


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


def write_study(root: Path, name: str, sites: tuple[str, ...] = SITES) -> Path:
    """A study of some sites as a file."""
    text = STUDY.format(step_seconds=3600, tolerance=1e-6).replace('"trial"', f'"{name}"') + VARIABLES
    file = root / f"{name}.toml"
    file.write_text(text.replace(json.dumps(SITES), json.dumps(sites)))
    return file


def start_study(root: Path, name: str, number: int, sites: tuple[str, ...] = SITES) -> None:
    """Propose a study at the first site, and approve it at the others."""
    run_coterie("study", "propose", write_study(root, name, sites), "--node", root / sites[0])
    for site in sites[1:]:
        await_true(lambda site=site: len(read_studies(root / site)) == number, f"study {number} at {site}")  # type: ignore[misc]
        run_coterie("study", "approve", str(number), "--node", root / site)


def read_studies(folder: Path) -> list[dict[str, Any]]:
    """The studies that a site sees."""
    studies: list[dict[str, Any]] = json.loads(run_coterie("study", "list", "--node", folder, "--json"))
    return studies


def check_study(root: Path, number: int, sites: tuple[str, ...] = SITES) -> None:
    """All sites come to one model, and the study's bundle verifies."""
    results = [root / site / "results" / f"{number}.json" for site in sites]
    await_true(lambda: all(path.exists() for path in results), f"all results of study {number}")
    first, *others = [json.loads(path.read_text())["fit"]["estimates"] for path in results]
    assert others == [first] * (len(sites) - 1)
    bundle, last = root / f"study-{number}.zip", root / sites[-1]
    run_coterie("audit", "export", str(number), bundle, "--node", last)
    printed = run_coterie("audit", "verify", bundle, "--network", last / "network.json", "--sealed")
    assert printed.startswith("Replay: PASS, identical")
    assert "the study ended: converged." in printed


def take_order(root: Path, sites: tuple[str, ...] = SITES) -> None:
    """A new swarm's key at all sites, one after the other."""
    order, (first, *others) = root / sites[0] / "rekey.json", sites
    printed = run_coterie("network", "rekey", "--wait", "2", "--node", root / first)
    assert f"Not yet, or away: {', '.join(others)}" in printed
    for site in others[:-1]:
        run_coterie("network", "rekey", order, "--wait", "2", "--node", root / site)
    printed = run_coterie("network", "rekey", order, "--wait", "240", "--node", root / sites[-1])
    assert f"Seen under the new key: {', '.join(sites[:-1])}." in printed
    assert len({read_key(root / site) for site in sites}) == 1


def read_key(folder: Path) -> str:
    """The swarm's key of a site."""
    return (folder / "kubo" / "repo" / "swarm.key").read_text()


def refuse_former_order(root: Path, former: Path) -> None:
    """No site takes an order of before the last one."""
    key = read_key(root / "south")
    assert "CO-F517" in run_and_fail("network", "rekey", former, "--node", root / "south")
    assert read_key(root / "south") == key


def list_makers(folder: Path, since: int) -> set[str]:
    """The accounts that made a chain's blocks from a number on."""
    newest = int(ask(folder / "geth" / "geth.ipc", "eth_blockNumber"), 16)
    numbers = range(since, newest + 1)
    return {str(ask(folder / "geth" / "geth.ipc", "clique_getSigner", hex(number))).lower() for number in numbers}


def test_any_site_shows_which_site_sees_which(network: Path) -> None:
    for site in SITES:
        await_true(lambda site=site: not read_matrix(network / site)["troubles"], f"{site} without troubles")  # type: ignore[misc]
    rows = {row["site"]: row["sees"] for row in read_matrix(network / "south")["rows"]}
    assert rows == {site: {other: "-" if other == site else "both" for other in SITES} for site in SITES}
    printed = run_coterie("doctor", "--network", "--node", network / "north")
    assert "sees south" in printed


def test_a_study_goes_on_by_itself_while_all_sites_take_a_new_swarm_key(network: Path) -> None:
    founded = read_key(network / "north")
    start_study(network, "during", 1)
    take_order(network)
    assert read_key(network / "north") != founded
    check_study(network, 1)
    shutil.copy(network / "north" / "rekey.json", network / "first-order.json")


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
    take_order(network)
    refuse_former_order(network, network / "first-order.json")
    assert "CO-F516" in run_and_fail("network", "rekey", order, "--node", east)
    await_true(lambda: examine_site(east)["swarm peers"]["result"] == "FAILED", "an east that is alone in its swarm")
    # What east said between its revocation and the new key is remembered for some minutes.
    await_true(lambda: name_troubled(network / "west") <= {"east"}, "three sites without troubles")


def read_cids(folder: Path, number: int) -> list[str]:
    """The payloads of a study."""
    with find_node(folder).open_ledger() as ledger:
        return [event.post.cid for event in ledger.history(number) if isinstance(event, Record)]


def vote_by_hand(folder: Path, subject: str) -> None:
    """Send a vote with a site's key past its own commands."""
    home = find_node(folder)
    with EthereumLedger(home.network(), home.load_keys().signer, MemoryJournal()) as ledger:
        ledger.revoke(subject)


def read_sealers(root: Path, sites: tuple[str, ...]) -> set[str]:
    """The accounts of these sites that make blocks."""
    return {json.loads((root / site / "founder.json").read_text())["sealer"].lower() for site in sites}


def check_out(network: Path, site: str, number: int) -> None:
    """A site without a seat votes for nothing, meets no store, and gets no payload of a study after it."""
    assert examine_site(network / site)["seat"]["found"] == "revoked"
    with pytest.raises(PostRejected, match="NotSite"):
        vote_by_hand(network / site, "north")
    assert examine_site(network / site)["swarm peers"]["found"].startswith("0")
    with pytest.raises(BlobMissing):
        find_node(network / site).blobs().get(read_cids(network / "north", number)[0])


def test_a_revoked_site_seals_posts_and_fetches_nothing_while_the_others_fit_a_study(network: Path) -> None:
    east, north = network / "east", network / "north"
    since = int(ask(north / "geth" / "geth.ipc", "eth_blockNumber"), 16)
    own = write_study(network, "own", (*SITES, "east"))
    assert "No seat in this network: east (revoked)" in run_and_fail("study", "propose", own, "--node", east)
    assert "CO-F334" in run_and_fail("study", "propose", own, "--node", north)
    start_study(network, "after", 2)
    check_study(network, 2)
    assert len(read_studies(north)) == 2
    check_out(network, "east", 2)
    makers = list_makers(north, since)
    assert makers <= read_sealers(network, SITES)
    assert len(makers) > 1


def test_the_two_sites_that_remain_fit_a_new_study_on_fresh_rows(network: Path) -> None:
    north, pair = network / "north", SITES[:2]
    for site in pair:
        run_coterie("site", "revoke", "west", "--and-network", "--node", network / site)
    await_true(lambda: examine_site(network / "west")["seat"]["found"] == "revoked", "the end of west's seat")
    await_true(lambda: count_sealers(north) == len(pair), "two sealers")
    take_order(network, pair)
    await_true(lambda: examine_site(network / "west")["swarm peers"]["result"] == "FAILED", "a west that is alone")
    since = int(ask(north / "geth" / "geth.ipc", "eth_blockNumber"), 16)
    for site in pair:
        assert "CO-F334" in run_and_fail("study", "propose", write_study(network, "three"), "--node", network / site)
        give_rows(network, site, fresh=True)
    start_study(network, "pair", 3, pair)
    check_study(network, 3, pair)
    check_out(network, "west", 3)
    assert list_makers(north, since) == read_sealers(network, pair)
