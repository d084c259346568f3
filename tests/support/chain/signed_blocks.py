"""The contracts on an Anvil that takes signed transactions only, many to a block; the rules foresee each one's fate."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import rlp
from eth_account.types import TransactionDictType
from eth_typing import HexStr
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from support.chain.anvil import AnvilClient
from support.chain.contracts import CATALOG, MODEL, DeployedContracts, Log, PostTuple
from support.chain.twins import SIGNERS, ContractAndRules, build_founder

from coterie_chain.errors import PostRejected
from coterie_chain.ethereum.network import Network
from coterie_chain.ledger.protocol import SiteEntry
from coterie_chain.ledger.rules import Moment, Rules
from coterie_chain.network.deploy import deploy

GAS, BLOCK = 2_000_000, 12
CHAIN_ID = 20240


@dataclass(frozen=True)
class Sent:
    """A transaction in the block that is being filled, and whether it must be taken."""

    raw: str
    label: str
    wanted: str


class SignedBlocks(DeployedContracts):
    """A Catalog whose moves are signed, gathered and mined together."""

    def __init__(self, anvil: AnvilClient, network: Network) -> None:
        self.anvil, self.network, self.address = anvil, network, network.catalog.lower()
        self.logs: list[Log] = []
        self.gas: defaultdict[str, list[int]] = defaultdict(list)
        self.outcomes: Counter[str] = Counter()
        self.models = _Models(self.address)
        self._queue: list[Sent] = []
        self._nonces: defaultdict[str, int] = defaultdict(int)
        anvil.rpc("evm_setAutomine", False)
        block = anvil.rpc("eth_getBlockByNumber", "latest", False)
        self._time, self.block = int(block["timestamp"], 16) + 1, int(block["number"], 16) + 1

    @property
    def now(self) -> int:
        """A second before the moves of the block that is being filled."""
        return self._time - 1

    @now.setter
    def now(self, value: int) -> None:
        raise AttributeError(value)

    def wait(self, seconds: int) -> None:
        """Mine the block, and let time pass before the next."""
        if seconds:
            self.mine_block()
            self._time += seconds

    def move(self, sender: str, name: str, *args: object) -> list[Log]:
        """Sign a call of the Catalog for this block."""
        return self.send(sender, self.address, CATALOG.encode(name, *args), name)

    def record(self, sender: str, site: int, post: PostTuple) -> list[Log]:
        """Sign a record for this block."""
        return self.send(sender, self.models[site], MODEL.encode("record", post), "record")

    def send(self, sender: str, to: str, data: str, label: str, value: int = 0) -> list[Log]:
        """Sign any call for this block; its fate is still to be foreseen."""
        account = SIGNERS[sender]
        if sender not in self._nonces:
            self.anvil.rpc("anvil_setBalance", sender, hex(10**18))
        nonce, self._nonces[sender] = self._nonces[sender], self._nonces[sender] + 1
        transaction: TransactionDictType = {
            "to": to_checksum_address(to),
            "data": HexStr(data),
            "gas": GAS,
            "gasPrice": 0,
            "nonce": nonce,
            "value": value,
            "chainId": CHAIN_ID,
        }
        signed = account.sign_transaction(transaction)
        self._queue.append(Sent("0x" + signed.raw_transaction.hex(), label, "0x0"))
        return []

    def foresee(self, accept_headers: bool) -> None:
        """Say whether the last transaction must be taken."""
        last = self._queue.pop()
        self._queue.append(Sent(last.raw, last.label, "0x1" if accept_headers else "0x0"))
        self.outcomes["taken" if accept_headers else "refused"] += 1
        if len(self._queue) >= BLOCK:
            self.mine_block()

    def mine_block(self) -> None:
        """Mine what was signed, and hold each transaction's fate against what was foreseen."""
        queue, self._queue = self._queue, []
        if not queue:
            return
        self.anvil.batch([("eth_sendRawTransaction", [sent.raw]) for sent in queue])
        self.anvil.batch([("evm_setNextBlockTimestamp", [self._time]), ("evm_mine", [])])
        receipts = self.anvil.rpc("eth_getBlockReceipts", "latest")
        got = [(sent.label, receipt["status"]) for sent, receipt in zip(queue, receipts, strict=True)]
        assert got == [(sent.label, sent.wanted) for sent in queue], f"block {self.block}"
        for receipt in receipts:
            self._read(receipt["logs"], receipt["from"])
        self.block += 1
        self._time += 1


class SignedTwins(ContractAndRules):
    """The rules foresee what the contracts do with each signed move; a refusal is the rules' own."""

    def __init__(self, anvil: AnvilClient, names: Sequence[str]) -> None:
        founders = [build_founder(name) for name in names]
        entries = [SiteEntry(k, f.name, SIGNERS[f.key].address, f.sealing, f.peer) for k, f in enumerate(founders, 1)]
        self.contracts: SignedBlocks = SignedBlocks(anvil, deploy(anvil.url, entries))
        self.rules = Rules((f.name, f.key, f.sealing, f.peer) for f in founders)
        self._heads: dict[int, tuple[int, bytes]] = {}
        self._agreed: dict[tuple[str, tuple[object, ...]], tuple[str, object]] = {}

    def must_refuse(self, sender: str, to: str, data: str, value: int = 0) -> None:
        """Sign a call that no contract may take."""
        self.contracts.send(sender, to, data, "garbage", value)
        self.contracts.foresee(False)

    def _play_both(self, follow: Callable[[Moment], object], lead: Callable[[], list[Log]]) -> list[Log]:
        lead()
        try:
            follow(Moment(self.contracts.now + 1, self.contracts.block))
        except PostRejected:
            self.contracts.foresee(False)
            raise
        self.contracts.foresee(True)
        return []


class _Models(dict[int, str]):
    """Where each site's Model is, also before its admission is mined: the Catalog deploys nothing else."""

    def __init__(self, catalog: str) -> None:
        super().__init__()
        self._catalog = bytes.fromhex(catalog[2:])

    def __missing__(self, site: int) -> str:
        return "0x" + keccak(rlp.encode([self._catalog, site]))[12:].hex()
