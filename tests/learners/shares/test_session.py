"""Sessions: greetings, fresh randomness in every run, and what both ends say of their messages."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from support.learners import joins
from support.learners.parties import NAMES, PartyChannel, RecordedWire

from coterie_learners.core.protocol import Site
from coterie_learners.errors import ProtocolError
from coterie_learners.shares.session import Randomness, Session, SessionCost, open_session

STUDY = joins.study(2, {}, "rows", NAMES)


def site(name: str, vault: dict[str, bytes]) -> Site:
    keys = {peer: "+".join(sorted((name, peer))).encode().ljust(32, b".") for peer in NAMES if peer != name}
    return Site(STUDY, name, None, name.encode() * 8, keys, vault, session="x/1", parties=NAMES)


def open_sessions(
    part: Callable[[str, Session, Randomness], object],
    terms: dict[str, bytes] | None = None,
    vaults: dict[str, dict[str, bytes]] | None = None,
    wire: RecordedWire | None = None,
    change: Callable[[Site], Site] = lambda s: s,
) -> list[object]:
    wire, vaults = wire or RecordedWire(5.0), vaults or {name: {} for name in NAMES}

    def run(name: str) -> object:
        here = change(site(name, vaults[name]))
        session, randomness = open_session(here, PartyChannel(wire, name), "t", (terms or {}).get(name, b"same"))
        return part(name, session, randomness)

    with ThreadPoolExecutor(len(NAMES)) as pool:
        return list(pool.map(run, NAMES))


def test_each_pair_draws_the_same_bytes_and_nobody_else_does() -> None:
    def part(name: str, session: Session, r: Randomness) -> dict[str, bytes]:
        return {peer: stream.take(32) for peer, stream in r.shared.items()} | {name: r.own.take(32)}

    ana, bob, cyd = open_sessions(part)
    assert isinstance(ana, dict)
    assert isinstance(bob, dict)
    assert isinstance(cyd, dict)
    assert (ana["bob"], bob["cyd"], cyd["ana"]) == (bob["ana"], cyd["bob"], ana["cyd"])
    assert len({*ana.values(), *bob.values(), *cyd.values()}) == 6


def test_a_run_that_begins_again_draws_other_bytes_even_if_only_one_party_was_restarted() -> None:
    vaults: dict[str, dict[str, bytes]] = {name: {} for name in NAMES}

    def part(name: str, session: Session, r: Randomness) -> bytes:
        return b"".join(stream.take(8) for stream in r.shared.values())

    first = open_sessions(part, vaults=vaults)
    second = open_sessions(part, vaults=vaults)
    third = open_sessions(part, vaults={"ana": vaults["ana"], "bob": {}, "cyd": {}})
    assert len({*first, *second, *third}) == 9


def test_a_party_with_other_parameters_is_named_before_anything_is_computed() -> None:
    with pytest.raises(ProtocolError) as caught:
        open_sessions(lambda *_: None, terms={"bob": b"other"})
    assert (caught.value.code, "something else" in caught.value.message) == ("CO-P642", True)


CHANGES: dict[str, Callable[[Site], Site]] = {
    "session": lambda here: replace(here, session="x/2"),
    "attempt": lambda here: replace(here, attempt=1),
}


@pytest.mark.parametrize("what", CHANGES)
def test_another_session_or_attempt_is_another_computation(what: str) -> None:
    def change(here: Site) -> Site:
        return CHANGES[what](here) if here.name == "cyd" else here

    with pytest.raises(ProtocolError) as caught:
        open_sessions(lambda *_: None, change=change)
    assert caught.value.code == "CO-P642"


def exchange(name: str, session: Session, r: Randomness) -> SessionCost:
    session.rounds += 1
    for peer in session.peers:
        session.send(peer, name.encode())
    for peer in session.peers:
        session.receive(peer, 3)
    return session.account()


def test_all_parties_end_with_the_same_account() -> None:
    results = open_sessions(exchange)
    assert results[0] == results[1] == results[2]
    assert isinstance(results[0], SessionCost)
    assert (results[0].rounds, results[0].sent) == (1, (2 * (48 + 3),) * 3)


def test_bytes_that_were_changed_on_the_way_are_noticed_at_the_end() -> None:
    def part(name: str, session: Session, r: Randomness) -> SessionCost:
        if name == "bob":  # what bob believes to have sent is not what arrives
            session._out["ana"].update(b"x")
        return exchange(name, session, r)

    with pytest.raises(ProtocolError) as caught:
        open_sessions(part)
    assert caught.value.code == "CO-P644"
