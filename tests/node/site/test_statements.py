"""What sites say of studies beside their posts: with what they join, what they take back, and how a study ended up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

import pytest
from support.node.houses import SITES, NodeNetwork, study_file
from support.node.rows_files import file_of

from coterie_chain.ledger.memory import MemoryLedger
from coterie_chain.ledger.protocol import ZERO, Event, Ledger, State
from coterie_chain.store.cid import RAW, Cid
from coterie_learners.errors import DataError
from coterie_node.audit.replay import replay
from coterie_node.errors import ConfigError
from coterie_node.run.reasons import Reason
from coterie_node.site.decisions import make_decision
from coterie_node.site.fault_notes import FaultRecord
from coterie_node.site.folder import SiteFolder
from coterie_node.site.statements.ended_studies import (
    Attestation,
    InspectionVerdict,
    find_supersession,
    list_inspections,
)
from coterie_node.site.statements.joining import describe_joinings, encode_release, format_release, read_own_release
from coterie_node.site.votes import Ballot, BallotBox
from coterie_node.verbs.decide import decline
from coterie_node.verbs.statements import supersede, withdraw
from coterie_node.verbs.studies import list_study_rows

REASON = "the codes of sex were swapped at west"


@dataclass(frozen=True)
class MemoryAccess:
    """The way of a site's commands to a ledger in memory."""

    network: NodeNetwork

    @contextmanager
    def open_ledger(self) -> Iterator[MemoryLedger]:
        yield self.network.chain.ledger(None)


def folder(network: NodeNetwork, name: str) -> SiteFolder:
    """A site's folder whose commands read the memory ledger."""
    home = network.homes[name]
    return SiteFolder(home.root, home.config, MemoryAccess(network))  # type: ignore[arg-type]


def reader(network: NodeNetwork) -> Ledger:
    return network.chain.ledger(None)


def events(network: NodeNetwork, name: str) -> list[Event]:
    return [e for e in network.chain.log if isinstance(e, Event) and e.name == name]


def turn(network: NodeNetwork, rounds: int = 4) -> None:
    """So many rounds of every daemon, whether or not anybody moves."""
    for _ in range(rounds):
        for daemon in network.daemons.values():
            daemon.tick()


def complete(network: NodeNetwork, name: str = "cohort") -> int:
    """Let a study run to its end; returns its number."""
    study = network.propose(study_file(network.root, name))
    network.approve(study, "south", "west")
    network.settle()
    number = reader(network).studies()[-1]
    assert reader(network).view(number).state == State.COMPLETED
    return number


# Joining


def test_a_joining_carries_the_digest_of_the_approvals_and_the_release_of_the_software(
    node_network: NodeNetwork,
) -> None:
    signed = hashlib.sha256(b"signatures of two persons").hexdigest()
    path = study_file(node_network.root)
    study = node_network.propose(path)
    node_network.decisions("south").record(make_decision(study, "approve", approvals=signed))
    node_network.approve(study, "west")
    node_network.settle()
    joinings = {e.site: dict(e.details) for e in events(node_network, "StudyJoined")}
    assert {site: details["approvals"] for site, details in joinings.items()} == {
        "north": "0x" + ZERO.hex(),
        "south": "0x" + signed,
        "west": "0x" + ZERO.hex(),
    }
    assert {details["release"] for details in joinings.values()} == {read_own_release()} != {0}
    lines = describe_joinings(reader(node_network).history(1))
    assert lines["releases"] == ", ".join(f"{site} {version('coterie')}" for site in SITES)
    assert lines["approvals"] == f"north none signed, south {signed[:16]}, west none signed"


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.1.0", 1_000), ("1.2.3", 1_002_003), ("2.0", 2_000_000), ("1.2.3rc1", 1_002_003), ("x", 0), ("1.2000.3", 0)],
)
def test_a_version_is_a_number_on_the_ledger(text: str, number: int) -> None:
    assert encode_release(text) == number
    assert format_release(number).split(".")[:2] == (text.split(".")[:2] if number else ["unsaid"])


