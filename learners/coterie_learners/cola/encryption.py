"""Sums of encrypted words: TenSEAL (Microsoft SEAL), the optional extra `he`.

Words are 32 bits; a sum over at most 253 sites fits what either scheme carries. BFV (Fan and Vercauteren 2012) is
exact: ring 4096, plain modulus a prime of 41 bits, SEAL's own coefficient modulus for 128-bit security; fresh
ciphertexts survive 2^24 additions (measured), of which 253 are needed. CKKS (Cheon et al. 2017), the scheme of the
paper, is approximate: ring 8192, scale 2^50; errors of a sum of words are about 1e-5 and are rounded away before
anything is shown (Li and Micciancio, Eurocrypt 2021, say why they must be).

Adding ciphertexts is plain modular arithmetic: anybody with the ciphertexts gets the same bytes. Encryption is
randomised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import MissingLibrary, ProtocolError

Scheme = Literal["bfv", "ckks"]
Words32 = NDArray[np.uint32]

# The least prime above 2^40 that is 1 modulo twice the ring's dimension, as batching needs.
PLAIN_MODULUS = 1099511799809
# A CKKS value further than this from a whole number was no sum of words.
_ROUNDING = 0.01
LARGEST_CIPHERTEXT = 1 << 20


@dataclass(frozen=True)
class Ring:
    """Dimension of a scheme's ring and words in one of its ciphertexts."""

    dimension: int
    slots: int


RINGS: dict[Scheme, Ring] = {"bfv": Ring(4096, 4096), "ckks": Ring(8192, 4096)}


def check_installed() -> None:
    """MissingLibrary (CO-S406) without TenSEAL."""
    if find_spec("tenseal") is None:
        raise MissingLibrary(
            "CO-S406",
            "Homomorphic encryption needs TenSEAL, which is not installed. Install coterie[he], "
            'or let the study have scheme = "masks".',
            "he",
        )


def make_key(scheme: Scheme) -> bytes:
    """A fresh secret key, with its public part and the scheme's parameters."""
    ts = _library()
    dimension = RINGS[scheme].dimension
    if scheme == "bfv":
        context = ts.context(ts.SCHEME_TYPE.BFV, dimension, plain_modulus=PLAIN_MODULUS)
    else:
        context = ts.context(ts.SCHEME_TYPE.CKKS, dimension, coeff_mod_bit_sizes=[60, 50, 60])
        context.global_scale = 2.0**50
    return bytes(context.serialize(save_secret_key=True, save_galois_keys=False, save_relin_keys=False))


def public_part(secret: bytes) -> bytes:
    """The public part of a key: enough to encrypt and to add."""
    context = _context(secret)
    return bytes(
        context.serialize(save_public_key=True, save_secret_key=False, save_galois_keys=False, save_relin_keys=False)
    )


def encrypt(scheme: Scheme, public: bytes, words: Words32) -> list[bytes]:
    """Ciphertexts of words (k,), as many as they need."""
    context, make = _context(public), _vector(scheme)
    slots = RINGS[scheme].slots
    number = float if scheme == "ckks" else int
    parts = (words[at : at + slots] for at in range(0, len(words), slots))
    try:
        return [bytes(make(context, [number(w) for w in part.tolist()]).serialize()) for part in parts]
    except (RuntimeError, ValueError) as error:
        raise ProtocolError("CO-P553", f"The key does not encrypt {scheme} words: {str(error)[:100]}.") from None


def add_ciphertexts(scheme: Scheme, public: bytes, uploads: Sequence[Sequence[bytes]]) -> list[bytes]:
    """The ciphertexts of the sum of what several sites encrypted."""
    context = _context(public)
    sums = []
    for part in zip(*uploads, strict=True):
        total, *rest = (_load_vector(scheme, context, blob) for blob in part)
        for right in rest:
            total = _add_vectors(total, right)
        sums.append(bytes(total.serialize()))
    return sums


def _add_vectors(left: Any, right: Any) -> Any:
    try:
        return left + right
    except (RuntimeError, ValueError) as error:
        raise ProtocolError("CO-P551", f"Two sites' ciphertexts do not add up: {str(error)[:100]}.") from None


def decrypt(scheme: Scheme, secret: bytes, ciphertexts: Sequence[bytes], count: int) -> NDArray[np.int64]:
    """The sums of words (count,) in these ciphertexts, exactly; ProtocolError if they hold something else."""
    context = _context(secret)
    try:
        parts = [np.asarray(_load_vector(scheme, context, blob).decrypt()) for blob in ciphertexts]
    except (RuntimeError, ValueError) as error:
        raise ProtocolError("CO-P551", f"The sum does not decrypt: {str(error)[:100]}.") from None
    values = np.concatenate(parts)
    if len(values) != count:
        raise ProtocolError("CO-P551", f"The ciphertexts hold {len(values)} numbers, not {count}.")
    if scheme == "bfv":
        return np.asarray(values.astype(np.int64) % PLAIN_MODULUS)
    whole = np.rint(values)
    if not np.max(np.abs(values - whole), initial=0.0) < _ROUNDING:
        raise ProtocolError("CO-P552", "A decrypted sum is not near a whole number; no words add up to it.")
    return np.asarray(whole, dtype=np.int64)


def _vector(scheme: Scheme) -> Any:
    ts = _library()
    return ts.bfv_vector if scheme == "bfv" else ts.ckks_vector


def _context(data: bytes) -> Any:
    ts = _library()
    try:
        return ts.context_from(data)
    except (RuntimeError, ValueError) as error:
        raise ProtocolError("CO-P553", f"TenSEAL cannot read the key: {str(error)[:100]}.") from None


def _load_vector(scheme: Scheme, context: Any, blob: bytes) -> Any:
    ts = _library()
    if len(blob) > LARGEST_CIPHERTEXT:
        raise ProtocolError("CO-P551", f"A ciphertext has {len(blob)} bytes.")
    try:
        return (ts.bfv_vector_from if scheme == "bfv" else ts.ckks_vector_from)(context, blob)
    except (RuntimeError, ValueError) as error:
        raise ProtocolError("CO-P551", f"TenSEAL cannot read a ciphertext: {str(error)[:100]}.") from None


def _library() -> Any:
    check_installed()
    import tenseal

    return tenseal
