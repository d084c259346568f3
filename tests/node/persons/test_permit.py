"""After the last day of a data permit a site proposes, approves, joins, computes, releases and exports nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.node.houses import NETWORK, SITES, NodeNetwork, study_file, write_rows
from support.node.persons import in_memory
from support.node.processes import run_command

from coterie_chain.ledger.protocol import Record, State
from coterie_learners.errors import StudyError
from coterie_node.audit.sources import AuditSources
from coterie_node.data.load import load_site
from coterie_node.run.runner import Runner
from coterie_node.run.study_files import load_study
from coterie_node.site.folder import SiteFolder, find_node
from coterie_node.site.participant import Node, enter, make_site_runner, open_node, take_part
from coterie_node.site.run_folder import RunFolder
from coterie_node.verbs.audits import check_export
from coterie_node.verbs.decide import approve, propose
from coterie_node.verbs.releases import allow_refusal, approve_release, list_releases

# The network's clock starts on 1970-01-12, at 13:46. The verbs of people go by the clock of this machine.
DAY, LAST = 86_400, "1970-01-12"


def with_permit(root: Path, last: str = LAST, name: str = "cohort") -> Path:
    path = study_file(root, name)
    path.write_text(f'{path.read_text()}\n[registration]\ndata_permit = "THL/17"\npermit_expires = {last}\n')
    return path


def refuses(act: Callable[[], object]) -> bool:
    with pytest.raises(StudyError, match="'THL/17' of study 'cohort' expired on") as caught:
        act()
    return caught.value.code == "CO-S506"


@pytest.fixture
def house(node_network: NodeNetwork) -> SiteFolder:
    return in_memory(node_network, node_network.homes["north"])


def count_records(network: NodeNetwork, site: str = "north") -> int:
    """How many records a site has in the study."""
    return sum(isinstance(e, Record) and e.site == site for e in network.chain.ledger(None).history(1))


def test_people_propose_nothing(node_network: NodeNetwork, house: SiteFolder) -> None:
    study = load_study(with_permit(node_network.root))
    assert refuses(lambda: propose(house, study, by="ada"))
    assert house.decisions.studies() == ()
    assert not house.decisions.document(study.hash).exists()


def test_people_approve_nothing(node_network: NodeNetwork, house: SiteFolder) -> None:
    node_network.propose(with_permit(node_network.root), "south")
    node_network.settle()
    assert refuses(lambda: approve(house, "1", by="ada"))
    assert house.decisions.studies() == ()


def test_a_daemon_does_not_join_what_was_approved_in_time(node_network: NodeNetwork) -> None:
    study = node_network.propose(with_permit(node_network.root), "south")
    node_network.settle()
    node_network.approve(study, "north")
    node_network.seconds += DAY
    node_network.daemons["north"].tick()
    assert node_network.chain.ledger(None).view(1).joined == ("south",)
    assert "CO-S506" in node_network.log("north")


def make_nodes(network: NodeNetwork, path: Path, epoch: Callable[[], int]) -> dict[str, Node]:
    """What each site's process of a run without a daemon works with."""
    study = load_study(path)
    return {
        name: Node(
            study,
            name,
            load_site(network.homes[name].locate_rows(""), study, name, network.homes[name].exclude),
            network.keys[name],
            NETWORK,
            network.chain.ledger(network.keys[name].address),
            network.blobs,
            network.journals[name],
            epoch=epoch,
        )
        for name in SITES
    }


def test_a_process_without_a_daemon_joins_nothing(node_network: NodeNetwork) -> None:
    now = [node_network.seconds]
    nodes = make_nodes(node_network, with_permit(node_network.root), lambda: int(now[0]))
    enter(nodes["north"])
    now[0] += DAY
    assert refuses(lambda: enter(nodes["south"]))
    assert node_network.chain.ledger(None).view(1).joined == ("north",)


@pytest.mark.parametrize("turns", [pytest.param(1, marks=pytest.mark.long), 4, pytest.param(9, marks=pytest.mark.long)])
def test_a_process_without_a_daemon_takes_no_step_after_the_last_day(node_network: NodeNetwork, turns: int) -> None:
    """The clock of north lets the two other sites take turns, and goes to the next day after some looks."""
    looks, others = [0], list[Runner]()

    def read_clock() -> int:
        if others:
            looks[0] += 1
            for runner in others:
                runner.turn()
        return int(node_network.seconds) + DAY * (looks[0] > turns)

    nodes = make_nodes(node_network, with_permit(node_network.root), read_clock)
    number = {enter(node) for node in nodes.values()}.pop()
    others += [make_site_runner(nodes[name], number) for name in ("south", "west")]
    assert refuses(lambda: take_part(nodes["north"], number))
    assert looks[0] == turns + 1
    posted = count_records(node_network)
    assert node_network.chain.ledger(None).view(1).state is State.RUNNING
    assert refuses(lambda: take_part(nodes["north"], number))
    assert count_records(node_network) == posted


