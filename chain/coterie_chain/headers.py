"""Block headers as their hash binds them: fields out of RLP, and what a node's JSON tells as RLP again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from eth_utils.crypto import keccak

from coterie_chain.calldata import unhexed
from coterie_chain.encoding import Item, bytes_of, decoded, encoded, exactly, listed, malformed, minimal, number

# Fields in the order of the hash; those from the base fee on came with later rules of Ethereum.
NAMES = (
    *("parentHash", "sha3Uncles", "miner", "stateRoot", "transactionsRoot", "receiptsRoot", "logsBloom", "difficulty"),
    *("number", "gasLimit", "gasUsed", "timestamp", "extraData", "mixHash", "nonce", "baseFeePerGas"),
    *("withdrawalsRoot", "blobGasUsed", "excessBlobGas", "parentBeaconBlockRoot", "requestsHash"),
)
NUMBERS = frozenset(
    {"difficulty", "number", "gasLimit", "gasUsed", "timestamp", "baseFeePerGas", "blobGasUsed", "excessBlobGas"}
)
ALWAYS = 15
EXTRA = NAMES.index("extraData")
# 253 sealers of Clique in an epoch's header need 5 kB, QBFT's seals three times that.
LARGEST = 1 << 15


@dataclass(frozen=True)
class Header:
    """One block's header, `fields` as RLP has them."""

    fields: tuple[bytes, ...]

    @classmethod
    def decode(cls, raw: bytes) -> Header:
        """A header from its RLP; LedgerMismatch for anything else."""
        what = "A block's header"
        items = listed(decoded(raw, what), what, ALWAYS, len(NAMES))
        header = cls(tuple(bytes_of(item, what, LARGEST) for item in items))
        sizes = {"parentHash": 32, "miner": 20, "stateRoot": 32, "transactionsRoot": 32, "receiptsRoot": 32}
        for name, size in {**sizes, "logsBloom": 256, "mixHash": 32, "nonce": 8}.items():
            exactly(header[name], f"{what} ({name})", size)
        for name in ("difficulty", "number", "timestamp"):
            number(header[name], f"{what} ({name})")
        if header.number >= 1 << 63 or header.time >= 1 << 36:
            raise malformed(what, "its number or its time is too large")
        return header

    def __getitem__(self, name: str) -> bytes:
        return self.fields[NAMES.index(name)]

    @property
    def raw(self) -> bytes:
        """RLP."""
        return encoded(self.fields)

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
            fields[EXTRA] = extra
        return keccak(encoded(fields))


def header_of(block: dict[str, Any]) -> bytes:
    """RLP of the header that a node tells as JSON."""
    told = [(name, block[name]) for name in NAMES if block.get(name) is not None]
    return encoded([minimal(int(value, 16)) if name in NUMBERS else unhexed(value) for name, value in told])


def bloom_of(address: str) -> int:
    """The bits that a log of this address sets in its block's filter."""
    digest = keccak(unhexed(address))
    return sum({1 << (int.from_bytes(digest[at : at + 2]) & 2047) for at in (0, 2, 4)})


def address_of(item: Item, what: str) -> str:
    """An address in lower-case hex."""
    return "0x" + exactly(item, what, 20).hex()
