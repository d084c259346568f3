"""Whatever the contracts accept, everybody can read: thousands of signed garbage transactions, and then every reader.

A member may send anything. What the contracts take must decode to an entry, follow from the rules, extend its site's
hash chain, be the very call that its site signed, and be a line of the history; each of the other studies stays
readable. COTERIE_FUZZ_TRANSACTIONS sets how many, COTERIE_FUZZ_SEED which; `make test` sends a few hundred of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from contracts.test_fuzz import Fuzz
from support.chain.anvil import find_binary, run_anvil
from support.chain.contracts import CATALOG, MODEL
from support.chain.signed_blocks import SignedTwins

from coterie_chain.ethereum.decode import LAYOUTS
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ledger.history_check import check_history
from coterie_chain.ledger.protocol import ZERO, Event
from coterie_chain.ledger.record_chain import flatten_post
from coterie_chain.proof.evidence import gather
from coterie_chain.proof.verified_ledger import VerifiedLedger
from coterie_node.audit.history import to_history_entry
from coterie_node.audit.index import HistoryIndex

pytestmark = [pytest.mark.anvil, pytest.mark.xdist_group("total"), pytest.mark.timeout(600)]

TRANSACTIONS = int(os.environ.get("COTERIE_FUZZ_TRANSACTIONS", "10000"))
FEW_TRANSACTIONS = 300
ALL = pytest.param(TRANSACTIONS, marks=pytest.mark.long)
SEED = int(os.environ.get("COTERIE_FUZZ_SEED", "1"))
FOUNDERS = ["ana", "bob", "cyd", "dan", "eva"]
GARBAGE = 0.1  # share of the transactions that no contract may take


class Garbage(Fuzz):
    """Draws moves with any bytes in them, and calls that are no moves."""

    net: SignedTwins

    def __init__(self, net: SignedTwins, seed: int) -> None:
        super().__init__(net, seed)
        self._odd: list[Callable[[str], tuple[str, str, int]]] = [
            self.with_a_tail, self.cut_short, self.with_dirty_bits, self.of_no_function, self.reported_directly,
            self.with_money,
        ]  # fmt: skip

    def move(self) -> None:
        """Make one move, or send what is none."""
        if self.draw_chance(1 - GARBAGE):
            super().move()
            return
        to, data, value = self.rnd.choice(self._odd)(self.some_call())
        self.net.must_refuse(self.draw_key(), to, data, value)

    def some_call(self) -> str:
        """Calldata of a move that a member might make."""
        word = self.rnd.randbytes(32)
        calls = [
            CATALOG.encode("revoke", self.rnd.randrange(256)),
            CATALOG.encode("withdraw", word),
            CATALOG.encode("join", 1, word, (word, word, 7)),
            CATALOG.encode("decline", (1, 2), 3),
            CATALOG.encode("abort", 1, 9, 2),
            CATALOG.encode("attest", 1, word, 1),
            CATALOG.encode("propose", (word, bytes((1, 2)), [word, ZERO, ZERO], 1, 60, 0, 1), (word, ZERO, 0)),
        ]
        return self.rnd.choice(calls)

    def with_a_tail(self, call: str) -> tuple[str, str, int]:
        return self.net.contracts.address, call + self.rnd.randbytes(self.rnd.choice([1, 31, 32, 64])).hex(), 0

    def cut_short(self, call: str) -> tuple[str, str, int]:
        return self.net.contracts.address, call[: 10 + 2 * self.rnd.randrange((len(call) - 10) // 2)], 0

    def with_dirty_bits(self, call: str) -> tuple[str, str, int]:
        number = "ff" * 31 + "01"
        return self.net.contracts.address, CATALOG.encode("revoke", 1)[:10] + number, 0

    def of_no_function(self, call: str) -> tuple[str, str, int]:
        return self.net.contracts.address, "0x" + self.rnd.randbytes(self.rnd.choice([0, 3, 4, 36])).hex(), 0

    def reported_directly(self, call: str) -> tuple[str, str, int]:
        post = flatten_post(self.net.draft(1, 1)) if self.net.rules.studies else (1, 0, 0, 0x55, 1, False, *(ZERO,) * 4)
        data = CATALOG.encode("onPost", 1, self.draw_key(), post)
        tailed = MODEL.encode("record", post) + "00"
        return self.rnd.choice([(self.net.contracts.address, data, 0), (self.net.contracts.models[1], tailed, 0)])

    def with_money(self, call: str) -> tuple[str, str, int]:
        return self.net.contracts.address, call, 1


@pytest.fixture(scope="module", params=[FEW_TRANSACTIONS, ALL])
def fuzz(request: pytest.FixtureRequest) -> Iterator[Garbage]:
    """A network after all its transactions, its last block mined."""
    transactions: int = request.param
    program = find_binary()
    if program is None:
        pytest.skip("Anvil is not installed: make setup")
    with run_anvil(program, "--order", "fifo") as anvil:
        fuzz = Garbage(SignedTwins(anvil, FOUNDERS), SEED)
        try:
            while fuzz.net.contracts.outcomes.total() < transactions:
                fuzz.move()
            fuzz.net.contracts.mine_block()
        finally:
            print(f"COTERIE_FUZZ_SEED={SEED} COTERIE_FUZZ_TRANSACTIONS={transactions}, move {fuzz.number}")
        yield fuzz


@pytest.fixture(scope="module")
def ledger(fuzz: Garbage) -> Iterator[EthereumLedger]:
    """A reader of that network."""
    with EthereumLedger(fuzz.net.contracts.network) as reader:
        yield reader


@pytest.fixture(scope="module")
def proved(fuzz: Garbage) -> VerifiedLedger:
    """The network from its evidence alone: every entry is the call that its site signed."""
    return VerifiedLedger(gather(fuzz.net.contracts.network))


def test_the_rules_foresee_what_becomes_of_every_transaction(fuzz: Garbage) -> None:
    fuzz.net.check()
    fuzz.net.check_chains()
    outcomes = fuzz.net.contracts.outcomes
    print(outcomes, len(fuzz.net.rules.studies))
    assert outcomes["taken"] > outcomes.total() // 5 >= FEW_TRANSACTIONS // 5


def test_every_log_is_an_entry_that_the_rules_explain(fuzz: Garbage, ledger: EthereumLedger) -> None:
    entries = list(ledger.history())
    assert len(entries) >= len(fuzz.net.contracts.logs)
    judged = check_history(entries, {name: head.genesis for name, head in ledger.heads().items()})
    assert judged.heads == ledger.heads()
    assert judged.sites() == ledger.sites()
    for study in ledger.studies():
        assert judged.view(study) == ledger.view(study)


def test_every_entry_is_the_call_that_its_site_signed(ledger: EthereumLedger, proved: VerifiedLedger) -> None:
    assert list(proved.history()) == list(ledger.history())
    assert (proved.sites(), proved.heads()) == (ledger.sites(), ledger.heads())
    for study in ledger.studies():
        assert proved.view(study) == ledger.view(study)


def test_every_step_of_every_study_can_be_read(ledger: EthereumLedger, proved: VerifiedLedger) -> None:
    for study in ledger.studies():
        position = max((e.post.position for e in ledger.history(study) if hasattr(e, "post")), default=0)
        for p in range(position + 1):
            assert ledger.read_finished(study, p) == proved.read_finished(study, p)


def test_every_entry_is_a_line_of_the_history(ledger: EthereumLedger) -> None:
    with HistoryIndex() as index:
        index.refresh(ledger)
    assert all(to_history_entry(entry).what for entry in ledger.history())


@pytest.mark.parametrize("fuzz", [ALL], indirect=True)
@pytest.mark.skipif(TRANSACTIONS < 10_000 or SEED != 1, reason="another draw may miss something rare")
def test_every_move_was_taken_and_every_state_was_reached(fuzz: Garbage, ledger: EthereumLedger) -> None:
    taken = {move for move, outcome in fuzz.outcomes if outcome == "done"}
    assert {draw.__name__ for draw in fuzz._moves} - taken == set()
    assert {e.name for e in ledger.history() if isinstance(e, Event)} == set(LAYOUTS) | {"StudyProposed"}
