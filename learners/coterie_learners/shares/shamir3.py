"""Three computing parties with Shamir shares: input, products, truncation, opening. Semi-honest; no two may collude.

Shamir (1979) with threshold 1 at the points 1, 2, 3; products by Gennaro, Rabin and Rabin (1998); shares of random
numbers without messages by Cramer, Damgard and Ishai (2005), for which each pair holds a stream; truncation after
Catrina and Saxena (2010) with the mask from such shares, so that it costs one opening and swallows the resharing of the
product before it. Any one party sees uniform elements, or numbers under masks that are 2^40 times as large.

Theory of operation. A value v is shared by a polynomial f with f(0) = v; party k (0, 1, 2) has the share f(k + 1). Any
two shares of degree one give the value, and any single share is uniform. Sums, and products with public numbers, need
no message. Each operation changes the degree as follows:

    operation      degree before   degree after   rounds   each party sends
    deal           (known value)   1              1        the dealer one message; the rest comes from a common stream
    gather         (known value)   1              0        the supplier one message to each computing party
    local product  1 and 1         2              0        nothing
    reshare        2               1              1        one message
    truncate       at most 2       1              1        as `open`
    open           at most 2       (public)       1        one message to each of the two others

Invariants: all three parties call the same operations, in the same order, with the same shapes. The two ends of a
stream then draw the same bytes for the same purpose. Nothing of degree two is multiplied again: reshare or truncate it
first. A masked value stays below the field's prime: |v| < 2^(bits - 1) and p > 2^(SECURITY + bits + 2).

All values are arrays of shares, worked on in one go: a round is one message from each party to its peers, however
many numbers it carries. Shares are integers in and out; inside, what depends on their number is done in limbs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from coterie_learners.errors import ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.limbs import Term, read_limbs
from coterie_learners.shares.field import Elements, PrimeField
from coterie_learners.shares.session import Keystream, Randomness, Session

# Parties that compute.
COMPUTING = 3
# Masks are 2^SECURITY times as large as what they hide.
SECURITY = 40
# Recombination at 0 of polynomials of degree two (and less) from the points 1, 2, 3.
WEIGHTS = (3, -3, 1)


class ThreePartyShamir:
    """One computing party's end; `me` is 0, 1 or 2. `Elements` in and out are this party's shares."""

    def __init__(self, field: PrimeField, session: Session, names: Sequence[str], randomness: Randomness) -> None:
        self.field, self.session, self.names = field, session, tuple(names)
        self.limbs = field.limbs
        self.me = self.names.index(session.me)
        self.own = randomness.own
        self._pair = [randomness.shared.get(name) for name in self.names]

    def stream(self, party: int) -> Keystream:
        """The stream that this party has in common with another."""
        common = self._pair[party]
        assert common is not None
        return common

    def round(self) -> None:
        """Count a round."""
        self.session.rounds += 1

    def send(self, party: int, limbs: Array) -> None:
        """Send residues (limbs, n) to a party."""
        self.session.send(self.names[party], self.limbs.write(limbs))

    def receive(self, party: int, count: int) -> Array:
        """So many residues (limbs, n) from a party; ProtocolError if they are not residues."""
        return self.gather_limbs(self.names[party], count)

    # Input and output

    def deal(self, dealer: int, values: Elements | None, shape: tuple[int, ...]) -> Elements:
        """Shares of what one computing party knows. Half of the message is drawn from a common stream."""
        self.round()
        given = None if values is None else self.field.to_limbs(values)
        return self.field.from_limbs(self.deal_limbs(dealer, given, int(np.prod(shape))), shape)

    def deal_limbs(self, dealer: int, values: Array | None, count: int) -> Array:
        """`deal` of residues (limbs, count), as a part of a round that the caller counts."""
        after, before = (dealer + 1) % 3, (dealer + 2) % 3
        if self.me == before:
            return self.receive(dealer, count)
        if self.me == after:
            return self._uniform(dealer, count)
        assert values is not None
        # The next party draws its share from the common stream, so only the party before the dealer needs a message.
        own_share, other = self._split(values, self._uniform(after, count))
        self.send(before, other)
        return own_share

    def gather(self, name: str, shape: tuple[int, ...]) -> Elements:
        """Shares of what a site that does not compute supplies with `supply`."""
        return self.field.from_limbs(self.gather_limbs(name, int(np.prod(shape))), shape)

    def gather_limbs(self, name: str, count: int) -> Array:
        """So many residues (limbs, count) from a site; ProtocolError if they are not residues."""
        limbs = read_limbs(self.session.receive(name, self.field.width * count), self.field.width)
        if not self.limbs.is_below_prime(limbs):
            message = f"A number is not below the field's prime of {self.field.bits} bits."
            raise ProtocolError("CO-P643", message, name)
        return limbs

    def open(self, shares: Elements, *, exact: bool = False) -> Elements:
        """The values behind shares of degree at most two. `exact`: shares of degree one, whose agreement is checked."""
        return self.field.from_limbs(self.open_limbs(self.field.to_limbs(shares), exact=exact), shares.shape)

    def open_limbs(self, shares: Array, *, exact: bool = False) -> Array:
        """`open` for shares and values as residues (limbs, n)."""
        # The third share of degree one is redundant, and `exact` compares it with the line through the other two.
        self.round()
        peers = [k for k in range(3) if k != self.me]
        for party in peers:
            self.send(party, shares)
        by_party = {self.me: shares} | {party: self.receive(party, shares.shape[1]) for party in peers}
        if exact and np.any(self.limbs.combine([(1, by_party[0]), (-2, by_party[1]), (1, by_party[2])])):
            message = (
                "The parties' shares of a result do not lie on a line: one of them sent a "
                "wrong share. Compare the parties' versions."
            )
            raise ProtocolError("CO-P645", message)
        return self.limbs.combine([(WEIGHTS[k], by_party[k]) for k in range(3)])

    # Products and truncation

    def reshare(self, product: Elements) -> Elements:
        """Shares of degree one of what a local product has as shares of degree two."""
        (shares,) = self.reshare_parts([self.field.to_limbs(product)])
        return self.field.from_limbs(shares, product.shape)

    def reshare_parts(self, products: Iterable[Array]) -> Iterator[Array]:
        """`reshare` of residues (limbs, n) part by part in one round: all are sent before the first is awaited."""
        self.round()
        # Each party deals its share of degree two as a new secret; the weighted sum of these sharings is the product's.
        # What waits is kept as bytes, a third of the limbs' size.
        before, sent = (self.me + 2) % 3, []
        for product in products:
            own_share, other = self._split(product, self._uniform((self.me + 1) % 3, product.shape[1]))
            self.send(before, other)
            sent.append(self.limbs.write(own_share))
        for packed in sent:
            yield self._combine_parts(read_limbs(packed, self.field.width))

    def _combine_parts(self, own_share: Array) -> Array:
        """This party's share of a product, of its own share of what it dealt and those that the others dealt it."""
        after, before = (self.me + 1) % 3, (self.me + 2) % 3
        from_before = self._uniform(before, own_share.shape[1])
        from_after = self.receive(after, own_share.shape[1])
        parts = [(WEIGHTS[self.me], own_share), (WEIGHTS[before], from_before), (WEIGHTS[after], from_after)]
        return self.limbs.combine(parts)

    def truncate(self, shares: Elements, digits: int, bits: int, security: int = SECURITY) -> Elements:
        """v / 2^digits for |v| < 2^(bits - 1), shares of degree at most two. Error within 2 units, its mean zero.

        The masks are 2^security times as large as the values: many values at once deserve more than SECURITY.
        """
        # low and high together mask all bits of v. Zero shares of degree two are added because those of a product are
        # not uniform: opened as they are, they would disclose more than the product.
        low = self._draw(shares.size, digits)
        high = self._draw(shares.size, security + bits - digits)
        zero = self._draw(shares.size, self.field.bits)
        masks = [*low, *((factor << digits, limbs) for factor, limbs in high)]
        masks += [((self.me + 1) * factor, limbs) for factor, limbs in zero]
        masked = self.limbs.combine([(1, self.field.to_limbs(shares)), *masks], 1 << bits - 1)
        opened = self.limbs.shift_right(self.open_limbs(masked), digits)
        unmasked = [(1, opened), *((-factor, limbs) for factor, limbs in high)]
        return self.field.from_limbs(self.limbs.combine(unmasked, -(1 << bits - 1 - digits) - 1), shares.shape)

    def _draw(self, count: int, bits: int) -> list[Term]:
        """Shares of the sum of three integers below 2^bits, each known to two parties; times x, a zero of degree two.

        What party k drew with this one lacks at the third party: its polynomial vanishes there.
        """
        width, terms = (bits + 7) // 8, []
        for party in range(3):
            if party != self.me:
                factor = self._vanishing[3 - self.me - party]
                terms.append((factor, read_limbs(self.stream(party).take(width * count), width, bits)))
        return terms

    @cached_property
    def _vanishing(self) -> list[int]:
        """For each party k, 1 - x / x_k at this party's x."""
        return [(1 - (self.me + 1) * self.field.inverse(k + 1)) % self.field.p for k in range(3)]

    def _uniform(self, party: int, count: int) -> Array:
        """So many uniform numbers (limbs, n) of the stream with a party."""
        return read_limbs(self.stream(party).take(self.field.width * count), self.field.width)

    def _split(self, values: Array, following: Array) -> tuple[Array, Array]:
        """This party's and the preceding one's shares of values, given the following one's; all (limbs, n)."""
        inverse = self.field.inverse((self.me + 1) % 3 + 1)
        own_share, other = ((k + 1) * inverse for k in (self.me, (self.me + 2) % 3))
        return self._draw_line(values, following, own_share), self._draw_line(values, following, other)

    def _draw_line(self, start: Array, end: Array, place: int) -> Array:
        """The value at a place on the line from `start` at 0 to `end` at 1."""
        return self.limbs.combine([(1 - place, start), (place, end)])


def supply(field: PrimeField, session: Session, names: Sequence[str], values: Elements, randomness: Randomness) -> None:
    """Share values with the three computing parties, as a site that does not compute."""
    supply_limbs(field, session, names, field.to_limbs(values), randomness)


def supply_limbs(
    field: PrimeField, session: Session, names: Sequence[str], limbs: Array, randomness: Randomness
) -> None:
    """`supply` of residues (limbs, n)."""
    slope = read_limbs(randomness.own.take(field.width * limbs.shape[1]), field.width)
    for k, name in enumerate(names):
        session.send(name, field.limbs.write(field.limbs.combine([(1, limbs), (k + 1, slope)])))