# Supersession


def test_the_proposer_supersedes_a_result_and_everybody_reads_why(node_network: NodeNetwork) -> None:
    number = complete(node_network)
    second = complete(node_network, "corrected")
    assert supersede(folder(node_network, "north"), str(number), REASON, second).id == number
    node_network.settle()
    assert reader(node_network).view(number).superseded
    assert not reader(node_network).view(second).superseded
    (event,) = events(node_network, "StudySuperseded")
    assert dict(event.details)["reason_sha256"] == "0x" + hashlib.sha256(REASON.encode()).hexdigest()
    superseded = find_supersession(reader(node_network).history(number), number, node_network.blobs)
    assert superseded is not None
    assert (superseded.successor, superseded.reason) == (second, REASON)
    assert superseded.sentence.startswith(f"The result of study {number} is superseded by study {second} since ")
    with pytest.raises(ConfigError, match="superseded; only a completed study's result") as caught:
        supersede(folder(node_network, "north"), str(number), REASON)
    assert caught.value.code == "CO-F328"


def test_any_other_site_needs_a_majority_with_the_same_words(node_network: NodeNetwork) -> None:
    number = complete(node_network)
    supersede(folder(node_network, "west"), str(number), REASON)
    supersede(folder(node_network, "south"), str(number), "another reason")
    node_network.settle()
    assert not reader(node_network).view(number).superseded
    assert withdraw(folder(node_network, "south"), str(number)) == [
        f"south takes back its vote in study {number} to supersede: south. The daemon records it on the ledger."
    ]
    supersede(folder(node_network, "south"), str(number), REASON)
    node_network.settle()
    assert reader(node_network).view(number).superseded
    assert find_supersession(reader(node_network).history(number), number) is not None


def test_a_replay_says_that_the_result_is_superseded_whether_or_not_the_reason_is_at_hand(
    node_network: NodeNetwork,
) -> None:
    number = complete(node_network)
    assert replay(reader(node_network), node_network.blobs, number).remarks == ()
    supersede(folder(node_network, "north"), str(number), REASON)
    node_network.settle()
    outcome = replay(reader(node_network), node_network.blobs, number)
    assert outcome.verdict.verdict == "PASS"
    assert REASON in outcome.remarks[0]
    digest = hashlib.sha256(REASON.encode()).digest()
    del node_network.blobs.blocks[str(Cid(1, RAW, digest))]
    (remark,) = replay(reader(node_network), node_network.blobs, number).remarks
    assert remark.endswith(f"the text with SHA-256 {digest.hex()}")