def test_a_site_s_process_does_not_start(tmp_path: Path) -> None:
    place = RunFolder(tmp_path)
    for name in SITES:
        place.site_root(name).mkdir(parents=True)
    path = with_permit(tmp_path, "2020-02-28")
    place.study.write_text(path.read_text())
    assert refuses(lambda: open_node(place, "north", load_study(place.study).hash.hex()))


@pytest.fixture
def asking(node_network: NodeNetwork) -> SiteFolder:
    """A site whose first payload waits for a person."""
    settings = node_network.root / "north" / "node.toml"
    settings.write_text(settings.read_text().replace("ask = false", "ask = true"))
    node_network.homes["north"] = find_node(node_network.root / "north")
    node_network.daemons["north"] = node_network.daemon("north")
    study = node_network.propose(with_permit(node_network.root))
    node_network.approve(study, "south", "west")
    node_network.settle()
    return in_memory(node_network, node_network.homes["north"])


def test_people_let_no_payload_leave(node_network: NodeNetwork, asking: SiteFolder) -> None:
    (waiting,) = list_releases(asking)
    posted = count_records(node_network)
    assert refuses(lambda: approve_release(asking, waiting["payload_digest"], by="ada"))
    assert list_releases(asking) == [waiting]
    assert list(asking.persons.log.read()) == []
    # A yes of the last day comes too late as well, once that day is over.
    for path in asking.releases.glob("*/*.json"):
        path.with_suffix(".yes").write_text(waiting["payload_digest"])
    node_network.seconds += DAY
    node_network.daemons["north"].tick()
    assert count_records(node_network) == posted


def test_people_allow_nothing_that_was_refused(node_network: NodeNetwork, asking: SiteFolder) -> None:
    from coterie_node.privacy.log import PrivacyLog
    from coterie_node.privacy.objections import Grade, Objection
    from coterie_node.privacy.storage import FolderStorage

    study = load_study(node_network.root / "cohort.toml")
    objection = Objection(Grade.ASK, "near", "two patients differ")
    PrivacyLog(FolderStorage(asking.privacy)).note_refusal(study.hash.hex(), study.name, objection)
    assert refuses(lambda: allow_refusal(asking, study.hash.hex(), "they are the same patients", by="ada"))


def test_a_study_that_ended_in_time_is_exported_and_another_is_not(node_network: NodeNetwork) -> None:
    study = node_network.propose(with_permit(node_network.root))
    node_network.approve(study, "south", "west")
    for _ in range(4):
        for daemon in node_network.daemons.values():
            daemon.tick()
    read = AuditSources(node_network.chain.ledger(None), node_network.blobs)
    assert read.ledger.view(1).state is State.RUNNING
    assert refuses(lambda: check_export(read, "1"))
    node_network.settle()
    assert read.ledger.view(1).state is State.COMPLETED
    check_export(read, "1")


@pytest.mark.long
def test_records_of_after_the_last_day_are_not_exported(node_network: NodeNetwork) -> None:
    """Sites whose clocks were wrong went on."""
    nodes = make_nodes(node_network, with_permit(node_network.root), lambda: 0)
    number = {enter(node) for node in nodes.values()}.pop()
    runners = [make_site_runner(node, number) for node in nodes.values()]
    node_network.seconds += DAY
    while not all(runner.done for runner in runners):
        for runner in runners:
            runner.turn()
    read = AuditSources(node_network.chain.ledger(None), node_network.blobs)
    assert read.ledger.view(1).state is State.COMPLETED
    assert refuses(lambda: check_export(read, "1"))


@pytest.mark.parametrize(
    "more",
    [(), pytest.param(("--dry-run",), marks=pytest.mark.long), pytest.param(("--keep", "run"), marks=pytest.mark.long)],
)
def test_the_command_line_uses_no_rows(tmp_path: Path, more: tuple[str, ...]) -> None:
    path = with_permit(tmp_path, "2020-02-28")
    for seed, name in enumerate(SITES):
        write_rows(tmp_path / f"{name}.csv", seed)
    data = [f"--data={name}={tmp_path / name}.csv" for name in SITES]
    more = tuple(str(tmp_path / word) if word == "run" else word for word in more)
    done = run_command("simulate", path, *data, *more)
    assert done.returncode != 0
    assert "CO-S506" in done.stderr
    assert not any(kind in done.stdout for kind in ("uint", "float", "estimate"))
    assert not (tmp_path / "run" / "result.json").exists()
