"""Interactive steps: channels between parties, and programs that run while the runner polls."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.learners import shapes
from support.learners.shapes import SCRIPT_CASES
from support.node.worlds import World, sweep

from coterie_chain.errors import StoreFault
from coterie_chain.ledger.protocol import State
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Channel, ReportingChannel, Script, Site, interactive
from coterie_learners.errors import DataError, LearnerError, ProtocolError, SessionLost
from coterie_learners.study.document import Schedule, Study
from coterie_node.errors import ConfigError, StudyStopped
from coterie_node.peers import interactive_session
from coterie_node.peers.interactive_session import InteractiveStep, MemoryTransport
from coterie_node.run.reasons import Reason
from coterie_node.run.runner import Runner

NAMES = ("ana", "bob")


def alone(program: Callable[[], Payload]) -> InteractiveStep:
    """A session of one party."""
    return say_alone(lambda _: program())


def say_alone(program: Callable[[Channel], Payload]) -> InteractiveStep:
    """The same for a program that talks."""
    return InteractiveStep("session", MemoryTransport().channel("ana", "session", ("ana",)), program)


def test_bytes_arrive_in_order_at_their_receiver() -> None:
    hub = MemoryTransport(5.0)
    ana, bob = hub.channel("ana", 1, NAMES), hub.channel("bob", 1, NAMES)
    for k in range(3):
        ana.send("bob", bytes([k]))
    bob.send("ana", b"back")
    assert [bob.receive("ana") for _ in range(3)] == [b"\0", b"\1", b"\2"]
    assert ana.receive("bob") == b"back"


def test_sessions_and_pairs_do_not_hear_each_other() -> None:
    hub = MemoryTransport(0.01)
    hub.channel("ana", 1, NAMES).send("bob", b"for session 1")
    for me, session, sender in (("bob", 2, "ana"), ("cyd", 1, "ana"), ("bob", 1, "cyd"), ("ana", 1, "bob")):
        with pytest.raises(ProtocolError):
            hub.channel(me, session, NAMES).receive(sender)
    assert hub.channel("bob", 1, NAMES).receive("ana") == b"for session 1"


def test_two_ends_that_come_at_once_have_one_queue_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    queue_class = queue.Queue

    def slow() -> queue.Queue[bytes]:
        time.sleep(0.05)
        return queue_class()

    hub = MemoryTransport(5.0)
    monkeypatch.setattr(hub._queues, "default_factory", slow)
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda _: hub.between(1, "ana", "bob"), range(2)))
    assert ends[0] is ends[1]


def test_a_peer_that_stays_silent_is_named_with_the_time_it_was_given() -> None:
    with pytest.raises(ProtocolError) as caught:
        MemoryTransport(0.02).channel("ana", 1, NAMES).receive("bob")
    assert (caught.value.code, caught.value.site) == ("CO-P601", "bob")
    assert caught.value.message == "bob sent nothing to ana within 0.02 s. Ask that site, then propose the study again."


def test_an_outcome_is_none_while_the_parties_talk_and_then_the_result() -> None:
    gate = threading.Event()

    def program() -> Payload:
        gate.wait(20)
        return {"x": 1}

    session = alone(program)
    assert session.alive
    assert session.outcome() is None
    gate.set()
    assert session.outcome(patience=20.0) == {"x": 1}
    assert not session.alive
    assert session.outcome() == {"x": 1}


def test_people_see_in_tenths_how_far_a_program_has_come() -> None:
    seen = []

    def program(channel: Channel) -> Payload:
        assert isinstance(channel, ReportingChannel)
        for done in (0, 57, 119, 120):
            channel.report("rows", done, 120)
            seen.append(session.progress)
        return {}

    gate = threading.Event()
    session = say_alone(lambda channel: program(channel) if gate.wait(20) else {})
    assert session.progress == ""
    gate.set()
    assert session.outcome(patience=20.0) == {}
    assert seen == ["rows, 0 % done", "rows, 40 % done", "rows, 90 % done", "rows, 100 % done"]


def test_what_ended_a_program_comes_out_where_it_is_polled() -> None:
    def program() -> Payload:
        raise DataError("CO-D301", "too large")

    session = alone(program)
    with pytest.raises(DataError, match="too large"):
        session.outcome(patience=20.0)


def world(program: object, sites: tuple[str, ...] = ("a", "b", "c"), silent_site: str = "wait") -> World:
    """A study with one interactive step."""

    def script(site: Site) -> Script:
        opened = yield from interactive("talk", program)  # type: ignore[arg-type]
        return int(opened["x"])

    rows = dict.fromkeys(sites, SCRIPT_CASES["cola"].rows["a"])
    raw = shapes.study(sites).model_dump()
    study = Study.model_validate({**raw, "ledger": {**raw["ledger"], "silent_site": silent_site}})
    return World(study, rows, script, Schedule(opening=("each",)))


def ring(site: Site, channel: Channel) -> Payload:
    """Each party adds its place; the last one tells all."""
    parties = site.parties
    me = parties.index(site.name)
    total = (0 if me == 0 else int.from_bytes(channel.receive(parties[me - 1]), "little")) + me + 1
    if me + 1 < len(parties):
        channel.send(parties[me + 1], total.to_bytes(4, "little"))
        return {"x": int.from_bytes(channel.receive(parties[-1]), "little")}
    for peer in parties[:-1]:
        channel.send(peer, total.to_bytes(4, "little"))
    return {"x": total}


def test_parties_talk_while_their_runners_poll_and_all_post_the_same() -> None:
    w = world(ring)
    crew = w.crew()
    sweep(crew.values())
    assert [r.machine.result for r in crew.values()] == [6, 6, 6]
    assert w.view().state == State.COMPLETED
    assert not any(r.talking for r in crew.values())


def failure(crew: dict[str, Runner], name: str) -> LearnerError:
    """The message that a site gets in the end."""

    def go_on() -> None:
        while True:
            crew[name].turn()

    with pytest.raises(LearnerError) as caught:
        go_on()
    return caught.value


def test_parties_wait_for_one_that_comes_late_and_name_it_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactive_session, "MEET_SECONDS", 0.02)
    w = world(ring)
    crew = w.crew()
    early = [crew["a"], crew["b"]]
    while any(r.missing_parties != ("c",) for r in early):
        assert not any(r.turn() for r in early)
    assert not any(r.talking for r in early)
    w.late()  # the study waits, as it says
    assert not any(r.turn() for r in early)
    sweep(crew.values())
    assert [r.machine.result for r in crew.values()] == [6, 6, 6]
    assert all(r.missing_parties == () for r in crew.values())


def test_a_study_that_ends_for_a_silent_site_ends_for_one_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interactive_session, "MEET_SECONDS", 0.02)
    w = world(ring, silent_site="abort")
    a = w.runner("a")
    while not a.missing_parties:
        a.turn()
    w.late()
    while not w.events("StudyAborted"):
        a.turn()
    (event,) = w.events("StudyAborted")
    assert dict(event.details)["reason"] == Reason.SILENT_SITE
    with pytest.raises(StudyStopped):
        a.turn()
    session_left = a._session
    a.close()
    assert session_left is not None
    with pytest.raises(ProtocolError):
        session_left.outcome(patience=20.0)


def test_a_session_that_a_party_leaves_ends_the_study_and_has_a_reason_of_its_own() -> None:
    def program(site: Site, channel: Channel) -> Payload:
        if site.name == "c":
            raise ProtocolError("CO-P603", "killed")
        return {"x": int.from_bytes(channel.receive("c"), "little")}

    w = world(program)
    w.hub.seconds = 0.05
    crew = w.crew()
    for name in ("c", "b"):
        crew[name].turn()
    error = failure(crew, "a")
    assert isinstance(error, SessionLost)
    assert (error.code, error.site) == ("CO-P601", "c")
    assert isinstance(failure(crew, "b"), SessionLost)  # the vote of two names the third
    (event,) = w.events("StudyAborted")
    assert dict(event.details)["reason"] == Reason.SESSION_LOST


def test_a_session_outlives_a_reorganisation_that_changes_nothing_before_it() -> None:
    gate = threading.Event()

    def program(site: Site, channel: Channel) -> Payload:
        gate.wait(20)
        return ring(site, channel)

    w = world(program)
    crew = w.crew()
    for runner in crew.values():
        runner.turn()
    before = {name: runner._session for name, runner in crew.items()}
    for runner in crew.values():
        runner._restart_from_ledger()
        runner.turn()
    assert {name: runner._session for name, runner in crew.items()} == before
    gate.set()
    sweep(crew.values())
    assert [r.machine.result for r in crew.values()] == [6, 6, 6]


def dead_before_its_record(monkeypatch: pytest.MonkeyPatch) -> tuple[World, dict[str, Runner]]:
    """A study whose parties opened a result, which all but site a have recorded."""
    monkeypatch.setattr(interactive_session, "MEET_SECONDS", 0.02)
    w = world(ring)
    crew = w.crew()
    for name in "bc":
        crew[name].turn()
    step, open_ = crew["a"].machine.awaits, w.view().open
    assert step is not None
    assert open_ is not None
    crew["a"]._draft(step, open_)
    died = crew["a"]._session
    assert died is not None
    assert died.outcome(patience=20.0) == {"x": 6}
    while (now := w.view().open) is not None and not {"b", "c"} <= set(now.posted):
        for name in "bc":
            crew[name].turn()
    return w, crew


def test_a_site_that_dies_after_a_session_and_before_its_record_posts_what_was_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    w, crew = dead_before_its_record(monkeypatch)
    w.hub = MemoryTransport(20.0)  # the others have left the session, and do not come again
    crew["a"] = w.runner("a")
    sweep(crew.values())
    assert [r.machine.result for r in crew.values()] == [6, 6, 6]


def test_a_site_that_dies_in_a_session_that_the_others_end_does_not_wait_for_them_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    w, _ = dead_before_its_record(monkeypatch)
    w.vaults["a"].clear()  # it died before the result was kept
    w.hub = MemoryTransport(20.0)
    error = failure({"a": w.runner("a")}, "a")
    assert isinstance(error, SessionLost)
    assert error.code == "CO-P604"
    (event,) = w.events("StudyAborted")
    assert dict(event.details)["reason"] == Reason.SESSION_LOST


class Full(dict[str, bytes]):
    """A vault on a disk that is full, for a while."""

    full = True

    def __setitem__(self, key: str, value: bytes) -> None:
        if self.full:
            raise StoreFault("CO-C322", "The disk is full.")
        super().__setitem__(key, value)


def test_a_full_disk_in_an_interactive_step_is_named_as_such_and_the_site_tries_again() -> None:
    def program(site: Site, channel: Channel) -> Payload:
        site.vault["number"] = b"1"
        return {"x": 1}

    w = world(program)
    w.vaults["a"] = vault = Full()
    crew = w.crew()
    for name in "bc":
        crew[name].turn()
    with pytest.raises(StoreFault):
        sweep([crew["a"]])
    assert not w.events("StudyAborted")
    vault.full = False
    sweep(crew.values())
    assert crew["a"].machine.result == 1


def test_a_full_disk_does_not_take_what_was_opened() -> None:
    w = world(ring)
    w.vaults["a"] = Full()
    crew = w.crew()
    sweep(crew.values())
    assert crew["a"].machine.result == 6


def test_parties_that_open_different_results_are_refused() -> None:
    w = world(lambda site, channel: {"x": len(site.name) + (site.name == "b")})
    crew = w.crew()
    while (open_ := w.view().open) is not None:
        for name, runner in crew.items():
            if name not in open_.posted:
                runner.turn()
    error = failure(crew, "a")
    assert (error.code, "different results at 'talk'" in error.message) == ("CO-P202", True)


def test_a_node_without_a_channel_says_so_and_the_study_waits_for_it() -> None:
    w = world(ring)
    runner = w.runner("a")
    runner._exchange = None
    with pytest.raises(ConfigError, match="this node has none") as caught:
        runner.turn()
    assert caught.value.code == "CO-F342"
    assert w.view().state == State.RUNNING