def test_what_cannot_be_superseded_is_refused_before_anything_is_written(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.settle()
    north = folder(node_network, "north")
    for which, reason, by, code in (
        ("1", REASON, 0, "CO-F328"),
        ("7", REASON, 0, "CO-F304"),
    ):
        with pytest.raises(ConfigError) as caught:
            supersede(north, which, reason, by)
        assert caught.value.code == code
    node_network.approve(study, "south", "west")
    node_network.settle()
    for reason, by, code in (
        (REASON, 1, "CO-F304"),
        (REASON, 9, "CO-F304"),
        ("", 0, "CO-F322"),
        ("x" * 201, 0, "CO-F322"),
    ):
        with pytest.raises(ConfigError) as caught:
            supersede(north, "1", reason, by)
        assert caught.value.code == code
    assert BallotBox(north.root / "ballots").waiting() == []


# Attestation


def test_an_inspection_is_signed_onto_the_ledger_with_date_rows_and_verdict(node_network: NodeNetwork) -> None:
    number = complete(node_network)
    joined = {e.site: str(dict(e.details)["snapshot"])[2:] for e in events(node_network, "StudyJoined")}
    for site, snapshot, verdict in (
        ("north", joined["north"], InspectionVerdict.PASSED),
        ("west", "ab" * 32, InspectionVerdict.FAILED),
    ):
        statement = Attestation(study=number, snapshot=snapshot, verdict=verdict)
        ballot = Ballot(motion="attest", subject=str(number), statement=statement)
        BallotBox(node_network.root / site / "ballots").record(ballot)
    node_network.seconds += 86_400
    node_network.settle()
    north, west = list_inspections(reader(node_network).history(number), number)
    assert (north.site, north.verdict, north.same_rows, north.time) == ("north", 1, True, int(node_network.seconds))
    assert (west.site, west.verdict, west.same_rows) == ("west", 2, False)
    assert "OTHER rows" in west.sentence
    assert list_inspections(reader(node_network).history(), number + 1) == []


# Declining and withdrawing


def test_many_proposals_are_declined_in_one_transaction(node_network: NodeNetwork) -> None:
    for k in range(5):
        node_network.propose(study_file(node_network.root, f"flood-{k}"), "west")
    turn(node_network)
    views = [reader(node_network).view(number) for number in reader(node_network).studies()]
    decline(folder(node_network, "north"), views)
    turn(node_network)
    declined = events(node_network, "StudyDeclined")
    assert [(e.study, e.site) for e in declined] == [(number, "north") for number in range(1, 6)]
    assert events(node_network, "StudyAborted") == []
    assert {task.phase for task in node_network.daemons["north"].tasks.values()} == {"declined"}
    ending = "north ended it: its people declined the study."
    assert {task.ending for task in node_network.daemons["south"].tasks.values()} == {ending}


def test_one_proposal_that_runs_by_now_does_not_keep_the_others_from_being_declined(node_network: NodeNetwork) -> None:
    for k in range(2):
        node_network.propose(study_file(node_network.root, f"study-{k}"), "west")
    turn(node_network)
    views = [reader(node_network).view(number) for number in (1, 2)]
    node_network.approve(views[0].terms.hash, "north", "south")
    turn(node_network, 1)
    assert reader(node_network).view(1).state == State.RUNNING
    decline(folder(node_network, "north"), views)
    node_network.settle()
    assert {reader(node_network).view(number).state for number in (1, 2)} == {State.ABORTED}
    assert [path.suffix for path in (node_network.root / "north" / "ballots").iterdir()] == [".refused"]


def test_a_proposer_withdraws_its_proposal(node_network: NodeNetwork) -> None:
    node_network.propose(study_file(node_network.root))
    node_network.settle()
    assert "withdraws its proposal, study 1" in withdraw(folder(node_network, "north"), "1")[0]
    node_network.settle()
    assert reader(node_network).view(1).state == State.ABORTED


def test_a_proposal_that_waits_for_its_rows_is_withdrawn_before_the_ledger_has_it(node_network: NodeNetwork) -> None:
    file_of(node_network.homes["north"].data).rename(node_network.root / "aside.csv")
    study = node_network.propose(study_file(node_network.root))
    node_network.settle()
    assert "it was not on the ledger yet" in withdraw(folder(node_network, "north"), study.hex()[:16])[0]
    (node_network.root / "aside.csv").rename(file_of(node_network.homes["north"].data))
    node_network.seconds += 61
    node_network.settle()
    assert reader(node_network).studies() == ()


def test_an_approval_is_taken_back_until_the_site_has_joined(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.settle()
    with pytest.raises(ConfigError, match="south has not approved study 1"):
        withdraw(folder(node_network, "south"), "1")
    node_network.approve(study, "south")
    assert "takes its approval of study 1 back" in withdraw(folder(node_network, "south"), "1")[0]
    node_network.settle()
    view = reader(node_network).view(1)
    assert (view.state, view.joined) == (State.PROPOSED, ("north",))
    node_network.approve(study, "south")
    node_network.settle()
    assert reader(node_network).view(1).joined == ("north", "south")
    with pytest.raises(ConfigError, match="the ledger takes no joining back") as caught:
        withdraw(folder(node_network, "south"), "1")
    assert caught.value.code == "CO-F333"


def test_a_vote_to_resume_is_taken_back(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    turn(node_network, 2)
    node_network.chain.ledger(node_network.keys["south"].address).pause(1, Reason.OPERATOR)
    BallotBox(node_network.root / "north" / "ballots").record(Ballot(motion="resume", subject="1"))
    node_network.settle()
    assert "to resume: north" in withdraw(folder(node_network, "north"), "1")[0]
    node_network.settle()
    BallotBox(node_network.root / "west" / "ballots").record(Ballot(motion="resume", subject="1"))
    node_network.settle()
    assert reader(node_network).view(1).state == State.PAUSED
    with pytest.raises(ConfigError, match="No vote of south counts in study 1, which is paused"):
        withdraw(folder(node_network, "south"), "1")


# What status, log and metrics say


def test_every_site_says_who_ended_a_study_why_and_whose_fault_it_is(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    turn(node_network, 2)
    for name in ("north", "south"):
        node_network.chain.ledger(node_network.keys[name].address).abort(1, Reason.BAD_PAYLOAD, "west")
    node_network.settle()
    for name in SITES:
        (task,) = node_network.daemons[name].status
        assert task["ending"] == (
            "south ended it: a site posted a payload that the protocol does not allow. The site at fault is west."
        )
        line = next(json.loads(row) for row in node_network.log(name).splitlines() if "study aborted" in row)
        assert (line["culprit"], line["cause"]) == ("west", task["ending"])


def test_the_same_document_twice_is_shown_in_log_and_status(node_network: NodeNetwork) -> None:
    number = complete(node_network)
    view = reader(node_network).view(number)
    copy = node_network.chain.ledger(node_network.keys["west"].address).propose(view.terms)
    node_network.settle()
    for name in SITES:
        twins = {task["study"]: task["same_document"] for task in node_network.daemons[name].status}
        assert twins == {number: [copy], copy: [number]}
        assert f'"same_document": [{number}]' in node_network.log(name)


def test_the_metrics_name_each_study_that_a_fault_stops_until_the_fault_is_gone(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    south = node_network.daemons["south"]

    def fail(*_: object) -> None:
        raise KeyError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(south, "_runner", fail)
        node_network.settle()
        node_network.seconds += 6
        south.tick()
    assert 'coterie_study_stopped{code="CO-R501",study="1"} 1.0' in south.services.metrics.text().decode()
    assert next(task["fault"] for task in south.status)["code"] == "CO-R501"  # type: ignore[index]
    node_network.seconds += 61
    node_network.settle()
    node_network.seconds += 6
    south.tick()
    assert node_network.phases() == {name: ["done"] for name in SITES}
    assert "coterie_study_stopped{" not in south.services.metrics.text().decode()


def test_a_proposal_that_expires_is_over_and_nobody_tries_to_join_it(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.settle()
    node_network.seconds += 30 * 86_400 + 1
    node_network.approve(study, "south", "west")
    node_network.settle()
    assert node_network.daemons["south"].tasks[1].cause == "nothing: the proposal has expired"
    node_network.seconds += 3_601
    node_network.settle()
    assert node_network.phases() == {name: ["aborted"] for name in SITES}
    assert "not all of its sites have joined" in str(node_network.daemons["south"].status[0]["ending"])
    assert "proposal expired" in node_network.log("south")
    assert '"level": "warning"' not in node_network.log("south")


def test_a_proposal_that_cannot_go_to_the_ledger_names_its_fault_and_quotes_no_row(node_network: NodeNetwork) -> None:
    """Only the log said so, and it sent people to `study status`, which knows no study without a number."""
    node_network.propose(study_file(node_network.root))
    home = folder(node_network, "north")
    assert [row["remark"] for row in list_study_rows(home)] == [""]
    FaultRecord(home.root / "faults").note(0, DataError("CO-D106", "The file has 'Müller: 1950'. Rename the columns."))
    (row,) = list_study_rows(home)
    assert row["state"] == "not on the ledger yet"
    assert row["remark"].startswith("last fault of a proposal: CO-D106 (2")
    assert "faults/0.txt" in row["remark"]
    assert "Müller" not in row["remark"]
