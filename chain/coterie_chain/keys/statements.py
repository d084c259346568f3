"""Statements that a site signs off the ledger, with the key that signs its transactions.

A signature is over SHA-256 of a purpose and the text. The purpose has a line of its own, so that no statement can pass
for another one. No transaction or block of a chain can pass for a statement, because these are hashed by Keccak.
"""

from __future__ import annotations

from hashlib import sha256

from coincurve import PrivateKey, PublicKey
from eth_keys.main import KeyAPI

from coterie_chain.keys.site_keys import SiteKeys

_SIGNATURE_BYTES = 65


def sign_statement(keys: SiteKeys, purpose: str, text: bytes) -> str:
    """The site's signature of a text, as hexadecimal digits."""
    return PrivateKey(keys.signing).sign_recoverable(_hash_statement(purpose, text), hasher=None).hex()


def recover_statement_signer(purpose: str, text: bytes, signature: str) -> str:
    """Address (with checksum) of the key that signed a text; empty where no key can have made this signature."""
    try:
        raw = bytes.fromhex(signature)
        if len(raw) != _SIGNATURE_BYTES:
            return ""
        public = PublicKey.from_signature_and_message(raw, _hash_statement(purpose, text), hasher=None)
        return str(KeyAPI.PublicKey(public.format(compressed=False)[1:]).to_checksum_address())
    except (ValueError, TypeError):
        return ""


def _hash_statement(purpose: str, text: bytes) -> bytes:
    return sha256(f"coterie/1 {purpose}\n".encode() + text).digest()
