"""An owner's rows under masks, sent to the helper in blocks while the parties talk, and picked from what is sent.

On the ledger stands the SHA-256 of each block, which the release gate has judged with the tags. So the blocks need no
place in a store, and no site holds all rows of an owner: a block that is missing, comes twice or out of order, or has
other bytes than the owner posted, ends the step and names the owner. The owner makes the blocks again from its rows and
compares them with its own post before they leave: other rows under the same masks would disclose the difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.payload import Field, Payload
from coterie_learners.errors import DataError, ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.limbs import read_limbs
from coterie_learners.secure.moments import INPUT
from coterie_learners.shares.session import Keystream, Session

if TYPE_CHECKING:
    from coterie_learners.secure.secure_join import JoinPlan

Packed = NDArray[np.uint8]
# Numbers of the joined table that are worked on at once: as limbs they fill 16 MiB.
_NUMBERS = 1 << 18
_SENT = "rows under masks"
BLOCKS = Field("|u1", (None, 32))


def count_block_rows(columns: int) -> int:
    """Rows of a block of a table with so many columns."""
    return max(1, _NUMBERS // max(columns, 1))


def cut_blocks(n: int, step: int) -> list[tuple[int, int]]:
    """The first row of each block of so many rows, and the one after its last."""
    return [(at, min(at + step, n)) for at in range(0, n, step)]


class PickedRows:
    """Rows of a list, of `size` bytes each, picked from its blocks as they come.

    `places` (k,) says which row of the list each of the picked ones is.
    """

    def __init__(self, places: NDArray[np.int64], size: int) -> None:
        self._order = np.argsort(places, kind="stable")
        self._sorted = places[self._order]
        self.rows: Packed = np.empty((len(places), size), np.uint8)

    def add(self, first: int, block: bytes) -> None:
        """Take what there is in the rows from `first` on."""
        rows = np.frombuffer(block, np.uint8).reshape(-1, self.rows.shape[1])
        low, high = np.searchsorted(self._sorted, [first, first + len(rows)])
        self.rows[self._order[low:high]] = rows[self._sorted[low:high] - first]


def pick_masks(link: JoinPlan, key: bytes, places: NDArray[np.int64], owner: str) -> Packed:
    """The masks of chosen rows of an owner's list (k, bytes of a row), uniform in the field."""
    size = link.row_bytes(owner)
    picked, stream = PickedRows(places, size), Keystream(key)
    for first, end in cut_blocks(int(places.max(initial=-1)) + 1, link.block_rows):
        picked.add(first, stream.take((end - first) * size))
    return picked.rows


def mask_rows(link: JoinPlan, key: bytes, values: Array, order: NDArray[np.int64]) -> Iterator[bytes]:
    """An owner's rows (n, c) in an order, block by block under its masks: residues in C order."""
    numbers, stream = link.numbers, Keystream(key)
    for first, end in cut_blocks(len(order), link.block_rows):
        shown = numbers.encode_limbs(values[order[first:end]], INPUT)
        masks = read_limbs(stream.take(shown.shape[1] * numbers.width), numbers.width)
        yield numbers.limbs.write(numbers.limbs.combine([(1, shown), (-1, masks)]))


def digest_blocks(blocks: Iterator[bytes]) -> Packed:
    """What an owner posts of its blocks: the SHA-256 of each (blocks, 32)."""
    return np.frombuffer(b"".join(hashlib.sha256(block).digest() for block in blocks), np.uint8).reshape(-1, 32)


def send_blocks(link: JoinPlan, session: Session, blocks: Iterator[bytes], post: Payload) -> None:
    """Send the helper this owner's blocks, each of them only if it is the one that was posted."""
    posted = np.asarray(post["masked_blocks"])
    for k, block in enumerate(blocks):
        if k >= len(posted) or hashlib.sha256(block).digest() != posted[k].tobytes():
            what = f"{session.me}: block {k + 1} of its rows under masks differs from the one that it posted"
            raise DataError("CO-D131", f"{what}; nothing of it was sent. Put the first rows back.")
        session.send(link.helper, block)
        session.report(_SENT, k + 1, len(posted))


def receive_blocks(
    link: JoinPlan, session: Session, posts: Mapping[str, Payload], places: NDArray[np.int64]
) -> dict[str, Packed]:
    """The helper's part: each owner's matched rows under masks (k, bytes), of the places (owners, k) in its list.

    ProtocolError names an owner whose block is not the one that it posted.
    """
    cuts = {owner: _check_blocks(link, owner, posts[owner]) for owner in link.owners}
    size = {owner: link.row_bytes(owner) for owner in link.owners}
    picked = {owner: PickedRows(own, size[owner]) for owner, own in zip(link.owners, places, strict=True)}
    # In turn: no owner's blocks pile up here while another one's are read.
    most = max(map(len, cuts.values()), default=0)
    for k in range(most):
        for owner in link.owners:
            if k < len(cuts[owner]):
                first, end = cuts[owner][k]
                block = session.receive(owner, (end - first) * size[owner])
                _check_block(posts[owner], k, block, owner, len(cuts[owner]))
                picked[owner].add(first, block)
        session.report(_SENT, k + 1, most)
    return {owner: part.rows for owner, part in picked.items()}


def _check_blocks(link: JoinPlan, owner: str, post: Payload) -> Sequence[tuple[int, int]]:
    n = np.asarray(post["tags"]).shape[1]
    cuts, posted = cut_blocks(n, link.block_rows), len(np.asarray(post["masked_blocks"]))
    if len(cuts) != posted:
        what = f"{owner} posted digests of {posted} blocks for {n} rows, which fill {len(cuts)}"
        raise ProtocolError("CO-P655", f"{what}. Ask that site to check its node and version.", owner, f"rows/{owner}")
    return cuts


def _check_block(post: Payload, k: int, block: bytes, owner: str, count: int) -> None:
    if hashlib.sha256(block).digest() != np.asarray(post["masked_blocks"])[k].tobytes():
        what = f"Block {k + 1} of {count} of {owner}'s masked rows is not the one that it posted"
        raise ProtocolError("CO-P655", f"{what}. Ask that site to check its node and version.", owner, f"rows/{owner}")
