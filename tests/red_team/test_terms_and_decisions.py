"""A member proposes what others approved, with other terms, again and again; or floods and spoils the ledger.

Variants of the attacks a0, a00 and d1 of the review, against real daemons on the memory ledger. Each test fails when
its defence is taken out: the comparison of terms, the binding of a decision to one proposal, or the quarantine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.node.houses import SITES, NodeNetwork, study_file

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ledger.protocol import Ledger, Record, Silence, State, StudyView, Terms
from coterie_node.audit.replay import replay
from coterie_node.errors import TermsMismatch
from coterie_node.run.study_files import load_study, study_terms
from coterie_node.site.decisions import make_decision
from coterie_node.site.fault_notes import FaultRecord
from coterie_node.site.study_list import IDLE_LOOKS


@pytest.fixture
def approved(node_network: NodeNetwork) -> Terms:
    """Terms of a study that all sites approved and that has run, as study 1."""
    path = study_file(node_network.root)
    node_network.approve(node_network.propose(path), "south", "west")
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}
    return study_terms(load_study(path))


def member(network: NodeNetwork, name: str = "west") -> Ledger:
    """The ledger in the hands of a member that uses no daemon."""
    return network.chain.ledger(network.keys[name].address)


def records_of(network: NodeNetwork, number: int) -> list[Record]:
    return [e for e in network.chain.ledger(None).history(number) if isinstance(e, Record)]


def settle_later(network: NodeNetwork) -> None:
    """Let the pauses after faults pass, several times."""
    for _ in range(4):
        network.settle()
        network.seconds += 61


# One approval, other terms


CHANGES: list[Callable[[Terms], Terms]] = [
    lambda terms: replace(terms, sites=("west", "north"), least=2),
    lambda terms: replace(terms, sites=("west", "south"), least=2),
    lambda terms: replace(terms, sites=("west", "south", "north")),
    lambda terms: replace(terms, timeout=60),
    lambda terms: replace(terms, silence=Silence.EXCLUDE),
    lambda terms: replace(terms, max_rounds=terms.max_rounds + 1),
    lambda terms: replace(terms, loop=(*terms.loop, "each")),
    lambda terms: replace(terms, least=2),
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_approved_document_with_other_terms_is_joined_by_nobody(
    node_network: NodeNetwork, change: Callable[[Terms], Terms]
) -> None:
    """Attack a0 before the honest proposal: the approvals name no number yet."""
    path = study_file(node_network.root)
    study = load_study(path)
    number = member(node_network).propose(change(study_terms(study)))
    node_network.blobs.put(study.document)
    node_network.approve(study.hash, "north", "south")
    settle_later(node_network)
    view = node_network.chain.ledger(None).view(number)
    assert view.joined == ("west",)
    assert records_of(node_network, number) == []
    for name in {"north", "south"} & set(view.terms.sites):
        task = node_network.daemons[name].tasks[number]
        assert (task.phase, getattr(task.fault, "code", "")) == ("stopped", "CO-R401")
        assert "CO-R401" in node_network.log(name)


def test_no_site_sends_its_sums_again_among_fewer_sites(node_network: NodeNetwork, approved: Terms) -> None:
    """Attack a0: from sums of subsets the proposer would work out each site's own."""
    evil = member(node_network)
    pairs = (("west", "north"), ("west", "south"))
    numbers = [evil.propose(replace(approved, sites=sites, least=2)) for sites in pairs]
    settle_later(node_network)
    assert [records_of(node_network, number) for number in numbers] == [[], []]
    assert {node_network.chain.ledger(None).view(number).state for number in numbers} == {State.PROPOSED}


def test_one_approval_runs_one_study_however_often_it_is_proposed(node_network: NodeNetwork, approved: Terms) -> None:
    evil = member(node_network)
    numbers = [evil.propose(approved) for _ in range(10)]
    settle_later(node_network)
    for name in ("north", "south"):
        assert [task.phase for task in node_network.daemons[name].tasks.values()].count("done") == 1
    assert all(node_network.chain.ledger(None).view(number).joined == ("west",) for number in numbers)
    # Nor after a restart: which study an approval runs is in the folder of decisions.
    node_network.daemons = {name: node_network.daemon(name) for name in SITES}
    settle_later(node_network)
    assert all(records_of(node_network, number) == [] for number in numbers)


