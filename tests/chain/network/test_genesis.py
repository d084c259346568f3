"""Genesis files: what Geth and Besu expect of them."""

from __future__ import annotations

import pytest

from coterie_chain.errors import LedgerMismatch
from coterie_chain.network import genesis

VALIDATORS = (
    "0x64a702e6263b7297a96638cac6ae65e6541f4169",
    "0x3923390ad55e90c237593b3b0e401f3b08a03185",
    "0x94aefdb9a738c9f433e5b6b212a6d62f6370c2f6",
    "0x92c7eeb9a4e00ce683cf93039b212648e01c6c6b",
)


def test_clique_lists_its_sealers_in_order_between_vanity_and_signature() -> None:
    document = genesis.build_clique_genesis(VALIDATORS, VALIDATORS[:1], period=2)
    extra = bytes.fromhex(document["extraData"][2:])
    assert len(extra) == 32 + 20 * 4 + 65
    listed = [extra[32 + 20 * k : 52 + 20 * k].hex() for k in range(4)]
    assert listed == sorted(v[2:] for v in VALIDATORS)
    assert document["config"]["clique"] == {"period": 2, "epoch": 30000}
    assert not {"shanghaiTime", "terminalTotalDifficulty"} & set(document["config"])
    assert list(document["alloc"]) == [VALIDATORS[0][2:]]


def test_the_order_of_sites_does_not_change_a_genesis() -> None:
    for make in (genesis.build_clique_genesis, genesis.build_qbft_genesis):
        assert make(VALIDATORS, VALIDATORS) == make(VALIDATORS[::-1], VALIDATORS[::-1])


def test_qbft_s_extra_data_has_the_layout_that_besu_documents() -> None:
    document = genesis.build_qbft_genesis(VALIDATORS, ())
    addresses = "".join("94" + v[2:] for v in sorted(VALIDATORS))
    assert document["extraData"] == "0xf87aa0" + "00" * 32 + "f854" + addresses + "c080c0"


@pytest.mark.parametrize("sealers", [[], VALIDATORS])
def test_a_chain_that_could_never_go_on_is_refused(sealers: list[str]) -> None:
    with pytest.raises(LedgerMismatch) as caught:
        genesis.build_clique_genesis(sealers, (), period=0 if sealers else 1)
    assert caught.value.code == "CO-C337"


@pytest.mark.parametrize(("sealers", "down"), [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)])
def test_a_majority_of_clique_s_sealers_must_be_up(sealers: int, down: int) -> None:
    assert genesis.count_tolerated_failures(sealers) == down
