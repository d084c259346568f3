"""Seats of the Catalog: admission, revocation, recovery and change of keys. Every move runs on the rules too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from eth_abi.abi import encode
from support.chain.anvil import AnvilClient, find_binary, run_anvil
from support.chain.contracts import DeployedContracts, Founder, encode_site_name
from support.chain.twins import ContractAndRules, build_founder, catch_refusal, derive_address, name_events, next_digest

from coterie_chain.errors import PostRejected
from coterie_chain.ledger.rules import MAX_SITES, ZERO_ADDRESS, Rules

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
        net = ContractAndRules(roomy, [f"site {i}" for i in range(1, MAX_SITES + 1)])
        assert catch_refusal(net.admit, derive_address("site 1"), *EVA_ENTRY) == ("TooManySites",)
        net.check_chains()


# Admission


def test_a_strict_majority_of_active_sites_admits_a_site(net: ContractAndRules) -> None:
    assert name_events(net.admit(ANA, *EVA_ENTRY)) == ["AdmissionVoted"]
    assert name_events(net.admit(BOB, *EVA_ENTRY)) == ["AdmissionVoted"]
    logs = net.admit(CYD, *EVA_ENTRY)
    assert name_events(logs) == ["AdmissionVoted", "SiteAdmitted"]
    entry = {"name": encode_site_name("eva"), "key": EVA, "sealing": SEALING, "peer": PEER}
    assert logs[0].args == {"by": 3, **entry}
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
    assert [log.args for log in logs] == [{"by": 3, "site": 4}, {"site": 4}]
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
    assert logs[0].args == {"by": 3, "site": 4, "key": EVA, "sealing": SEALING}
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
