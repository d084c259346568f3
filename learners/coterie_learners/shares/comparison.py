"""Signs of shared numbers: which are negative, without any of the three parties learning one.

After the private comparison of Damgard, Geisler and Kroigaard (2007) in the form of SecureNN (Wagh, Gupta, Chandran
2019): the third party masks, the first two see the masked number and compare its low digits with those of the mask,
which they have as additive shares modulo 251; the third learns only whether their answer, flipped by a secret coin, is
yes. Four rounds for any number of values, no shared random bits, and all work on digits is numpy's.

Each party sees: the first two a number under a mask 2^40 times as large and uniform digits; the third, for each number,
uniform non-zero digits with or without one zero at a uniform place, and that by a coin it does not know.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_learners.numeric.limbs import read_limbs
from coterie_learners.shares.field import Elements, bits_of
from coterie_learners.shares.shamir3 import SECURITY, WEIGHTS, ThreePartyShamir

# Digits are shared modulo this prime: more than the digits of any number compared.
Q = 251
MASKER = 2

Digits = NDArray[np.int32]


def negative_shares(trio: ThreePartyShamir, shares: Elements, bits: int, security: int = SECURITY) -> Elements:
    """Shares of [v < 0] (0 or 1) for |v| < 2^(bits - 1); the masks are 2^security times as large as the values."""
    flat = trio.limbs.combine([(1, trio.field.to_limbs(shares))], 1 << bits - 1)
    masker = trio.me == MASKER  # the highest of `bits` digits of `flat` says whether v >= 0
    public, hidden = _mask(trio, flat, bits, security) if masker else _evaluate(trio, flat, bits)
    both = public + hidden - 2 * public * hidden
    return trio.reshare(np.asarray(both % trio.field.p)).reshape(shares.shape)


def _mask(trio: ThreePartyShamir, flat: Array, bits: int, security: int) -> tuple[Elements, Elements]:
    """The third party: masks the sums, deals the mask's digits, looks for a zero; returns shares of both flips."""
    count, width = flat.shape[1], (bits + security + 7) // 8
    raw = trio.own.take(width * count)
    digits = bits_of(raw, width, bits)
    top = digits[:, 0].copy()
    digits[:, 0] = 0
    masked = trio.limbs.combine([(1, _to_additive(trio, flat)), (1, read_limbs(raw, width, bits + security))])
    others = (digits - trio.stream(0).words(digits.shape, Q)) % Q
    trio.round()
    trio.send(0, masked)
    trio.send(1, masked)
    trio.session.send(trio.names[1], others.astype(np.uint8).tobytes())
    trio.round()
    answers = [_receive_digits(trio, k, digits.shape) for k in (0, 1)]
    has_zero = ((answers[0] + answers[1]) % Q == 0).any(axis=1)
    hidden = trio.deal(MASKER, (top ^ has_zero).astype(object), (count,))
    return np.zeros(count, dtype=object), hidden


def _evaluate(trio: ThreePartyShamir, flat: Array, bits: int) -> tuple[Elements, Elements]:
    """The first two parties: see the masked sums, compare their digits with the shared ones; return the same."""
    other, count = 1 - trio.me, flat.shape[1]
    own_summand = _to_additive(trio, flat)
    mask_digits = trio.stream(MASKER).words((count, bits), Q) if trio.me == 0 else None
    trio.round()
    trio.send(other, own_summand)
    masked = trio.limbs.combine([(1, own_summand), (1, trio.receive(other, count)), (1, trio.receive(MASKER, count))])
    if mask_digits is None:
        mask_digits = _receive_digits(trio, MASKER, (count, bits))
    coin = trio.stream(other).words((count,), 2)
    packed = trio.limbs.write(masked)
    top = bits_of(packed, trio.field.width, bits)[:, 0]
    low = read_limbs(packed, trio.field.width, bits - 1)
    low = trio.limbs.combine([(1, low), (1, coin[None].astype(np.float64))])
    answer = _compare_digits(trio, bits_of(trio.limbs.write(low), trio.field.width, bits), mask_digits, coin)
    trio.round()
    trio.session.send(trio.names[MASKER], answer.astype(np.uint8).tobytes())
    hidden = trio.deal(MASKER, None, (count,))
    # Shares of what the first two know, without a message: the polynomial that is zero at the third party's point.
    flip = (top ^ coin ^ 1).astype(object)
    weight = (1 - (trio.me + 1) * trio.field.inverse(MASKER + 1)) % trio.field.p
    return np.asarray(flip * weight % trio.field.p), hidden


def _compare_digits(trio: ThreePartyShamir, masked_digits: Digits, mask_digits: Digits, coin: Digits) -> Digits:
    """This party's shares of hidden digits; one digit is zero if mask > seen (coin 0) or mask < seen (coin 1).

    Digit i is zero if the digits differ there in the wanted way and nowhere before; it is multiplied by a random factor
    and rotated by a random number of places, both known to the first two parties only.
    """
    first = 1 if trio.me == 0 else 0
    sign = (1 - 2 * coin)[:, None]
    differ = first * masked_digits + mask_digits - 2 * masked_digits * mask_digits
    digits = sign * (first * masked_digits - mask_digits) + first + np.cumsum(differ, axis=1) - differ
    stream = trio.stream(1 - trio.me)
    digits = (digits % Q) * (stream.words(masked_digits.shape, Q - 1) + 1) % Q
    width = masked_digits.shape[1]
    places = (np.arange(width) + stream.words((len(masked_digits), 1), width)) % width
    return np.asarray(np.take_along_axis(digits, places, axis=1))


def _to_additive(trio: ThreePartyShamir, flat: Array) -> Array:
    """Uniform summands of the shared numbers (limbs, n), one at each party."""
    terms, width = [(WEIGHTS[trio.me], flat)], trio.field.width
    for party in range(3):
        if party != trio.me:
            drawn = read_limbs(trio.stream(party).take(width * flat.shape[1]), width)
            terms.append((1 if trio.me < party else -1, drawn))
    return trio.limbs.combine(terms)


def _receive_digits(trio: ThreePartyShamir, party: int, shape: tuple[int, ...]) -> Digits:
    raw = trio.session.receive(trio.names[party], int(np.prod(shape)))
    return np.frombuffer(raw, np.uint8).astype(np.int32).reshape(shape)
