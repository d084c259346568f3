"""The join's second mode: rows leave their owner under its own Paillier key (Paillier 1999), several values packed.

A value with its offset takes VALUE bits and its blinding BLIND; a plaintext of the 2048-bit modulus holds 28 of them,
so a row of up to 28 columns is one ciphertext. The helper adds a blinding 2^40 times as large to every value of a
matched row and draws new randomness for the ciphertext. Its owner, who decrypts, can recognise neither value
nor row. What a helper that colludes with one owner can read here: that owner's rows, and the shares of matched rows;
never another owner's rows without a match. The arithmetic is TNO's library (extra `paillier`), without its
serialisation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import rsa
from numpy.typing import NDArray

from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.secure.moments import INPUT
from coterie_learners.shares.field import Elements, element_array
from coterie_learners.shares.field import PrimeField as Numbers
from coterie_learners.shares.session import Keystream
from coterie_learners.shares.shamir3 import SECURITY

if TYPE_CHECKING:
    from coterie_learners.core.protocol import Site
    from coterie_learners.secure.secure_join import JoinPlan

MODULUS = 2048
CIPHER = 2 * MODULUS // 8
VALUE = INPUT + 2
BLIND = VALUE + SECURITY
SLOT = BLIND + 2
# Plaintexts stay below half of the modulus, where the library counts them as positive.
SLOTS = (MODULUS - 2) // SLOT


def form_encrypted_rows(link: JoinPlan) -> Schema:
    """Form of an owner's tags and encrypted rows."""
    tags = Field("|u1", (len(link.passes), None, 16))
    ciphers = Field("|u1", (None, None, CIPHER))
    words = {name: Field("|u1", (None, link.identifying, 8)) for name in ("written", "strict")}
    return Schema(
        {
            "tags": tags,
            **words,
            "group": Field("|u1", (None,)),
            "modulus": Field("|u1", (MODULUS // 8,)),
            "ciphers": ciphers,
        }
    )


def form_encrypted_match(link: JoinPlan) -> Schema:
    """Form of the helper's answer: whether enough rows match, how they are spelled, and their blinded ciphertexts."""
    counts = {"different": Field("<i8", (None,)), "doubtful": Field("<i8"), "groups": Field("<i8", (None,))}
    return Schema({"enough": Field("|b1"), **counts, "ciphers": Field("|u1", (None, None, CIPHER))})


def library() -> Any:
    """TNO's module; StudyError if it is not installed."""
    try:
        from tno.mpc.encryption_schemes import paillier
    except ImportError:
        message = 'The linkage in mode = "paillier" needs the package tno.mpc.encryption_schemes.paillier'
        raise StudyError("CO-S547", f"{message}. Run `pip install coterie[paillier]`.") from None
    return paillier


def encrypt_rows(site: Site, numbers: Numbers, values: Elements) -> dict[str, Any]:
    """This owner's modulus and its rows (n, c) as ciphertexts (n, blocks, bytes)."""
    scheme, stream = _own_scheme(site), Keystream(site.stream("ciphers", 32))
    words = _pack_rows((values + (1 << INPUT)) % numbers.p, VALUE)
    ciphers = [[_rerandomise(scheme, scheme.unsafe_encrypt(word), stream) for word in row] for row in words]
    return {
        "modulus": _bytes(int(scheme.public_key.n).to_bytes(MODULUS // 8, "little")),
        "ciphers": _stack_rows(ciphers),
    }


def blind_rows(site: Site, post: Payload, places: NDArray[np.int64], owner: str) -> dict[str, Any]:
    """The matched rows' ciphertexts with their blinding added and fresh randomness (k, blocks, bytes)."""
    scheme = _public_scheme(bytes(np.asarray(post["modulus"])), owner)
    chosen = np.asarray(post["ciphers"])[places]
    blocks = chosen.shape[1]
    pads = _draw_blinding(site, owner, len(places), blocks * SLOTS)
    stream, out = Keystream(site.stream(f"fresh/{owner}", 32)), []
    for row, pad in zip(chosen, _pack_rows(pads, BLIND), strict=True):
        sums = [_cipher(scheme, bytes(cipher), owner) + word for cipher, word in zip(row, pad, strict=True)]
        out.append([_rerandomise(scheme, total, stream) for total in sums])
    return {"ciphers": _stack_rows(out) if out else np.zeros((0, blocks, CIPHER), np.uint8)}


def blinding_summand(site: Site, numbers: Numbers, owner: str, count: int, width: int) -> Elements:
    """The helper's summand (k, c) of an owner's matched rows: minus its blinding, and minus the offset."""
    blocks = -(-width // SLOTS)
    pads = _draw_blinding(site, owner, count, blocks * SLOTS)
    return np.asarray((-pads[:, :width] - (1 << INPUT)) % numbers.p)


def decrypt_summand(site: Site, numbers: Numbers, post: Payload, width: int) -> Elements:
    """This owner's summand (k, c): blinded values of its matched rows, in an order that it cannot tell."""
    scheme, ciphers = _own_scheme(site), np.asarray(post["ciphers"])
    rows = [[int(scheme.decrypt(_cipher(scheme, bytes(c), "the helper"))) for c in row] for row in ciphers]
    mask = (1 << SLOT) - 1
    values = [[word >> SLOT * k & mask for word in row for k in range(SLOTS)][:width] for row in rows]
    return np.asarray(element_array([v for row in values for v in row], (len(rows), width)) % numbers.p)


def _own_scheme(site: Site) -> Any:
    """This owner's key pair, made once and kept."""
    tno = library()

    def make() -> bytes:
        # The library draws its primes from a generator that is not for secrets; OpenSSL's RSA primes are.
        primes = rsa.generate_private_key(public_exponent=65537, key_size=MODULUS).private_numbers()
        n, lambda_ = primes.p * primes.q, (primes.p - 1) * (primes.q - 1)
        return b"".join(v.to_bytes(MODULUS // 8, "little") for v in (n, lambda_, pow(lambda_, -1, n)))

    stored, size = site.keep(f"paillier/{site.session}", make), MODULUS // 8
    n, lambda_, mu = (int.from_bytes(stored[at : at + size], "little") for at in range(0, 3 * size, size))
    return tno.Paillier(tno.PaillierPublicKey(n, n + 1), tno.PaillierSecretKey(lambda_, mu, n))


def _public_scheme(modulus: bytes, owner: str) -> Any:
    n = int.from_bytes(modulus, "little")
    if n.bit_length() != MODULUS or n % 2 == 0:
        raise ProtocolError(
            "CO-P653",
            f"{owner} posted a modulus of {n.bit_length()} bits instead of {MODULUS}. "
            "Ask that site to check its node and version.",
            owner,
        )
    tno = library()
    return tno.Paillier(tno.PaillierPublicKey(n, n + 1), None)


def _rerandomise(scheme: Any, cipher: Any, stream: Keystream) -> bytes:
    """A ciphertext's bytes under fresh randomness r^n, r uniform from the site's own stream."""
    from tno.mpc.encryption_schemes.utils import pow_mod

    n = scheme.public_key.n
    r = int.from_bytes(stream.take(MODULUS // 8 + 16), "little") % n
    cipher.apply_randomness(pow_mod(r, n, n * n))
    return int(cipher.peek_value()).to_bytes(CIPHER, "little")


def _cipher(scheme: Any, raw: bytes, whose: str) -> Any:
    value = int.from_bytes(raw, "little")
    if not 0 < value < int(scheme.public_key.n) ** 2:
        raise ProtocolError(
            "CO-P653",
            f"A ciphertext of {whose} is not below the square of its modulus. "
            "Ask that site to check its node and version.",
            whose,
        )
    return library().PaillierCiphertext(value, scheme)


def _draw_blinding(site: Site, owner: str, count: int, width: int) -> Elements:
    stream = Keystream(site.stream(f"blinding/{owner}", 32))
    return stream.integers(count * width, BLIND).reshape(count, width)


def _pack_rows(values: Elements, bits: int) -> list[list[int]]:
    """Rows (n, c) of integers below 2^bits as plaintexts of SLOTS values each."""
    assert bits < SLOT
    mask = (1 << bits) - 1
    rows = [[int(v) & mask for v in row] for row in values.tolist()]
    cut = [[row[at : at + SLOTS] for at in range(0, len(row), SLOTS)] for row in rows]
    return [[sum(v << SLOT * k for k, v in enumerate(block)) for block in blocks] for blocks in cut]


def _stack_rows(rows: list[list[bytes]]) -> NDArray[np.uint8]:
    return np.stack([np.stack([_bytes(cipher) for cipher in row]) for row in rows])


def _bytes(raw: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(raw, np.uint8)
