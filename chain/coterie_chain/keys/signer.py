"""Signatures of Ethereum transactions, byte for byte those of the general library, which takes half a second to import.

EIP-155 binds a transaction with one gas price to its chain; EIP-1559 has a tip and a limit above the base fee.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, cast

import rlp
from coincurve import PrivateKey
from eth_hash.auto import keccak

if TYPE_CHECKING:
    from eth_account.types import TransactionDictType

# The byte before an EIP-1559 transaction.
_FEE_MARKET = b"\x02"


class SignedCall(Protocol):
    """A signed transaction."""

    @property
    def raw_transaction(self) -> bytes:
        """As nodes take it."""

    @property
    def hash(self) -> bytes:
        """What names it on the chain."""


class Signer(Protocol):
    """An account that signs transactions."""

    @property
    def address(self) -> str:
        """With checksum."""

    def sign_transaction(self, transaction: TransactionDictType, /) -> SignedCall:
        """The signed transaction."""


@dataclass(frozen=True)
class SignedBytes:
    """A signed transaction."""

    raw_transaction: bytes

    @cached_property
    def hash(self) -> bytes:
        """What names it on the chain."""
        return keccak(self.raw_transaction)


@dataclass(frozen=True, eq=False, repr=False)
class KeySigner:
    """An account from its key; shows its address only."""

    address: str
    secret: bytes

    def __repr__(self) -> str:
        return f"KeySigner({self.address})"

    def sign_transaction(self, transaction: TransactionDictType, /) -> SignedBytes:
        """A call with `gasPrice`, or with `maxFeePerGas` and `maxPriorityFeePerGas`; all fields written out."""
        call = (transaction["gas"], _read_bytes(transaction["to"]), transaction["value"])
        nonce, data = transaction["nonce"], _read_bytes(transaction["data"])
        chain = cast("int", transaction["chainId"])
        if "gasPrice" in transaction:
            fields = [nonce, transaction["gasPrice"], *call, data]
            r, s, parity = self._sign(rlp.encode([*fields, chain, 0, 0]))
            return SignedBytes(rlp.encode([*fields, 35 + 2 * chain + parity, r, s]))
        fees = (transaction["maxPriorityFeePerGas"], transaction["maxFeePerGas"])
        fields = [chain, nonce, *fees, *call, data, []]
        r, s, parity = self._sign(_FEE_MARKET + rlp.encode(fields))
        return SignedBytes(_FEE_MARKET + rlp.encode([*fields, parity, r, s]))

    def _sign(self, message: bytes) -> tuple[int, int, int]:
        """r, s and parity of the deterministic signature (RFC 6979) with the lower s."""
        signature = PrivateKey(self.secret).sign_recoverable(keccak(message), hasher=None)
        return int.from_bytes(signature[:32]), int.from_bytes(signature[32:64]), signature[64]


def _read_bytes(text: object) -> bytes:
    return bytes.fromhex(str(text).removeprefix("0x"))
