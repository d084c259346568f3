"""A network's members change: people vote by command, daemons cast the votes, the majority decides."""

from __future__ import annotations

import json

import pytest
from node.houses import SITES, Village, house, study_file

from coterie_chain.errors import LedgerUnreachable
from coterie_chain.ledger import SiteEntry, State
from coterie_chain.memory import MemoryLedger
from coterie_node.ballots import Ballot, BallotBox, open_motions
from coterie_node.commands.doctor import examine_seat
from coterie_node.commands.site import seated
from coterie_node.errors import ConfigError
from coterie_node.site_card import SiteCard


def vote(village: Village, ballot: Ballot, *names: str) -> None:
    for name in names:
        BallotBox(village.root / name / "ballots").record(ballot)
    village.settle()


def card(village: Village, name: str = "east") -> SiteCard:
    """The card of a hospital whose folder is new."""
    return SiteCard.load(house(village.root / f"new-{name}", name).root / "card.json")


def test_a_fourth_hospital_gets_a_seat_by_the_votes_of_most_sites(village: Village) -> None:
    ballot, reader = Ballot(motion="admit", subject="east", card=card(village)), village.chain.ledger(None)
    vote(village, ballot, "north")
    assert [site.name for site in reader.sites()] == list(SITES)
    assert ballot.card is not None
    assert open_motions(reader.history()) == {("admit", "east", ballot.card.entry.address): ["north"]}
    vote(village, ballot, "west")
    assert reader.sites()[-1].address == ballot.card.entry.address
    assert open_motions(reader.history()) == {}
    assert not BallotBox(village.root / "west" / "ballots").waiting()


def test_a_member_gets_new_keys_or_loses_its_seat_by_votes(village: Village) -> None:
    fresh, reader = card(village, "south"), village.chain.ledger(None)
    vote(village, Ballot(motion="recover", subject="south", card=fresh), "north", "west")
    assert reader.sites()[1].address == fresh.entry.address
    vote(village, Ballot(motion="revoke", subject="west"), "north")
    assert open_motions(reader.history()) == {("revoke", "west", ""): ["north"]}
    vote(village, Ballot(motion="revoke", subject="west"), "west")
    assert not reader.sites()[2].active
    for told in (
        seated(reader.sites()[2]).message,
        examine_seat(village.homes["west"], village.keys["west"], reader).cure,
    ):
        assert "revoked" in told
        assert "another name, with new keys" in told


def test_a_vote_that_arrived_before_a_crash_counts_as_cast_and_a_refused_one_is_put_aside(village: Village) -> None:
    box = BallotBox(village.root / "north" / "ballots")
    for _ in range(2):
        vote(village, Ballot(motion="revoke", subject="west"), "north")
    vote(village, Ballot(motion="revoke", subject="nobody"), "north")
    (box.root / "torn.json").write_text("{")
    village.settle()
    assert sorted(path.suffix for path in box.root.iterdir()) == [".cast", ".cast", ".refused", ".refused"]
    told = [json.loads(line) for line in village.log("north").splitlines()]
    assert [line["code"] for line in told if line["event"] == "vote refused"] == ["CO-C401", "CO-F322"]


def test_a_vote_waits_while_the_ledger_is_out_of_reach(village: Village, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(self: MemoryLedger, site: str) -> None:
        raise LedgerUnreachable("CO-C301", "silent")

    box = BallotBox(village.root / "north" / "ballots")
    with monkeypatch.context() as patch:
        patch.setattr(MemoryLedger, "revoke", silent)
        box.record(Ballot(motion="revoke", subject="west"))
        with pytest.raises(LedgerUnreachable):
            village.daemons["north"].beat()
    assert len(box.waiting()) == 1
    village.settle()
    assert not box.waiting()


def test_a_paused_study_goes_on_when_most_of_its_sites_vote_so(village: Village) -> None:
    study = village.propose(study_file(village.root))
    village.approve(study, "south", "west")
    for _ in range(2):
        for daemon in village.daemons.values():
            daemon.beat()
    village.chain.ledger(village.keys["south"].address).pause(1, 1)
    village.settle()
    assert village.chain.ledger(None).view(1).state == State.PAUSED
    vote(village, Ballot(motion="resume", subject="1"), "north", "west")
    assert village.phases() == {name: ["done"] for name in SITES}


def test_what_is_no_card_is_refused_with_the_key_that_is_wrong(village: Village) -> None:
    path = village.root / "card.json"
    good = json.loads(card(village).model_dump_json())
    assert (
        SiteEntry(0, "east", SiteCard(**good).entry.address, bytes.fromhex(good["sealing"][2:]))
        == SiteCard(**good).entry
    )
    for wrong, where in (
        ({**good, "name": "../up"}, "name"),
        ({**good, "sealing": "0x12"}, "sealing"),
        ([], "the file"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(ConfigError, match=where) as caught:
            SiteCard.load(path)
        assert caught.value.code == "CO-F501"
