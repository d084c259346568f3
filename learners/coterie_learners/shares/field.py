"""Prime fields whose elements hold fixed-point numbers and their shares: arithmetic, bytes, exact Gram matrices.

Elements are Python integers in numpy object arrays: an exact product of 160-bit numbers costs some 100 ns, and nothing
can overflow unseen. A Gram matrix, the one product whose size grows with the rows, is taken in 16-bit limbs by BLAS:
products of limbs are below 2^32 and their sums over fewer than 2^21 rows below 2^53, so every float is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.limbs import LimbField, read_limbs

Elements = NDArray[np.object_]

# The largest prime below 2^bits is 2^bits minus this.
PRIMES = {112: 75, 128: 159, 144: 83, 160: 47, 176: 233, 192: 237, 208: 299, 224: 63, 240: 467, 256: 189}
LIMB = 16
# Numbers of float64 that a Gram matrix holds at once (64 MiB).
CHUNK = 1 << 23
# What one limb of `LimbField` counts to.
HALF = float(1 << 24)


@dataclass(frozen=True)
class PrimeField:
    """The integers modulo the largest prime below 2^bits. Uniform bytes are uniform elements up to 2^-100."""

    bits: int

    @classmethod
    def of_size(cls, bits: int) -> PrimeField:
        """The smallest field of at least so many bits; StudyError if the numbers of a study need a larger one."""
        fitting = [size for size in PRIMES if size >= bits]
        if not fitting:
            message = f"This study's numbers need a field of {bits} bits; the largest has {max(PRIMES)}"
            raise StudyError("CO-S545", f"{message}. Take fewer columns or folds, or a smaller penalty.")
        return cls(fitting[0])

    @cached_property
    def p(self) -> int:
        """The prime."""
        return (1 << self.bits) - PRIMES[self.bits]

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return self.bits // 8

    def pack(self, elements: Elements) -> bytes:
        """Elements (any shape) as bytes, little-endian, in C order."""
        width, p = self.width, self.p
        return b"".join([(x % p).to_bytes(width, "little") for x in elements.ravel().tolist()])

    def unpack(self, raw: bytes, shape: tuple[int, ...]) -> Elements:
        """The inverse of pack for bytes from a peer; ProtocolError if they are no elements."""
        elements = self.integers(raw, self.width, shape)
        if elements.size and max(elements.ravel().tolist()) >= self.p:
            raise ProtocolError("CO-P643", f"A number is not below the field's prime of {self.bits} bits.")
        return elements

    def uniform(self, raw: bytes, shape: tuple[int, ...]) -> Elements:
        """Uniform elements of uniform bytes, `width` for each."""
        return self.integers(raw, self.width, shape)

    def integers(self, raw: bytes, width: int, shape: tuple[int, ...]) -> Elements:
        """Integers of `width` bytes each, as an array of this shape; ProtocolError if the bytes are of another size."""
        if len(raw) != width * int(np.prod(shape)):
            raise ProtocolError("CO-P643", f"{len(raw)} bytes do not hold an array of shape {shape}.")
        read = int.from_bytes
        return element_array([read(raw[at : at + width], "little") for at in range(0, len(raw), width)], shape)

    @cached_property
    def limbs(self) -> LimbField:
        """Arithmetic on whole arrays of residues as limbs."""
        return LimbField(self.bits, PRIMES[self.bits])

    def to_limbs(self, elements: Elements) -> Array:
        """Residues (limbs, n) of elements of any shape."""
        return read_limbs(self.pack(elements), self.width)

    def from_limbs(self, limbs: Array, shape: tuple[int, ...]) -> Elements:
        """The inverse of to_limbs."""
        return self.integers(self.limbs.write(limbs), self.width, shape)

    def encode_limbs(self, values: Array, fraction: int) -> Array:
        """Floats of any shape as residues (limbs, n) with `fraction` binary digits behind the point.

        Magnitudes stay below 2^52 with these digits.
        """
        scaled = np.rint(np.ldexp(np.asarray(values, dtype=np.float64).ravel(), fraction))
        high = np.floor(scaled / HALF)
        return self.limbs.combine([(1, np.stack([scaled - high * HALF, high]))])

    def sum_rows(self, limbs: Array, width: int) -> Elements:
        """Sums (width,) over rows of residues (limbs, rows * width); fewer than 2^28 rows."""
        sums = limbs.reshape(len(limbs), -1, width).sum(axis=1)
        return self.from_limbs(self.limbs.combine([(1, sums)]), (width,))

    def encode(self, values: Array, fraction: int) -> Elements:
        """Floats as elements with `fraction` binary digits behind the point."""
        scaled = np.rint(np.ldexp(np.asarray(values, dtype=np.float64), fraction))
        return np.asarray(element_array([int(v) for v in scaled.ravel().tolist()], scaled.shape) % self.p)

    def to_signed(self, elements: Elements) -> Elements:
        """Elements as integers of both signs."""
        residues, half = elements % self.p, self.p // 2
        return element_array([x - self.p if x > half else x for x in residues.ravel().tolist()], residues.shape)

    def decode(self, elements: Elements, fraction: int) -> Array:
        """The inverse of encode."""
        residues = self.to_signed(elements)
        return np.array([x / 2**fraction for x in residues.ravel().tolist()], dtype=np.float64).reshape(residues.shape)

    def inverse(self, x: int) -> int:
        """1/x."""
        return pow(x, -1, self.p)

    def gram(self, z: Elements) -> Elements:
        """Z'Z (m, m) of elements (n, m), exactly."""
        return self.cross_gram(z, z)

    def cross_gram(self, a: Elements, b: Elements) -> Elements:
        """A'B (k, m) of elements (n, k) and (n, m), exactly."""
        return self.multiply_packed(self.pack(a), self.pack(b), a.shape[1], b.shape[1])

    def multiply_packed(self, a: bytes, b: bytes, k: int, m: int) -> Elements:
        """`cross_gram` of elements as bytes."""
        limbs, count = self.bits // LIMB, len(a) // (self.width * k)
        step = min(max(1, CHUNK // (max(k, m) * limbs)), (1 << 21) - 1)
        left, right = (np.frombuffer(raw, "<u2").reshape(count, -1) for raw in (a, b))
        out = constant_elements(0, (k, m))
        for at in range(0, count, step):
            rows = slice(at, at + step)
            products = left[rows].astype(np.float64).T @ right[rows].astype(np.float64)
            out = out + _recombine_limbs(products.reshape(k, limbs, m, limbs))
        return np.asarray(out % self.p)


def _recombine_limbs(products: Array) -> Elements:
    """Sums of products of limbs (m, k, n, k) as integers (m, n)."""
    m, k, n = products.shape[:3]
    exact = products.astype(np.int64)
    out = element_array([0] * (m * n), (m, n))
    for power in range(2 * k - 1):
        low = max(0, power - k + 1)
        column = sum(exact[:, a, :, power - a].astype(object) for a in range(low, min(power, k - 1) + 1))
        out = out + (column << LIMB * power)
    return out


def element_array(values: list[int], shape: tuple[int, ...]) -> Elements:
    """Python integers as an array of this shape."""
    flat: Elements = np.empty(len(values), dtype=object)
    flat[:] = values
    return flat.reshape(shape)


def constant_elements(value: int, shape: tuple[int, ...]) -> Elements:
    """One integer everywhere."""
    return np.full(shape, value, dtype=object)


def bits_of(raw: bytes, width: int, count: int) -> NDArray[np.int32]:
    """The lowest `count` binary digits of little-endian integers of `width` bytes each, highest first: (n, count)."""
    digits = np.unpackbits(np.frombuffer(raw, np.uint8).reshape(-1, width), axis=1, count=count, bitorder="little")
    return digits[:, ::-1].astype(np.int32)
