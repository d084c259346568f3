"""Sums over sites whose parts never leave a site unmasked.

Pairwise additive masks after Bonawitz et al., CCS 2017 (doi:10.1145/3133956.3133982), without their dropout recovery:
a site that vanishes makes the ledger open a new attempt with fresh masks. Values are 128-bit fixed point (64 bits of
fraction, modulo 2^128), masks come from ChaCha20 under a key that two sites share, so each number a site posts is
uniformly distributed to anybody without that site's keys. The sum is exact: it does not depend on the order of the
sites and replays bit for bit.

Theory of operation. One sum goes through these states:

    state     what it is                                  who can read it
    share     a site's own numbers, floats                this site
    encoded   fixed point, two 64-bit words per number    this site
    masked    encoded, plus a pad for each other party    everybody; it is uniform without this site's keys
    total     all masked posts added                      everybody; the pads have cancelled

Of a pair of sites, the one with the smaller name adds the pad and the other one subtracts it. So the pads cancel if,
and only if, all parties of one attempt are in the sum. These invariants must hold:

- All sites put the named arrays in sorted order, so that the same number stands at the same place.
- A share is below `LIMIT` divided by the number of parties, so that no total leaves the range of the words.
- A pad covers one value. Its label holds the run, the study, the topic and the attempt.

Leaves the site: 16 uniformly distributed bytes per number. Known after the step: the sum over the parties, and what
follows from it (with two parties each learns the other's share, so at least three are asked for).
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.payload import Field, Payload, Schema
from coterie_learners.core.protocol import Posts, Site
from coterie_learners.errors import DataError, ProtocolError, TooFewSites
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array

MIN_PARTIES = 3
# The words hold sums up to this; a site's share is bounded by this over the number of parties.
LIMIT = 2.0**63
FRACTION = 2.0**64
# A number of one site is off by at most half of this.
UNIT = 1.0 / FRACTION
# The same for large sums of standardised values.
SHORT_LIMIT, SHORT_FRACTION = 2.0**22, 2.0**40
# No number of patients comes near this.
MOST_PATIENTS = 2.0**52

# Many short terms are added at once: fewer, or longer ones, are quicker one by one.
_STACKED_TERMS, _STACKED_SIZE, _FEW_TERMS = 256, 512, 16
_HALF, _HALF_BITS = np.uint64(0xFFFFFFFF), np.uint64(32)

Words64 = NDArray[np.uint64]
Shapes = Mapping[str, tuple[int, ...]]


def mask_sums(site: Site, topic: str, sums: Mapping[str, Array]) -> Payload:
    """This site's sums under the masks of all other parties: {"masked": (size, 2) uint64}, names in sorted order."""
    if len(site.parties) < MIN_PARTIES:
        raise TooFewSites(
            "CO-P401",
            f"Only {len(site.parties)} sites are left in this masked sum; each could compute another's share. "
            "The study ends here. Propose it again with three sites or more.",
            site.name,
            topic,
        )
    values = join_sums(sums)
    # The range is checked before the masks: afterwards an overflow would be invisible.
    words = encode_fixed_point(values, LIMIT / len(site.parties))
    pads = {peer: site.mask(peer, topic, words.nbytes) for peer in site.parties if peer != site.name}
    subtracted = _sum_pads(words.shape[0], [pad for peer, pad in pads.items() if site.name > peer])
    added = _sum_pads(words.shape[0], [pad for peer, pad in pads.items() if site.name < peer])
    return {"masked": sum_words(words.shape[0], (words, negate_words(subtracted), added))}


def unmask_sums(posts: Posts, shapes: Shapes) -> dict[str, Array]:
    """The sums over all parties, by name, from what `mask_sums` made at each."""
    masked = tuple([np.asarray(payload["masked"], dtype=np.uint64) for payload in posts.values()])
    return split_sums(decode_fixed_point(_SUMS.add(size_of(shapes), masked)), shapes)


def join_sums(sums: Mapping[str, Array]) -> Array:
    """Named sums as one vector (size,), in the order of their names."""
    return np.concatenate([np.ravel(sums[name]) for name in sorted(sums)])


def split_sums(values: Array, shapes: Shapes) -> dict[str, Array]:
    """The inverse of that."""
    ends = list(itertools.accumulate(math.prod(shapes[name]) for name in sorted(shapes)))
    parts = np.split(values, ends[:-1])
    return {name: part.reshape(shapes[name]) for name, part in zip(sorted(shapes), parts, strict=True)}


