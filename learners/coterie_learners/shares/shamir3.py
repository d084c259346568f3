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
many numbers it carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from coterie_learners.errors import ProtocolError
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

    def send(self, party: int, elements: Elements) -> None:
        """Send elements to a party."""
        self.session.send(self.names[party], self.field.pack(elements))

    def receive(self, party: int, shape: tuple[int, ...]) -> Elements:
        """Elements of this shape from a party."""
        size = self.field.width * int(np.prod(shape))
        return self.field.unpack(self.session.receive(self.names[party], size), shape)

    # Input and output

    def deal(self, dealer: int, values: Elements | None, shape: tuple[int, ...]) -> Elements:
        """Shares of what one computing party knows. Half of the message is drawn from a common stream."""
        self.round()
        after, before = (dealer + 1) % 3, (dealer + 2) % 3
        if self.me == before:
            return self.receive(dealer, shape)
        if self.me == after:
            return self._uniform(dealer, shape)
        assert values is not None
        # The next party draws its share from the common stream, so only the party before the dealer needs a message.
        own_share, other = self._split(values, self._uniform(after, shape))
        self.send(before, other)
        return own_share

    def gather(self, name: str, shape: tuple[int, ...]) -> Elements:
        """Shares of what a site that does not compute supplies with `supply`."""
        size = self.field.width * int(np.prod(shape))
        return self.field.unpack(self.session.receive(name, size), shape)

    def open(self, shares: Elements, *, exact: bool = False) -> Elements:
        """The values behind shares of degree at most two. `exact`: shares of degree one, whose agreement is checked."""
        # The third share of degree one is redundant, and `exact` compares it with the line through the other two.
        self.round()
        peers = [k for k in range(3) if k != self.me]
        for party in peers:
            self.send(party, shares)
        shares_by_party = {self.me: shares} | {party: self.receive(party, shares.shape) for party in peers}
        if exact and np.any((shares_by_party[0] - 2 * shares_by_party[1] + shares_by_party[2]) % self.field.p != 0):
            message = (
                "The parties' shares of a result do not lie on a line: one of them sent a "
                "wrong share. Compare the parties' versions."
            )
            raise ProtocolError("CO-P645", message)
        return np.asarray(sum(WEIGHTS[k] * shares_by_party[k] for k in range(3)) % self.field.p)

    # Products and truncation

    def reshare(self, product: Elements) -> Elements:
        """Shares of degree one of what a local product has as shares of degree two."""
        self.round()
        # Each party deals its share of degree two as a new secret; the weighted sum of these sharings is the product's.
        own_share, other = self._split(product, self._uniform((self.me + 1) % 3, product.shape))
        self.send((self.me + 2) % 3, other)
        return self._combine_parts(own_share)

    def _combine_parts(self, own_share: Elements) -> Elements:
        """This party's share of a product, of its own share of what it dealt and those that the others dealt it."""
        after, before = (self.me + 1) % 3, (self.me + 2) % 3
        from_before = self._uniform(before, own_share.shape)
        from_after = self.receive(after, own_share.shape)
        parts = WEIGHTS[self.me] * own_share + WEIGHTS[before] * from_before + WEIGHTS[after] * from_after
        return np.asarray(parts % self.field.p)

    def reshare_parts(self, products: Iterable[Elements]) -> Iterator[Elements]:
        """`reshare` part by part in one round: all parts are sent before the first is awaited, and kept as bytes."""
        self.round()
        before = (self.me + 2) % 3
        sent = []
        for product in products:
            own_share, other = self._split(product, self._uniform((self.me + 1) % 3, product.shape))
            self.send(before, other)
            sent.append((product.shape, self.field.pack(own_share)))
        for shape, packed in sent:
            yield self._combine_parts(self.field.uniform(packed, shape))

    def truncate(self, shares: Elements, digits: int, bits: int, security: int = SECURITY) -> Elements:
        """v / 2^digits for |v| < 2^(bits - 1), shares of degree at most two. Error within 2 units, its mean zero.

        The masks are 2^security times as large as the values: many values at once deserve more than SECURITY.
        """
        # low and high together mask all bits of v. Zero shares of degree two are added because those of a product are
        # not uniform: opened as they are, they would disclose more than the product.
        low = self._random(shares.size, digits)
        high = self._random(shares.size, security + bits - digits)
        masked = shares.ravel() + (1 << bits - 1) + low + (high << digits) + self._zero(shares.size)
        opened = self.open(masked % self.field.p)
        return np.asarray(((opened >> digits) - high - (1 << bits - 1 - digits) - 1) % self.field.p).reshape(
            shares.shape
        )

    def _random(self, count: int, bits: int) -> Elements:
        """Shares of the sum of three integers below 2^bits, each known to two parties."""
        return self._common([self.stream(k).integers(count, bits) if k != self.me else None for k in range(3)], 1)

    def _zero(self, count: int) -> Elements:
        """Shares of degree two of zero, which make those of a product uniform."""
        drawn = [self.stream(k).integers(count, self.field.bits) if k != self.me else None for k in range(3)]
        return self._common(drawn, self.me + 1)

    def _common(self, drawn: list[Elements | None], factor: int) -> Elements:
        """What party k drew with this one lacks at the third party: its polynomial vanishes there."""
        total: Elements | int = 0
        for party, values in enumerate(drawn):
            if values is not None:
                absent = 3 - self.me - party
                total = total + values * (factor * self._vanishing[absent] % self.field.p)
        return np.asarray(total % self.field.p)

    @cached_property
    def _vanishing(self) -> list[int]:
        """For each party k, 1 - x / x_k at this party's x."""
        return [(1 - (self.me + 1) * self.field.inverse(k + 1)) % self.field.p for k in range(3)]

    def _uniform(self, party: int, shape: tuple[int, ...]) -> Elements:
        return self.field.uniform(self.stream(party).take(self.field.width * int(np.prod(shape))), shape)

    def _split(self, values: Elements, following: Elements) -> tuple[Elements, Elements]:
        """This party's and the preceding one's shares of values, given the following one's."""
        p = self.field.p
        after, before = (self.me + 1) % 3, (self.me + 2) % 3
        inverse = self.field.inverse(after + 1)
        own_share, other = (self.me + 1) * inverse % p, (before + 1) * inverse % p
        slope = following - values
        return np.asarray((values + slope * own_share) % p), np.asarray((values + slope * other) % p)


def supply(field: PrimeField, session: Session, names: Sequence[str], values: Elements, randomness: Randomness) -> None:
    """Share values with the three computing parties, as a site that does not compute."""
    size = field.width * values.size
    slope = field.uniform(randomness.own.take(size), values.shape)
    for k, name in enumerate(names):
        session.send(name, field.pack(values + (k + 1) * slope))
