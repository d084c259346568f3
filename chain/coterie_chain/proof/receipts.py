"""A block's transactions and receipts as its header's roots bind them, and their logs as a node sends them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from eth_utils.crypto import keccak

from coterie_chain.errors import LedgerMismatch
from coterie_chain.ethereum.calldata import from_hex, to_hex
from coterie_chain.ethereum.decode import Log, parse_quantity
from coterie_chain.ethereum.headers import Header, decode_address
from coterie_chain.ethereum.rlp_bounds import (
    Item,
    decode_rlp,
    encode_number,
    encode_rlp,
    explain_malformed,
    open_list,
    recover_signer,
    require_bytes,
    require_exact_bytes,
    require_list,
    require_number,
    split_items,
)
from coterie_chain.proof.tries import compute_root

MAX_ITEMS = 1 << 14
MAX_ITEM_BYTES = 1 << 26
MAX_DATA_BYTES = 1 << 20
# Fields of a receipt: outcome, gas, bloom filter, logs. The shortest log has an address, no topic and no data.
RECEIPT_PARTS, LEAST_LOG = 4, 24
ADDRESS_MARK = bytes([0x80 + 20])
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
        at, transactions, receipts = require_list(decode_rlp(raw, what), what, 3, 3)
        where = f"{what} (block {require_number(at, what)})"
        parts = [
            tuple(require_bytes(i, where, MAX_ITEM_BYTES) for i in require_list(part, where, 0, MAX_ITEMS))
            for part in (transactions, receipts)
        ]
        if len(parts[0]) != len(parts[1]):
            raise explain_malformed(where, f"{len(parts[0])} transactions have {len(parts[1])} receipts")
        return cls(require_number(at, what), parts[0], parts[1])

    @property
    def raw(self) -> bytes:
        """RLP."""
        return encode_rlp([encode_number(self.number), self.transactions, self.receipts])

    def fault(self, header: Header) -> str:
        """Which of the lists is not the one that the header was made of; empty if both are."""
        for name, items in (("transactions", self.transactions), ("receipts", self.receipts)):
            if compute_root(items) != header[f"{name}Root"]:
                return name
        return ""

    def logs(self, header: Header, emitters: Collection[str]) -> Iterator[Log]:
        """The block's logs of these addresses (lower-case hex) as a node sends them; `emitters` may grow meanwhile."""
        place = {"blockNumber": hex(self.number), "blockHash": "", "blockTimestamp": hex(header.time)}
        for transaction, receipt in zip(self.transactions, self.receipts, strict=True):
            tx = to_hex(keccak(transaction))
            for log in _decode_logs(receipt, f"A receipt of block {self.number}", emitters):
                yield {**place, "transactionHash": tx, **log}

    def calls(self) -> dict[str, TransactionCall]:
        """What each transaction asked for and who signed it, by its hash; nobody's for a kind not known here."""
        return {to_hex(keccak(raw)): _decode_call_or_none(raw, self.number) for raw in self.transactions}


@dataclass(frozen=True)
class TransactionCall:
    """A transaction's call: address whose key signed it, address called, calldata, number among its signer's."""

    sender: str
    to: str
    data: bytes
    nonce: int = 0