def test_a_copy_that_comes_before_the_proposal_takes_one_approval_and_no_second(node_network: NodeNetwork) -> None:
    path = study_file(node_network.root)
    study = load_study(path)
    node_network.blobs.put(study.document)
    first, second = (member(node_network).propose(study_terms(study)) for _ in range(2))
    node_network.approve(study.hash, "north", "south", "west")
    settle_later(node_network)
    states = [node_network.chain.ledger(None).view(number).state for number in (first, second)]
    assert states == [State.COMPLETED, State.PROPOSED]
    assert "CO-R403" in node_network.log("north")


def test_an_approval_names_number_proposer_and_terms(node_network: NodeNetwork) -> None:
    path = study_file(node_network.root)
    study = load_study(path)
    node_network.blobs.put(study.document)
    copy = member(node_network).propose(study_terms(study))
    node_network.propose(path)
    node_network.daemons["north"].tick()
    honest = node_network.chain.ledger(None).view(copy + 1)
    assert honest.proposer == "north"
    for name in ("south", "west"):
        node_network.decisions(name).record(make_decision(study.hash, "approve", view=honest))
    settle_later(node_network)
    assert node_network.chain.ledger(None).view(honest.id).state == State.COMPLETED
    assert node_network.chain.ledger(None).view(copy).joined == ("west",)


def test_an_approval_is_void_when_the_proposal_behind_its_number_is_another_one(node_network: NodeNetwork) -> None:
    path = study_file(node_network.root)
    study = load_study(path)
    node_network.blobs.put(study.document)
    number = member(node_network).propose(study_terms(study))
    seen = replace(node_network.chain.ledger(None).view(number), proposer="south")
    node_network.decisions("north").record(make_decision(study.hash, "approve", view=seen))
    node_network.settle()
    assert node_network.daemons["north"].tasks[number].fault.__class__ is TermsMismatch
    assert "CO-R402" in node_network.log("north")
    assert node_network.chain.ledger(None).view(number).joined == ("west",)


def test_a_decision_about_one_copy_leaves_the_other_alone(node_network: NodeNetwork) -> None:
    path = study_file(node_network.root)
    study = load_study(path)
    node_network.blobs.put(study.document)
    evil = member(node_network)
    copy = evil.view(evil.propose(study_terms(study)))
    node_network.propose(path)
    node_network.daemons["north"].tick()
    honest = evil.view(copy.id + 1)
    for name in ("south", "west"):
        node_network.decisions(name).record(make_decision(study.hash, "approve", view=honest))
        node_network.decisions(name).record(make_decision(study.hash, "decline", view=copy))
    node_network.settle()
    assert evil.view(honest.id).state == State.COMPLETED
    assert evil.view(copy.id).state == State.ABORTED


