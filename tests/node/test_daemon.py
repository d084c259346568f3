"""The daemon over months in a moment: approvals, policies, several studies, restarts, faults, and what it tells."""

from __future__ import annotations

import errno
import io
import json
import random
import socket
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Event as Flag
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest
from node.houses import CANARY, SITES, Pool, Village, study_file, write_rows

from coterie_chain.blobs import MAX_BLOB, MemoryBlobs, cid_of
from coterie_chain.errors import BlobMissing, LedgerUnreachable, PostRejected
from coterie_chain.ethereum import EthereumLedger
from coterie_chain.ipfs import KuboBlobs
from coterie_chain.ledger import State, StudyView
from coterie_chain.private_files import write_private
from coterie_node import api as api_module
from coterie_node.api import Api
from coterie_node.attendance import Attendance
from coterie_node.commands.serve import look_at_store, peers_of
from coterie_node.decisions import decided
from coterie_node.errors import ConfigError
from coterie_node.fault_notes import FaultNotes
from coterie_node.keeping import Keeping
from coterie_node.log import Log
from coterie_node.metrics import Metrics
from coterie_node.reasons import Reason
from coterie_node.site_config import CONFIG, Home


def result(village: Village, name: str, number: int) -> Any:
    return json.loads((village.root / name / "results" / f"{number}.json").read_text())


def reason(village: Village) -> int:
    (event,) = (e for e in village.chain.log if getattr(e, "name", "") == "StudyAborted")
    return int(dict(event.details)["reason"])  # type: ignore[union-attr]


# Approval


def test_a_study_runs_once_the_people_of_every_site_have_approved_it(village: Village) -> None:
    study = village.propose(study_file(village.root))
    village.approve(study, "south")
    village.settle()
    assert village.chain.ledger(None).view(1).joined == ("north", "south")
    assert village.daemons["north"].engagements[1].cause == "approval by west"
    village.approve(study, "west")
    village.settle()
    assert village.phases() == {name: ["done"] for name in SITES}
    fits = [result(village, name, 1)["fit"] for name in SITES]
    assert fits[0] == fits[1] == fits[2]
    assert fits[0] is not None
    assert (village.root / "west" / "results" / "1.json").stat().st_mode & 0o077 == 0


def test_several_studies_go_on_side_by_side_and_each_is_approved_by_itself(village: Village) -> None:
    hashes = [village.propose(study_file(village.root, f"cohort-{k}")) for k in range(3)]
    for study in hashes[:2]:
        village.approve(study, "south", "west")
    village.settle()
    done = {e.hash: e.phase for e in village.daemons["south"].engagements.values()}
    assert [done[study] for study in hashes] == ["done", "done", "waiting"]


def test_studies_side_by_side_take_no_more_blocks_than_one(tmp_path: Path) -> None:
    """A daemon that waited for each of its moves would give every study a block of its own."""

    def blocks(folder: Path, studies: int) -> int:
        folder.mkdir()
        pool = Pool()
        village = Village(folder, pool=pool)
        for k in range(studies):
            village.approve(village.propose(study_file(folder, f"cohort-{k}")), "south", "west")
        while any(phase != "done" for phases in village.phases().values() for phase in phases) or pool.mined < 2:
            village.settle()
            pool.mine()
            assert pool.mined < 50
        assert village.phases() == {name: ["done"] * studies for name in SITES}
        assert pool.refused == []
        for log in village.logs.values():
            log.close()
        return pool.mined

    assert blocks(tmp_path / "one", 1) == blocks(tmp_path / "five", 5)


def test_what_people_leave_beside_their_decisions_is_no_decision(village: Village) -> None:
    study = village.propose(study_file(village.root))
    village.approve(study, "south", "west")
    for name in ("notes.json", "x.0001.json", f"{study.hex()}.json"):
        (village.decisions("north").root / name).write_text("{}")
    village.settle()
    assert village.phases() == {name: ["done"] for name in SITES}


