"""What the doctor finds in a site's folder: each planted fault is one line that fails, with its remedy."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from support.node.houses import SITES, NodeNetwork, make_node_folder, study_file

from coterie_chain.keys.journal import SqliteJournal
from coterie_node.network.checks.check_result import CheckResult
from coterie_node.network.checks.ledger_checks import check_lost_journal
from coterie_node.network.checks.machine_checks import check_machine
from coterie_node.network.checks.peer_checks import Peers, check_store_of
from coterie_node.network.founding import FOUNDERS, FounderCard, make_keys, write_network_files
from coterie_node.site.config import CONFIG
from coterie_node.site.folder import SiteFolder, find_node
from coterie_node.site.watch.api import HttpApi
from coterie_node.site.watch.health import Health, describe_standstill
from coterie_node.site.watch.metrics import Metrics

LIGHT = 1 << 12


@pytest.fixture
def home(tmp_path: Path) -> SiteFolder:
    """A node's folder in which nothing is wrong."""
    return make_node_folder(tmp_path / "north", "north")


def examine_machine(home: SiteFolder) -> dict[str, CheckResult]:
    """The checks of this machine by name."""
    return {result.check: result for result in check_machine(find_node(home.root))}


def change_settings(home: SiteFolder, old: str, new: str) -> None:
    """Change a text in node.toml."""
    path = home.root / CONFIG
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


@contextmanager
def answering(home: SiteFolder, health: Health) -> Iterator[None]:
    """A daemon's API at the port that node.toml names."""
    api = HttpApi("127.0.0.1", 0, "token", health=lambda: health, metrics=bytes, status=list)
    change_settings(home, "port = 0", f"port = {api.port}")
    with api:
        yield


def test_a_folder_in_order_has_no_failure(home: SiteFolder) -> None:
    assert not [result for result in examine_machine(home).values() if result.well is False]


def test_a_file_of_rows_that_is_gone_is_a_failure_although_no_study_is_open(home: SiteFolder) -> None:
    home.data.unlink()
    rows = examine_machine(home)["rows"]
    assert (rows.well, "data.csv" in rows.cure) == (False, True)


def test_looking_for_a_journal_makes_none(home: SiteFolder) -> None:
    assert examine_machine(home)["journal"].well is None
    assert not home.journal.exists()


def test_a_journal_that_is_gone_is_a_failure_once_the_site_has_recorded(node_network: NodeNetwork) -> None:
    ledger = node_network.daemons["north"].services.ledger
    home = node_network.homes["north"]
    assert check_lost_journal(home, ledger).well
    head = ledger.heads()["north"]

    class Recorded:
        """A ledger on which the site has three records."""

        def heads(self) -> object:
            return {"north": replace(head, seq=3)}

    lost = check_lost_journal(home, Recorded())  # type: ignore[arg-type]
    assert (lost.well, lost.found) == (False, "3 records on the ledger, and no journal here")
    assert "coterie restore" in lost.cure


@pytest.mark.parametrize(
    ("host", "well"), [("127.0.0.1", True), ("203.0.113.7", False), ("no-such-host.invalid", False)]
)
def test_an_address_for_peers_that_is_not_of_this_machine_is_a_failure(home: SiteFolder, host: str, well: bool) -> None:
    change_settings(home, "# [talk]\n# listen", f'[talk]\nlisten = "{host}:7401"\n# listen')
    assert examine_machine(home)["talk"].well is well


def test_a_daemon_is_asked_for_its_version_its_site_and_its_health(home: SiteFolder) -> None:
    here = version("coterie")
    with answering(home, Health("north", here)):
        assert examine_machine(home)["daemon"].found == f"well, version {here}"


@pytest.mark.parametrize(
    ("health", "found", "cure"),
    [
        (Health("north", "0.0.7"), "runs version 0.0.7", "start the daemon again"),
        (Health("south", version("coterie")), "the daemon of south answers at this port", "[api]"),
        (Health("north", version("coterie"), ("no block for 99 s",)), "no block for 99 s", "no block for 99 s"),
    ],
)
def test_a_daemon_that_is_another_one_or_is_not_well_is_a_failure(
    home: SiteFolder, health: Health, found: str, cure: str
) -> None:
    with answering(home, health):
        daemon = examine_machine(home)["daemon"]
    assert (daemon.well, daemon.found, cure in daemon.cure) == (False, found, True)


