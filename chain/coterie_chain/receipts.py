"""A block's transactions and receipts as its header's roots bind them, and the logs in them as a node tells them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eth_utils.crypto import keccak

from coterie_chain.calldata import hexed, unhexed
from coterie_chain.decode import Log, integer_of
from coterie_chain.encoding import (
    Item,
    bytes_of,
    decoded,
    encoded,
    exactly,
    listed,
    malformed,
    minimal,
    number,
    signer,
)
from coterie_chain.errors import LedgerMismatch
from coterie_chain.headers import Header, address_of
from coterie_chain.tries import root_of

MOST = 1 << 14
LARGEST = 1 << 26
MOST_DATA = 1 << 20
LEGACY, ACCESS_LIST, DYNAMIC_FEE = 0, 1, 2
# Numbers of a transaction before its recipient, by its type.
HEADS = {
    LEGACY: ("nonce", "gasPrice", "gas"),
    ACCESS_LIST: ("chainId", "nonce", "gasPrice", "gas"),
    DYNAMIC_FEE: ("chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas", "gas"),
}


@dataclass(frozen=True)
class Body:
    """All transactions and receipts of one block, each as the tries hold it."""

    number: int
    transactions: tuple[bytes, ...]
    receipts: tuple[bytes, ...]

    @classmethod
    def decode(cls, raw: bytes) -> Body:
        """A body from its RLP."""
        what = "A block's transactions and receipts"
        at, sent, told = listed(decoded(raw, what), what, 3, 3)
        where = f"{what} (block {number(at, what)})"
        parts = [tuple(bytes_of(i, where, LARGEST) for i in listed(part, where, 0, MOST)) for part in (sent, told)]
        if len(parts[0]) != len(parts[1]):
            raise malformed(where, f"{len(parts[0])} transactions have {len(parts[1])} receipts")
        return cls(number(at, what), parts[0], parts[1])

    @property
    def raw(self) -> bytes:
        """RLP."""
        return encoded([minimal(self.number), self.transactions, self.receipts])

    def fault(self, header: Header) -> str:
        """Which of the lists is not the one that the header was made of; empty if both are."""
        for name, items in (("transactions", self.transactions), ("receipts", self.receipts)):
            if root_of(items) != header[f"{name}Root"]:
                return name
        return ""

    def logs(self, header: Header) -> Iterator[Log]:
        """The block's logs as a node tells them."""
        place = {"blockNumber": hex(self.number), "blockHash": "", "blockTimestamp": hex(header.time)}
        for sent, told in zip(self.transactions, self.receipts, strict=True):
            tx = hexed(keccak(sent))
            for log in _logs(told, f"A receipt of block {self.number}"):
                yield {**place, "transactionHash": tx, **log}

    def calls(self) -> dict[str, Call]:
        """What each transaction asked for and who signed it, by its hash; nobody's for a kind not known here."""
        return {hexed(keccak(raw)): _call_or_nobodys(raw, self.number) for raw in self.transactions}


@dataclass(frozen=True)
class Call:
    """A transaction's call: address whose key signed it, address called, calldata."""

    sender: str
    to: str
    data: bytes


def call(raw: bytes, what: str) -> Call:
    """A signed transaction's call; LedgerMismatch for a kind of transaction that is not known here."""
    kind = raw[0] if raw and raw[0] < 0x80 else LEGACY
    if kind not in HEADS:
        raise malformed(what, f"its type {kind} is not known here")
    items = list(listed(decoded(raw if kind == LEGACY else raw[1:], what), what, 9, 12))
    unsigned, (v, r, s) = items[:-3], (number(item, what) for item in items[-3:])
    to, data = (bytes_of(items[len(HEADS[kind]) + k], what, MOST_DATA) for k in (0, 2))
    if kind != LEGACY:
        sender = signer(keccak(bytes([kind]) + encoded(unsigned)), r, s, v, what)
        return Call(hexed(sender), hexed(to), data)
    if v not in (27, 28):
        unsigned = [*unsigned, minimal((v - 35) // 2), b"", b""]
    sender = signer(keccak(encoded(unsigned)), r, s, v - 27 if v in (27, 28) else (v - 35) % 2, what)
    return Call(hexed(sender), hexed(to), data)


def _call_or_nobodys(raw: bytes, block: int) -> Call:
    try:
        return call(raw, f"A transaction of block {block}")
    except (LedgerMismatch, OverflowError):
        return Call("", "", b"")


def body_of(block: dict[str, Any], receipts: Sequence[dict[str, Any]]) -> Body:
    """A body from a block with its transactions, and its receipts, as a node tells them."""
    sent = tuple(map(_transaction, block["transactions"]))
    return Body(integer_of(block["number"]), sent, tuple(map(_receipt, receipts)))


def _logs(receipt: bytes, what: str) -> Iterator[Log]:
    plain = receipt[1:] if receipt and receipt[0] < 0x80 else receipt
    items = listed(decoded(plain, what), what, 4, 4)
    for log in listed(items[3], what, 0, MOST):
        emitter, topics, data = listed(log, what, 3, 3)
        told = [hexed(exactly(topic, what, 32)) for topic in listed(topics, what, 0, 4)]
        yield {"address": address_of(emitter, what), "topics": told, "data": hexed(bytes_of(data, what, MOST_DATA))}


def _transaction(told: dict[str, Any]) -> bytes:
    kind = integer_of(told.get("type") or "0x0")
    if kind not in HEADS:
        raise malformed(f"Transaction {told['hash']}", f"its type {kind} is not known here")
    head = [minimal(integer_of(told[name])) for name in HEADS[kind]]
    to = unhexed(told["to"]) if told.get("to") else b""
    middle: list[Item] = [to, minimal(integer_of(told["value"])), unhexed(told["input"])]
    access: list[Item] = [] if kind == LEGACY else [_access(told.get("accessList") or [])]
    signature = [minimal(integer_of(told[name])) for name in ("v", "r", "s")]
    return _typed(kind, [*head, *middle, *access, *signature])


def _access(entries: Sequence[dict[str, Any]]) -> Item:
    return [[unhexed(entry["address"]), [unhexed(key) for key in entry["storageKeys"]]] for entry in entries]


def _receipt(told: dict[str, Any]) -> bytes:
    logs: list[Item] = [
        [unhexed(log["address"]), [unhexed(topic) for topic in log["topics"]], unhexed(log["data"])]
        for log in told["logs"]
    ]
    outcome = unhexed(told["root"]) if told.get("root") else minimal(integer_of(told["status"]))
    items: list[Item] = [outcome, minimal(integer_of(told["cumulativeGasUsed"])), unhexed(told["logsBloom"]), logs]
    return _typed(integer_of(told.get("type") or "0x0"), items)


def _typed(kind: int, items: Item) -> bytes:
    return (bytes([kind]) if kind else b"") + encoded(items)