def test_a_proposal_with_which_something_is_wrong_holds_up_nothing_else(village: Village) -> None:
    village.homes["north"].data.rename(village.root / "moved.csv")
    first = village.propose(study_file(village.root))
    stranger = village.propose(study_file(village.root, "with-a-stranger", west="east"))
    other = village.propose(study_file(village.root, "by-south"), "south")
    village.approve(other, "west")
    village.settle()
    assert [e.hash for e in village.daemons["south"].engagements.values()] == [other]
    (village.root / "moved.csv").rename(village.homes["north"].data)
    village.settle()
    village.seconds += 61
    village.settle()
    assert {e.hash for e in village.daemons["south"].engagements.values()} == {first, other}
    told = [json.loads(line) for line in village.log("north").splitlines()]
    assert sorted(line["code"] for line in told if line["event"] == "fault") == ["CO-C401", "CO-D101", "CO-D101"]
    stuck = {str(one["hash"]): one for one in village.daemons["north"].told}[stranger.hex()]
    assert (stuck["phase"], "CO-C401" in json.dumps(stuck)) == ("stopped", True)


def test_a_study_that_is_declined_ends_for_all_and_says_by_whom(village: Village) -> None:
    study = village.propose(study_file(village.root))
    village.settle()
    village.decisions("south").record(decided(study, "decline", reason="not ours"))
    village.settle()
    assert village.chain.ledger(None).view(1).state == State.ABORTED
    assert reason(village) == Reason.DECLINED
    assert village.phases()["west"] == ["aborted"]
    assert "not ours" not in village.log("south")
    # An old end is no news for a daemon that is started again.
    told = village.log("west").count("study aborted")
    village.daemons["west"] = village.daemon("west")
    village.settle()
    assert village.phases()["west"] == ["aborted"]
    assert village.log("west").count("study aborted") == told == 1


def test_a_running_study_is_aborted_by_its_peoples_decision(village: Village) -> None:
    study = village.propose(study_file(village.root))
    village.approve(study, "south", "west")
    for daemon in village.daemons.values():
        daemon.beat()
    village.decisions("west").record(decided(study, "abort"))
    village.settle()
    assert reason(village) == Reason.OPERATOR
    assert set(village.phases()["north"] + village.phases()["south"]) == {"aborted"}


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
    village: Village, setting: str, changed: str, code: str
) -> None:
    path = village.root / "south" / CONFIG
    path.write_text(path.read_text().replace(setting, changed, 1))
    village.daemons["south"] = village.daemon("south")
    study = village.propose(study_file(village.root))
    village.approve(study, "south", "west")
    village.settle()
    engagement = village.daemons["south"].engagements[1]
    assert (engagement.phase, getattr(engagement.fault, "code", "")) == ("stopped", code)
    assert "south" not in village.chain.ledger(None).view(1).joined


def test_rows_that_do_not_fit_stop_one_study_until_they_are_mended(village: Village) -> None:
    study = village.propose(study_file(village.root))
    village.approve(study, "south", "west")
    data = village.root / "south" / "data.csv"
    data.write_text(data.read_text().replace(repr(CANARY), "77.125", 1))
    village.settle()
    engagement = village.daemons["south"].engagements[1]
    assert engagement.phase == "stopped"
    assert "77.125" not in village.log("south") + json.dumps(engagement.as_dict())
    note = village.root / "south" / "faults" / "1.txt"
    assert "CO-D113" in FaultNotes(note.parent).of(1)
    assert "77.125" in FaultNotes(note.parent).of(1)
    assert note.stat().st_mode & 0o077 == 0
    assert FaultNotes(note.parent).of(2) == ""
    write_rows(data, 1)
    village.settle()
    assert engagement.phase == "stopped"
    village.seconds += 61
    village.settle()
    assert village.phases() == {name: ["done"] for name in SITES}


def test_a_decision_made_anew_is_carried_out_at_once(village: Village) -> None:
    study = village.propose(study_file(village.root))
    village.approve(study, "west")
    village.decisions("south").record(decided(study, "approve", data="nowhere.csv"))
    village.settle()
    assert village.phases()["south"] == ["stopped"]
    village.approve(study, "south")
    village.settle()
    assert village.phases() == {name: ["done"] for name in SITES}


def test_a_proposal_that_cannot_be_made_stops_nothing_but_itself(village: Village) -> None:
    good = village.propose(study_file(village.root))
    village.approve(good, "south", "west")
    path = study_file(village.root, "other")
    path.write_text(path.read_text().replace("[-5, 5]", "[-1, 1]"))
    bad = village.propose(path)
    village.settle()
    assert village.phases() == {name: ["done"] for name in SITES}
    told = {str(one["hash"]): one for one in village.daemons["north"].told}
    assert (told[bad.hex()]["phase"], told[bad.hex()]["study"]) == ("stopped", 0)
    assert "CO-D113" in json.dumps(told[bad.hex()])
    assert repr(CANARY) not in village.log("north") + json.dumps(told)
    village.decisions("north").document(bad).unlink()
    village.seconds += 61
    village.settle()
    assert "CO-F322" in village.log("north")


