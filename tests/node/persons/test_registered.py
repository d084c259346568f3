"""What a study registers before it begins: the data permit that ends, the amendment, planned against done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.node.houses import NodeNetwork, study_file

from coterie_chain.ledger.protocol import Record, State
from coterie_learners.errors import StudyError
from coterie_learners.study.document import Study
from coterie_node.audit.replay import replay
from coterie_node.audit.report.registered import compare_registration
from coterie_node.run.study_files import amend_study, check_permit, load_study, read_predecessor

# The network's clock starts on 1970-01-12, at 13:46.
REGISTRATION = """
[registration]
title = "Age and death"
objectives = ["Whether age predicts death", "in men and women"]
primary_outcome = "death by 1992"
analysis_plan = "{digest}"
ethics_approval = "EK 2026-17"
data_permit = "THL/17"
permit_expires = {day}
registration_number = "NCT00000000"
"""
DAY = 86_400


def registered(root: Path, day: str = "1970-01-12", name: str = "cohort") -> Path:
    path = study_file(root, name)
    path.write_text(path.read_text() + REGISTRATION.format(digest="ab" * 32, day=day))
    return path


def test_a_study_without_registration_keeps_its_hash(tmp_path: Path) -> None:
    study = load_study(study_file(tmp_path))
    assert b"registration" not in study.document
    assert Study.from_json(load_study(registered(tmp_path)).document).registration.data_permit == "THL/17"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('permit_expires = "soon"', "write it as YYYY-MM-DD"),
        ('analysis_plan = "ab"', "analysis_plan"),
        (f'amends = "{"ab" * 32}"', "go together"),
    ],
)
def test_a_registration_that_nobody_could_check_is_refused(tmp_path: Path, line: str, words: str) -> None:
    path = study_file(tmp_path)
    path.write_text(f"{path.read_text()}[registration]\n{line}\n")
    with pytest.raises(StudyError, match=words):
        load_study(path)


def test_the_permit_ends_with_its_last_day(tmp_path: Path) -> None:
    study = load_study(registered(tmp_path, "2026-11-29"))
    noon = 1_795_953_600  # 2026-11-29 12:00 UTC
    check_permit(study, noon)
    with pytest.raises(StudyError, match="'THL/17' of study 'cohort' expired on 2026-11-29") as caught:
        check_permit(study, noon + DAY)
    assert caught.value.code == "CO-S506"


def test_a_node_proposes_nothing_after_the_permit_s_last_day(node_network: NodeNetwork) -> None:
    node_network.propose(registered(node_network.root, "1970-01-11", "late"))
    node_network.daemons["north"].tick()
    assert node_network.chain.ledger(None).studies() == ()
    assert "CO-S506" in node_network.log("north")


def test_a_study_that_runs_stops_at_the_permit_s_end(node_network: NodeNetwork) -> None:
    study = node_network.propose(registered(node_network.root))
    node_network.approve(study, "south", "west")
    for _ in range(4):
        for daemon in node_network.daemons.values():
            daemon.tick()
    ledger = node_network.chain.ledger(None)
    assert ledger.view(1).state == State.RUNNING
    records = sum(isinstance(e, Record) for e in ledger.history(1))
    node_network.seconds += DAY
    for _ in range(4):
        for daemon in node_network.daemons.values():
            daemon.tick()
    assert sum(isinstance(e, Record) for e in ledger.history(1)) == records
    assert "CO-S506" in node_network.log("south")


def test_an_amended_study_names_what_it_replaces_and_the_report_what_changed(node_network: NodeNetwork) -> None:
    first = load_study(registered(node_network.root))
    node_network.blobs.put(first.document)
    path = registered(node_network.root, name="second")
    amended = amend_study(load_study(path), first.hash, "west has no codes of 1970")
    assert Study.from_json(amended.document).hash == amended.hash
    decisions = node_network.decisions("north")
    decisions.save_document(amended.hash, amended.document)
    path.with_suffix(".json").write_bytes(amended.document)
    assert node_network.propose(path.with_suffix(".json")) == amended.hash
    node_network.approve(amended.hash, "south", "west")
    node_network.settle()
    ledger = node_network.chain.ledger(None)
    outcome = replay(ledger, node_network.blobs, 1)
    records = [e for e in ledger.history(1) if isinstance(e, Record)]
    predecessor = read_predecessor(amended, node_network.blobs)
    items = compare_registration(amended, predecessor, records, outcome.contributors)
    table = {item.item: (item.planned, item.done) for item in items}
    assert table["primary outcome"] == ("death by 1992", "died")
    assert table["sites"] == ("north, south, west", "north, south, west")
    assert table["data permit"] == ("THL/17, 1970-01-12", "last record on 1970-01-12")
    assert table[f"amends study {first.hash.hex()[:16]}"] == ("changed: name", "west has no codes of 1970")
    late = [replace(record, time=record.time + DAY) for record in records]
    items = compare_registration(amended, None, late, ())
    assert "AFTER the permit expired" in next(item.done for item in items if item.item == "data permit")
    with pytest.raises(StudyError, match="one line of 1 to 200"):
        amend_study(first, first.hash, "two\nlines")