def test_a_daemon_that_is_down_is_a_failure_unless_it_never_ran_or_is_stopped_on_purpose(home: SiteFolder) -> None:
    with answering(home, Health("north", version("coterie"))):
        pass
    assert examine_machine(home)["daemon"].well is None
    SqliteJournal(home.journal).close()
    down = examine_machine(home)["daemon"]
    assert (down.well, "no answer at" in down.found, "coterie site start" in down.cure) == (False, True, True)
    meant = {result.check: result for result in check_machine(find_node(home.root), daemon=False)}
    assert meant["daemon"].well is None


@pytest.mark.parametrize(
    ("age", "period", "stands"), [(14.0, 5.0, False), (16.0, 5.0, True), (900.0, 0.0, False), (4.0, 1.0, True)]
)
def test_a_chain_stands_still_after_three_periods_without_a_block(age: float, period: float, stands: bool) -> None:
    assert bool(describe_standstill(age, period)) is stands


def test_the_health_of_a_node_says_why_it_is_not_well(node_network: NodeNetwork) -> None:
    daemon = node_network.daemons["north"]
    age = [0.0]
    daemon.services = replace(daemon.services, block_age=lambda: age[0], period=5.0)
    node_network.settle()
    assert daemon.health.healthy
    age[0] = 76.0
    node_network.seconds += 6
    node_network.settle()
    assert [cause.split(":")[0] for cause in daemon.health.causes] == ["no block for 76 s, where one comes every 5 s"]
    text = daemon.services.metrics.text().decode()
    assert "coterie_seconds_since_block 76.0" in text
    assert f'coterie_build_info{{version="{version("coterie")}"}} 1.0' in text
    assert "_created" not in text


def test_approvals_that_wait_for_this_site_s_people_are_counted_here_alone(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south")
    node_network.settle()
    node_network.seconds += 6
    node_network.settle()
    counts = {name: node_network.daemons[name].services.metrics.text().decode() for name in SITES}
    assert ["coterie_approvals_waiting 1.0" in counts[name] for name in SITES] == [False, False, True]


# The card


@pytest.fixture
def founded(tmp_path: Path) -> SiteFolder:
    """A site's folder as `coterie network` leaves it, with the cards of three sites."""
    cards = [make_keys(tmp_path / s, s, "127.0.0.1", "127.0.0.1", scrypt=LIGHT) for s in SITES]
    write_network_files(tmp_path / "north", "north", cards)
    root = tmp_path / "north"
    shutil.copy(make_node_folder(tmp_path / "settings", "north").root / CONFIG, root / CONFIG)
    (root / "founder.json").write_text(cards[0].to_json())
    return find_node(root)


def check_card(home: SiteFolder) -> CheckResult:
    """The row `card` of the doctor."""
    return {result.check: result for result in check_store_of(Peers.load(home))}["card"]


def test_a_site_knows_the_cards_of_all_sites_by_name(founded: SiteFolder) -> None:
    peers = Peers.load(founded)
    assert peers.own_card == FounderCard.read(founded.root / FOUNDERS / "north.json")
    assert sorted(peers.others) == ["south", "west"]
    assert check_card(founded).well


@pytest.mark.parametrize(
    ("lost", "differs"),
    [
        ("geth/nodekey", "enode's key"),
        ("geth/keystore/sealer.json", "sealer"),
        ("kubo/identity.json", "peer of the store"),
    ],
)
def test_a_key_that_is_not_the_card_s_is_named(founded: SiteFolder, tmp_path: Path, lost: str, differs: str) -> None:
    shutil.copy(tmp_path / "south" / lost, founded.root / lost)
    card = check_card(founded)
    assert (card.well, card.found) == (False, f"differs: {differs}")
    assert "coterie restore" in card.cure


def test_the_chain_s_data_may_be_deleted_without_a_change_of_the_card(founded: SiteFolder) -> None:
    shutil.rmtree(founded.root / "geth" / "data")
    assert check_card(founded).well


# Alerts


def test_every_alert_asks_for_a_metric_that_a_node_has() -> None:
    rules = yaml.safe_load((Path(__file__).parents[3] / "docker" / "prometheus-rules.yaml").read_text())
    text = Metrics().text().decode()
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    asked = {name for rule in alerts for name in re.findall(r"coterie_\w+", rule["expr"])}
    assert len(alerts) >= 8
    assert {name for name in asked if f"# TYPE {name} " not in text} == set()
    assert all(rule["annotations"]["summary"].endswith((".", "list.", "status.")) for rule in alerts)
