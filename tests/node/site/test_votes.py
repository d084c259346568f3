"""A network's members change: people vote by command, daemons cast the votes, the majority decides."""

from __future__ import annotations

import json

import pytest
from support.node.houses import SITES, NodeNetwork, make_node_folder, study_file

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ledger.memory import MemoryLedger
from coterie_chain.ledger.protocol import Ledger, SiteEntry, State
from coterie_node.errors import ConfigError
from coterie_node.network.checks.ledger_checks import examine_seat
from coterie_node.site.cards import SeatCard
from coterie_node.site.statements.open_votes import list_open_votes
from coterie_node.site.votes import Ballot, BallotBox
from coterie_node.verbs.members import refuse_seat


def vote(node_network: NodeNetwork, ballot: Ballot, *names: str) -> None:
    for name in names:
        BallotBox(node_network.root / name / "ballots").record(ballot)
    node_network.settle()


def open_motions(reader: Ledger) -> dict[tuple[str, str, str], list[str]]:
    """Who votes for what about members."""
    return {(v.what, v.subject, v.key): list(v.voters) for v in list_open_votes(reader, reader.history(0))}


def card(node_network: NodeNetwork, name: str = "east") -> SeatCard:
    """The card of a hospital whose folder is new."""
    return SeatCard.load(make_node_folder(node_network.root / f"new-{name}", name).root / "card.json")


def test_a_fourth_hospital_gets_a_seat_by_the_votes_of_most_sites(node_network: NodeNetwork) -> None:
    ballot, reader = Ballot(motion="admit", subject="east", card=card(node_network)), node_network.chain.ledger(None)
    vote(node_network, ballot, "north")
    assert [site.name for site in reader.sites()] == list(SITES)
    assert ballot.card is not None
    assert open_motions(reader) == {("to admit", "east", ballot.card.entry.address): ["north"]}
    vote(node_network, ballot, "west")
    assert reader.sites()[-1].address == ballot.card.entry.address
    assert open_motions(reader) == {}
    assert not BallotBox(node_network.root / "west" / "ballots").waiting()


def test_a_member_gets_new_keys_or_loses_its_seat_by_votes(node_network: NodeNetwork) -> None:
    fresh, reader = card(node_network, "south"), node_network.chain.ledger(None)
    vote(node_network, Ballot(motion="recover", subject="south", card=fresh), "north", "west")
    assert reader.sites()[1].address == fresh.entry.address
    vote(node_network, Ballot(motion="revoke", subject="west"), "north")
    assert open_motions(reader) == {("to revoke", "west", ""): ["north"]}
    vote(node_network, Ballot(motion="revoke", subject="west"), "west")
    assert not reader.sites()[2].active
    for entries in (
        refuse_seat(reader.sites()[2]).message,
        examine_seat(node_network.homes["west"], node_network.keys["west"], reader).cure,
    ):
        assert "revoked" in entries
        assert "another name, with new keys" in entries


def test_a_vote_that_arrived_before_a_crash_counts_as_cast_and_a_refused_one_is_put_aside(
    node_network: NodeNetwork,
) -> None:
    box = BallotBox(node_network.root / "north" / "ballots")
    for _ in range(2):
        vote(node_network, Ballot(motion="revoke", subject="west"), "north")
    vote(node_network, Ballot(motion="revoke", subject="nobody"), "north")
    (box.root / "torn.json").write_text("{")
    node_network.settle()
    assert sorted(path.suffix for path in box.root.iterdir()) == [".cast", ".cast", ".refused", ".refused"]
    entries = [json.loads(line) for line in node_network.log("north").splitlines()]
    assert [line["code"] for line in entries if line["event"] == "vote refused"] == ["CO-C401", "CO-F322"]


def test_a_vote_waits_while_the_ledger_is_out_of_reach(
    node_network: NodeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(self: MemoryLedger, site: str) -> None:
        raise LedgerUnreachable("CO-C301", "silent")

    box = BallotBox(node_network.root / "north" / "ballots")
    with monkeypatch.context() as patch:
        patch.setattr(MemoryLedger, "revoke", silent)
        box.record(Ballot(motion="revoke", subject="west"))
        with pytest.raises(LedgerUnreachable):
            node_network.daemons["north"].tick()
    assert len(box.waiting()) == 1
    node_network.settle()
    assert not box.waiting()


def test_a_paused_study_goes_on_when_most_of_its_sites_vote_so(node_network: NodeNetwork) -> None:
    study = node_network.propose(study_file(node_network.root))
    node_network.approve(study, "south", "west")
    for _ in range(2):
        for daemon in node_network.daemons.values():
            daemon.tick()
    node_network.chain.ledger(node_network.keys["south"].address).pause(1, 1)
    node_network.settle()
    assert node_network.chain.ledger(None).view(1).state == State.PAUSED
    vote(node_network, Ballot(motion="resume", subject="1"), "north", "west")
    assert node_network.phases() == {name: ["done"] for name in SITES}


def test_what_is_no_card_is_refused_with_the_key_that_is_wrong(node_network: NodeNetwork) -> None:
    path = node_network.root / "card.json"
    good = json.loads(card(node_network).model_dump_json())
    assert (
        SiteEntry(0, "east", SeatCard(**good).entry.address, bytes.fromhex(good["sealing"][2:]))
        == SeatCard(**good).entry
    )
    for wrong, where in (
        ({**good, "name": "../up"}, "name"),
        ({**good, "sealing": "0x12"}, "sealing"),
        ([], "the file"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=where) as caught:
            SeatCard.load(path)
        assert caught.value.code == "CO-F501"


def test_new_contracts_succeed_these_by_the_votes_of_most_sites(node_network: NodeNetwork) -> None:
    following, reader = "0x" + "5a" * 20, node_network.chain.ledger(None)
    vote(node_network, Ballot(motion="succeed", subject=following), "north")
    assert reader.read_successor() == ""
    assert open_motions(reader) == {("for the next Catalog", "", following): ["north"]}
    vote(node_network, Ballot(motion="succeed", subject=following), "west")
    assert reader.read_successor() == following
    assert open_motions(reader) == {}
