"""Passkeys: whether an authenticator signed a challenge, for a browser on one origin, with the person's consent.

Source: Web Authentication Level 3, 7.2 (Verifying an Authentication Assertion); ES256 alone (ECDSA, P-256, SHA-256).
The check needs no library beyond `cryptography`, so that every auditor can make it.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field
from pydantic_core import from_json

from coterie_learners.study.document import Frozen
from coterie_node.errors import AuditFailed

# Flags of authenticator data: a person was present, and was verified (by PIN or by finger).
PRESENT, VERIFIED = 0x01, 0x04
_HEADER_BYTES = 37


class Assertion(Frozen):
    """What an authenticator answers to a challenge: three byte strings in hexadecimal digits."""

    client_data: Annotated[str, Field(pattern="^([0-9a-f]{2}){1,4096}$")]
    authenticator_data: Annotated[str, Field(pattern="^([0-9a-f]{2}){37,1024}$")]
    signature: Annotated[str, Field(pattern="^([0-9a-f]{2}){8,80}$")]


def check_assertion(assertion: Assertion, challenge: bytes, public: str, origin: str, name: str) -> None:
    """AuditFailed (CO-A211) unless the passkey with this public key answered this challenge on this origin.

    `public` is the point of P-256 in 128 hexadecimal digits. The relying party is the origin's host.
    """
    client, data = bytes.fromhex(assertion.client_data), bytes.fromhex(assertion.authenticator_data)
    cause = _find_fault(client, data, challenge, origin)
    if not cause and not _is_signed(assertion, data + hashlib.sha256(client).digest(), public):
        cause = "is not of the key that the register lists"
    if cause:
        message = f"The passkey's signature of {name} {cause}"
        raise AuditFailed("CO-A211", f"{message}. Ask the site for its record.")


def encode_challenge(challenge: bytes) -> str:
    """A challenge as the browser repeats it: base64url without padding."""
    return urlsafe_b64encode(challenge).rstrip(b"=").decode()


def _find_fault(client: bytes, data: bytes, challenge: bytes, origin: str) -> str:
    """What is wrong with an assertion besides its signature; empty if nothing is."""
    try:
        fields = from_json(client)
        kind, answered, where = fields["type"], fields["challenge"], fields["origin"]
    except (ValueError, KeyError, TypeError):
        return "has client data of another form"
    host = urlsplit(origin).hostname or ""
    flags = data[32]
    if kind != "webauthn.get" or fields.get("crossOrigin", False) is not False:
        return "was not made to sign in on the site's own page"
    if answered != encode_challenge(challenge):
        return "answers another challenge: it is about something else"
    if where != origin:
        return "was made on another origin"
    if data[:32] != hashlib.sha256(host.encode()).digest():
        return "is for another relying party"
    return "" if flags & PRESENT and flags & VERIFIED else "was made without verifying the person"


def _is_signed(assertion: Assertion, message: bytes, public: str) -> bool:
    # Decisions have this form, and most commands read decisions without checking a signature.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        point = b"\x04" + bytes.fromhex(public)
        key = EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)
        key.verify(bytes.fromhex(assertion.signature), message, ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True
