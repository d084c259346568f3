"""A member that sends anything at all: thousands of signed calls of both contracts, and no other member's leave."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import rlp
from eth_account.signers.local import LocalAccount
from eth_account.types import TransactionDictType
from eth_typing import HexStr
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from support.node.commands import finish_study, run

from coterie_chain.ethereum.calldata import encode_site_name, load_codec
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ethereum.network import Network, choose_fees
from coterie_chain.ethereum.rpc import Rpc
from coterie_chain.ledger.protocol import ZERO, State
from coterie_node.audit.verify import verify
from coterie_node.cli.site.serve import open_daemon
from coterie_node.site.folder import find_node
from coterie_node.site.watch.log import EventLog

BATCH, GAS, PATIENCE = 25, 1_500_000, 60.0
CATALOG, MODEL = load_codec("Catalog"), load_codec("Model")
EACH_WORD = b"\xff\xff" + bytes(30)
Call = tuple[str, str]


class Vandal:
    """One member's key, a seed, and what it remembers of its own studies: number by hash, and the open position."""

    def __init__(self, network: Network, account: LocalAccount, site: int, model: str, seed: int) -> None:
        self.network, self.account, self.site, self.model = network, account, site, model
        self.rnd = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self._own: dict[int, tuple[bytes, int]] = {}
        self._studies = 0

    def send(self, count: int) -> None:
        """Send so many calls, a batch at a time, each batch to the end of its last block."""
        with Rpc(self.network.url) as rpc:
            price = min(rpc.call_quantity("eth_getBalance", self.account.address, "latest"), 1)  # Anvil asks for none
            for start in range(0, count, BATCH):
                self._look(rpc)
                nonce = self._count_sent(rpc)
                calls = [self.draw() for _ in range(min(BATCH, count - start))]
                hashes = [self._deliver(rpc, call, nonce + k, price) for k, call in enumerate(calls)]
                for transaction in hashes:
                    self.outcomes[self._await(rpc, transaction)] += 1

    def _look(self, rpc: Rpc) -> None:
        """Keep those of its own studies that run, with the position that is open; others were refused or have ended."""
        self._studies = self._ask(rpc, "studyCount")
        running = {}
        for study, (digest, _) in list(self._own.items())[-8:]:
            state, position = self._ask(rpc, "status", study)[:2]
            if state == State.RUNNING and self._ask(rpc, "terms", study)[0] == digest:
                running[study] = digest, position
        self._own = running

    def _ask(self, rpc: Rpc, name: str, *arguments: object) -> Any:
        question = {"to": self.network.catalog, "data": CATALOG.encode(name, *arguments)}
        return CATALOG.decode(name, str(rpc.call("eth_call", question, "latest")))

    def call(self, to: str, data: str) -> dict[str, Any]:
        """Send one call, or deploy a contract (`to` is empty); returns its receipt."""
        with Rpc(self.network.url) as rpc:
            nonce = self._count_sent(rpc)
            transaction = self._deliver(rpc, (to, data), nonce, 0)
            self.outcomes[self._await(rpc, transaction)] += 1
            receipt: dict[str, Any] = rpc.call("eth_getTransactionReceipt", transaction)
            return receipt

    def _count_sent(self, rpc: Rpc) -> int:
        """Calls that were sent, also those whose block was replaced: they wait for the next one."""
        return rpc.call_quantity("eth_getTransactionCount", self.account.address, "pending")

    def _deliver(self, rpc: Rpc, call: Call, nonce: int, price: int) -> str:
        transaction: TransactionDictType = {
            "data": HexStr(call[1]),
            "gas": GAS,
            **cast("TransactionDictType", choose_fees(rpc, price)),
            "nonce": nonce,
            "value": 0,
            "chainId": self.network.chain_id,
        }
        if call[0]:
            transaction["to"] = to_checksum_address(call[0])
        signed = self.account.sign_transaction(transaction)
        return str(rpc.call("eth_sendRawTransaction", "0x" + signed.raw_transaction.hex()))

    def _await(self, rpc: Rpc, transaction: str) -> str:
        end = time.monotonic() + PATIENCE
        while (receipt := rpc.call("eth_getTransactionReceipt", transaction)) is None:
            assert time.monotonic() < end, f"the garbage {transaction} is in no block"
            time.sleep(0.05)
        return "taken" if receipt["status"] == "0x1" else "refused"

    # What it sends

    def draw(self) -> Call:
        """Any call: half of them meant to be taken."""
        moves: list[Callable[[], Call]] = [self.propose, self.record, self.record, self.say, self.vote, self.scribble]
        return self.rnd.choice(moves)()

    def number(self) -> int:
        """A study of its own, of others, or of nobody."""
        numbers: list[int] = [*self._own, *range(1, 4), 0, self._studies + 9, 2**63]
        return self.rnd.choice(numbers)

    def word(self) -> bytes:
        """Any 32 bytes."""
        return self.rnd.choice([self.rnd.randbytes(32), ZERO, b"\xff" * 32])

    def propose(self) -> Call:
        """A study of its own, which begins at once, or one that waits for others."""
        digest, alone = self.rnd.randbytes(32), self.rnd.random() < 0.7
        order = bytes([self.site]) if alone else bytes(self.rnd.sample([1, 2, 3], 3))
        self._studies += 1
        if alone:
            self._own[self._studies] = digest, 0
        terms = (digest, order, [EACH_WORD, EACH_WORD, ZERO], self.rnd.choice([1, 65535]), 60, 1, 1)
        return self.network.catalog, CATALOG.encode("propose", terms, (self.word(), self.word(), 2**32 - 1))

    def record(self) -> Call:
        """A post that is well formed, or nearly, in one of its own studies."""
        if not self._own:
            return self.scribble()
        study = self.rnd.choice([*self._own])
        basis, position = self._own[study]
        codec, size = self.rnd.choice([0x55, 0x70, 0x55, 0x99]), self.rnd.choice([1, 1234, 1 << 27, (1 << 27) + 1, 0])
        post = (study, position, 0, codec, size, self.rnd.random() < 0.5, self.word(), self.word(), basis, self.word())
        if codec != 0x99 and 1 <= size <= 1 << 27 and ZERO not in post[6:8]:
            self._own[study] = basis, position + 1
        return self.model, MODEL.encode("record", post)

    def say(self) -> Call:
        """A move in some study, with codes that nobody knows."""
        study, code, word = self.number(), self.rnd.choice([0, 1, 65535]), self.word()
        calls: list[tuple[object, ...]] = [
            ("decline", [study], code), ("abort", study, code, self.site), ("pause", study, code), ("resume", study),
            ("attest", study, word, code), ("supersede", study, self.number(), word), ("skip", study),
            ("dispute", study, 0, 0, self.rnd.randrange(5), word), ("exclude", study, self.rnd.randrange(5)),
            ("unavailable", study, 0, 0, self.rnd.randrange(5), code), ("join", study, word, (word, word, 7)),
        ]  # fmt: skip
        name, *arguments = self.rnd.choice(calls)
        return self.network.catalog, CATALOG.encode(str(name), *arguments)

    def vote(self) -> Call:
        """A vote about members that nobody else will follow."""
        key = "0x" + self.rnd.randbytes(20).hex()
        name = encode_site_name("x" + self.rnd.randbytes(4).hex())
        calls: list[tuple[object, ...]] = [
            ("admit", name, key, self.word(), self.word()), ("revoke", self.rnd.randrange(5)),
            ("recover", self.rnd.randrange(5), key, self.word()), ("offer", key, self.word()),
            ("succeed", key), ("withdraw", self.word()),
        ]  # fmt: skip
        move, *arguments = self.rnd.choice(calls)
        return self.network.catalog, CATALOG.encode(str(move), *arguments)

    def scribble(self) -> Call:
        """Bytes that are no call, or a call with a tail."""
        _, data = self.say()
        tail = self.rnd.randbytes(self.rnd.choice([1, 32])).hex()
        target = self.rnd.choice([self.network.catalog, self.model])
        return target, self.rnd.choice(["0x" + self.rnd.randbytes(36).hex(), data + tail, "0x"])


