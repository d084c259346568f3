"""What a network of ten years does: payloads go after their date, and new contracts succeed the old ones by vote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.devnet.bed import SITES
from support.devnet.founding import (
    await_true,
    examine_site,
    failed_checks,
    open_founded,
    run_and_fail,
    run_coterie,
)

from coterie_chain.store.protocol import MemoryBlobs
from coterie_node.demo.cases import find_case
from coterie_node.retention.prune import list_payloads
from coterie_node.run.view_grants import view_of
from coterie_node.site.folder import find_node

pytestmark = [pytest.mark.devnet, pytest.mark.long, pytest.mark.xdist_group("long-life"), pytest.mark.timeout(1200)]
CASE = find_case("vertigo")
PARTS = CASE.site_names(len(SITES))


def rename(text: str) -> str:
    """The case's sites under the names of this network."""
    for part, site in zip(PARTS, SITES, strict=True):
        text = text.replace(part, site)
    return text


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A network of three sites with columns of the same people, whose policies allow a learner with sealed payloads."""
    root = tmp_path_factory.mktemp("l")
    with open_founded(root):
        files = CASE.write_sites(root / "rows", PARTS)
        for part, site in zip(PARTS, SITES, strict=True):
            shutil.copy(files[part], root / site / "data.csv")
            change_settings(root / site, 'rebuild = "refuse"', 'rebuild = "allow"')
            run_coterie("site", "restart", "--only", "node", "--node", root / site)
        yield root


def change_settings(folder: Path, old: str, new: str) -> None:
    """Replace a text in a site's node.toml."""
    text = (folder / "node.toml").read_text()
    assert old in text
    (folder / "node.toml").write_text(text.replace(old, new))


def propose(root: Path, name: str) -> int:
    """Propose the study under a name at north; its number once all sites have it."""
    document = root / f"{name}.toml"
    document.write_text(rename(CASE.study_text(PARTS)).replace('name = "nhefs-vertigo"', f'name = "{name}"'))
    run_coterie("study", "propose", document, "--node", root / "north")
    await_true(lambda: all(find_number(root / site, name) for site in SITES), f"the proposal of {name}")
    return find_number(root / "south", name)


def find_number(folder: Path, name: str) -> int:
    """A study's number as a site sees it on the ledger; 0 if it does not."""
    listed = json.loads(run_coterie("study", "list", "--node", folder, "--json"))
    numbers = [str(study["study"]) for study in listed if study["name"] == name]
    return next((int(number) for number in numbers if number.isdigit()), 0)


def approve(root: Path, number: int, *sites: str) -> None:
    """A site's people say yes."""
    for site in sites:
        run_coterie("study", "approve", str(number), "--node", root / site)


def await_results(root: Path, number: int) -> None:
    """Wait until every site has the final result of a study."""
    paths = [root / site / "results" / f"{number}.json" for site in SITES]
    await_true(lambda: all(path.exists() for path in paths), f"the results of study {number}")


def test_pruned_payloads_are_gone_at_every_site_and_sealed_ones_stay_closed(network: Path) -> None:
    number = propose(network, "pruned")
    approve(network, number, "south", "west")
    await_results(network, number)
    bundles = network / "bundles"
    bundles.mkdir()
    run_coterie("audit", "export", str(number), bundles / "study.zip", "--node", network / "south")
    kept = MemoryBlobs()
    for site in SITES:
        home, words = find_node(network / site), ("prune", str(number), "--bundles", bundles, "--node", network / site)
        assert "CO-C320" in run_and_fail(*words)
        run_coterie("site", "stop", "--only", "node", "--node", network / site)
        assert "CO-F522" in run_and_fail(*words)
        with home.open_ledger() as ledger:
            cids, session = list_payloads(ledger, number), f"{home.network().scope}/{number}"
            held = [home.blobs().get(cid) for cid in cids]
            assert [kept.put(payload) for payload in held] == list(cids)
            assert view_of(ledger, kept, number, site, home.load_study_keys(session))
            change_settings(network / site, "# [retention]\n# years = 10", "[retention]\nyears = 0")
            run_coterie(*words, "--dry-run")
            assert all(home.blobs().has(cid) for cid in cids)
            (done,) = json.loads(run_coterie(*words, "--json"))
            assert (done["payloads"], done["key_destroyed"]) == (len(cids), True)
            assert not any(home.blobs().has(cid) for cid in cids)
            # Who kept the bytes elsewhere cannot open them with what this site has.
            assert view_of(ledger, kept, number, site, home.load_study_keys(session)) == {}
    for site in SITES:
        run_coterie("site", "start", "--node", network / site)
    await_true(lambda: not any(failed_checks(network / site) for site in SITES), "sites that are well")
    for site in SITES:
        assert not any(find_node(network / site).blobs().has(cid) for cid in cids)
    assert "RECORD INTACT" in run_coterie("audit", "verify", bundles / "study.zip", code=25)


def test_an_open_study_ends_on_the_old_catalog_and_the_members_go_over_to_the_new_one(network: Path) -> None:
    north = network / "north"
    number = propose(network, "open")
    approve(network, number, "south")
    run_coterie("site", "stop", "--only", "node", "--node", north)
    chain = find_node(north).chain
    cards = [word for card in sorted((north / "founders").glob("*.json")) for word in ("--founder", card)]
    run_coterie("network", "deploy", north, "--chain", chain, *cards, "--out", network / "next.json")
    assert "CO-F526" in run_and_fail("site", "follow", "--node", north)
    run_coterie("site", "start", "--node", north)
    catalog = json.loads((network / "next.json").read_text())["catalog"]
    for site in SITES[:2]:
        run_coterie("site", "succeed", catalog, "--node", network / site)
    await_true(lambda: catalog in run_coterie("site", "list", "--node", network / "west"), "the vote")
    assert "CO-C320" in run_and_fail("site", "follow", "--node", north)
    approve(network, number, "west")
    await_results(network, number)
    for site in SITES:
        run_coterie("site", "stop", "--only", "node", "--node", network / site)
        run_coterie("site", "follow", "--node", network / site)
        run_coterie("site", "start", "--node", network / site)
        assert catalog in (network / site / "network.json").read_text()
    members = json.loads(run_coterie("site", "list", "--node", network / "west", "--json"))
    assert {(member["site"], member["state"]) for member in members} == {(site, "active") for site in SITES}
    # No decision about the old Catalog's studies proposes them again.
    assert json.loads(run_coterie("study", "list", "--node", network / "west", "--json")) == []
    number = propose(network, "open")
    approve(network, number, "south", "west")
    await_results(network, number)
    assert examine_site(north)["seat"]["result"] == "ok"
    assert "RECORD INTACT" in run_coterie("audit", "replay", str(number), "--node", network / "west", code=25)
