"""What the contracts cost, against the committed table and the limit on a record."""

from __future__ import annotations

import pytest
from support.chain.anvil import find_binary, run_anvil
from support.chain.contracts import DeployedContracts
from support.chain.scripts import CONTRACTS, load_script
from support.chain.twins import build_founder, derive_address, next_digest
from support.lanes import later

from coterie_chain.ethereum.ethereum_ledger import VOTE_GAS
from coterie_chain.ledger.protocol import Silence
from coterie_chain.ledger.rules import MAX_SITES
from coterie_chain.ledger.study_state import EACH, SERVER

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("gas")]

gas = load_script("gas")


@pytest.fixture(scope="module")
def measured() -> dict[str, list[int]]:
    costs: dict[str, list[int]] = gas.measure()
    return costs


def test_a_record_costs_at_most_130000_gas_in_every_case(measured: dict[str, list[int]]) -> None:
    records = [cost for name, costs in measured.items() if name.startswith("record") for cost in costs]
    assert len(records) > 100
    assert max(records) <= gas.RECORD_LIMIT == 130_000


def test_the_committed_table_is_what_the_contracts_cost(measured: dict[str, list[int]]) -> None:
    assert (CONTRACTS / "GAS.md").read_text(encoding="utf-8") == gas.render_table(measured)


def test_twenty_founders_fit_a_block(measured: dict[str, list[int]]) -> None:
    assert measured["deploy, 20 founders"] < [30_000_000]


@pytest.mark.parametrize("count", [30, *later(MAX_SITES)])
def test_among_many_sites_a_record_costs_no_more_and_a_vote_what_it_may(count: int) -> None:
    program = find_binary()
    assert program is not None
    everybody = [build_founder(f"site-{i}") for i in range(1, count + 1)]
    hash, served = next_digest("study"), next_digest("served")
    words = [bytes(w).ljust(32, b"\0") for w in ((SERVER,), (EACH,), ())]
    with run_anvil(program, "--gas-limit", "200000000") as roomy:
        net = DeployedContracts(roomy, everybody)
        terms = (hash, bytes(range(1, count + 1)), words, 1, 60, Silence.EXCLUDE, 3)
        net.move(everybody[0].key, "propose", terms, gas.JOINING)
        for site in everybody[1:]:
            net.move(site.key, "join", 1, hash, gas.JOINING)
        net.record(
            derive_address("site-1"),
            1,
            (1, 0, 0, 0x55, 1 << 27, True, next_digest("cid"), served, hash, next_digest("verdict")),
        )
        for i in (count, count // 2 + 1, 1):
            post = (
                1,
                1,
                0,
                0x55,
                1 << 27,
                True,
                next_digest("cid", i),
                next_digest("sha", i),
                served,
                next_digest("verdict"),
            )
            net.record(everybody[i - 1].key, i, post)
        assert max(net.gas["record"]) <= gas.RECORD_LIMIT
        net.wait(61)
        for voter in range(2, count // 2 + 3):
            net.move(everybody[voter - 1].key, "exclude", 1, 3 if voter == 2 else 2)
            net.move(everybody[voter - 1].key, "revoke", 1)
        assert max(net.gas["exclude"] + net.gas["revoke"]) <= VOTE_GAS
