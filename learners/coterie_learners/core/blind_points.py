"""Identifiers as elements of a prime-order group, raised by secret exponents whose order does not matter.

The group is the prime-order subgroup of Ed25519, of 2^252 elements, written by the u-coordinate of the same curve in
Montgomery's form. An identifier goes into it by SHA-512 and Elligator 2 (libsodium; RFC 9380 section 6.7) and is raised
by X25519 (RFC 7748): three times as fast as on Ed25519 itself, where each product proves the subgroup again. Without an
exponent an element and its power look like two random elements (the decisional Diffie-Hellman assumption).
X25519's exponents are multiples of 8, so that elements of small order, which would show something of one, become zero
and are refused; the twist of the curve, where a peer's number may lie, has no small subgroup beyond that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from nacl import bindings
from nacl.exceptions import CryptoError
from numpy.typing import NDArray

POINT_BYTES = bindings.crypto_scalarmult_BYTES

Points = NDArray[np.uint8]


class NoPoint(ValueError):
    """A number that is no element of the group, or one of small order."""


def hash_to_points(domain: bytes, identifiers: Iterable[bytes]) -> Points:
    """An element (32 bytes) for each identifier; nobody knows its logarithm."""
    start, out = hashlib.sha512(len(domain).to_bytes(4, "big") + domain), bytearray()
    for identifier in identifiers:
        state = start.copy()
        state.update(identifier)
        point = bindings.crypto_core_ed25519_from_uniform(state.digest()[:32])
        out += bindings.crypto_sign_ed25519_pk_to_curve25519(point)
    return _rows(out)


def raise_points(exponent: bytes, points: Points) -> Points:
    """Each element (n, 32) raised by an exponent of 32 secret bytes; NoPoint for a number that is no point."""
    raw, out = np.ascontiguousarray(points).tobytes(), bytearray()
    multiply = bindings.crypto_scalarmult
    try:
        for at in range(0, len(raw), POINT_BYTES):
            out += multiply(exponent, raw[at : at + POINT_BYTES])
    except CryptoError:
        raise NoPoint(f"element {at // POINT_BYTES} of {len(points)} is not in the group") from None
    return _rows(out)


def _rows(raw: bytes | bytearray) -> Points:
    return np.frombuffer(bytes(raw), np.uint8).reshape(-1, POINT_BYTES)