# Restarts and faults


def test_daemons_that_are_started_anew_again_and_again_end_with_the_same_result(village: Village) -> None:
    chance = random.Random(5)
    study = village.propose(study_file(village.root))
    village.approve(study, "south", "west")
    starts = 0
    while not all((village.root / name / "results" / "1.json").exists() for name in SITES):
        name = chance.choice(SITES)
        village.daemons[name].beat()
        if chance.random() < 0.1:
            village.daemons[name], starts = village.daemon(name), starts + 1
        assert starts < 200
    assert starts > 3
    assert len({json.dumps(result(village, name, 1)) for name in SITES}) == 1


def test_a_study_that_is_done_is_not_begun_again_by_a_new_daemon(village: Village) -> None:
    study = village.propose(study_file(village.root))
    village.approve(study, "south", "west")
    village.settle()
    write_rows(village.root / "north" / "data.csv", 77)
    village.daemons["north"] = village.daemon("north")
    village.settle()
    assert village.phases()["north"] == ["done"]
    assert "CO-D131" not in village.log("north")


def test_a_full_disk_is_told_and_the_study_goes_on_when_there_is_room(
    village: Village, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coterie_chain.errors import StoreFault

    study = village.propose(study_file(village.root))
    village.settle()
    village.approve(study, "south", "west")

    def full(data: bytes) -> str:
        raise StoreFault("CO-C204", "The folder store refused: No space left on device.")

    with monkeypatch.context() as patch:
        patch.setattr(village.blobs, "put", full)
        village.settle()
        faults = {getattr(d.engagements[1].fault, "code", "") for d in village.daemons.values()}
        assert faults == {"CO-C204"}
        assert village.chain.ledger(None).view(1).state == State.RUNNING
        assert "No space left" in village.log("north")
    for _ in range(20):
        village.seconds += 40
        village.settle()
    assert village.phases() == {name: ["done"] for name in SITES}


def test_results_that_cannot_be_written_are_told_and_written_when_they_can(village: Village) -> None:
    study = village.propose(study_file(village.root))
    in_the_way = village.root / "north" / "results"
    in_the_way.write_text("")
    village.settle()
    village.approve(study, "south", "west")
    village.settle()
    engagement = village.daemons["north"].engagements[1]
    assert (engagement.phase, getattr(engagement.fault, "code", "")) == ("stopped", "CO-C204")
    assert village.phases()["south"] == ["done"]
    in_the_way.unlink()
    village.seconds += 61
    village.settle()
    assert result(village, "north", 1)["fit"] == result(village, "south", 1)["fit"]


def test_a_log_that_cannot_be_written_does_not_stop_the_node() -> None:
    class Full(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    Log(Full()).tell("waiting", study=1)


def test_a_silent_site_is_named_with_its_delay_and_waited_for(village: Village) -> None:
    study = village.propose(study_file(village.root))
    village.approve(study, "south", "west")
    village.daemons["north"].beat()
    while village.chain.ledger(None).view(1).state != State.RUNNING:
        for daemon in village.daemons.values():
            daemon.beat()
    gone = village.daemons.pop("west")
    village.settle()
    assert village.daemons["north"].engagements[1].cause == "west at step 0"
    village.seconds += 700
    village.settle()
    assert village.daemons["north"].engagements[1].cause == "west at step 0, 100 s past the deadline"
    assert "west at step 0" in village.log("south")
    village.daemons["west"] = gone
    village.settle()
    assert village.phases() == {name: ["done"] for name in SITES}


def test_a_result_is_told_only_after_its_confirmations(village: Village) -> None:
    for name in SITES:
        path = village.root / name / CONFIG
        path.write_text(path.read_text().replace("confirmations = 0", "confirmations = 3", 1))
        village.daemons[name] = village.daemon(name)
    study = village.propose(study_file(village.root))
    village.approve(study, "south", "west")
    village.settle()
    assert village.phases() == {name: ["settling"] for name in SITES}
    assert not (village.root / "north" / "results").exists()
    village.blocks += 3
    village.settle()
    assert village.phases() == {name: ["done"] for name in SITES}


def test_the_loop_bears_a_ledger_out_of_reach_and_stops_when_told(
    village: Village, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threading import Event

    daemon, stop, tries = village.daemons["north"], Event(), []

    def silent() -> tuple[int, ...]:
        tries.append(1)
        if len(tries) == 3:
            stop.set()
        raise LedgerUnreachable("CO-C301", "The chain node does not answer.")

    monkeypatch.setattr(daemon.desk.ledger, "studies", silent)
    monkeypatch.setattr(stop, "wait", lambda seconds: None)
    daemon.run(stop)
    assert len(tries) == 3
    assert not daemon.healthy
    assert village.log("north").count("CO-C301") == 1


def test_a_number_that_a_reorganisation_gave_to_another_study_is_met_anew(village: Village) -> None:
    study = village.propose(study_file(village.root))
    village.approve(study, "south", "west")
    village.daemons["north"].beat()
    village.daemons["south"].beat()
    left: list[str] = []

    class Talking(Attendance):
        def close(self) -> None:
            left.append("session")

    one = village.daemons["south"].engagements[1]
    one.hash, one.attendance = bytes(32), Talking(lambda: pytest.fail("of the other study"))
    village.settle()
    assert village.phases() == {name: ["done"] for name in SITES}
    assert left == ["session"]


def test_a_study_that_a_reorganisation_takes_while_it_is_looked_at_is_looked_for_again(
    village: Village, monkeypatch: pytest.MonkeyPatch
) -> None:
    village.propose(study_file(village.root))
    village.daemons["north"].beat()
    south = village.daemons["south"]

    def gone(number: int) -> StudyView:
        raise PostRejected("BadState", 0)

    with monkeypatch.context() as patch:
        patch.setattr(south.desk.ledger, "view", gone)
        south.beat()
        assert south.engagements == {}
    south.beat()
    assert list(south.engagements) == [1]


def test_a_node_that_is_told_to_stop_stays_until_its_interactive_step_is_over(village: Village) -> None:
    village.propose(study_file(village.root))
    village.settle()
    south, stop = village.daemons["south"], Flag()
    looks = [True, True, True, False]

    class Talking(Attendance):
        @property
        def talking(self) -> bool:
            return looks.pop(0)

    south.engagements[1].attendance = Talking(lambda: pytest.fail("nothing to begin"))
    stop.set()
    south.run(stop)
    assert looks == []
    looks[:] = [True, True]
    south.engagements[1].attendance = Talking(lambda: pytest.fail("nothing to begin"))
    village.seconds += 200  # told long ago: it leaves although the step goes on
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

    store, cid = Keeping(Swarm()), theirs.put(b"a payload")
    assert not mine.has(cid)
    assert store.get(cid) == b"a payload"
    theirs.blocks.clear()
    assert store.get(cid) == b"a payload"
    with pytest.raises(BlobMissing):
        store.get(cid_of(b"nobody has it"))


# What it tells


def test_no_value_of_a_row_and_no_secret_is_in_logs_metrics_status_or_results(village: Village) -> None:
    study = village.propose(study_file(village.root))
    village.approve(study, "south", "west")
    village.settle()
    for name in SITES:
        daemon, home = village.daemons[name], village.homes[name]
        told = village.log(name) + daemon.desk.metrics.text().decode()
        told += json.dumps([e.as_dict() for e in daemon.engagements.values()])
        told += (home.results / "1.json").read_text()
        secrets = [home.passphrase.read_text().strip(), home.path("api.token").read_text().strip()]
        secrets += [village.keys[name].stream.hex(), bytes(village.keys[name].account.key).hex()]
        assert [s for s in [repr(CANARY), "4.1234", *secrets] if s in told] == []
    lines = [json.loads(line) for line in village.log("north").splitlines()]
    assert {"study found", "study proposed", "step finished", "study done"} <= {line["event"] for line in lines}
    assert all({"time", "level", "event"} <= set(line) for line in lines)


def test_the_log_takes_no_field_that_was_not_foreseen(village: Village) -> None:
    with pytest.raises(ValueError, match="no such field"):
        Log(village.logs["north"]).tell("step finished", estimate=0.3)


def test_metrics_count_steps_waits_and_faults(village: Village) -> None:
    study = village.propose(study_file(village.root))
    village.approve(study, "south", "west")
    village.settle()
    village.seconds += 6
    village.settle()
    text = village.daemons["north"].desk.metrics.text().decode()
    assert 'coterie_studies{state="done"} 1.0' in text
    rounds = len([r for r in village.chain.log if getattr(r, "kind", "") == "server"])
    assert f'coterie_steps_total{{kind="server"}} {rounds}.0' in text
    assert "coterie_chain_head" in text


def test_a_store_that_cannot_be_used_is_told_at_the_start(village: Village) -> None:
    log = Log(village.logs["north"])
    look_at_store(KuboBlobs("http://127.0.0.1:9"), log)
    assert "CO-C206" in village.log("north")
    look_at_store(MemoryBlobs(), log)
    assert village.log("north").count("store cannot be used") == 1


@pytest.mark.parametrize(("told", "shown"), [(None, "NaN"), (0, "0.0"), (3, "3.0")])
def test_peers_that_the_chain_node_does_not_tell_are_no_alarm(told: int | None, shown: str) -> None:
    class Ledger:
        peers = told

    metrics = Metrics()
    metrics.peers.set(peers_of(cast(EthereumLedger, Ledger())))
    assert f"coterie_chain_peers {shown}" in metrics.text().decode()


def test_the_api_shows_health_to_all_and_the_rest_to_who_has_the_token() -> None:
    well = [True]
    api = Api("127.0.0.1", 0, "secret", healthy=lambda: well[0], metrics=lambda: b"m 1\n", status=lambda: [{"a": 1}])

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
        assert ask("/health") == (200, '{"healthy": true}')
        assert [ask(page)[0] for page in ("/metrics", "/status", "/other")] == [401, 401, 401]
        assert ask("/metrics", "wrong")[0] == 401
        assert ask("/metrics", "secret") == (200, "m 1\n")
        assert ask("/status", "secret") == (200, '[{"a": 1}]')
        assert ask("/../etc/passwd", "secret")[0] == 404
        well[0] = False
        assert ask("/health")[0] == 503
        with pytest.raises(ConfigError, match="cannot listen"):
            Api("127.0.0.1", api.port, "x", healthy=bool, metrics=bytes, status=list)


def test_who_connects_to_the_api_and_says_nothing_keeps_neither_its_files_nor_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api_module, "MOST", 4)
    with (
        Api("127.0.0.1", 0, "secret", healthy=lambda: True, metrics=bytes, status=list) as api,
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
    village: Village, old: str, new: str, where: str
) -> None:
    path = village.root / "north" / CONFIG
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        Home(village.root / "north")
    assert caught.value.code == "CO-F320"
    assert where in caught.value.message


def test_a_store_in_memory_is_refused_for_a_node(village: Village) -> None:
    path = village.root / "north" / CONFIG
    path.write_text(path.read_text().replace('url = "folder:../store"', 'url = "memory:"', 1))
    with pytest.raises(Exception, match="cannot keep its payloads in memory"):
        Home(village.root / "north").blobs()


def test_token_files_in_addresses_lie_in_the_nodes_folder(village: Village, monkeypatch: pytest.MonkeyPatch) -> None:
    path, elsewhere = village.root / "north" / CONFIG, "http://127.0.0.1:8551"
    text = path.read_text().replace('"http://127.0.0.1:1"', f'"{elsewhere}?jwt_file=geth/jwt.hex"', 1)
    path.write_text(text.replace('"folder:../store"', '"kubo+http://127.0.0.1:5001?token_file=token"', 1))
    write_private(village.root / "north" / "token", "secret")
    home = Home(village.root / "north")
    monkeypatch.chdir("/")
    assert home.chain == f"{elsewhere}?jwt_file={village.root / 'north' / 'geth' / 'jwt.hex'}"
    assert isinstance(home.blobs(), KuboBlobs)
    absolute = "/etc/jwt file.hex"
    path.write_text(text.replace("geth/jwt.hex", absolute))
    assert split_path(Home(village.root / "north").chain) == absolute


def split_path(url: str) -> str:
    """The token file that an address names."""
    return parse_qs(urlsplit(url).query)["jwt_file"][0]
