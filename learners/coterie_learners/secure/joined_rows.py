"""The joined table as shares, block by block: no site ever holds it whole, and its sums are all that a fit needs.

Each owner's matched rows are two summands at two sites. Block after block both are dealt into shares of the three
computing parties. A party deals its next block only when those of the others for this one have come, so that what
waits at any site is one block, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.protocol import Site
from coterie_learners.errors import ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.limbs import read_limbs
from coterie_learners.secure import masked_rows, secure_join
from coterie_learners.secure.masked_rows import Packed, cut_blocks
from coterie_learners.secure.secure_join import JoinPlan, JoinPosts
from coterie_learners.shares.field import Elements, PrimeField, constant_elements
from coterie_learners.shares.session import Randomness, Session
from coterie_learners.shares.shamir3 import COMPUTING, ThreePartyShamir, supply_limbs

if TYPE_CHECKING:
    from coterie_learners.secure.lasso_plan import SharedPlan

# Which group of rows a block belongs to, and its first row and the one after its last.
Cut = tuple[int, int, int]


@dataclass(frozen=True)
class Summands:
    """One site's part of the matched rows: by owner, residues (k, bytes of a row)."""

    rows: Mapping[str, Packed]


class FieldSums:
    """Sums of blocks of rows of `width` residues: their Gram matrix (c, c) and the columns' sums (c,), exactly."""

    def __init__(self, numbers: PrimeField, columns: int) -> None:
        self._numbers, self._columns = numbers, columns
        self.gram: Elements = constant_elements(0, (columns, columns))
        self.total: Elements = constant_elements(0, (columns,))

    def add(self, packed: bytes) -> None:
        """Add rows: residues in C order."""
        numbers, columns = self._numbers, self._columns
        self.gram = (self.gram + numbers.multiply_packed(packed, packed, columns, columns)) % numbers.p
        total = numbers.sum_rows(read_limbs(packed, numbers.width), columns)
        self.total = (self.total + total) % numbers.p


def sum_in_field(numbers: PrimeField, values: Array, digits: int) -> FieldSums:
    """The sums of rows (n, c) with `digits` binary digits behind the point."""
    sums = FieldSums(numbers, values.shape[1])
    for first, end in cut_blocks(len(values), masked_rows.count_block_rows(values.shape[1])):
        sums.add(numbers.limbs.write(numbers.encode_limbs(values[first:end], digits)))
    return sums


def exchange_rows(
    site: Site, link: JoinPlan, posts: JoinPosts, session: Session, places: NDArray[np.int64] | None
) -> Summands:
    """This site's part of the matched rows, once the owners have sent theirs to the helper under masks.

    `places` (owners, k): the helper's matches.
    """
    if places is not None:
        if link.sealed_by_key:
            return Summands({o: secure_join.blinding_of_helper(site, link, o, places.shape[1]) for o in link.owners})
        return Summands(masked_rows.receive_blocks(link, session, posts.rows, places))
    if not link.sealed_by_key:
        masked_rows.send_blocks(
            link, session, secure_join.mask_own_rows(site, link, posts.terms), posts.rows[site.name]
        )
    source, packed = secure_join.summand_of_owner(site, link, posts)
    return Summands({source: packed})


def cut_groups(link: JoinPlan, cuts: Sequence[int]) -> list[Cut]:
    """The blocks of the joined rows, none of which reaches over a cut."""
    groups = enumerate(pairwise(cuts))
    return [(k, a + first, a + end) for k, (a, b) in groups for first, end in cut_blocks(b - a, link.block_rows)]


def share_joined_rows(
    plan: SharedPlan, trio: ThreePartyShamir, own: Summands, cuts: Sequence[int]
) -> Iterator[tuple[int, bytes]]:
    """Shares of the joined table, the outcome last: each block's group and its rows as residues in C order."""
    link, width = plan.link, plan.numbers.width
    for owner in link.owners:
        # One round for each dealing: no party waits for an answer between blocks.
        trio.round()
        if summand_holder(link, owner) in plan.computing:
            trio.round()
    for group, first, end in cut_groups(link, cuts):
        trio.session.report("shares of the joined rows", first, cuts[-1])
        table = np.empty((end - first, sum(link.widths.values()), width), np.uint8)
        for owner in link.owners:
            shares = _share_block(plan, trio, own, owner, slice(first, end))
            packed = np.frombuffer(trio.limbs.write(shares), np.uint8)
            table[:, plan.order_of(owner)] = packed.reshape(end - first, -1, width)
        yield group, table.tobytes()


def _share_block(plan: SharedPlan, trio: ThreePartyShamir, own: Summands, owner: str, rows: slice) -> Array:
    """Shares of some of an owner's rows: of the helper's summand, and of the second one from the site that has it."""
    link, helper = plan.link, COMPUTING - 1
    count = (rows.stop - rows.start) * link.widths[owner]
    first = trio.deal_limbs(helper, _read_block(link, own, owner, rows) if trio.me == helper else None, count)
    holder = summand_holder(link, owner)
    if holder not in plan.computing:
        second = trio.gather_limbs(holder, count)
    else:
        dealer = plan.computing.index(holder)
        second = trio.deal_limbs(dealer, _read_block(link, own, owner, rows) if trio.me == dealer else None, count)
    return trio.limbs.combine([(1, first), (1, second)])


def supply_joined_rows(
    plan: SharedPlan, session: Session, randomness: Randomness, own: Summands, cuts: Sequence[int]
) -> None:
    """Share this site's summand among the three, block by block, as an owner that does not compute."""
    (owner,) = own.rows
    for _, first, end in cut_groups(plan.link, cuts):
        limbs = _read_block(plan.link, own, owner, slice(first, end))
        supply_limbs(plan.numbers, session, plan.computing, limbs, randomness)


def _read_block(link: JoinPlan, own: Summands, owner: str, rows: slice) -> Array:
    limbs = read_limbs(own.rows[owner][rows].tobytes(), link.numbers.width)
    if not link.numbers.limbs.is_below_prime(limbs):
        message = f"A masked number of {owner} is not below the field's prime of {link.numbers.bits} bits."
        raise ProtocolError("CO-P643", message, owner, f"rows/{owner}")
    return limbs


def summand_holder(link: JoinPlan, owner: str) -> str:
    """The site that has the second summand of an owner's matched rows."""
    if link.sealed_by_key:
        return owner
    return link.owners[(link.owners.index(owner) + 1) % len(link.owners)]
