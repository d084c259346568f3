"""Elements of a prime field as limbs of 24 bits in float64: arrays of large numbers at the speed of numpy and BLAS.

Limbs are the rows of an array (limbs, n), the lowest first, and lie in [0, 2^24). A product of two limbs is below 2^48.
Sums of at most 32 such products are below 2^53, so every float is exact whatever the order of a sum. Numbers of more
limbs than the field has are folded back with 2^bits = gap modulo the prime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array

_BYTES, _LIMB = 3, 24
_BASE = float(1 << _LIMB)
# Products of two limbs that one sum may have; numbers that are worked on at once, so that they stay in the cache.
_MOST, _BLOCK = 32, 4096

# A number's factor and its limbs.
Term = tuple[int, Array]


class LimbField:
    """Arithmetic modulo the prime 2^bits - gap, whose gap is below 512, on limbs (limbs, n)."""

    def __init__(self, bits: int, gap: int) -> None:
        self.bits, self.gap, self.p = bits, gap, (1 << bits) - gap
        self.width = bits // 8
        self.size = -(-bits // _LIMB)
        self._fold = float(self.gap << _LIMB * self.size - bits)
        self._top = 2.0 ** (bits - _LIMB * (self.size - 1))

    def write(self, limbs: Array) -> bytes:
        """Residues below the prime as little-endian integers of `width` bytes each."""
        return write_limbs(limbs, self.width)

    def is_below_prime(self, limbs: Array) -> bool:
        """Whether all numbers of `size` limbs are below the prime."""
        return not np.any(self._reaches_prime(limbs))

    def combine(self, terms: Sequence[Term], constant: int = 0) -> Array:
        """The sum of integer multiples of numbers, and a constant, below the prime (limbs, n)."""
        count = terms[0][1].shape[1]
        groups = _group_terms([(_shorten(factor, self.p), limbs) for factor, limbs in terms])
        longest = max(len(_split_constant(factor)) + len(limbs) for group in groups for factor, limbs in group)
        rows = max(self.size + 1, longest)
        added = np.array(_split_constant(constant % self.p), dtype=np.float64)[:, None]

        def sum_block(block: slice) -> Array:
            wide = np.zeros((rows, block.stop - block.start))
            wide[: len(added)] = added
            for group in groups:
                matrix = np.concatenate([_multiplier(factor, len(limbs), rows) for factor, limbs in group], 1)
                wide += matrix @ np.concatenate([limbs[:, block] for _, limbs in group])
                _carry(wide)
            return self._reduce(wide)

        return _in_blocks(count, self.size, sum_block)

    def multiply(self, a: Array, b: Array) -> Array:
        """Products below the prime of numbers (limbs, n) of `size` limbs each."""

        def multiply_block(block: slice) -> Array:
            left, right = a[:, block], b[:, block]
            wide = np.zeros((2 * self.size, left.shape[1]))
            part = np.empty_like(right)
            for at in range(self.size):
                np.multiply(left[at], right, out=part)
                wide[at : at + self.size] += part
            _carry(wide)
            return self._reduce(wide)

        return _in_blocks(a.shape[1], self.size, multiply_block)

    def shift_right(self, limbs: Array, digits: int) -> Array:
        """Numbers without their lowest binary digits (size, n)."""
        skip, rest = divmod(digits, _LIMB)
        kept, out = limbs[skip:], np.zeros_like(limbs)
        out[: len(kept)] = high = np.floor(kept * 2.0**-rest)
        out[: max(len(kept) - 1, 0)] += (kept[1:] - high[1:] * 2.0**rest) * 2.0 ** (_LIMB - rest)
        return out

    def _reduce(self, wide: Array) -> Array:
        """Residues below the prime (size, n) of sums with more limbs; all limbs but the last are below 2^24."""
        low, high = wide[: self.size], wide[self.size :]
        low[: len(high)] += self._fold * high
        _carry(low)
        # The first fold leaves at most one multiple of 2^bits too many or too few, the second none. Both are done
        # whatever the numbers are, so that the work does not depend on them.
        for _ in range(2):
            over = np.floor(low[-1] / self._top)
            low[-1] -= over * self._top
            low[0] += over * self.gap
            _carry(low)
        # What is left at or beyond the prime differs from it in its lowest limb alone.
        beyond = self._reaches_prime(low)
        low[0] -= beyond * (_BASE - self.gap)
        low[1:] *= ~beyond
        return low

    def _reaches_prime(self, limbs: Array) -> NDArray[np.bool_]:
        """Which numbers of `size` limbs are at least the prime: all limbs are full up to the gap (n,)."""
        full = np.all(limbs[1:-1] == _BASE - 1.0, axis=0) & (limbs[0] >= _BASE - self.gap)
        return np.asarray((full & (limbs[-1] >= self._top - 1.0)) | (limbs[-1] >= self._top))


def read_limbs(raw: bytes, width: int, bits: int | None = None) -> Array:
    """Limbs (limbs, n) of little-endian integers of `width` bytes each; `bits`: only their lowest binary digits."""
    size, count = -(-width // _BYTES), len(raw) // width
    padded = raw + bytes(width + _BYTES + 1)
    out = np.empty((size, count))
    for at in range(size):
        # Four bytes; the limb has the first three of them, or as many as the number has left.
        words: np.ndarray[tuple[int], np.dtype[np.uint32]] = np.ndarray((count,), "<u4", padded, _BYTES * at, (width,))
        digits = max(0, min(_LIMB, 8 * width - _LIMB * at, 8 * width if bits is None else bits - _LIMB * at))
        out[at] = words & np.uint32((1 << digits) - 1)
    return out


def write_limbs(limbs: Array, width: int) -> bytes:
    """Numbers below 2^(8 width) as little-endian integers of `width` bytes each."""
    size, count = limbs.shape
    out = bytearray(width * count)
    for at in range(size - 1 if count else 0):
        # Each limb is written with one zero byte, which the next one takes back.
        words: np.ndarray[tuple[int], np.dtype[np.uint32]] = np.ndarray((count,), "<u4", out, _BYTES * at, (width,))
        words[:] = limbs[at]
    last, tail = limbs[-1].astype(np.uint32), np.frombuffer(out, np.uint8).reshape(count, width)
    for at in range(_BYTES * (size - 1), width):
        tail[:, at] = last & 0xFF
        last >>= 8
    return bytes(out)


def _carry(wide: Array) -> None:
    """Bring all limbs but the last into [0, 2^24), in place; the last may be of any size and sign."""
    carry = np.empty_like(wide[0])
    for limb, following in pairwise(wide):
        np.multiply(limb, 1.0 / _BASE, out=carry)
        np.floor(carry, out=carry)
        following += carry
        carry *= _BASE
        limb -= carry


def _in_blocks(count: int, size: int, work: Callable[[slice], Array]) -> Array:
    """work(block) (size, n) for blocks of numbers, side by side."""
    out = np.empty((size, count))
    for at in range(0, count, _BLOCK):
        block = slice(at, min(at + _BLOCK, count))
        out[:, block] = work(block)
    return out


def _shorten(factor: int, p: int) -> int:
    """The factor modulo the prime, of the sign that makes it small."""
    residue = factor % p
    return residue - p if residue > p // 2 else residue


def _split_constant(value: int) -> list[int]:
    """Limbs of an integer of any sign, at least one."""
    sign, rest = (-1, -value) if value < 0 else (1, value)
    out = [sign * (rest & (1 << _LIMB) - 1)]
    while rest := rest >> _LIMB:
        out.append(sign * (rest & (1 << _LIMB) - 1))
    return out


def _group_terms(terms: Sequence[Term]) -> list[list[Term]]:
    """Terms in groups whose sums have at most _MOST products of two limbs."""
    groups: list[list[Term]] = [[]]
    total = 0
    for factor, limbs in terms:
        products = min(len(_split_constant(factor)), len(limbs))
        if total + products > _MOST:
            groups.append([])
            total = 0
        groups[-1].append((factor, limbs))
        total += products
    return groups


@lru_cache(maxsize=4096)
def _multiplier(factor: int, limbs: int, rows: int) -> Array:
    """The matrix (rows, limbs) that multiplies numbers by a factor, without carries."""
    out = np.zeros((rows, limbs))
    for at, value in enumerate(_split_constant(factor)):
        for column in range(limbs):
            out[at + column, column] = value
    return out
