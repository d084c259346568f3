"""Block headers as their hash binds them: reads fields from RLP, and encodes a node's JSON as RLP."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eth_utils.crypto import keccak

from coterie_chain.ethereum.calldata import from_hex
from coterie_chain.ethereum.rlp_bounds import (
    Item,
    decode_rlp,
    encode_number,
    encode_rlp,
    explain_malformed,
    require_bytes,
    require_exact_bytes,
    require_list,
    require_number,
)

# Fields in the order of the hash; those from the base fee on came with later rules of Ethereum.
HEADER_FIELDS = (
    *("parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty"),
    *("number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas"),
    *("withdrawalsRoot", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot", "requestsHash"),
)
NUMBER_FIELDS = frozenset(
    {"difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed", "excessBlobGas"}
)
REQUIRED_FIELDS = 15
EXTRA_FIELD = HEADER_FIELDS.index("extraData")
# 253 sealers of Clique in an epoch's header need 5 kB, QBFT's seals three times that.
MAX_HEADER_BYTES = 1 << 15


@dataclass(frozen=True)
class Header:
    """One block's header, `fields` as RLP has them."""

    fields: tuple[bytes, ...]

    @classmethod
    def decode(cls, raw: bytes) -> Header:
        """A header from its RLP; LedgerMismatch for anything else."""
        what = "A block's header"
        items = require_list(decode_rlp(raw, what), what, REQUIRED_FIELDS, len(HEADER_FIELDS))
        header = cls(tuple(require_bytes(item, what, MAX_HEADER_BYTES) for item in items))
        sizes = {"parentHash": 32, "miner": 20, "stateRoot": 32, "transactionsRoot": 32, "receiptsRoot": 32}
        for name, size in {**sizes, "logsBloom": 256, "mixHash": 32, "nonce": 8}.items():
            require_exact_bytes(header[name], f"{what} ({name})", size)
        for name in ("difficulty", "number", "timestamp"):
            require_number(header[name], f"{what} ({name})")
        if header.number >= 1 << 63 or header.time >= 1 << 36:
            raise explain_malformed(what, "its number or its time is too large")
        return header

    def __getitem__(self, name: str) -> bytes:
        return self.fields[HEADER_FIELDS.index(name)]

    @property
    def raw(self) -> bytes:
        """RLP."""
        return encode_rlp(self.fields)

    @cached_property
    def number(self) -> int:
        """The block's number."""
        return int.from_bytes(self["number"])

    @property
    def time(self) -> int:
        """Seconds since 1970."""
        return int.from_bytes(self["timestamp"])

    @property
    def difficulty(self) -> int:
        """The block's difficulty."""
        return int.from_bytes(self["difficulty"])

    @cached_property
    def bloom(self) -> int:
        """The filter over the addresses and topics of the block's logs, as one number."""
        return int.from_bytes(self["logsBloom"])

    def digest(self, extra: bytes | None = None) -> bytes:
        """Hash of the header, with another extraData if given."""
        fields = list(self.fields)
        if extra is not None:
            fields[EXTRA_FIELD] = extra
        return keccak(encode_rlp(fields))


def encode_header(block: dict[str, Any]) -> bytes:
    """RLP of the header that a node sends as JSON."""
    fields_in_order = [(name, block[name]) for name in HEADER_FIELDS if block.get(name) is not None]
    return encode_rlp(
        [encode_number(int(value, 16)) if name in NUMBER_FIELDS else from_hex(value) for name, value in fields_in_order]
    )


def compute_bloom(address: str) -> int:
    """The bits that a log of this address sets in its block's filter."""
    digest = keccak(from_hex(address))
    return sum({1 << (int.from_bytes(digest[at : at + 2]) & 2047) for at in (0, 2, 4)})


def decode_address(item: Item, what: str) -> str:
    """An address in lower-case hex."""
    return "0x" + require_exact_bytes(item, what, 20).hex()