def form_masked_field(shapes: Shapes) -> Field:
    """Form of the field "masked" for sums of these shapes."""
    return Field("<u8", (size_of(shapes), 2))


def size_of(shapes: Shapes) -> int:
    """How many numbers the shapes hold."""
    return sum(math.prod(shape) for shape in shapes.values())


def mask_short(site: Site, topic: str, values: Array, peers: Sequence[str]) -> NDArray[np.uint64]:
    """Values as 64-bit fixed point (40 bits of fraction) under pairwise masks with `peers`, for large sums.

    Unlike `mask_sums` it is for a sum whose reader is no party, so that two parties are enough.
    """
    if not np.all(np.abs(values) < SHORT_LIMIT / (len(peers) + 1)):
        message = f"A value of {np.max(np.abs(values)):.3g} does not fit the secure sum's range"
        advice = "Narrow the declared ranges, or declare the variables in larger units."
        raise DataError("CO-D301", f"{message} of {SHORT_LIMIT:.1g}. {advice}")
    total = np.rint(values * SHORT_FRACTION).astype(np.int64).view(np.uint64)
    for peer in peers:
        pad = np.frombuffer(site.mask(peer, topic, total.nbytes), "<u8").reshape(total.shape)
        total = total + pad if site.name < peer else total - pad
    return total


def unmask_short(parts: Iterable[NDArray[np.uint64]]) -> Array:
    """The sum of what `mask_short` made at each party."""
    total: NDArray[np.uint64] = np.sum(np.stack(list(parts)), axis=0, dtype=np.uint64)
    return np.asarray(total.view(np.int64) / SHORT_FRACTION, dtype=np.float64)


def encode_fixed_point(values: Array, limit: float = LIMIT) -> Words64:
    """Floats (k,) as 128-bit two's complement fixed point (k, 2): low word, high word. Error at most 2^-65."""
    magnitude = np.abs(values)
    if not np.all(magnitude < limit):
        message = f"A sum of {np.max(magnitude):.3g} does not fit the secure sum's range of {limit:.1g} for each site."
        raise DataError("CO-D301", f"{message} Narrow the declared ranges, or declare the variables in larger units.")
    # floor, difference and the factor 2^64 are exact in floats; only `rint` rounds.
    high = np.floor(magnitude)
    low = np.rint((magnitude - high) * FRACTION)
    words = np.stack([low.astype(np.uint64), high.astype(np.uint64)], axis=-1)
    return np.where((values < 0)[:, None], negate_words(words), words)


def decode_fixed_point(words: Words64) -> Array:
    """The inverse of `encode_fixed_point`: the nearest float, up to one rounding of each word."""
    negative = words[:, 1] >> np.uint64(63) == 1
    magnitude = np.where(negative[:, None], negate_words(words), words)
    values = magnitude[:, 1].astype(np.float64) + magnitude[:, 0].astype(np.float64) / FRACTION
    return np.where(negative, -values, values)


def add_words(a: Words64, b: Words64) -> Words64:
    """Sum modulo 2^128."""
    # Unsigned words wrap, so a low word below one of its summands has a carry.
    low = a[:, 0] + b[:, 0]
    carry = (low < a[:, 0]).astype(np.uint64)
    return np.stack([low, a[:, 1] + b[:, 1] + carry], axis=-1)


def sum_words(size: int, terms: Iterable[Words64]) -> Words64:
    """Sum of terms (size, 2) modulo 2^128; zeros of none."""
    low, high = np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.uint64)
    coming, at_once = iter(terms), _STACKED_TERMS if size <= _STACKED_SIZE else 1
    while part := list(itertools.islice(coming, at_once)):
        for term in part if len(part) < _FEW_TERMS else (_sum_stack(np.stack(part)),):
            low += term[:, 0]
            high += term[:, 1]
            high += low < term[:, 0]
    return np.stack([low, high], axis=-1)


def _sum_pads(size: int, pads: Sequence[bytes]) -> Words64:
    """Sum of pads of `size` numbers modulo 2^128; short ones are put behind each other and added at once."""
    if size > _STACKED_SIZE or len(pads) < _FEW_TERMS:
        return sum_words(size, (np.frombuffer(pad, "<u8").reshape(size, 2) for pad in pads))
    parts = (b"".join(pads[at : at + _STACKED_TERMS]) for at in range(0, len(pads), _STACKED_TERMS))
    return sum_words(size, (_sum_stack(np.frombuffer(part, "<u8").reshape(-1, size, 2)) for part in parts))


