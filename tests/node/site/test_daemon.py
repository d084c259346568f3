"""The daemon over months in a moment: approvals, policies, several studies, restarts, faults, and what it tells."""

from __future__ import annotations

import errno
import io
import json
import random
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from threading import Event as Flag
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from support.node.houses import CANARY, SITES, NodeNetwork, TransactionPool, study_file, write_rows
from support.node.results import read_result
from support.node.rows_files import file_of

from coterie_chain.errors import BlobMissing, LedgerUnreachable, PostRejected, StoreFault
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.keys.journal import SqliteJournal
from coterie_chain.keys.private_files import write_private
from coterie_chain.ledger.protocol import Event, State, StudyView
from coterie_chain.store.kubo import KuboBlobs
from coterie_chain.store.pinning import PinningStore
from coterie_chain.store.protocol import MAX_BLOB, MemoryBlobs, compute_cid
from coterie_learners.core.protocol import Site
from coterie_node.analysis.gain import describe_gain
from coterie_node.cli.site.serve import await_journal, check_store, count_peers, drive_sealer
from coterie_node.errors import ConfigError
from coterie_node.run.reasons import Reason
from coterie_node.run.supervisor import Supervisor
from coterie_node.site.config import CONFIG
from coterie_node.site.daemon import LEDGER_POLL_SECONDS
from coterie_node.site.decisions import make_decision
from coterie_node.site.fault_notes import FaultRecord
from coterie_node.site.folder import find_node
from coterie_node.site.votes import Ballot
from coterie_node.site.watch import api as api_module
from coterie_node.site.watch.api import HttpApi
from coterie_node.site.watch.health import Health
from coterie_node.site.watch.log import EventLog
from coterie_node.site.watch.metrics import Metrics


def result(node_network: NodeNetwork, name: str, number: int) -> Any:
    return read_result(node_network.root / name / "results" / f"{number}.json")


def reason(node_network: NodeNetwork) -> int:
    names = ("StudyAborted", "StudyDeclined")
    (event,) = (e for e in node_network.chain.log if isinstance(e, Event) and e.name in names)
    return int(dict(event.details)["reason"])


def endings(node_network: NodeNetwork) -> dict[str, object]:
    """How the only study ended, as each site's status says it."""
    return {name: daemon.status[0]["ending"] for name, daemon in node_network.daemons.items()}


# Approval


def test_a_study_runs_once_the_people_of_every_site_have_approved_it(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south")
    node_network.settle()
    assert node_network.chain.ledger(None).view(1).joined == ("north", "south")
    assert node_network.daemons["north"].tasks[1].cause == "approval by west"
    node_network.approve(study, "west")
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}
    fits = [result(node_network, name, 1)["fit"] for name in SITES]
    assert fits[0] == fits[1] == fits[2]
    assert fits[0] is not None
    assert (node_network.root / "west" / "results" / "1.json").stat().st_mode & 0o077 == 0


def test_the_result_of_a_site_warns_of_its_own_rows_that_were_left_out(node_network: NodeNetwork) -> None:
    rows = node_network.root / "west" / "data.csv"
    rows.write_text(rows.read_text() + "1,0.5,\n" * 150)
    study = node_network.propose(
        study_file(node_network.root, texts={"[ledger]": '[rows]\nmissing = "drop"\n[ledger]'})
    )
    node_network.approve(study, "south", "west")
    node_network.settle()
    warnings = {name: result(node_network, name, 1)["row_warnings"] for name in SITES}
    assert warnings["north"] == warnings["south"] == []
    assert warnings["west"][0].startswith("west: more than half of its rows are left out (150 of 270)")


def test_a_site_s_result_says_what_joining_bought_it_and_nothing_of_that_leaves(node_network: NodeNetwork) -> None:
    for daemon in node_network.daemons.values():
        daemon.services = replace(daemon.services, describe_gain=describe_gain)
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    node_network.settle()
    for name in SITES:
        gain = find_node(node_network.root / name).read_gain(1, study)
        assert gain.startswith("Joining: with 360 rows in place of 120, intervals are ")
        assert json.dumps(gain) in node_network.log(name)
        own = fit_own_rows(node_network.root / name / "data.csv")
        left = b"".join(node_network.blobs.blocks.values()) + repr(node_network.chain.log).encode()
        # The search finds numbers that are there: those of the joint fit, as the last server step posts them.
        joint = np.array(result(node_network, name, 1)["fit"]["estimates"])
        assert list_traces(joint, left)
        assert list_traces(own, left) == []
        assert b"Joining" not in left