def test_terms_that_change_under_a_running_study_stop_every_further_post(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain node that lies, or a reorganisation: the terms are compared before each post, not at the start only."""
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    while len(records_of(node_network, 1)) < 4 if node_network.chain.rules.studies else True:
        for daemon in node_network.daemons.values():
            daemon.tick()
    south = node_network.daemons["south"].services.ledger
    honest = south.view

    def fewer(number: int) -> StudyView:
        view = honest(number)
        return replace(view, terms=replace(view.terms, sites=("south", "west")))

    before = len([r for r in records_of(node_network, 1) if r.site == "south"])
    monkeypatch.setattr(south, "view", fewer)
    node_network.settle()
    assert len([r for r in records_of(node_network, 1) if r.site == "south"]) == before
    assert "CO-R4" in node_network.log("south")


# Quarantine


def test_a_study_that_cannot_be_read_stops_itself_and_no_other(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack a00: one member's garbage made every daemon's reader raise LedgerMismatch for good."""
    member(node_network).propose(Terms(b"\1" * 32, tuple(SITES), ("each",), (), (), 1, 600))
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    for daemon in node_network.daemons.values():
        monkeypatch.setattr(daemon.services.ledger, "view", refuse_one(daemon.services.ledger.view))
    node_network.settle()
    for name in SITES:
        daemon = node_network.daemons[name]
        assert daemon.tasks[2].phase == "done"
        assert (daemon.tasks[1].phase, getattr(daemon.tasks[1].fault, "code", "")) == ("stopped", "CO-C312")
        assert 'coterie_faults_total{code="CO-C312"}' in daemon.services.metrics.text().decode()
        assert any(entry["study"] == 1 and "CO-C312" in str(entry["fault"]) for entry in daemon.status)


def refuse_one(view: Callable[[int], StudyView]) -> Callable[[int], StudyView]:
    def read(number: int) -> StudyView:
        if number == 1:
            raise LedgerMismatch("CO-C312", "The node sent a log that no contract of this release writes.")
        return view(number)

    return read


@pytest.mark.parametrize("defect", [KeyError("age"), RecursionError("formula"), MemoryError(), ValueError("4.1234")])
def test_a_defect_met_in_one_study_ends_neither_the_daemon_nor_another_study(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch, defect: Exception
) -> None:
    hashes = [node_network.propose(study_file(node_network.root, name)) for name in ("spoiled", "good")]
    for study in hashes:
        node_network.approve(study, "south", "west")
    daemon = node_network.daemons["south"]
    runner: Any = daemon._runner

    def fail(task: Any, *others: Any) -> Any:
        if task.hash == hashes[0]:
            raise defect
        return runner(task, *others)

    monkeypatch.setattr(daemon, "_runner", fail)
    node_network.settle()
    phases = {task.hash: (task.phase, getattr(task.fault, "code", "")) for task in daemon.tasks.values()}
    assert phases == {hashes[0]: ("stopped", "CO-R501"), hashes[1]: ("done", "")}
    spoiled = next(task.number for task in daemon.tasks.values() if task.hash == hashes[0])
    assert "CO-R501" in FaultRecord(node_network.root / "south" / "faults").of(spoiled)
    assert "4.1234" not in node_network.log("south")
    monkeypatch.setattr(daemon, "_runner", runner)
    settle_later(node_network)
    assert set(node_network.phases()["south"]) == {"done"}


# Floods


def flood(network: NodeNetwork, count: int, terms: Terms) -> None:
    """Proposals that name every site; the contract takes 16 open ones of a member, so each batch is withdrawn."""
    evil = member(network)
    batch: list[int] = []
    for start in range(0, count, 16):
        if batch:
            evil.decline(batch, 2)
        hashes = [(len(evil.studies()) + 1 + k).to_bytes(32) for k in range(min(16, count - start))]
        batch = [evil.propose(replace(terms, hash=digest)) for digest in hashes]


@pytest.fixture
def counted(node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The studies that north's daemon looks at, one number a look."""
    looks: list[int] = []
    view = node_network.daemons["north"].services.ledger.view

    def count(number: int) -> StudyView:
        looks.append(number)
        return view(number)

    monkeypatch.setattr(node_network.daemons["north"].services.ledger, "view", count)
    return looks


@pytest.mark.long
def test_an_idle_look_costs_the_same_beside_twelve_foreign_proposals_and_beside_two_thousand(
    node_network: NodeNetwork, counted: list[int]
) -> None:
    terms = study_terms(load_study(study_file(node_network.root)))
    costs = []
    for count in (12, 2000):
        flood(node_network, count, terms)
        for _ in range(400):
            node_network.daemons["north"].tick()
        counted.clear()
        node_network.daemons["north"].tick()
        costs.append(len(counted))
        evil = member(node_network)
        evil.decline([n for n in evil.studies() if evil.view(n).state == State.PROPOSED], 2)
    assert costs[0] == costs[1] <= IDLE_LOOKS


def test_a_proposal_that_people_approve_is_found_among_foreign_ones_at_once(node_network: NodeNetwork) -> None:
    terms = study_terms(load_study(study_file(node_network.root)))
    flood(node_network, 64, terms)
    path = study_file(node_network.root, "ours")
    study = node_network.propose(path, "south")
    node_network.settle()
    node_network.approve(study, "north", "west")
    node_network.settle()
    task = next(task for task in node_network.daemons["north"].tasks.values() if task.hash == study)
    assert task.phase == "done"
    assert replay(node_network.chain.ledger(None), node_network.blobs, task.number).verdict.verdict == "PASS"


def test_the_status_says_in_the_end_how_each_foreign_proposal_ended(node_network: NodeNetwork) -> None:
    terms = study_terms(load_study(study_file(node_network.root)))
    flood(node_network, 16, terms)
    node_network.settle()
    assert node_network.phases()["north"] == ["waiting"] * 16
    evil = member(node_network)
    evil.decline(evil.studies(), 2)
    for _ in range(4):
        node_network.settle()
    assert node_network.phases()["north"] == ["aborted"] * 16


def test_the_folder_of_a_network_is_left_as_the_test_made_it(tmp_path: Path) -> None:
    """The files that bind decisions are read back whole, or named."""
    network = NodeNetwork(tmp_path)
    study = network.propose(study_file(tmp_path))
    network.approve(study, "south", "west")
    network.settle()
    (bound,) = (tmp_path / "south" / "decisions").glob("*.bound")
    assert bound.stat().st_mode & 0o077 == 0
    bound.write_text("{")
    network.daemons["south"] = network.daemon("south")
    (tmp_path / "south" / "results" / "1.json").unlink()
    network.settle()
    assert "CO-F322" in network.log("south")
    for log in network.logs.values():
        log.close()
