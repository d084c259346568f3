"""Whole and fractional numbers as 32-bit words under pairwise masks, for carriers that add words.

Pairwise additive masks after Bonawitz et al., CCS 2017, as in `masked_sum`. Whole numbers are one word, modulo 2^32;
fractional ones four, modulo 2^128 (fixed point). The words of one site are uniformly distributed to anybody without its
keys, and those of all sites together depend on nothing but the sums: a reader of them, or of any sums of them, learns
the sums and no more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core import masked_sum
from coterie_learners.core.protocol import Site
from coterie_learners.errors import DataError, ProtocolError
from coterie_learners.numeric.array import Array

_WORD = 1 << 32
PER_FRACTION = 4


def mask_words(site: Site, topic: str, count: Array, fractions: Array) -> NDArray[np.uint32]:
    """This site's numbers (k,) and (f,) as words (k + 4 f,) under the masks of all other parties."""
    parties = site.parties
    if len(parties) < masked_sum.MIN_PARTIES:
        message = f"Only {len(parties)} sites are left in this sum; each could compute another's share"
        raise ProtocolError("CO-P401", f"{message}. The study must end here.", site.name, topic)
    if np.any(count < 0) or np.any(count >= _WORD / len(parties)):
        largest = float(np.max(count))
        raise DataError("CO-D301", f'A count of {largest:.3g} does not fit the sum. Choose scheme = "masks".')
    narrow = count.astype(np.uint32)
    wide = masked_sum.encode_fixed_point(fractions, masked_sum.LIMIT / len(parties))
    for peer in parties:
        if peer == site.name:
            continue
        pad = site.mask(peer, topic, 4 * len(narrow) + wide.nbytes)
        first = np.frombuffer(pad, "<u4", len(narrow))
        second = np.frombuffer(pad, "<u8", 2 * len(wide), 4 * len(narrow)).reshape(wide.shape)
        adds = site.name < peer
        narrow = narrow + first if adds else narrow - first
        wide = masked_sum.add_words(wide, second if adds else masked_sum.negate_words(second))
    return np.concatenate([narrow, wide.astype("<u8").view("<u4").ravel()])


def unmask_words(sums: NDArray[np.int64], count: int) -> tuple[Array, Array]:
    """The numbers behind sums of words (k + 4 f,), k being `whole`."""
    narrow = (sums[:count] % _WORD).astype(np.float64)
    limbs = sums[count:].reshape(-1, PER_FRACTION)
    wide = np.zeros((len(limbs), 2), dtype=np.uint64)
    for k, column in enumerate(_columns(limbs)):
        wide = masked_sum.add_words(wide, _shift_left(column, 32 * k))
    return narrow, masked_sum.decode_fixed_point(wide)


def _columns(limbs: NDArray[np.int64]) -> Sequence[NDArray[np.uint64]]:
    return list(limbs.astype(np.uint64).T)


def _shift_left(values: NDArray[np.uint64], bits: int) -> masked_sum.Words64:
    """Sums of words (m,), at most 2^40, times 2^bits, modulo 2^128."""
    zero = np.zeros_like(values)
    low, high = {
        0: (values, zero),
        32: (values << np.uint64(32), values >> np.uint64(32)),
        64: (zero, values),
        96: (zero, values << np.uint64(32)),
    }[bits]
    return np.stack([low, high], axis=-1)
