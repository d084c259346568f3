"""Seats of the Catalog: admission, revocation, recovery and change of keys. Every move runs on the rules too."""

from __future__ import annotations

import pytest
from chain.anvil import Anvil
from chain.contracts import Contracts
from chain.twins import Twins, digest, founder, key

from coterie_chain.errors import PostRejected
from coterie_chain.ledger import ZERO
from coterie_chain.rules import NOBODY, Rules

pytestmark = pytest.mark.anvil

ANA, BOB, CYD, DAN = (key(name) for name in ("ana", "bob", "cyd", "dan"))
EVA, STRANGER = key("eva"), key("stranger")
SEALING, PEER = digest("sealing", "eva"), digest("peer", "eva")
EVA_ENTRY = ("eva", EVA, SEALING, PEER)


def names(logs: list) -> list[str]:
    return [log.name for log in logs]


def admit_eva(net: Twins) -> None:
    for voter in (ANA, BOB, CYD):
        net.admit(voter, *EVA_ENTRY)


# Founding


def test_founders_are_admitted_in_order_each_with_a_model_of_its_own(net: Twins) -> None:
    admitted = [log.args for log in net.contracts.logs if log.name == "SiteAdmitted"]
    assert [(a["site"], a["name"].rstrip(b"\0")) for a in admitted] == [
        (1, b"ana"),
        (2, b"bob"),
        (3, b"cyd"),
        (4, b"dan"),
    ]
    assert len({a["model"] for a in admitted}) == 4
    assert [net.contracts.model(site, "site") for site in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert {net.contracts.model(site, "catalog") for site in (1, 2, 3, 4)} == {net.contracts.address}


def test_a_new_model_starts_at_one_with_a_head_bound_to_catalog_chain_and_site(net: Twins) -> None:
    net.check_chains()


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (founder("ana"), "KeyTaken"),
        (founder("bob").__class__("ana", key("bob"), ZERO, ZERO), "NameTaken"),
        (founder("bob").__class__("bob", NOBODY, ZERO, ZERO), "KeyTaken"),
    ],
)
def test_founders_share_no_name_and_no_key(anvil: Anvil, second, error: str) -> None:
    first = founder("ana")
    with pytest.raises(PostRejected) as contract:
        Contracts(anvil, [first, second])
    with pytest.raises(PostRejected) as rules:
        Rules((f.name, f.key, f.sealing, f.peer) for f in (first, second))
    assert contract.value.name == rules.value.name == error