def test_a_defect_in_what_joining_bought_keeps_no_result_back(node_network: NodeNetwork) -> None:
    def fail(site: Site, fit: object) -> str:
        raise ZeroDivisionError(site.name)

    daemon = node_network.daemons["west"]
    daemon.services = replace(daemon.services, describe_gain=fail)
    node_network.approve(node_network.propose(study_file(node_network.root)), "south", "west")
    node_network.settle()
    assert result(node_network, "west", 1)["fit"] == result(node_network, "north", 1)["fit"]
    assert "no gain" in node_network.log("west")


def fit_own_rows(path: Path) -> NDArray[np.float64]:
    """Estimates and errors of one site's own fit, by another library."""
    rows = np.loadtxt(path, delimiter=",", skiprows=1)
    fit = sm.GLM(rows[:, 0], sm.add_constant(rows[:, 1:]), family=sm.families.Binomial()).fit(tol=1e-14)
    return np.concatenate([fit.params, fit.bse, 2 * 1.959963984540054 * fit.bse])


def list_traces(values: NDArray[np.float64], left: bytes) -> list[float]:
    """The values of which the first digits are somewhere, as text or as a float of either order of bytes."""
    floats = np.concatenate(
        [np.frombuffer(left[at : at + (len(left) - at) // 8 * 8], order) for at in range(8) for order in ("<f8", ">f8")]
    )
    with np.errstate(all="ignore"):
        return [
            v
            for v in values.tolist()
            if f"{v:.9f}".encode() in left or np.isclose(floats, v, rtol=1e-6, atol=0.0).any()
        ]


def test_several_studies_go_on_side_by_side_and_each_is_approved_by_itself(node_network: NodeNetwork) -> None:
    hashes = [node_network.propose(study_file(node_network.root, f"cohort-{k}")) for k in range(3)]
    for study in hashes[:2]:
        node_network.approve(study, "south", "west")
    node_network.settle()
    done = {e.hash: e.phase for e in node_network.daemons["south"].tasks.values()}
    assert [done[study] for study in hashes] == ["done", "done", "waiting"]


def test_studies_side_by_side_take_no_more_blocks_than_one(tmp_path: Path) -> None:
    """A daemon that waited for each of its moves would give every study a block of its own."""

    def blocks(folder: Path, studies: int) -> int:
        folder.mkdir()
        pool = TransactionPool()
        node_network = NodeNetwork(folder, pool=pool)
        for k in range(studies):
            node_network.approve(node_network.propose(study_file(folder, f"cohort-{k}")), "south", "west")
        while any(phase != "done" for phases in node_network.phases().values() for phase in phases) or pool.mined < 2:
            node_network.settle()
            pool.mine()
            assert pool.mined < 50
        assert node_network.phases() == {name: ["done"] * studies for name in SITES}
        assert pool.refused == []
        for log in node_network.logs.values():
            log.close()
        return pool.mined

    assert blocks(tmp_path / "one", 1) == blocks(tmp_path / "five", 5)


def test_what_people_leave_beside_their_decisions_is_no_decision(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    for name in ("notes.json", "x.0001.json", f"{study.hex()}.json"):
        (node_network.decisions("north").root / name).write_text("{}")
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}


def test_a_proposal_with_which_something_is_wrong_holds_up_nothing_else(node_network: NodeNetwork) -> None:
    file_of(node_network.homes["north"].data).rename(node_network.root / "moved.csv")
    first = node_network.propose(study_file(node_network.root))
    stranger = node_network.propose(study_file(node_network.root, "with-a-stranger", west="east"))
    other = node_network.propose(study_file(node_network.root, "by-south"), "south")
    node_network.approve(other, "west")
    node_network.settle()
    assert [e.hash for e in node_network.daemons["south"].tasks.values()] == [other]
    (node_network.root / "moved.csv").rename(file_of(node_network.homes["north"].data))
    node_network.settle()
    node_network.seconds += 61
    node_network.settle()
    assert {e.hash for e in node_network.daemons["south"].tasks.values()} == {first, other}
    observed = [json.loads(line) for line in node_network.log("north").splitlines()]
    assert sorted(line["code"] for line in observed if line["event"] == "fault") == ["CO-C401", "CO-D101", "CO-D101"]
    stuck = {str(one["hash"]): one for one in node_network.daemons["north"].status}[stranger.hex()]
    assert (stuck["phase"], "CO-C401" in json.dumps(stuck)) == ("stopped", True)


def test_a_proposal_that_its_proposer_withdraws_ends_with_that_reason_at_every_site(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.settle()
    node_network.decisions("north").record(make_decision(study, "decline", reason="withdrawn"))
    node_network.settle()
    assert reason(node_network) == Reason.WITHDRAWN
    assert endings(node_network) == dict.fromkeys(SITES, "north ended it: its people withdrew their proposal.")
    assert {name: phases[0] for name, phases in node_network.phases().items()} == {
        "north": "declined",
        "south": "aborted",
        "west": "aborted",
    }
    assert all("its people withdrew their proposal" in node_network.log(name) for name in SITES)


def test_a_study_that_is_declined_ends_for_all_and_names_who_declined(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.settle()
    node_network.decisions("south").record(make_decision(study, "decline", reason="not ours"))
    node_network.settle()
    assert node_network.chain.ledger(None).view(1).state == State.ABORTED
    assert reason(node_network) == Reason.DECLINED
    assert endings(node_network) == dict.fromkeys(SITES, "south ended it: its people declined the study.")
    assert node_network.phases()["west"] == ["aborted"]
    assert "not ours" not in node_network.log("south")
    # An old end is no news for a daemon that is started again.
    observed = node_network.log("west").count("study aborted")
    node_network.daemons["west"] = node_network.daemon("west")
    node_network.settle()
    assert node_network.phases()["west"] == ["aborted"]
    assert node_network.log("west").count("study aborted") == observed == 1


def test_a_running_study_is_aborted_by_its_peoples_decision(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    for daemon in node_network.daemons.values():
        daemon.tick()
    node_network.decisions("west").record(make_decision(study, "abort"))
    node_network.settle()
    assert reason(node_network) == Reason.OPERATOR
    assert set(node_network.phases()["north"] + node_network.phases()["south"]) == {"aborted"}


# Policy


@pytest.mark.parametrize(
    ("setting", "changed", "code"),
    [
        ("learners = [", 'learners = ["other"] # [', "CO-S502"),
        ('# columns = ["age", "sex"]', 'columns = ["died", "male"]', "CO-S503"),
        ("never = []", 'never = ["age"]', "CO-S501"),
    ],
)
def test_a_study_against_the_policy_is_not_joined_whatever_was_approved(
    node_network: NodeNetwork, setting: str, changed: str, code: str
) -> None:
    path = node_network.root / "south" / CONFIG
    path.write_text(path.read_text().replace(setting, changed, 1))
    node_network.daemons["south"] = node_network.daemon("south")
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    node_network.settle()
    engagement = node_network.daemons["south"].tasks[1]
    assert (engagement.phase, getattr(engagement.fault, "code", "")) == ("stopped", code)
    assert "south" not in node_network.chain.ledger(None).view(1).joined


def test_rows_that_do_not_fit_stop_one_study_until_they_are_mended(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    data = node_network.root / "south" / "data.csv"
    data.write_text(data.read_text().replace(repr(CANARY), "77.125", 1))
    node_network.settle()
    engagement = node_network.daemons["south"].tasks[1]
    assert engagement.phase == "stopped"
    assert "77.125" not in node_network.log("south") + json.dumps(engagement.as_dict())
    note = node_network.root / "south" / "faults" / "1.txt"
    assert "CO-D113" in FaultRecord(note.parent).of(1)
    assert "77.125" in FaultRecord(note.parent).of(1)
    assert note.stat().st_mode & 0o077 == 0
    assert FaultRecord(note.parent).of(2) == ""
    write_rows(data, 1)
    node_network.settle()
    assert engagement.phase == "stopped"
    node_network.seconds += 61
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}


def test_a_decision_made_anew_is_carried_out_at_once(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "west")
    node_network.decisions("south").record(make_decision(study, "approve", data="nowhere.csv"))
    node_network.settle()
    assert node_network.phases()["south"] == ["stopped"]
    node_network.approve(study, "south")
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}


def test_a_proposal_that_cannot_be_made_stops_nothing_but_itself(node_network: NodeNetwork) -> None:
    good = node_network.propose(study_file(node_network.root))
    node_network.approve(good, "south", "west")
    path = study_file(node_network.root, "other")
    path.write_text(path.read_text().replace("[-5, 5]", "[-1, 1]"))
    bad = node_network.propose(path)
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}
    observed = {str(one["hash"]): one for one in node_network.daemons["north"].status}
    assert (observed[bad.hex()]["phase"], observed[bad.hex()]["study"]) == ("stopped", 0)
    assert "CO-D113" in json.dumps(observed[bad.hex()])
    assert repr(CANARY) not in node_network.log("north") + json.dumps(observed)
    node_network.decisions("north").document(bad).unlink()
    node_network.seconds += 61
    node_network.settle()
    assert "CO-F322" in node_network.log("north")


# Restarts and faults


def test_daemons_that_are_started_anew_again_and_again_end_with_the_same_result(node_network: NodeNetwork) -> None:
    chance = random.Random(5)
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    starts = 0
    while not all((node_network.root / name / "results" / "1.json").exists() for name in SITES):
        name = chance.choice(SITES)
        node_network.daemons[name].tick()
        if chance.random() < 0.1:
            node_network.daemons[name], starts = node_network.daemon(name), starts + 1
        assert starts < 200
    assert starts > 3
    assert len({json.dumps(result(node_network, name, 1)) for name in SITES}) == 1


def test_a_study_that_is_done_is_not_begun_again_by_a_new_daemon(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    node_network.settle()
    write_rows(node_network.root / "north" / "data.csv", 77)
    node_network.daemons["north"] = node_network.daemon("north")
    node_network.settle()
    assert node_network.phases()["north"] == ["done"]
    assert "CO-D131" not in node_network.log("north")


def test_a_full_disk_is_reported_and_the_study_goes_on_when_there_is_room(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coterie_chain.errors import StoreFault

    study = node_network.propose(study_file(node_network.root))
    node_network.settle()
    node_network.approve(study, "south", "west")

    def full(data: bytes) -> str:
        raise StoreFault("CO-C204", "The folder store refused: No space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr(node_network.blobs, "put", full)
        node_network.settle()
        faults = {getattr(d.tasks[1].fault, "code", "") for d in node_network.daemons.values()}
        assert faults == {"CO-C204"}
        assert node_network.chain.ledger(None).view(1).state == State.RUNNING
        assert "No space left" in node_network.log("north")
    for _ in range(20):
        node_network.seconds += 40
        node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}


def test_results_that_cannot_be_written_are_reported_and_written_when_they_can(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    in_the_way = node_network.root / "north" / "results"
    in_the_way.write_text("")
    node_network.settle()
    node_network.approve(study, "south", "west")
    node_network.settle()
    engagement = node_network.daemons["north"].tasks[1]
    assert (engagement.phase, getattr(engagement.fault, "code", "")) == ("stopped", "CO-C204")
    assert node_network.phases()["south"] == ["done"]
    in_the_way.unlink()
    node_network.seconds += 61
    node_network.settle()
    assert result(node_network, "north", 1)["fit"] == result(node_network, "south", 1)["fit"]


def test_a_log_that_cannot_be_written_does_not_stop_the_node() -> None:
    class Full(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    EventLog(Full()).tell("waiting", study=1)


def test_a_silent_site_is_named_with_its_delay_and_waited_for(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    node_network.daemons["north"].tick()
    while node_network.chain.ledger(None).view(1).state != State.RUNNING:
        for daemon in node_network.daemons.values():
            daemon.tick()
    gone = node_network.daemons.pop("west")
    node_network.settle()
    assert node_network.daemons["north"].tasks[1].cause == "west at step 0"
    node_network.seconds += 700
    node_network.settle()
    assert node_network.daemons["north"].tasks[1].cause == "west at step 0, 100 s past the deadline"
    assert "west at step 0" in node_network.log("south")
    node_network.daemons["west"] = gone
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}


def test_a_result_is_reported_only_after_its_confirmations(node_network: NodeNetwork) -> None:
    for name in SITES:
        path = node_network.root / name / CONFIG
        path.write_text(path.read_text().replace("confirmations = 0", "confirmations = 3", 1))
        node_network.daemons[name] = node_network.daemon(name)
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    node_network.settle()
    assert node_network.phases() == {name: ["settling"] for name in SITES}
    assert not (node_network.root / "north" / "results").exists()
    node_network.blocks += 3
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}


def test_a_result_whose_confirmations_are_there_already_needs_no_more_blocks(node_network: NodeNetwork) -> None:
    """A chain that sleeps makes the confirmations of the last record and no others: none come for a late reader."""
    for name in SITES:
        path = node_network.root / name / CONFIG
        path.write_text(path.read_text().replace("confirmations = 0", "confirmations = 3", 1))
        node_network.daemons[name] = node_network.daemon(name)
    node_network.blocks = 1000
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}


@pytest.mark.parametrize("restarts", [False, True])
def test_an_abort_that_a_reorganisation_takes_back_ends_the_study_at_no_site(
    node_network: NodeNetwork, restarts: bool
) -> None:
    """The block with the abort is replaced by one in which the study goes on; who believed it was out for good."""
    for name in SITES:
        path = node_network.root / name / CONFIG
        path.write_text(path.read_text().replace("confirmations = 0", "confirmations = 3", 1))
        node_network.daemons[name] = node_network.daemon(name)
    node_network.approve(node_network.propose(study_file(node_network.root)), "south", "west")
    for daemon in (*node_network.daemons.values(), *node_network.daemons.values()):
        daemon.tick()
    chain = node_network.chain
    rules, log = deepcopy(vars(chain.rules)), list(chain.log)
    chain.ledger(node_network.keys["west"].address).abort(1, Reason.OPERATOR)
    node_network.blocks = len(log) + 2
    if restarts:
        node_network.daemons["south"] = node_network.daemon("south")
    node_network.settle()
    assert chain.ledger(None).view(1).state == State.ABORTED
    assert node_network.daemons["north"].tasks[1].cause == f"block {len(log) + 3}, which makes its end final"
    vars(chain.rules).update(rules)
    chain.log[:] = log
    node_network.settle()
    node_network.blocks = len(chain.log) + 3
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}


def test_a_refusal_that_a_reorganisation_takes_back_is_said_again(node_network: NodeNetwork) -> None:
    path = node_network.root / "west" / CONFIG
    path.write_text(path.read_text().replace("confirmations = 0", "confirmations = 3", 1))
    west = node_network.daemons["west"] = node_network.daemon("west")
    study = node_network.propose(study_file(node_network.root))
    node_network.settle()
    chain = node_network.chain
    rules, log = deepcopy(vars(chain.rules)), list(chain.log)
    node_network.decisions("west").record(make_decision(study, "decline"))
    west.tick()
    west.tick()
    assert chain.ledger(None).view(1).state == State.ABORTED
    vars(chain.rules).update(rules)
    chain.log[:] = log
    west.tick()
    assert chain.ledger(None).view(1).state == State.ABORTED
    node_network.blocks = len(chain.log) + 3
    west.tick()
    assert west.tasks[1].phase == "declined"


def test_a_node_is_not_well_while_its_chain_is_not(node_network: NodeNetwork) -> None:
    daemon = node_network.daemons["north"]
    node_network.settle()
    assert daemon.health.healthy
    daemon.services = replace(daemon.services, chain_is_well=lambda: False)
    assert not daemon.health.healthy


def test_a_chain_node_whose_socket_is_shut_is_logged_once_and_does_not_end_the_daemon(
    node_network: NodeNetwork,
) -> None:
    path, out = node_network.root / "north" / CONFIG, io.StringIO()
    path.write_text(path.read_text().replace("sleep = false", "sleep = true", 1))
    with ExitStack() as stack:
        is_well = drive_sealer(stack, find_node(path.parent), EventLog(out))
        deadline = time.monotonic() + 60
        while "CO-C301" not in out.getvalue():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert is_well()
    assert "sealer" not in {thread.name for thread in threading.enumerate()}
    assert out.getvalue().count("sealer cannot be driven") == 1


def test_the_loop_survives_a_ledger_out_of_reach_and_stops_when_asked(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Event

    daemon, stop, tries = node_network.daemons["north"], Event(), []

    def silent() -> tuple[int, ...]:
        tries.append(1)
        if len(tries) == 3:
            stop.set()
        raise LedgerUnreachable("CO-C301", "The chain node does not answer.")

    monkeypatch.setattr(daemon.services.ledger, "studies", silent)
    monkeypatch.setattr(stop, "wait", lambda seconds: None)
    daemon.run(stop)
    assert len(tries) == 3
    assert not daemon.health.healthy
    assert node_network.log("north").count("CO-C301") == 1


def test_a_fault_of_this_machine_s_files_for_a_moment_does_not_end_the_daemon(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As too many open files; its people see the code of the system in the log, once, and the study goes on."""
    daemon, stop, looks = node_network.daemons["north"], Flag(), list[int]()
    waiting = daemon.ballots.waiting

    def look() -> list[Path]:
        looks.append(1)
        if len(looks) < 4:
            raise OSError(errno.EMFILE, "Too many open files")
        stop.set()
        return waiting()

    health = list[Health]()
    monkeypatch.setattr(daemon.ballots, "waiting", look)
    monkeypatch.setattr(stop, "wait", lambda seconds: health.append(daemon.health))
    node_network.propose(study_file(node_network.root))
    daemon.run(stop)
    assert list(daemon.tasks) == [1]
    assert "Too many open files" in health[0].causes[-1]
    assert daemon.health.healthy
    assert node_network.log("north").count("Too many open files") == 1


def test_a_vote_that_somebody_took_away_while_it_was_cast_is_cast(node_network: NodeNetwork) -> None:
    north = node_network.daemons["north"]
    north.ballots.record(Ballot(motion="revoke", subject="west"))
    (path,) = north.ballots.waiting()
    cast = north.services.ledger.revoke

    def cast_and_lose(site: str) -> None:
        cast(site)
        path.unlink()

    north.services.ledger.revoke = cast_and_lose  # type: ignore[method-assign]
    north.tick()
    assert "vote cast" in node_network.log("north")
    assert north.ballots.waiting() == []


def test_a_daemon_rests_while_no_study_needs_it_and_not_while_one_does(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon, stop, pauses = node_network.daemons["north"], Flag(), list[float]()
    daemon.services = replace(daemon.services, rest=1.0)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        stop.set()

    monkeypatch.setattr(stop, "wait", pause)
    daemon.run(stop)
    assert pauses == [1.0]
    node_network.propose(study_file(node_network.root))
    daemon.tick()
    stop.clear()
    daemon.run(stop)
    assert pauses[1:] == [LEDGER_POLL_SECONDS]


def test_a_daemon_is_unwell_once_it_has_not_reached_the_ledger_for_two_minutes(node_network: NodeNetwork) -> None:
    daemon = node_network.daemons["north"]
    health = []
    for seconds in (60, 121):
        daemon.reached = daemon.services.clock() - seconds
        health.append(daemon.health.healthy)
    assert health == [True, False]


def test_a_number_that_a_reorganisation_gave_to_another_study_is_met_anew(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    node_network.daemons["north"].tick()
    node_network.daemons["south"].tick()
    left: list[str] = []

    class Talking(Supervisor):
        def close(self) -> None:
            left.append("session")

    one = node_network.daemons["south"].tasks[1]
    one.hash, one.supervisor = bytes(32), Talking(lambda: pytest.fail("of the other study"))
    node_network.settle()
    assert node_network.phases() == {name: ["done"] for name in SITES}
    assert left == ["session"]


def test_a_daemon_that_starts_knows_an_ended_study_from_the_history_alone(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    node_network.settle()
    again = node_network.daemon("north")

    def no_view(number: int) -> StudyView:
        raise AssertionError(f"a view of study {number}, which has ended")

    monkeypatch.setattr(again.services.ledger, "view", no_view)
    again.tick()
    assert [(task.phase, task.proposer) for task in again.tasks.values()] == [("done", "north")]


def test_a_study_that_a_reorganisation_takes_while_it_is_looked_at_is_looked_for_again(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_network.propose(study_file(node_network.root))
    node_network.daemons["north"].tick()
    south = node_network.daemons["south"]

    def gone(number: int) -> StudyView:
        raise PostRejected("BadState", 0)

    with monkeypatch.context() as patch:
        patch.setattr(south.services.ledger, "view", gone)
        south.tick()
        assert south.tasks == {}
    south.tick()
    assert list(south.tasks) == [1]


def test_a_node_that_is_asked_to_stop_stays_until_its_interactive_step_is_over(node_network: NodeNetwork) -> None:
    node_network.propose(study_file(node_network.root))
    node_network.settle()
    south, stop = node_network.daemons["south"], Flag()
    looks = [True, True, True, False]

    class Talking(Supervisor):
        @property
        def talking(self) -> bool:
            return looks.pop(0)

    south.tasks[1].supervisor = Talking(lambda: pytest.fail("nothing to begin"))
    stop.set()
    south.run(stop)
    assert looks == []
    looks[:] = [True, True]
    south.tasks[1].supervisor = Talking(lambda: pytest.fail("nothing to begin"))
    node_network.seconds += 200  # asked long ago: it leaves although the step goes on
    south.run(stop)
    assert looks == [True]


def test_what_a_site_has_read_once_outlives_the_site_that_made_it() -> None:
    theirs, mine = MemoryBlobs(), MemoryBlobs()

    class Swarm(MemoryBlobs):
        """My store, which finds in the swarm what it does not hold, and holds only what is put."""

        def get(self, cid: str, max_bytes: int = MAX_BLOB) -> bytes:
            return (mine if mine.has(cid) else theirs).get(cid, max_bytes)

        def put(self, data: bytes) -> str:
            return mine.put(data)

    store, cid = PinningStore(Swarm()), theirs.put(b"a payload")
    assert not mine.has(cid)
    assert store.get(cid) == b"a payload"
    theirs.blocks.clear()
    assert store.get(cid) == b"a payload"
    with pytest.raises(BlobMissing):
        store.get(compute_cid(b"nobody has it"))


# What it tells


def test_no_value_of_a_row_and_no_secret_is_in_logs_metrics_status_or_results(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    node_network.settle()
    for name in SITES:
        daemon, home = node_network.daemons[name], node_network.homes[name]
        observed = node_network.log(name) + daemon.services.metrics.text().decode()
        observed += json.dumps([e.as_dict() for e in daemon.tasks.values()])
        observed += (home.results / "1.json").read_text()
        secrets = [home.passphrase.read_text().strip(), home.path("api.token").read_text().strip()]
        secrets += [node_network.keys[name].stream.hex(), bytes(node_network.keys[name].account.key).hex()]
        assert [s for s in [repr(CANARY), "4.1234", *secrets] if s in observed] == []
    lines = [json.loads(line) for line in node_network.log("north").splitlines()]
    assert {"study found", "study proposed", "step finished", "study done"} <= {line["event"] for line in lines}
    assert all({"time", "level", "event"} <= set(line) for line in lines)


def test_the_log_takes_no_field_that_was_not_foreseen(node_network: NodeNetwork) -> None:
    with pytest.raises(ValueError, match="no such field"):
        EventLog(node_network.logs["north"]).tell("step finished", estimate=0.3)


def test_metrics_count_steps_waits_and_faults(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    node_network.settle()
    node_network.seconds += 6
    node_network.settle()
    text = node_network.daemons["north"].services.metrics.text().decode()
    assert 'coterie_studies{state="done"} 1.0' in text
    rounds = len([r for r in node_network.chain.log if getattr(r, "kind", "") == "server"])
    assert f'coterie_steps_total{{kind="server"}} {rounds}.0' in text
    assert "coterie_chain_head" in text


def test_a_daemon_that_starts_beside_a_command_waits_for_the_journal(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup, or `coterie doctor`, holds it for a moment; a second daemon keeps it."""
    home, pauses = node_network.homes["north"], list[float]()
    command = SqliteJournal(home.journal)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        command.close()

    with monkeypatch.context() as patch:
        patch.setattr("coterie_node.cli.site.serve.time.sleep", pause)
        await_journal(home).close()
    assert len(pauses) == 1
    monkeypatch.setattr("coterie_node.cli.site.serve.JOURNAL_SECONDS", 0.0)
    with SqliteJournal(home.journal), pytest.raises(StoreFault, match="Another process holds") as refused:
        await_journal(home)
    assert refused.value.code == "CO-C320"


def test_a_store_that_cannot_be_used_is_named_at_the_start(node_network: NodeNetwork) -> None:
    log = EventLog(node_network.logs["north"])
    check_store(KuboBlobs("http://127.0.0.1:9"), log)
    assert "CO-C206" in node_network.log("north")
    check_store(MemoryBlobs(), log)
    assert node_network.log("north").count("store cannot be used") == 1


@pytest.mark.parametrize(("observed", "shown"), [(None, "NaN"), (0, "0.0"), (3, "3.0")])
def test_peers_that_the_chain_node_does_not_tell_are_no_alarm(observed: int | None, shown: str) -> None:
    class Ledger:
        peers = observed

    metrics = Metrics()
    metrics.peers.set(count_peers(Path("no socket"), cast(EthereumLedger, Ledger())))
    assert f"coterie_chain_peers {shown}" in metrics.text().decode()


def test_the_api_shows_health_to_all_and_the_rest_to_who_has_the_token() -> None:
    well = [True]
    api = HttpApi(
        "127.0.0.1",
        0,
        "secret",
        health=lambda: Health("north", "0.2.0", () if well[0] else ("no block for 99 s",)),
        metrics=lambda: b"m 1\n",
        status=lambda: [{"a": 1}],
    )

    def ask(page: str, token: str = "") -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"http://127.0.0.1:{api.port}{page}", headers=headers), timeout=5
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    with api:
        answer = {"healthy": True, "site": "north", "version": "0.2.0", "causes": []}
        assert ask("/health") == (200, json.dumps(answer))
        assert [ask(page)[0] for page in ("/metrics", "/status", "/other")] == [401, 401, 401]
        assert ask("/metrics", "wrong")[0] == 401
        assert ask("/metrics", "secret") == (200, "m 1\n")
        assert ask("/status", "secret") == (200, '[{"a": 1}]')
        assert ask("/../etc/passwd", "secret")[0] == 404
        well[0] = False
        status, body = ask("/health")
        assert (status, json.loads(body)["causes"]) == (503, ["no block for 99 s"])
        with pytest.raises(ConfigError, match="cannot listen"):
            HttpApi("127.0.0.1", api.port, "x", health=lambda: Health("", ""), metrics=bytes, status=list)


def test_who_connects_to_the_api_and_says_nothing_keeps_neither_its_files_nor_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_module, "MAX_REQUESTS", 4)
    with (
        HttpApi("127.0.0.1", 0, "secret", health=lambda: Health("", ""), metrics=bytes, status=list) as api,
        ExitStack() as held,
    ):
        silent = [held.enter_context(socket.create_connection(("127.0.0.1", api.port), timeout=5)) for _ in range(9)]
        with urllib.request.urlopen(f"http://127.0.0.1:{api.port}/health", timeout=5) as answer:
            assert answer.status == 200
        with suppress(ConnectionError):
            assert [one.recv(1) for one in silent[:6]] == [b""] * 6


# Settings


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('site = "north"', 'site = "../north"', "site"),
        ("confirmations = 0", "confirmations = -1", "chain.confirmations"),
        ("[api]", "[api]\nsecret = 1", "api.secret: there is no such setting"),
        ("[policy]", "[polcy]", "polcy: there is no such setting"),
        ("[chain]", "[chain", ""),
    ],
)
def test_settings_that_are_wrong_are_named_without_their_values(
    node_network: NodeNetwork, old: str, new: str, where: str
) -> None:
    path = node_network.root / "north" / CONFIG
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        find_node(node_network.root / "north")
    assert caught.value.code == "CO-F320"
    assert where in caught.value.message


def test_a_store_in_memory_is_refused_for_a_node(node_network: NodeNetwork) -> None:
    path = node_network.root / "north" / CONFIG
    path.write_text(path.read_text().replace('url = "folder:../store"', 'url = "memory:"', 1))
    with pytest.raises(Exception, match="cannot keep its payloads in memory"):
        find_node(node_network.root / "north").blobs()


def test_token_files_in_addresses_lie_in_the_nodes_folder(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, elsewhere = node_network.root / "north" / CONFIG, "http://127.0.0.1:8551"
    text = path.read_text().replace('"http://127.0.0.1:1"', f'"{elsewhere}?jwt_file=geth/jwt.hex"', 1)
    path.write_text(text.replace('"folder:../store"', '"kubo+http://127.0.0.1:5001?token_file=token"', 1))
    write_private(node_network.root / "north" / "token", "secret")
    home = find_node(node_network.root / "north")
    monkeypatch.chdir("/")
    assert home.chain == f"{elsewhere}?jwt_file={node_network.root / 'north' / 'geth' / 'jwt.hex'}"
    assert isinstance(home.blobs(), KuboBlobs)
    absolute = "/etc/jwt file.hex"
    path.write_text(text.replace("geth/jwt.hex", absolute))
    assert split_path(find_node(node_network.root / "north").chain) == absolute


def split_path(url: str) -> str:
    """The token file that an address names."""
    return parse_qs(urlsplit(url).query)["jwt_file"][0]