class FinishedSums:
    """The last sums of masked posts: parties in one process that read the same arrays get the sum that the first made.

    The same arrays are the same objects, and over bytes, which cannot change. Any other array is added again. At most
    `most_bytes` of arrays are kept alive (`kept_bytes`).
    """

    def __init__(self, most_bytes: int) -> None:
        self._known: OrderedDict[tuple[int, ...], tuple[tuple[Words64, ...], Words64]] = OrderedDict()
        self._most_bytes, self.kept_bytes = most_bytes, 0
        self._lock = Lock()

    def add(self, size: int, terms: tuple[Words64, ...]) -> Words64:
        """Sum of terms (size, 2) modulo 2^128."""
        key = (size, *map(id, terms))
        # What is known keeps its arrays alive, so that no other object can have their ids.
        known = self._known.get(key)
        if known is not None:
            return known[1]
        total = sum_words(size, terms)
        if sum(term.nbytes for term in terms) <= self._most_bytes and all(map(_is_over_bytes, terms)):
            total.flags.writeable = False
            with self._lock:
                self._keep(key, terms, total)
        return total

    def _keep(self, key: tuple[int, ...], terms: tuple[Words64, ...], total: Words64) -> None:
        if key in self._known:
            return
        self._known[key] = terms, total
        self.kept_bytes += sum(term.nbytes for term in terms)
        while self.kept_bytes > self._most_bytes:
            _, (oldest, _) = self._known.popitem(last=False)
            self.kept_bytes -= sum(term.nbytes for term in oldest)


# The posts of two rounds of two hundred sites and ten columns.
_SUMS = FinishedSums(1 << 20)


def _is_over_bytes(array: Words64) -> bool:
    """Whether an array lies over a byte string, so that nobody can write to it."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return type(base) is bytes


def _sum_stack(terms: NDArray[np.uint64]) -> Words64:
    """The same of at most 2^32 - 1 terms (k, size, 2) at once: halves of words have room for their carries."""
    low, high = terms[:, :, 0], terms[:, :, 1]
    first = np.sum(low & _HALF, axis=0, dtype=np.uint64)
    second = np.sum(low >> _HALF_BITS, axis=0, dtype=np.uint64) + (first >> _HALF_BITS)
    words = (first & _HALF) | (second << _HALF_BITS)
    return np.stack([words, np.sum(high, axis=0, dtype=np.uint64) + (second >> _HALF_BITS)], axis=-1)


def negate_words(a: Words64) -> Words64:
    """Negative modulo 2^128."""
    low = ~a[:, 0] + np.uint64(1)
    carry = (low == 0).astype(np.uint64)
    return np.stack([low, ~a[:, 1] + carry], axis=-1)


@dataclass(frozen=True)
class SiteSums:
    """The form of one step's sums: their names with shapes, and whether only the sum over the sites may exist."""

    shapes: Mapping[str, tuple[int, ...]]
    masked: bool

    @property
    def form(self) -> Schema:
        """Form of one site's post."""
        if self.masked:
            return Schema({"masked": form_masked_field(self.shapes)})
        return Schema({name: Field("<f8", shape) for name, shape in self.shapes.items()})

    def post(self, site: Site, topic: str, sums: Mapping[str, Array]) -> Payload:
        """One site's post of its sums."""
        own = {name: np.asarray(sums[name], dtype=np.float64) for name in self.shapes}
        return mask_sums(site, topic, own) if self.masked else own

    def add(self, posts: Posts) -> dict[str, Array]:
        """The sums over all sites; of plain posts each is rounded once, whatever the order of the sites."""
        if self.masked:
            return unmask_sums(posts, self.shapes)
        return {name: linalg.total([np.asarray(post[name]) for post in posts.values()]) for name in self.shapes}


def check_patient_counts(name: str, values: Array) -> None:
    """ProtocolError for counts that no patients can give."""
    if np.any(values < 0) or np.any(values != np.rint(values)) or np.any(values > MOST_PATIENTS):
        raise ProtocolError("CO-P503", f"The counts {name!r} hold {values.min():.6g}, which no patients can give.")
