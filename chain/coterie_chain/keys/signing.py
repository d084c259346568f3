"""The account that signs a site's transactions: legacy ones with the chain's number (EIP-155), or with fees (EIP-1559).

eth-account signs the same bytes, which the tests compare; it takes half a second of CPU to import.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import rlp
from eth_keys.datatypes import PrivateKey
from eth_typing import ChecksumAddress
from eth_utils.crypto import keccak

# Private keys are numbers from 1 to the order of secp256k1 less one (SEC 2, version 2, section 2.4.1).
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_FIELDS = ("nonce", "gasPrice", "gas", "to", "value", "data")
_FEE_FIELDS = ("chainId", "nonce", "maxPriorityFeePerGas", "maxFeePerGas", "gas", "to", "value", "data")
_FEE_TYPE = b"\2"

TransactionFields = Mapping[str, int | str | bytes]


class SignedTransaction(NamedTuple):
    """A signed transaction as it is sent, and its digest."""

    raw_transaction: bytes
    hash: bytes


@dataclass(frozen=True)
class SigningAccount:
    """A signing key of 32 bytes. Shows its address only."""

    key: bytes = field(repr=False)

    @classmethod
    def create(cls) -> SigningAccount:
        """A new key."""
        return cls((secrets.randbelow(_ORDER - 1) + 1).to_bytes(32, "big"))

    def __repr__(self) -> str:
        return f"SigningAccount({self.address})"

    @cached_property
    def address(self) -> ChecksumAddress:
        """The address, with checksum."""
        return PrivateKey(self.key).public_key.to_checksum_address()

    def sign_transaction(self, transaction: TransactionFields) -> SignedTransaction:
        """Sign `nonce`, `gas`, `value` and `chainId` (numbers), `data`, and `to` (none founds a contract).

        `to` and `data` are bytes, or hexadecimal digits after 0x. `gasPrice` is what a gas costs in wei; or
        `maxFeePerGas` and `maxPriorityFeePerGas` are the most that it, and its premium, may cost.
        """
        sign = self._sign_with_fees if "maxFeePerGas" in transaction else self._sign_with_price
        raw = sign(transaction)
        return SignedTransaction(raw, keccak(raw))

    def _sign_with_price(self, transaction: TransactionFields) -> bytes:
        values = [_encode(transaction.get(name, b"")) for name in _FIELDS]
        chain = int(transaction["chainId"])
        digest = keccak(rlp.encode([*values, *map(_encode, (chain, 0, 0))]))
        signature = PrivateKey(self.key).sign_msg_hash(digest)
        proof = (signature.v + 35 + 2 * chain, signature.r, signature.s)
        return bytes(rlp.encode([*values, *map(_encode, proof)]))

    def _sign_with_fees(self, transaction: TransactionFields) -> bytes:
        # The empty list: no storage is announced.
        values = [*(_encode(transaction.get(name, b"")) for name in _FEE_FIELDS), []]
        signature = PrivateKey(self.key).sign_msg_hash(keccak(_FEE_TYPE + rlp.encode(values)))
        proof = (signature.v, signature.r, signature.s)
        return _FEE_TYPE + bytes(rlp.encode([*values, *map(_encode, proof)]))


def _encode(value: int | str | bytes) -> bytes:
    """A number without leading zeros, or bytes."""
    if isinstance(value, int):
        return value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else bytes(value)