def decode_call(raw: bytes, what: str) -> TransactionCall:
    """A signed transaction's call; LedgerMismatch for a kind of transaction that is not known here."""
    kind = raw[0] if raw and raw[0] < 0x80 else LEGACY
    if kind not in HEADS:
        raise explain_malformed(what, f"its type {kind} is not known here")
    items = list(require_list(decode_rlp(raw if kind == LEGACY else raw[1:], what), what, 9, 12))
    unsigned, (v, r, s) = items[:-3], (require_number(item, what) for item in items[-3:])
    to, data = (require_bytes(items[len(HEADS[kind]) + k], what, MAX_DATA_BYTES) for k in (0, 2))
    nonce = require_number(items[HEADS[kind].index("nonce")], what)
    if kind != LEGACY:
        sender = recover_signer(keccak(bytes([kind]) + encode_rlp(unsigned)), r, s, v, what)
        return TransactionCall(to_hex(sender), to_hex(to), data, nonce)
    if v not in (27, 28):
        unsigned = [*unsigned, encode_number((v - 35) // 2), b"", b""]
    sender = recover_signer(keccak(encode_rlp(unsigned)), r, s, v - 27 if v in (27, 28) else (v - 35) % 2, what)
    return TransactionCall(to_hex(sender), to_hex(to), data, nonce)


def _decode_call_or_none(raw: bytes, block: int) -> TransactionCall:
    try:
        return decode_call(raw, f"A transaction of block {block}")
    except (LedgerMismatch, OverflowError):
        return TransactionCall("", "", b"")


def build_body(block: dict[str, Any], receipts: Sequence[dict[str, Any]]) -> Body:
    """A body from a block with its transactions, and its receipts, as a node sends them."""
    transactions = tuple(map(_encode_transaction, block["transactions"]))
    return Body(parse_quantity(block["number"]), transactions, tuple(map(_encode_receipt, receipts)))


def _decode_logs(receipt: bytes, what: str, emitters: Collection[str]) -> Iterator[Log]:
    """The logs of these addresses.

    Anybody who may send a transaction can fill a block with logs of a contract of his own, of any number and size.
    Those are passed over, and nothing about them is a fault of the evidence.
    """
    plain = receipt[1:] if receipt and receipt[0] < 0x80 else receipt
    parts = list(islice(split_items(open_list(plain, what), what, MAX_ITEM_BYTES), RECEIPT_PARTS + 1))
    if len(parts) != RECEIPT_PARTS:
        raise explain_malformed(what, f"a list of {RECEIPT_PARTS} items belongs here")
    for raw in split_items(open_list(parts[-1], what), what, MAX_ITEM_BYTES, LEAST_LOG):
        if _read_emitter(raw, what) in emitters:
            yield _decode_log(raw, what)


def _read_emitter(log: bytes, what: str) -> str:
    """The first item of a log, an address; empty if something else stands there."""
    content = open_list(log, what)
    return to_hex(content[1:21]) if content[:1] == ADDRESS_MARK else ""


def _decode_log(raw: bytes, what: str) -> Log:
    emitter, topics, data = require_list(decode_rlp(raw, what), what, 3, 3)
    return {
        "address": decode_address(emitter, what),
        "topics": [to_hex(require_exact_bytes(topic, what, 32)) for topic in require_list(topics, what, 0, 4)],
        "data": to_hex(require_bytes(data, what, MAX_DATA_BYTES)),
    }


def _encode_transaction(transaction: dict[str, Any]) -> bytes:
    kind = parse_quantity(transaction.get("type") or "0x0")
    if kind not in HEADS:
        raise explain_malformed(f"Transaction {transaction['hash']}", f"its type {kind} is not known here")
    head = [encode_number(parse_quantity(transaction[name])) for name in HEADS[kind]]
    to = from_hex(transaction["to"]) if transaction.get("to") else b""
    middle: list[Item] = [to, encode_number(parse_quantity(transaction["value"])), from_hex(transaction["input"])]
    access: list[Item] = [] if kind == LEGACY else [_encode_access_list(transaction.get("accessList") or [])]
    signature = [encode_number(parse_quantity(transaction[name])) for name in ("v", "r", "s")]
    return _prefix_type(kind, [*head, *middle, *access, *signature])


def _encode_access_list(entries: Sequence[dict[str, Any]]) -> Item:
    return [[from_hex(entry["address"]), [from_hex(key) for key in entry["storageKeys"]]] for entry in entries]


def _encode_receipt(receipt: dict[str, Any]) -> bytes:
    logs: list[Item] = [
        [from_hex(log["address"]), [from_hex(topic) for topic in log["topics"]], from_hex(log["data"])]
        for log in receipt["logs"]
    ]
    outcome = from_hex(receipt["root"]) if receipt.get("root") else encode_number(parse_quantity(receipt["status"]))
    items: list[Item] = [
        outcome,
        encode_number(parse_quantity(receipt["cumulativeGasUsed"])),
        from_hex(receipt["logsBloom"]),
        logs,
    ]
    return _prefix_type(parse_quantity(receipt.get("type") or "0x0"), items)


def _prefix_type(kind: int, items: Item) -> bytes:
    return (bytes([kind]) if kind else b"") + encode_rlp(items)