def make_vandal(root: Path, seed: int) -> Vandal:
    """The member whose node is in a folder, without its node."""
    home = find_node(root)
    network = home.network()
    with EthereumLedger(network) as ledger:
        number = next(site.id for site in ledger.sites() if site.name == home.name)
    # The Catalog deploys nothing but Models, one a site.
    model = "0x" + keccak(rlp.encode([bytes.fromhex(network.catalog[2:]), number]))[12:].hex()
    return Vandal(network, home.load_keys().account, number, model, seed)


def check_garbage(roots: Sequence[Path], count: int, folder: Path, seed: int = 1) -> Counter[str]:
    """Garbage of the last site before, and after, an honest study; returns what became of it."""
    vandal = make_vandal(roots[-1], seed)
    check_study_beside(roots, folder, lambda: vandal.send(count // 2))
    history = json.loads(run("audit", "history", "--node", roots[0], "--json"))
    assert len(history) > vandal.outcomes["taken"]
    return vandal.outcomes


def check_study_beside(roots: Sequence[Path], folder: Path, vandalise: Callable[[], None]) -> None:
    """A study of all sites runs, and can be replayed, listed, exported and verified, whatever one does beside it.

    The daemons of all sites but the last one stay healthy.
    """
    vandalise()
    number = finish_study(roots, 240.0)
    vandalise()
    with ExitStack() as stack:
        log = EventLog(stack.enter_context((folder / "after.jsonl").open("w")))
        for root in roots[:-1]:
            daemon = stack.enter_context(open_daemon(find_node(root), log))
            for _ in range(20):
                daemon.tick()
            assert daemon.health.healthy
            assert next(task for task in daemon.status if task["study"] == number)["phase"] == "done"
    node = ("--node", roots[0])
    assert json.loads(run("audit", "replay", number, *node, "--json", code=25))["verdict"] == "RECORD INTACT"
    assert json.loads(run("audit", "history", number, *node, "--json"))
    run("audit", "export", number, folder / "study.zip", *node)
    network = find_node(roots[1]).network()
    assert verify(folder / "study.zip", network=network).verdict.verdict == "RECORD INTACT"
