"""Seats of the Catalog: admission, revocation, recovery and change of keys. Every move runs on the rules too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from chain.anvil import Anvil, binary, running
from chain.contracts import CATALOG, Contracts, Founder, bytes32
from chain.twins import Twins, digest, founder, key, names, refused
from eth_abi.abi import encode

from coterie_chain import motions
from coterie_chain.errors import PostRejected
from coterie_chain.ledger import ZERO
from coterie_chain.rules import MAX_SITES, NOBODY, VOTE_BLOCKS, VOTE_TIME, Moment, Rules
from coterie_chain.study_state import EACH

pytestmark = pytest.mark.anvil

ANA, BOB, CYD, DAN, EVA, STRANGER = (key(name) for name in ("ana", "bob", "cyd", "dan", "eva", "stranger"))
SEALING, PEER = digest("sealing", "eva"), digest("peer", "eva")
EVA_ENTRY = ("eva", EVA, SEALING, PEER)


def admit_eva(net: Twins) -> None:
    for voter in (ANA, BOB, CYD):
        net.admit(voter, *EVA_ENTRY)


# Founding


def test_founders_are_admitted_in_order_each_with_a_model_of_its_own(net: Twins) -> None:
    admitted = [log.args for log in net.contracts.logs if log.name == "SiteAdmitted"]
    assert [(a["site"], a["name"]) for a in admitted] == [
        (i, bytes32(name)) for i, name in enumerate(("ana", "bob", "cyd", "dan"), 1)
    ]
    assert len({a["model"] for a in admitted}) == 4
    assert [net.contracts.model(site, "site") for site in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert {net.contracts.model(site, "catalog") for site in (1, 2, 3, 4)} == {net.contracts.address}


def test_a_new_model_starts_at_one_with_a_head_bound_to_catalog_chain_and_site(net: Twins) -> None:
    net.check_chains()
    assert len({net.contracts.chain(site) for site in (1, 2, 3, 4)}) == 4


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (replace(founder("bob"), key=ANA), "KeyTaken"),
        (replace(founder("bob"), key=NOBODY), "KeyTaken"),
        (replace(founder("bob"), name="ana"), "NameTaken"),
    ],
)
def test_founders_share_no_name_and_no_key(anvil: Anvil, second: Founder, error: str) -> None:
    founders = [founder("ana"), second]
    assert refused(Contracts, anvil, founders) == (error,)
    assert refused(Rules, [(f.name, f.key, f.sealing, f.peer) for f in founders]) == (error,)


def test_the_founders_lists_must_be_of_one_length(net: Twins) -> None:
    lists = [[bytes32("ana")], [ANA], [SEALING], []]
    arguments = encode(["bytes32[]", "address[]", "bytes32[]", "bytes32[]"], lists)
    assert refused(net.contracts.deploy, arguments, "deploy") == ("BadTerms",)


def test_the_seat_after_the_253rd_is_refused() -> None:
    program = binary()
    assert program is not None
    with running(program, "--gas-limit", "200000000") as roomy:
        net = Twins(roomy, [f"site-{i}" for i in range(1, MAX_SITES + 1)])
        assert refused(net.admit, key("site-1"), *EVA_ENTRY) == ("TooManySites",)
        net.check_chains()


# Admission


def test_a_strict_majority_of_active_sites_admits_a_site(net: Twins) -> None:
    assert names(net.admit(ANA, *EVA_ENTRY)) == ["AdmissionVoted"]
    assert names(net.admit(BOB, *EVA_ENTRY)) == ["AdmissionVoted"]
    logs = net.admit(CYD, *EVA_ENTRY)
    assert names(logs) == ["AdmissionVoted", "SiteAdmitted"]
    entry = {"name": bytes32("eva"), "key": EVA, "sealing": SEALING, "peer": PEER}
    assert logs[0].args == {"by": 3, **entry, "motion": motions.admission(*EVA_ENTRY)}
    assert logs[1].args == {"site": 5, **entry, "model": net.contracts.models[5]}


def test_votes_for_another_key_of_the_same_name_are_votes_for_something_else(net: Twins) -> None:
    net.admit(ANA, *EVA_ENTRY)
    net.admit(BOB, *EVA_ENTRY)
    assert names(net.admit(CYD, "eva", STRANGER, SEALING, PEER)) == ["AdmissionVoted"]


def test_a_site_votes_once_on_an_admission(net: Twins) -> None:
    net.admit(ANA, *EVA_ENTRY)
    assert refused(net.admit, ANA, *EVA_ENTRY) == ("AlreadyVoted",)


def test_a_stranger_has_no_vote_on_an_admission(net: Twins) -> None:
    assert refused(net.admit, STRANGER, *EVA_ENTRY) == ("NotSite",)


@pytest.mark.parametrize("taken", [ANA, NOBODY])
def test_a_site_is_not_admitted_with_a_key_that_is_held_or_zero(net: Twins, taken: str) -> None:
    assert refused(net.admit, ANA, "eva", taken, SEALING, PEER) == ("KeyTaken",)


def test_a_name_is_taken_for_ever(net: Twins) -> None:
    for voter in (ANA, BOB, CYD):
        net.revoke(voter, 4)
    assert refused(net.admit, ANA, "dan", EVA, SEALING, PEER) == ("NameTaken",)


# Revocation


def test_a_majority_revokes_a_site_which_then_has_no_say(net: Twins) -> None:
    net.revoke(ANA, 4)
    net.revoke(BOB, 4)
    logs = net.revoke(CYD, 4)
    assert names(logs) == ["RevocationVoted", "SiteRevoked"]
    assert [log.args for log in logs] == [{"by": 3, "site": 4, "motion": motions.revocation(4)}, {"site": 4}]
    assert refused(net.revoke, DAN, 1) == ("NotSite",)
    assert refused(net.revoke, ANA, 4) == ("UnknownSite",)
    assert refused(net.admit, ANA, "eva", DAN, SEALING, PEER) == ("KeyTaken",)


def test_the_vote_of_a_site_revoked_since_does_not_count(net: Twins) -> None:
    net.admit(DAN, *EVA_ENTRY)
    for voter in (ANA, BOB, CYD):
        net.revoke(voter, 4)
    assert names(net.admit(ANA, *EVA_ENTRY)) == ["AdmissionVoted"]
    assert names(net.admit(BOB, *EVA_ENTRY)) == ["AdmissionVoted", "SiteAdmitted"]


def test_a_site_votes_once_on_a_revocation(net: Twins) -> None:
    net.revoke(ANA, 4)
    assert refused(net.revoke, ANA, 4) == ("AlreadyVoted",)


@pytest.mark.parametrize("site", [0, 5, 254, 255])
def test_a_site_that_is_not_there_is_neither_revoked_nor_recovered_nor_taken_over(net: Twins, site: int) -> None:
    assert refused(net.revoke, ANA, site) == ("UnknownSite",)
    assert refused(net.recover, ANA, site, EVA, SEALING) == ("UnknownSite",)
    assert refused(net.accept, EVA, site) == ("UnknownSite",)


# Recovery


def test_a_majority_gives_a_site_a_new_key_and_the_old_one_is_worth_nothing(net: Twins) -> None:
    net.recover(ANA, 4, EVA, SEALING)
    net.recover(BOB, 4, EVA, SEALING)
    logs = net.recover(CYD, 4, EVA, SEALING)
    assert names(logs) == ["RecoveryVoted", "KeyChanged"]
    motion = motions.recovery(4, EVA, SEALING, 0)
    assert logs[0].args == {"by": 3, "site": 4, "key": EVA, "sealing": SEALING, "motion": motion}
    assert logs[1].args == {"site": 4, "key": EVA, "sealing": SEALING}
    assert refused(net.offer, DAN, STRANGER, SEALING) == ("NotSite",)
    net.offer(EVA, DAN, SEALING)


def test_a_recovery_withdraws_the_offer_made_with_the_lost_key(net: Twins) -> None:
    net.offer(DAN, STRANGER, SEALING)
    for voter in (ANA, BOB, CYD):
        net.recover(voter, 4, EVA, SEALING)
    assert refused(net.accept, STRANGER, 4) == ("NotOffered",)


def test_a_recovery_can_be_voted_again_after_it_passed(net: Twins) -> None:
    for new in (EVA, DAN, EVA):
        for voter in (ANA, BOB, CYD):
            net.recover(voter, 4, new, SEALING)
    assert net.key_of(4) == EVA


def test_a_site_votes_once_on_a_recovery(net: Twins) -> None:
    net.recover(ANA, 4, EVA, SEALING)
    assert refused(net.recover, ANA, 4, EVA, SEALING) == ("AlreadyVoted",)


def test_a_recovery_refuses_strangers_and_keys_that_are_held(net: Twins) -> None:
    assert refused(net.recover, STRANGER, 4, EVA, SEALING) == ("NotSite",)
    assert refused(net.recover, ANA, 4, BOB, SEALING) == ("KeyTaken",)
    assert refused(net.recover, ANA, 4, NOBODY, SEALING) == ("KeyTaken",)


# A new key of one's own


def test_a_site_moves_to_a_new_key_that_accepts(net: Twins) -> None:
    logs = net.offer(DAN, EVA, SEALING) + net.accept(EVA, 4)
    assert names(logs) == ["KeyOffered", "KeyChanged"]
    assert all(log.args == {"site": 4, "key": EVA, "sealing": SEALING} for log in logs)
    assert refused(net.offer, DAN, STRANGER, SEALING) == ("NotSite",)


def test_a_later_offer_replaces_the_first(net: Twins) -> None:
    net.offer(DAN, STRANGER, SEALING)
    net.offer(DAN, EVA, SEALING)
    assert refused(net.accept, STRANGER, 4) == ("NotOffered",)
    net.accept(EVA, 4)
    assert refused(net.accept, EVA, 4) == ("NotOffered",)


def test_a_seat_is_taken_only_by_the_key_to_which_it_was_offered(net: Twins) -> None:
    assert refused(net.accept, EVA, 4) == ("NotOffered",)
    net.offer(DAN, EVA, SEALING)
    assert refused(net.accept, STRANGER, 4) == ("NotOffered",)
    assert refused(net.accept, EVA, 3) == ("NotOffered",)


def test_a_key_takes_one_seat_only(net: Twins) -> None:
    net.offer(CYD, EVA, SEALING)
    net.offer(DAN, EVA, SEALING)
    net.accept(EVA, 3)
    assert refused(net.accept, EVA, 4) == ("KeyTaken",)


def test_an_offer_refuses_strangers_and_keys_that_are_held(net: Twins) -> None:
    assert refused(net.offer, STRANGER, EVA, SEALING) == ("NotSite",)
    assert refused(net.offer, DAN, ANA, SEALING) == ("KeyTaken",)
    assert refused(net.offer, DAN, NOBODY, SEALING) == ("KeyTaken",)


def test_an_admitted_site_votes_like_a_founder(net: Twins) -> None:
    admit_eva(net)
    assert names(net.revoke(EVA, 1)) == ["RevocationVoted"]
    net.revoke(BOB, 1)
    with pytest.raises(PostRejected, match="AlreadyVoted"):
        net.revoke(EVA, 1)
    assert names(net.revoke(CYD, 1)) == ["RevocationVoted", "SiteRevoked"]


# Names and keys


@pytest.mark.parametrize(
    "name", ["", "Eva", "eva site", "-eva", "e" * 32, "eva\0eva", "\u00e9va", "eva\u202e", "eva_1"]
)
def test_a_name_is_made_of_small_letters_digits_and_hyphens(net: Twins, name: str) -> None:
    assert refused(net.admit, ANA, name, EVA, SEALING, PEER) == ("BadName",)


@pytest.mark.parametrize("name", ["e", "0", "e-1", "e" * 31])
def test_a_name_has_1_to_31_characters(net: Twins, name: str) -> None:
    net.admit(ANA, name, EVA, SEALING, PEER)


def test_a_seat_has_a_sealing_key(net: Twins) -> None:
    assert refused(net.admit, ANA, "eva", EVA, ZERO, PEER) == ("BadTerms",)
    assert refused(net.recover, ANA, 4, EVA, ZERO) == ("BadTerms",)
    assert refused(net.offer, ANA, EVA, ZERO) == ("BadTerms",)


def test_a_contract_has_no_seat_and_makes_no_move(net: Twins) -> None:
    contracts, contract = net.contracts, net.contracts.models[1]
    assert refused(contracts.move, ANA, "admit", bytes32("eva"), contract, SEALING, PEER) == ("NotExternal",)
    assert refused(contracts.move, ANA, "recover", 4, contract, SEALING) == ("NotExternal",)
    assert refused(contracts.move, ANA, "offer", contract, SEALING) == ("NotExternal",)
    forwarder = contracts.place_forwarder()
    for move in ("accept", "revoke"):
        assert refused(contracts.forward, ANA, forwarder, move, 4) == ("NotExternal",)


def test_a_call_holds_its_arguments_and_no_byte_more(net: Twins) -> None:
    contracts = net.contracts
    terms = (digest("study"), bytes((1, 2)), [bytes([EACH]).ljust(32, b"\0"), ZERO, ZERO], 1, 60, 0, 1)
    calls = [CATALOG.encode("revoke", 4), CATALOG.encode("propose", terms, (ZERO, ZERO, 0))]
    calls += [CATALOG.encode("decline", (1, 2), 3), CATALOG.encode("withdraw", ZERO)]
    for call in calls:
        for odd in (call + "00", call + "00" * 32):
            assert refused(contracts.call, ANA, odd) == ("BadCall",)
    assert refused(contracts.call, ANA, dirty(calls[1])) == ("BadCall",)
    # two lists in the same bytes: the reason 3 is read as a length
    shared = CATALOG.encode("decline", (), 3)[:10] + "".join(f"{n:064x}" for n in (32, 1, 7, 0))
    assert refused(contracts.call, ANA, shared) == ("BadCall",)


def dirty(call: str) -> str:
    """A proposal with a byte after the end of its order, where a zero belongs."""
    order = bytes((1, 2)).hex().ljust(64, "0")
    return call.replace(order, order[:-2] + "01")


# How long a vote counts


def test_a_vote_can_be_withdrawn_and_cast_again(net: Twins) -> None:
    motion = motions.admission(*EVA_ENTRY)
    net.admit(ANA, *EVA_ENTRY)
    assert net.withdraw(ANA, motion)[0].args == {"by": 1, "motion": motion}
    assert refused(net.withdraw, ANA, motion) == ("NoVote",)
    assert refused(net.withdraw, STRANGER, motion) == ("NotSite",)
    net.admit(BOB, *EVA_ENTRY)
    assert names(net.admit(CYD, *EVA_ENTRY)) == ["AdmissionVoted"]
    assert names(net.admit(ANA, *EVA_ENTRY)) == ["AdmissionVoted", "SiteAdmitted"]
    assert refused(net.withdraw, ANA, motion) == ("NoVote",)


def test_a_vote_counts_for_fourteen_days(net: Twins) -> None:
    net.admit(ANA, *EVA_ENTRY)
    net.admit(BOB, *EVA_ENTRY)
    net.wait(VOTE_TIME - 1)
    assert names(net.admit(CYD, *EVA_ENTRY)) == ["AdmissionVoted"]
    assert net.contracts.view("votes", motions.admission(*EVA_ENTRY)) == 0b1100
    assert names(net.admit(ANA, *EVA_ENTRY)) == ["AdmissionVoted"]  # the other's vote has expired since
    assert names(net.admit(BOB, *EVA_ENTRY)) == ["AdmissionVoted", "SiteAdmitted"]


def test_a_vote_counts_for_250_000_blocks(net: Twins) -> None:
    net.admit(ANA, *EVA_ENTRY)
    motion, cast = motions.admission(*EVA_ENTRY), net.contracts.block
    for later, counted in ((VOTE_BLOCKS, {1}), (VOTE_BLOCKS + 1, set())):
        assert net.rules.votes(motion, Moment(net.contracts.now, cast + later)) == counted
        assert net.contracts.view_at(cast + later, "votes", motion) == sum(1 << site for site in counted)


def test_a_vote_dies_with_the_key_that_cast_it(net: Twins) -> None:
    net.admit(ANA, *EVA_ENTRY)
    net.offer(ANA, STRANGER, SEALING)
    net.accept(STRANGER, 1)
    net.admit(BOB, *EVA_ENTRY)
    assert names(net.admit(CYD, *EVA_ENTRY)) == ["AdmissionVoted"]
    assert names(net.admit(STRANGER, *EVA_ENTRY)) == ["AdmissionVoted", "SiteAdmitted"]


def test_votes_on_a_recovery_die_when_the_site_comes_back_by_itself(net: Twins) -> None:
    for voter in (ANA, BOB):
        net.recover(voter, 4, EVA, SEALING)
    net.offer(DAN, STRANGER, SEALING)
    net.accept(STRANGER, 4)
    assert names(net.recover(CYD, 4, EVA, SEALING)) == ["RecoveryVoted"]
    assert net.key_of(4) == STRANGER


def test_a_majority_that_a_smaller_electorate_made_can_be_called_in(net: Twins) -> None:
    for voter in (ANA, BOB):
        net.admit(voter, *EVA_ENTRY)
    assert refused(net.admit, ANA, *EVA_ENTRY) == ("AlreadyVoted",)
    for voter in (ANA, BOB, CYD):
        net.revoke(voter, 4)
    assert names(net.admit(ANA, *EVA_ENTRY)) == ["AdmissionVoted", "SiteAdmitted"]


# Another Catalog


def test_a_majority_names_the_catalog_that_succeeds_this_one(net: Twins) -> None:
    successor = net.contracts.models[1]  # any contract will do here
    for voter in (ANA, BOB):
        assert names(net.succeed(voter, successor)) == ["SuccessionVoted"]
    logs = net.succeed(CYD, successor)
    assert names(logs) == ["SuccessionVoted", "CatalogSucceeded"]
    assert logs[1].args == {"next": successor}
    assert refused(net.succeed, STRANGER, successor) == ("NotSite",)
    assert net.contracts.view("VERSION") == 2


def test_a_successor_is_another_contract(net: Twins) -> None:
    assert refused(net.succeed, ANA, NOBODY) == ("BadTerms",)
    for nothing in (net.contracts.address, STRANGER):
        assert refused(net.contracts.move, ANA, "succeed", nothing) == ("BadTerms",)
