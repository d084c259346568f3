"""Sealed envelopes: bytes that named readers can open and everybody can store, count and pass on.

    magic (8) | header length (4, little-endian) | header | nonce (24) | body under XChaCha20-Poly1305

The header is canonical JSON: `{"commitment": hex, "readers": {name: hex of a SealedBox of the body's key}}`.
Everything before the nonce is authenticated with the body, and so is a context that both ends know (whose payload, for
which step), so that nobody can pass off another site's envelope as its own. The commitment makes all readers open the
same bytes: without it a sender could give two readers different keys under which one body reads differently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from nacl import bindings as sodium
from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox
from nacl.utils import random
from pydantic_core import from_json

from coterie_chain.errors import BlobCorrupt, KeyFault

MAGIC = b"COSEAL1\n"
LENGTH = 4
NONCE_BYTES = sodium.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
TAG = sodium.crypto_aead_xchacha20poly1305_ietf_ABYTES
KEY = sodium.crypto_aead_xchacha20poly1305_ietf_KEYBYTES
BOX = KEY + sodium.crypto_box_SEALBYTES
MAX_HEADER = 1 << 16


def seal(raw: bytes, readers: Mapping[str, bytes], context: bytes = b"") -> bytes:
    """Seal bytes to readers, given as names with X25519 public keys (32 bytes); KeyFault for none, or a bad key."""
    key = random(KEY)
    boxes = {name: _encrypt_key(name, public, key).hex() for name, public in readers.items()}
    header = _encode_header({"commitment": _commit(key), "readers": boxes})
    if not readers or len(header) > MAX_HEADER:
        raise KeyFault(
            "CO-C107", f"Cannot seal to {len(readers)} readers: at least one, and {MAX_HEADER} bytes of them."
        )
    start = MAGIC + len(header).to_bytes(LENGTH, "little") + header
    nonce = random(NONCE_BYTES)
    body = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(raw, start + context, nonce, key)
    return start + nonce + body


def unseal(blob: bytes, name: str, private: PrivateKey, context: bytes = b"") -> bytes | None:
    """The bytes sealed, or None if `name` is not among the readers.

    Raises BlobCorrupt: CO-C221 for an envelope that is malformed or altered, CO-C222 for one that names us but was
    sealed to another key than ours.
    """
    key = open_body_key(blob, name, private)
    return None if key is None else unseal_with(blob, key, context)


def open_body_key(blob: bytes, name: str, private: PrivateKey) -> bytes | None:
    """The key (32 bytes) of an envelope's body, which opens this one envelope only; None and BlobCorrupt as unseal."""
    envelope = _open(blob)
    if name not in envelope.boxes:
        return None
    try:
        return SealedBox(private).decrypt(envelope.boxes[name])
    except CryptoError:
        message = f"The envelope names {name} as a reader but does not open with the sealing key of this site"
        raise BlobCorrupt(
            "CO-C222", f"{message}. If the site's key was replaced since then, ask for a grant."
        ) from None


def unseal_with(blob: bytes, key: bytes, context: bytes = b"") -> bytes:
    """The bytes sealed, for a reader with the body's key; BlobCorrupt CO-C221 if it is another envelope's."""
    envelope = _open(blob)
    if _commit(key) != envelope.commitment:
        raise _explain_malformed("its key is not the one that it commits to")
    try:
        associated_data = envelope.start + context
        return sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(envelope.body, associated_data, envelope.nonce, key)
    except CryptoError:
        raise _explain_malformed("its body or header was altered, or it was sealed for another step") from None


def is_sealed(blob: bytes) -> bool:
    """Whether the bytes start as an envelope does."""
    return blob.startswith(MAGIC)


def list_readers(blob: bytes) -> tuple[str, ...]:
    """Names of an envelope's readers, sorted; unproven until a reader has opened it."""
    return tuple(sorted(_open(blob).boxes))


@dataclass(frozen=True)
class _Envelope:
    start: bytes
    commitment: str
    boxes: Mapping[str, bytes]
    nonce: bytes
    body: bytes


def _open(blob: bytes) -> _Envelope:
    at = len(MAGIC) + LENGTH
    size = int.from_bytes(blob[len(MAGIC) : at], "little")
    end = at + size
    if not is_sealed(blob) or size > MAX_HEADER or len(blob) < end + NONCE_BYTES + TAG:
        raise _explain_malformed("it is cut short or no envelope")
    commitment, boxes = _parse_header(blob[at:end])
    return _Envelope(blob[:end], commitment, boxes, blob[end : end + NONCE_BYTES], blob[end + NONCE_BYTES :])


def _parse_header(text: bytes) -> tuple[str, dict[str, bytes]]:
    try:
        # Not json.loads: py_ecc, under web3, lifts Python's recursion limit, so that nested brackets crash the process.
        header = from_json(text)
        if set(header) == {"commitment", "readers"} and _encode_header(header) == text:
            return str(header["commitment"]), {name: _parse_box(box) for name, box in header["readers"].items()}
    except (ValueError, TypeError, AttributeError):
        # Whatever JSON may hold instead of what we want.
        pass
    raise _explain_malformed("its header is not in canonical form")


def _parse_box(text: str) -> bytes:
    box = bytes.fromhex(text)
    if len(box) != BOX:
        raise ValueError(f"a box of {len(box)} bytes")
    return box


def _encrypt_key(name: str, public: bytes, key: bytes) -> bytes:
    try:
        return SealedBox(PublicKey(public)).encrypt(key)
    except (CryptoError, ValueError, TypeError):
        raise KeyFault(
            "CO-C106",
            f"The sealing key of {name} is not a usable X25519 key: {public.hex()}. Ask that site for its card.",
        ) from None


def _commit(key: bytes) -> str:
    return sha256(b"coterie/1 envelope key" + key).hexdigest()


def _encode_header(header: object) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _explain_malformed(cause: str) -> BlobCorrupt:
    return BlobCorrupt("CO-C221", f"The sealed envelope is not usable: {cause}. The site that posted it must answer.")
