"""A member withholds, garbles, lies and votes: which member the others blame, and that their studies go on.

Variants of the attacks c1 and d2, against real daemons on the memory ledger. The same rules hold in
the contract: tests/contracts moves both together.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.lanes import diagonal
from support.node.houses import NodeNetwork
from support.red_team.members import CrookedStore, propose_study

from coterie_chain.errors import PostRejected
from coterie_chain.ledger.memory import MemoryChain
from coterie_chain.ledger.protocol import ZERO, Event, Ledger, Post, Record, SiteEntry, State, Terms
from coterie_chain.store.cid import RAW, Cid
from coterie_node.run.reasons import Reason

FOUR = ("north", "south", "west", "liar")
HONEST = FOUR[:3]
DAY = 86_400


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NodeNetwork]:
    """Four sites, of which one will turn."""
    network = NodeNetwork(tmp_path, names=FOUR)
    yield network
    for log in network.logs.values():
        log.close()


def turn_crooked(network: NodeNetwork, garbles: bool) -> None:
    liar = network.daemons["liar"]
    liar.services = replace(liar.services, blobs=CrookedStore(network.blobs, "garbles" if garbles else "withholds"))


def play(network: NodeNetwork, number: int, rounds: int = 40) -> State:
    """Let time pass until a study has ended; returns its state."""
    ledger = network.chain.ledger(None)
    for _ in range(rounds):
        for _ in range(6):
            for daemon in network.daemons.values():
                daemon.tick()
        if ledger.view(number).state in (State.COMPLETED, State.ABORTED):
            for _ in range(2):  # a fault is looked at again after a minute
                network.seconds += 61
                network.settle()
            break
        network.seconds += 100
    return ledger.view(number).state


def events(network: NodeNetwork, name: str) -> list[Event]:
    return [e for e in network.chain.log if isinstance(e, Event) and e.name == name]


def list_blamed(network: NodeNetwork) -> set[str]:
    """Each member that the ledger names for a fault."""
    keys = ("culprit", "silent", "server")
    named = (dict(e.details).get(key) for e in network.chain.log if isinstance(e, Event) for key in keys)
    return {str(name) for name in named if name}


# Withheld and garbled payloads


@pytest.mark.parametrize(("silent_site", "garbles"), diagonal(["wait", "exclude", "abort"], [False, True]))
def test_a_member_that_withholds_or_garbles_is_the_only_one_that_the_ledger_blames(
    network: NodeNetwork, silent_site: str, garbles: bool
) -> None:
    """Attack d2: the honest servers were skipped and blamed, and the culprit was named by nobody."""
    turn_crooked(network, garbles)
    number = propose_study(network, "four", FOUR, silent_site)
    state = play(network, number)
    assert list_blamed(network) == {"liar"}
    view = network.chain.ledger(None).view(number)
    if silent_site == "exclude":
        assert (state, view.parties) == (State.COMPLETED, HONEST)
    elif silent_site == "abort" or garbles:
        assert state == State.ABORTED
        for name in HONEST:
            assert '"culprit": "liar"' in network.log(name)
            ending = next(task["ending"] for task in network.daemons[name].status if task["study"] == number)
            assert "The site at fault is liar" in str(ending)
    else:
        assert state == State.RUNNING
        assert {dict(e.details)["culprit"] for e in events(network, "StepReopened")} == {"liar"}


def test_another_study_beside_the_liar_s_is_not_held_up(network: NodeNetwork) -> None:
    turn_crooked(network, garbles=False)
    spoiled = propose_study(network, "four", FOUR, "wait")
    for daemon in network.daemons.values():
        daemon.tick()
    beside = propose_study(network, "beside", HONEST, "wait", "died ~ age")
    network.settle()
    view = network.chain.ledger(None).view
    assert (view(spoiled).state, view(beside).state) == (State.RUNNING, State.COMPLETED)


# Votes, pauses and disputes on the memory ledger


class Members:
    """Sites of a memory ledger, without daemons."""

    def __init__(self, *names: str) -> None:
        self.seconds = 1_000_000
        self.keys = {name: "0x" + f"{k:02x}" * 20 for k, name in enumerate(names, 1)}
        entries = [SiteEntry(k, name, self.keys[name], bytes([k]) * 32) for k, name in enumerate(names, 1)]
        self.chain = MemoryChain(entries, lambda: self.seconds)

    def __getitem__(self, name: str) -> Ledger:
        return self.chain.ledger(self.keys[name])

    def start(self, *names: str, kinds: tuple[str, ...] = ("server",)) -> int:
        """Propose a study of one round and let all join; returns its number."""
        terms = Terms(bytes([len(self.chain.rules.studies) + 1]) * 32, names, (), kinds, (), 1, 60)
        number = self[names[0]].propose(terms)
        for name in names[1:]:
            self[name].join(number, terms.hash)
        return number

    def post(self, number: int, name: str) -> bytes:
        """Record a post at the open step; returns its digest."""
        opened = self[name].view(number).open
        assert opened is not None
        digest = os.urandom(32)
        post = Post(number, opened.position, opened.attempt, str(Cid(1, RAW, digest)), digest, 9, False, opened.basis)
        self[name].record(post)
        return digest


def refuse(move: object, *arguments: object) -> str:
    """The error with which the ledger refuses a move."""
    with pytest.raises(PostRejected) as caught:
        move(*arguments)  # type: ignore[operator]
    return caught.value.name


@pytest.mark.parametrize("names", [("ana", "bob"), ("ana", "bob", "cyd")])
def test_a_completed_study_cannot_be_paused_by_disputes_whoever_makes_them(names: tuple[str, ...]) -> None:
    """Attack c1, 1 and 2: a completed study was disputed again and again, and one of two stayed paused for good."""
    sites = Members(*names)
    number = sites.start(*names)
    digest = sites.post(number, "ana")
    assert sites["bob"].view(number).state == State.COMPLETED
    sites["bob"].dispute(number, 0, digest, b"\7" * 32)
    assert sites["bob"].view(number).state == State.COMPLETED
    assert refuse(sites["bob"].dispute, number, 0, digest, b"\7" * 32) == "AlreadyVoted"
    assert refuse(sites["bob"].dispute, number, 0, digest, b"\6" * 32) == "AlreadyVoted"
    assert refuse(sites["ana"].dispute, number, 0, digest, digest) == "NotPosted"
    assert refuse(sites["ana"].dispute, number, 0, b"\5" * 32, digest) == "NotPosted"
    assert refuse(sites["ana"].pause, number, 1) == "BadState"
    assert refuse(sites["ana"].abort, number, 1) == "BadState"


def test_of_two_sites_neither_holds_a_running_study_for_more_than_seven_days_at_a_position() -> None:
    sites = Members("ana", "bob")
    number = sites.start("ana", "bob", kinds=("each", "server"))
    sites["bob"].pause(number, Reason.OPERATOR)
    sites["ana"].resume(number)
    assert sites["ana"].view(number).state == State.PAUSED
    sites.seconds += 7 * DAY + 1
    sites["ana"].resume(number)
    assert sites["ana"].view(number).state == State.RUNNING
    assert refuse(sites["bob"].pause, number, Reason.OPERATOR) == "AlreadyVoted"


def test_a_vote_of_long_ago_takes_no_seat_and_admits_nobody() -> None:
    """Attack c1, 3 and 4: ten years later one more vote passed the motion."""
    sites = Members("ana", "bob", "cyd", "dan", "eva")
    stranger = SiteEntry(0, "fay", "0x" + "99" * 20, b"\11" * 32)
    for name in ("ana", "bob"):
        sites[name].recover("cyd", "0x" + "33" * 20, b"\3" * 32)
        sites[name].admit(stranger)
    sites.seconds += 14 * DAY + 1
    for name in ("dan",):
        sites[name].recover("cyd", "0x" + "33" * 20, b"\3" * 32)
        sites[name].admit(stranger)
    assert [site.name for site in sites["ana"].sites()] == ["ana", "bob", "cyd", "dan", "eva"]
    assert sites["ana"].sites()[2].address == sites.keys["cyd"]


def test_votes_for_a_key_die_when_the_site_comes_back_by_itself() -> None:
    sites = Members("ana", "bob", "cyd", "dan", "eva")
    for name in ("ana", "bob"):
        sites[name].recover("cyd", "0x" + "33" * 20, b"\3" * 32)
    sites["cyd"].offer("0x" + "44" * 20, b"\4" * 32)
    sites.chain.ledger("0x" + "44" * 20).accept("cyd")
    sites["dan"].recover("cyd", "0x" + "33" * 20, b"\3" * 32)
    assert sites["ana"].sites()[2].address == "0x" + "44" * 20


def test_a_majority_that_takes_a_seat_posts_nothing_in_the_studies_that_run() -> None:
    """Attack c1, 5: the voted key posted as that site, which lowers what masks protect against."""
    sites = Members("ana", "bob", "cyd")
    number = sites.start("ana", "bob", "cyd", kinds=("each", "server"))
    for name in ("ana", "bob"):
        sites[name].recover("cyd", "0x" + "77" * 20, b"\7" * 32)
    sites.keys["cyd"] = "0x" + "77" * 20
    with pytest.raises(PostRejected, match="SeatChanged"):
        sites.post(number, "cyd")
    assert sites["ana"].view(number).able == ("ana", "bob")


def test_a_member_has_sixteen_open_proposals_and_they_expire() -> None:
    """Attacks c1, 8 and d1: proposals were free and were looked at for ever."""
    sites = Members("ana", "bob")
    terms = [Terms(bytes([k]) * 32, ("ana", "bob"), ("each",), (), (), 1, 60) for k in range(1, 19)]
    numbers = [sites["ana"].propose(term) for term in terms[:16]]
    assert refuse(sites["ana"].propose, terms[16]) == "TooManyProposals"
    sites["bob"].decline(numbers[:2], Reason.DECLINED)
    sites["ana"].propose(terms[16])
    sites.seconds += 30 * DAY + 1
    assert refuse(sites["bob"].join, numbers[5], terms[5].hash) == "Expired"
    sites["ana"].propose(terms[17])


def test_terms_outside_the_documented_bounds_are_no_proposal() -> None:
    """Attack c1, 7: a step of one second."""
    sites = Members("ana", "bob")
    terms = Terms(b"\1" * 32, ("ana", "bob"), ("each",), (), (), 1, 60)
    changes: list[dict[str, object]] = [{"timeout": 1}, {"timeout": 59}, {"timeout": 30 * DAY + 1}, {"hash": ZERO}]
    changes += [{"least": 0}, {"least": 3}, {"max_rounds": 0}]
    for change in changes:
        assert refuse(sites["ana"].propose, replace(terms, **change)) == "BadTerms"  # type: ignore[arg-type]
    assert not any(isinstance(entry, Record) for entry in sites.chain.log)
