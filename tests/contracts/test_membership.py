"""Seats of the Catalog: admission, revocation, recovery and change of keys. Every move runs on the rules too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi.abi import encode
from support.chain.anvil import AnvilClient, find_binary, run_anvil
from support.chain.contracts import CATALOG, DeployedContracts, Founder, encode_site_name
from support.chain.twins import ContractAndRules, build_founder, catch_refusal, derive_address, name_events, next_digest

from coterie_chain.errors import PostRejected
from coterie_chain.ledger import motions
from coterie_chain.ledger.protocol import ZERO
from coterie_chain.ledger.rules import MAX_SITES, VOTE_BLOCKS, VOTE_TIME, ZERO_ADDRESS, Moment, Rules
from coterie_chain.ledger.study_state import EACH

pytestmark = pytest.mark.anvil

ANA, BOB, CYD, DAN, EVA, STRANGER = (derive_address(name) for name in ("ana", "bob", "cyd", "dan", "eva", "stranger"))
SEALING, PEER = next_digest("sealing", "eva"), next_digest("peer", "eva")
EVA_ENTRY = ("eva", EVA, SEALING, PEER)


def admit_eva(net: ContractAndRules) -> None:
    for voter in (ANA, BOB, CYD):
        net.admit(voter, *EVA_ENTRY)


# Founding


def test_founders_are_admitted_in_order_each_with_a_model_of_its_own(net: ContractAndRules) -> None:
    admitted = [log.args for log in net.contracts.logs if log.name == "SiteAdmitted"]
    assert [(a["site"], a["name"]) for a in admitted] == [
        (i, encode_site_name(name)) for i, name in enumerate(("ana", "bob", "cyd", "dan"), 1)
    ]
    assert len({a["model"] for a in admitted}) == 4
    assert [net.contracts.model(site, "site") for site in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert {net.contracts.model(site, "catalog") for site in (1, 2, 3, 4)} == {net.contracts.address}


def test_a_new_model_starts_at_one_with_a_head_bound_to_catalog_chain_and_site(net: ContractAndRules) -> None:
    net.check_chains()
    assert len({net.contracts.chain(site) for site in (1, 2, 3, 4)}) == 4


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (replace(build_founder("bob"), key=ANA), "KeyTaken"),
        (replace(build_founder("bob"), key=ZERO_ADDRESS), "KeyTaken"),
        (replace(build_founder("bob"), name="ana"), "NameTaken"),
    ],
)
def test_founders_share_no_name_and_no_key(anvil: AnvilClient, second: Founder, error: str) -> None:
    founders = [build_founder("ana"), second]
    assert catch_refusal(DeployedContracts, anvil, founders) == (error,)
    assert catch_refusal(Rules, [(f.name, f.key, f.sealing, f.peer) for f in founders]) == (error,)


def test_the_founders_lists_must_be_of_one_length(net: ContractAndRules) -> None:
    lists = [[encode_site_name("ana")], [ANA], [SEALING], []]
    arguments = encode(["bytes32[]", "address[]", "bytes32[]", "bytes32[]"], lists)
    assert catch_refusal(net.contracts.deploy, arguments, "deploy") == ("BadTerms",)


def test_the_seat_after_the_253rd_is_refused() -> None:
    program = find_binary()
    assert program is not None
    with run_anvil(program, "--gas-limit", "200000000") as roomy:
        net = ContractAndRules(roomy, [f"site-{i}" for i in range(1, MAX_SITES + 1)])
        assert catch_refusal(net.admit, derive_address("site-1"), *EVA_ENTRY) == ("TooManySites",)
        net.check_chains()


# Admission


def test_a_strict_majority_of_active_sites_admits_a_site(net: ContractAndRules) -> None:
    assert name_events(net.admit(ANA, *EVA_ENTRY)) == ["AdmissionVoted"]
    assert name_events(net.admit(BOB, *EVA_ENTRY)) == ["AdmissionVoted"]
    logs = net.admit(CYD, *EVA_ENTRY)
    assert name_events(logs) == ["AdmissionVoted", "SiteAdmitted"]
    entry = {"name": encode_site_name("eva"), "key": EVA, "sealing": SEALING, "peer": PEER}
    assert logs[0].args == {"by": 3, **entry, "motion": motions.hash_admission(*EVA_ENTRY)}
    assert logs[1].args == {"site": 5, **entry, "model": net.contracts.models[5]}


def test_votes_for_another_key_of_the_same_name_are_votes_for_something_else(net: ContractAndRules) -> None:
    net.admit(ANA, *EVA_ENTRY)
    net.admit(BOB, *EVA_ENTRY)
    assert name_events(net.admit(CYD, "eva", STRANGER, SEALING, PEER)) == ["AdmissionVoted"]


def test_a_site_votes_once_on_an_admission(net: ContractAndRules) -> None:
    net.admit(ANA, *EVA_ENTRY)
    assert catch_refusal(net.admit, ANA, *EVA_ENTRY) == ("AlreadyVoted",)


def test_a_stranger_has_no_vote_on_an_admission(net: ContractAndRules) -> None:
    assert catch_refusal(net.admit, STRANGER, *EVA_ENTRY) == ("NotSite",)


@pytest.mark.parametrize("taken", [ANA, ZERO_ADDRESS])
def test_a_site_is_not_admitted_with_a_key_that_is_held_or_zero(net: ContractAndRules, taken: str) -> None:
    assert catch_refusal(net.admit, ANA, "eva", taken, SEALING, PEER) == ("KeyTaken",)


def test_a_name_is_taken_for_ever(net: ContractAndRules) -> None:
    for voter in (ANA, BOB, CYD):
        net.revoke(voter, 4)
    assert catch_refusal(net.admit, ANA, "dan", EVA, SEALING, PEER) == ("NameTaken",)


# Revocation


def test_a_majority_revokes_a_site_which_then_has_no_say(net: ContractAndRules) -> None:
    net.revoke(ANA, 4)
    net.revoke(BOB, 4)
    logs = net.revoke(CYD, 4)
    assert name_events(logs) == ["RevocationVoted", "SiteRevoked"]
    assert [log.args for log in logs] == [{"by": 3, "site": 4, "motion": motions.hash_revocation(4)}, {"site": 4}]
    assert catch_refusal(net.revoke, DAN, 1) == ("NotSite",)
    assert catch_refusal(net.revoke, ANA, 4) == ("UnknownSite",)
    assert catch_refusal(net.admit, ANA, "eva", DAN, SEALING, PEER) == ("KeyTaken",)


def test_the_vote_of_a_site_revoked_since_does_not_count(net: ContractAndRules) -> None:
    net.admit(DAN, *EVA_ENTRY)
    for voter in (ANA, BOB, CYD):
        net.revoke(voter, 4)
    assert name_events(net.admit(ANA, *EVA_ENTRY)) == ["AdmissionVoted"]
    assert name_events(net.admit(BOB, *EVA_ENTRY)) == ["AdmissionVoted", "SiteAdmitted"]


def test_a_site_votes_once_on_a_revocation(net: ContractAndRules) -> None:
    net.revoke(ANA, 4)
    assert catch_refusal(net.revoke, ANA, 4) == ("AlreadyVoted",)


@pytest.mark.parametrize("site", [0, 5, 254, 255])
def test_a_site_that_is_not_there_is_neither_revoked_nor_recovered_nor_taken_over(
    net: ContractAndRules, site: int
) -> None:
    assert catch_refusal(net.revoke, ANA, site) == ("UnknownSite",)
    assert catch_refusal(net.recover, ANA, site, EVA, SEALING) == ("UnknownSite",)
    assert catch_refusal(net.accept, EVA, site) == ("UnknownSite",)


# Recovery


def test_a_majority_gives_a_site_a_new_key_and_the_old_one_is_worth_nothing(net: ContractAndRules) -> None:
    net.recover(ANA, 4, EVA, SEALING)
    net.recover(BOB, 4, EVA, SEALING)
    logs = net.recover(CYD, 4, EVA, SEALING)
    assert name_events(logs) == ["RecoveryVoted", "KeyChanged"]
    motion = motions.hash_recovery(4, EVA, SEALING, 0)
    assert logs[0].args == {"by": 3, "site": 4, "key": EVA, "sealing": SEALING, "motion": motion}
    assert logs[1].args == {"site": 4, "key": EVA, "sealing": SEALING}
    assert catch_refusal(net.offer, DAN, STRANGER, SEALING) == ("NotSite",)
    net.offer(EVA, DAN, SEALING)


def test_a_recovery_withdraws_the_offer_made_with_the_lost_key(net: ContractAndRules) -> None:
    net.offer(DAN, STRANGER, SEALING)
    for voter in (ANA, BOB, CYD):
        net.recover(voter, 4, EVA, SEALING)
    assert catch_refusal(net.accept, STRANGER, 4) == ("NotOffered",)


def test_a_recovery_can_be_voted_again_after_it_passed(net: ContractAndRules) -> None:
    for new in (EVA, DAN, EVA):
        for voter in (ANA, BOB, CYD):
            net.recover(voter, 4, new, SEALING)
    assert net.read_key(4) == EVA


def test_a_site_votes_once_on_a_recovery(net: ContractAndRules) -> None:
    net.recover(ANA, 4, EVA, SEALING)
    assert catch_refusal(net.recover, ANA, 4, EVA, SEALING) == ("AlreadyVoted",)


def test_a_recovery_refuses_strangers_and_keys_that_are_held(net: ContractAndRules) -> None:
    assert catch_refusal(net.recover, STRANGER, 4, EVA, SEALING) == ("NotSite",)
    assert catch_refusal(net.recover, ANA, 4, BOB, SEALING) == ("KeyTaken",)
    assert catch_refusal(net.recover, ANA, 4, ZERO_ADDRESS, SEALING) == ("KeyTaken",)


# A new key of one's own


def test_a_site_moves_to_a_new_key_that_accepts(net: ContractAndRules) -> None:
    logs = net.offer(DAN, EVA, SEALING) + net.accept(EVA, 4)
    assert name_events(logs) == ["KeyOffered", "KeyChanged"]
    assert all(log.args == {"site": 4, "key": EVA, "sealing": SEALING} for log in logs)
    assert catch_refusal(net.offer, DAN, STRANGER, SEALING) == ("NotSite",)


def test_a_later_offer_replaces_the_first(net: ContractAndRules) -> None:
    net.offer(DAN, STRANGER, SEALING)
    net.offer(DAN, EVA, SEALING)
    assert catch_refusal(net.accept, STRANGER, 4) == ("NotOffered",)
    net.accept(EVA, 4)
    assert catch_refusal(net.accept, EVA, 4) == ("NotOffered",)


def test_a_seat_is_taken_only_by_the_key_to_which_it_was_offered(net: ContractAndRules) -> None:
    assert catch_refusal(net.accept, EVA, 4) == ("NotOffered",)
    net.offer(DAN, EVA, SEALING)
    assert catch_refusal(net.accept, STRANGER, 4) == ("NotOffered",)
    assert catch_refusal(net.accept, EVA, 3) == ("NotOffered",)


def test_a_key_takes_one_seat_only(net: ContractAndRules) -> None:
    net.offer(CYD, EVA, SEALING)
    net.offer(DAN, EVA, SEALING)
    net.accept(EVA, 3)
    assert catch_refusal(net.accept, EVA, 4) == ("KeyTaken",)


def test_an_offer_refuses_strangers_and_keys_that_are_held(net: ContractAndRules) -> None:
    assert catch_refusal(net.offer, STRANGER, EVA, SEALING) == ("NotSite",)
    assert catch_refusal(net.offer, DAN, ANA, SEALING) == ("KeyTaken",)
    assert catch_refusal(net.offer, DAN, ZERO_ADDRESS, SEALING) == ("KeyTaken",)


def test_an_admitted_site_votes_like_a_founder(net: ContractAndRules) -> None:
    admit_eva(net)
    assert name_events(net.revoke(EVA, 1)) == ["RevocationVoted"]
    net.revoke(BOB, 1)
    with pytest.raises(PostRejected, match="AlreadyVoted"):
        net.revoke(EVA, 1)
    assert name_events(net.revoke(CYD, 1)) == ["RevocationVoted", "SiteRevoked"]


# Names and keys


@pytest.mark.parametrize(
    "name", ["", "Eva", "eva site", "-eva", "e" * 32, "eva\0eva", "\u00e9va", "eva\u202e", "eva_1"]
)
def test_a_name_is_made_of_small_letters_digits_and_hyphens(net: ContractAndRules, name: str) -> None:
    assert catch_refusal(net.admit, ANA, name, EVA, SEALING, PEER) == ("BadName",)


@pytest.mark.parametrize("name", ["e", "0", "e-1", "e" * 31])
def test_a_name_has_1_to_31_characters(net: ContractAndRules, name: str) -> None:
    net.admit(ANA, name, EVA, SEALING, PEER)


def test_a_seat_has_a_sealing_key(net: ContractAndRules) -> None:
    assert catch_refusal(net.admit, ANA, "eva", EVA, ZERO, PEER) == ("BadTerms",)
    assert catch_refusal(net.recover, ANA, 4, EVA, ZERO) == ("BadTerms",)
    assert catch_refusal(net.offer, ANA, EVA, ZERO) == ("BadTerms",)


def test_a_contract_has_no_seat_and_makes_no_move(net: ContractAndRules) -> None:
    contracts, contract = net.contracts, net.contracts.models[1]
    assert catch_refusal(contracts.move, ANA, "admit", encode_site_name("eva"), contract, SEALING, PEER) == (
        "NotExternal",
    )
    assert catch_refusal(contracts.move, ANA, "recover", 4, contract, SEALING) == ("NotExternal",)
    assert catch_refusal(contracts.move, ANA, "offer", contract, SEALING) == ("NotExternal",)
    forwarder = contracts.place_forwarder()
    for move in ("accept", "revoke"):
        assert catch_refusal(contracts.forward, ANA, forwarder, move, 4) == ("NotExternal",)


def test_a_call_holds_its_arguments_and_no_byte_more(net: ContractAndRules) -> None:
    contracts = net.contracts
    terms = (next_digest("study"), bytes((1, 2)), [bytes([EACH]).ljust(32, b"\0"), ZERO, ZERO], 1, 60, 0, 1)
    calls = [CATALOG.encode("revoke", 4), CATALOG.encode("propose", terms, (ZERO, ZERO, 0))]
    calls += [CATALOG.encode("decline", (1, 2), 3), CATALOG.encode("withdraw", ZERO)]
    for call in calls:
        for odd in (call + "00", call + "00" * 32):
            assert catch_refusal(contracts.call, ANA, odd) == ("BadCall",)
    assert catch_refusal(contracts.call, ANA, dirty(calls[1])) == ("BadCall",)
    # two lists in the same bytes: the reason 3 is read as a length
    shared = CATALOG.encode("decline", (), 3)[:10] + "".join(f"{n:064x}" for n in (32, 1, 7, 0))
    assert catch_refusal(contracts.call, ANA, shared) == ("BadCall",)


def dirty(call: str) -> str:
    """A proposal with a byte after the end of its order, where a zero belongs."""
    order = bytes((1, 2)).hex().ljust(64, "0")
    return call.replace(order, order[:-2] + "01")


# How long a vote counts


def test_a_vote_can_be_withdrawn_and_cast_again(net: ContractAndRules) -> None:
    motion = motions.hash_admission(*EVA_ENTRY)
    net.admit(ANA, *EVA_ENTRY)
    assert net.withdraw(ANA, motion)[0].args == {"by": 1, "motion": motion}
    assert catch_refusal(net.withdraw, ANA, motion) == ("NoVote",)
    assert catch_refusal(net.withdraw, STRANGER, motion) == ("NotSite",)
    net.admit(BOB, *EVA_ENTRY)
    assert name_events(net.admit(CYD, *EVA_ENTRY)) == ["AdmissionVoted"]
    assert name_events(net.admit(ANA, *EVA_ENTRY)) == ["AdmissionVoted", "SiteAdmitted"]
    assert catch_refusal(net.withdraw, ANA, motion) == ("NoVote",)


def test_a_vote_counts_for_fourteen_days(net: ContractAndRules) -> None:
    net.admit(ANA, *EVA_ENTRY)
    net.admit(BOB, *EVA_ENTRY)
    net.wait(VOTE_TIME - 1)
    assert name_events(net.admit(CYD, *EVA_ENTRY)) == ["AdmissionVoted"]
    assert net.contracts.view("votes", motions.hash_admission(*EVA_ENTRY)) == 0b1100
    assert name_events(net.admit(ANA, *EVA_ENTRY)) == ["AdmissionVoted"]  # the other's vote has expired since
    assert name_events(net.admit(BOB, *EVA_ENTRY)) == ["AdmissionVoted", "SiteAdmitted"]


def test_a_vote_counts_for_250_000_blocks(net: ContractAndRules) -> None:
    net.admit(ANA, *EVA_ENTRY)
    motion, cast = motions.hash_admission(*EVA_ENTRY), net.contracts.block
    for later, counted in ((VOTE_BLOCKS, {1}), (VOTE_BLOCKS + 1, set())):
        assert net.rules.list_voters(motion, Moment(net.contracts.now, cast + later)) == counted
        assert net.contracts.view_at(cast + later, "votes", motion) == sum(1 << site for site in counted)


def test_a_vote_dies_with_the_key_that_cast_it(net: ContractAndRules) -> None:
    net.admit(ANA, *EVA_ENTRY)
    net.offer(ANA, STRANGER, SEALING)
    net.accept(STRANGER, 1)
    net.admit(BOB, *EVA_ENTRY)
    assert name_events(net.admit(CYD, *EVA_ENTRY)) == ["AdmissionVoted"]
    assert name_events(net.admit(STRANGER, *EVA_ENTRY)) == ["AdmissionVoted", "SiteAdmitted"]


def test_votes_on_a_recovery_die_when_the_site_comes_back_by_itself(net: ContractAndRules) -> None:
    for voter in (ANA, BOB):
        net.recover(voter, 4, EVA, SEALING)
    net.offer(DAN, STRANGER, SEALING)
    net.accept(STRANGER, 4)
    assert name_events(net.recover(CYD, 4, EVA, SEALING)) == ["RecoveryVoted"]
    assert net.read_key(4) == STRANGER


def test_a_majority_that_a_smaller_electorate_made_can_be_called_in(net: ContractAndRules) -> None:
    for voter in (ANA, BOB):
        net.admit(voter, *EVA_ENTRY)
    assert catch_refusal(net.admit, ANA, *EVA_ENTRY) == ("AlreadyVoted",)
    for voter in (ANA, BOB, CYD):
        net.revoke(voter, 4)
    assert name_events(net.admit(ANA, *EVA_ENTRY)) == ["AdmissionVoted", "SiteAdmitted"]


# Another Catalog


def test_a_majority_names_the_catalog_that_succeeds_this_one(net: ContractAndRules) -> None:
    successor = net.contracts.models[1]  # any contract will do here
    for voter in (ANA, BOB):
        assert name_events(net.vote_succession(voter, successor)) == ["SuccessionVoted"]
    logs = net.vote_succession(CYD, successor)
    assert name_events(logs) == ["SuccessionVoted", "CatalogSucceeded"]
    assert logs[1].args == {"next": successor}
    assert catch_refusal(net.vote_succession, STRANGER, successor) == ("NotSite",)
    assert net.contracts.view("VERSION") == 2


def test_a_successor_is_another_contract(net: ContractAndRules) -> None:
    assert catch_refusal(net.vote_succession, ANA, ZERO_ADDRESS) == ("BadTerms",)
    for nothing in (net.contracts.address, STRANGER):
        assert catch_refusal(net.contracts.move, ANA, "succeed", nothing) == ("BadTerms",)
