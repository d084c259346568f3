"""An authenticator and a browser in a few lines: passkeys for the page without a screen."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from html import unescape
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


def encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def read_options(page: str) -> dict[str, Any]:
    """What a page asks the browser's authenticator for."""
    match = re.search(r'data-options="([^"]+)"', page)
    assert match is not None, page
    options: dict[str, Any] = json.loads(unescape(match[1]))
    return options


class SoftAuthenticator:
    """One passkey of a person who is there and verified; `flags` says what the device says of that."""

    def __init__(self, origin: str, flags: int = PRESENT | VERIFIED) -> None:
        self.origin, self.flags = origin, flags
        self.host = origin.partition("://")[2].partition(":")[0]
        self.private, self.id = generate_private_key(SECP256R1()), hashlib.sha256(origin.encode()).digest()

    def create(self, options: dict[str, Any]) -> str:
        """The answer to a registration."""
        numbers = self.private.public_key().public_numbers()
        point = {-2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        public = cbor2.dumps({1: 2, 3: -7, -1: 1, **point})
        attested = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + public
        data = self._head(self.flags | ATTESTED) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", options)
        return self._answer(clientDataJSON=client, attestationObject=attestation)

    def get(self, options: dict[str, Any]) -> str:
        """The answer to a challenge."""
        client, data = self._client("webauthn.get", options), self._head(self.flags)
        signature = self.private.sign(data + hashlib.sha256(client).digest(), ECDSA(SHA256()))
        return self._answer(clientDataJSON=client, authenticatorData=data, signature=signature)

    def _head(self, flags: int) -> bytes:
        return hashlib.sha256(self.host.encode()).digest() + bytes([flags]) + bytes(4)

    def _client(self, kind: str, options: dict[str, Any]) -> bytes:
        plain = {"type": kind, "challenge": options["challenge"], "origin": self.origin, "crossOrigin": False}
        return json.dumps(plain).encode()

    def _answer(self, **parts: bytes) -> str:
        response = {name: encode(raw) for name, raw in parts.items()}
        return json.dumps({"id": encode(self.id), "rawId": encode(self.id), "type": "public-key", "response": response})
