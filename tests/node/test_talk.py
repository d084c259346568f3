"""Interactive steps: channels between parties, and programs that run while the runner polls."""

from __future__ import annotations

import threading

import pytest
from learners import shapes
from learners.shapes import SHAPES
from node.worlds import World, sweep

from coterie_chain.ledger import State
from coterie_learners.errors import DataError, LearnerError, ProtocolError
from coterie_learners.payload import Payload
from coterie_learners.protocol import Channel, Script, Site, together
from coterie_learners.study import Schedule
from coterie_node.reasons import Reason
from coterie_node.runner import Runner
from coterie_node.talk import Hub, Talk


def test_bytes_arrive_in_order_at_whom_they_were_sent_to() -> None:
    hub = Hub(5.0)
    ana, bob = hub.channel("ana", 1), hub.channel("bob", 1)
    for k in range(3):
        ana.send("bob", bytes([k]))
    bob.send("ana", b"back")
    assert [bob.receive("ana") for _ in range(3)] == [b"\0", b"\1", b"\2"]
    assert ana.receive("bob") == b"back"


def test_sessions_and_pairs_do_not_hear_each_other() -> None:
    hub = Hub(0.01)
    hub.channel("ana", 1).send("bob", b"for session 1")
    for me, session, sender in (("bob", 2, "ana"), ("cyd", 1, "ana"), ("bob", 1, "cyd"), ("ana", 1, "bob")):
        with pytest.raises(ProtocolError):
            hub.channel(me, session).receive(sender)
    assert hub.channel("bob", 1).receive("ana") == b"for session 1"


def test_a_peer_that_stays_silent_is_named_with_the_time_it_was_given() -> None:
    with pytest.raises(ProtocolError) as caught:
        Hub(0.02).channel("ana", 1).receive("bob")
    assert (caught.value.code, caught.value.site) == ("CO-P601", "bob")
    assert caught.value.message == "bob sent nothing to ana within 0.02 s."


def test_an_outcome_is_none_while_the_parties_talk_and_then_the_result() -> None:
    gate = threading.Event()

    def program() -> Payload:
        gate.wait(20)
        return {"x": 1}

    talk = Talk("session", program)
    assert talk.alive
    assert talk.outcome() is None
    gate.set()
    assert talk.outcome(patience=20.0) == {"x": 1}
    assert not talk.alive
    assert talk.outcome() == {"x": 1}


def test_what_ended_a_program_comes_out_where_it_is_polled() -> None:
    def program() -> Payload:
        raise DataError("CO-D301", "too large")

    talk = Talk("session", program)
    with pytest.raises(DataError, match="too large"):
        talk.outcome(patience=20.0)


def world(program: object, sites: tuple[str, ...] = ("a", "b", "c")) -> World:
    """A study with one interactive step."""

    def script(site: Site) -> Script:
        opened = yield from together("talk", program)  # type: ignore[arg-type]
        return int(opened["x"])

    rows = dict.fromkeys(sites, SHAPES["cola"].rows["a"])
    return World(shapes.study(sites), rows, script, Schedule(opening=("each",)))


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
    """What a site is told in the end."""

    def go_on() -> None:
        while True:
            crew[name].turn()

    with pytest.raises(LearnerError) as caught:
        go_on()
    return caught.value


def test_a_party_that_does_not_come_is_named_and_the_study_ends() -> None:
    w = world(ring)
    w.hub.seconds = 0.05
    error = failure(w.crew(("a",)), "a")
    assert isinstance(error, ProtocolError)
    assert (error.code, error.site) == ("CO-P601", "c")
    (event,) = w.events("StudyAborted")
    assert dict(event.details)["reason"] == Reason.BAD_PAYLOAD


def test_parties_that_open_different_results_are_told() -> None:
    w = world(lambda site, channel: {"x": len(site.name) + (site.name == "b")})
    crew = w.crew()
    for name, runner in crew.items():
        while (open_ := w.view().open) is not None and name not in open_.posted:
            runner.turn()
    error = failure(crew, "a")
    assert (error.code, "different results at 'talk'" in error.message) == ("CO-P202", True)


def test_a_node_without_a_channel_says_so() -> None:
    w = world(ring)
    runner = w.runner("a")
    runner._exchange = None
    with pytest.raises(ProtocolError, match="this node has none") as caught:
        runner.turn()
    assert caught.value.code == "CO-P602"
