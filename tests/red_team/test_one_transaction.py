"""One transaction of one member must not end the network: the review's attacks a00 and a2, step for step.

On a real chain, with real daemons and commands: the member proposes a study with only itself in it, records a post with
the codec 0x99, moves its seat to a contract, and does all that again after the others' study.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.node.commands import nodes_on_anvil
from support.node.garbage import CATALOG, EACH_WORD, MODEL, Vandal, check_study_beside, make_vandal

from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ledger.protocol import ZERO, State

pytestmark = [pytest.mark.anvil, pytest.mark.timeout(600)]
TAKEN, REFUSED = "0x1", "0x0"


def propose_alone(vandal: Vandal, name: bytes) -> int:
    """A study of one site begins at once, and nobody has to join it; returns its number."""
    terms = (name * 32, bytes([vandal.site]), [EACH_WORD, ZERO, ZERO], 1, 600, 0, 1)
    assert vandal.call(vandal.network.catalog, CATALOG.encode("propose", terms, (ZERO, ZERO, 0)))["status"] == TAKEN
    with EthereumLedger(vandal.network) as ledger:
        number = ledger.studies()[-1]
        assert ledger.view(number).state == State.RUNNING
    return number


def record(vandal: Vandal, study: int, basis: bytes, position: int, **changes: object) -> str:
    """Status of a record, by default of a payload that nobody serves."""
    fields: dict[str, object] = {"codec": 0x55, "size": 10, "cid": b"\5" * 32, "sha": b"\2" * 32} | changes
    post = (study, position, 0, fields["codec"], fields["size"], False, fields["cid"], fields["sha"], basis, ZERO)
    return str(vandal.call(vandal.model, MODEL.encode("record", post))["status"])


def poison_the_record(vandal: Vandal, name: bytes) -> None:
    """Attack a00, and its variants: codecs that stores do not know are refused; others are payloads of nobody."""
    study, basis = propose_alone(vandal, name), name * 32
    for codec in (0x99, 0x71, 0x00, 0xFF):
        assert record(vandal, study, basis, 0, codec=codec) == REFUSED
    for changes in ({"size": 0}, {"size": (1 << 40) - 1}, {"cid": ZERO}, {"sha": ZERO}):
        assert record(vandal, study, basis, 0, **changes) == REFUSED
    assert record(vandal, study, basis, 0, codec=0x70, size=1) == TAKEN
    assert record(vandal, study, basis, 1, size=1 << 27) == TAKEN


def move_the_seat_to_a_contract(vandal: Vandal) -> None:
    """Attack a2: a forwarder takes the seat, whose calls nobody can prove to be signed."""
    catalog = vandal.network.catalog
    run = bytes.fromhex("36600060003760006000366000600073") + bytes.fromhex(catalog[2:]) + bytes.fromhex("5af15000")
    code = bytes([0x60, len(run), 0x80, 0x60, 0x0B, 0x60, 0, 0x39, 0x60, 0, 0xF3]) + run
    wallet = str(vandal.call("", "0x" + code.hex())["contractAddress"])
    assert vandal.call(catalog, CATALOG.encode("offer", wallet, b"\7" * 32))["status"] == REFUSED
    vandal.call(wallet, CATALOG.encode("accept", vandal.site))
    with EthereumLedger(vandal.network) as ledger:
        assert vandal.account.address in {site.address for site in ledger.sites()}


@pytest.mark.long
def test_a_member_s_transactions_end_neither_daemons_nor_replay_nor_export(tmp_path: Path) -> None:
    names = iter((b"\1", b"\2"))
    with nodes_on_anvil(tmp_path) as roots:
        vandal = make_vandal(roots[-1], 1)

        def vandalise() -> None:
            poison_the_record(vandal, next(names))
            move_the_seat_to_a_contract(vandal)

        check_study_beside(roots, tmp_path, vandalise)
        assert next(names, None) is None
    assert vandal.outcomes["taken"] >= 8
