"""Rows under masks in blocks: what is picked, what leaves, and which blocks the helper refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from support.learners import joins
from support.learners.parties import PartyChannel, RecordedWire

from coterie_learners.core.payload import Payload
from coterie_learners.errors import DataError, ProtocolError
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.limbs import read_limbs
from coterie_learners.secure import masked_rows
from coterie_learners.secure.joined_rows import cut_groups, sum_in_field
from coterie_learners.secure.lasso_plan import LassoPlan
from coterie_learners.secure.masked_rows import Packed, PickedRows, cut_blocks, digest_blocks
from coterie_learners.secure.moments import INPUT
from coterie_learners.secure.secure_join import JoinPlan
from coterie_learners.shares.field import PrimeField
from coterie_learners.shares.session import Keystream, Session

KEY, ROWS = bytes(range(32)), 50
# Numbers of a block: a table of five columns has blocks of seven rows.
NUMBERS = 35


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_rows, "_NUMBERS", NUMBERS)


def plan_join() -> JoinPlan:
    return LassoPlan.of(joins.cohort(alpha=0.5).study).link


def draw_values(columns: int = 2) -> Array:
    return np.random.default_rng(5).uniform(-1.0, 1.0, (ROWS, columns))


def mask(link: JoinPlan, values: Array, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[bytes]:
    return masked_rows.mask_rows(link, KEY, values, order)


def test_blocks_cover_all_rows_once_and_reach_over_no_cut() -> None:
    link = plan_join()
    assert link.block_rows == 7
    assert cut_blocks(15, 7) == [(0, 7), (7, 14), (14, 15)]
    cuts = cut_groups(link, [0, 10, 10, 18])
    assert cuts == [(0, 0, 7), (0, 7, 10), (2, 10, 17), (2, 17, 18)]


def test_rows_under_masks_less_their_masks_are_the_rows() -> None:
    link, values = plan_join(), draw_values()
    order = np.random.default_rng(6).permutation(ROWS)
    masked = read_limbs(b"".join(mask(link, values, order)), link.numbers.width)
    masks = read_limbs(masked_rows.pick_masks(link, KEY, np.arange(ROWS), "ana").tobytes(), link.numbers.width)
    shown = link.numbers.from_limbs(link.numbers.limbs.combine([(1, masked), (1, masks)]), values.shape)
    assert np.array_equal(link.numbers.decode(shown, INPUT), np.rint(values[order] * 2.0**INPUT) / 2.0**INPUT)


def test_masks_are_those_of_one_stream_whatever_is_picked_of_it() -> None:
    link = plan_join()
    size = link.row_bytes("ana")
    whole = np.frombuffer(Keystream(KEY).take(ROWS * size), np.uint8).reshape(ROWS, size)
    places = np.random.default_rng(7).permutation(ROWS)[:31]
    assert np.array_equal(masked_rows.pick_masks(link, KEY, places, "ana"), whole[places])
    assert masked_rows.pick_masks(link, KEY, places[:0], "ana").shape == (0, size)


@pytest.mark.parametrize("step", [1, 3, 50, 64])
def test_picked_rows_come_in_the_order_of_their_places(step: int) -> None:
    rows = np.random.default_rng(8).integers(0, 256, (ROWS, 3)).astype(np.uint8)
    places = np.random.default_rng(9).permutation(ROWS)[:20]
    picked = PickedRows(places, 3)
    for first, end in cut_blocks(ROWS, step):
        picked.add(first, rows[first:end].tobytes())
    assert np.array_equal(picked.rows, rows[places])


@pytest.mark.parametrize("bits", [112, 176, 256])
def test_sums_by_blocks_are_those_of_all_rows_at_once(bits: int) -> None:
    field, values = PrimeField(bits), np.vstack([draw_values(5), np.ones((1, 5)), -np.ones((1, 5)), np.zeros((1, 5))])
    encoded, sums = field.encode(values, INPUT), sum_in_field(field, values, INPUT)
    assert np.array_equal(field.from_limbs(field.encode_limbs(values, INPUT), values.shape), encoded)
    assert np.array_equal(sums.gram, field.gram(encoded))
    assert np.array_equal(sums.total, encoded.sum(axis=0) % field.p)


# What the helper takes


@dataclass(frozen=True)
class Exchange:
    """Two owners' rows, their posts, and what they send."""

    link: JoinPlan
    blocks: dict[str, list[bytes]]
    posts: dict[str, Payload]

    def receive(self) -> dict[str, Packed]:
        """The helper's part with the owners' blocks as they are now."""
        wire = RecordedWire(seconds=0.2)
        for owner, blocks in self.blocks.items():
            for block in blocks:
                wire.between(owner, "hub").put(block)
        session = Session("hub", PartyChannel(wire, "hub"), ("ana", "bob", "hub"))
        places = np.stack([np.arange(40)[::-1], np.arange(5, 45)])
        return masked_rows.receive_blocks(self.link, session, self.posts, places)


def make_exchange() -> Exchange:
    link = plan_join()
    blocks: dict[str, list[bytes]] = {}
    posts: dict[str, Payload] = {}
    for owner in link.owners:
        blocks[owner] = list(mask(link, draw_values(link.widths[owner]), np.arange(ROWS)))
        digests = digest_blocks(iter(blocks[owner]))
        posts[owner] = {"tags": np.zeros((1, ROWS, 16), np.uint8), "masked_blocks": digests}
    return Exchange(link, blocks, posts)


def test_the_helper_picks_the_matched_rows_of_each_owner() -> None:
    exchange = make_exchange()
    found = exchange.receive()
    for owner, places in (("ana", np.arange(40)[::-1]), ("bob", np.arange(5, 45))):
        rows = np.frombuffer(b"".join(exchange.blocks[owner]), np.uint8).reshape(ROWS, -1)
        assert np.array_equal(found[owner], rows[places])


def swap(blocks: list[bytes]) -> None:
    blocks[2], blocks[3] = blocks[3], blocks[2]


def flip(blocks: list[bytes]) -> None:
    blocks[4] = bytes([blocks[4][0] ^ 1]) + blocks[4][1:]


HOSTILE: dict[str, tuple[str, Callable[[list[bytes]], None]]] = {
    "missing": ("CO-P655", lambda blocks: blocks.__delitem__(3)),
    "the last one missing": ("CO-P601", lambda blocks: blocks.__delitem__(-1)),
    "twice": ("CO-P655", lambda blocks: blocks.insert(3, blocks[2])),
    "out of order": ("CO-P655", swap),
    "another bit": ("CO-P655", flip),
    "cut": ("CO-P641", lambda blocks: blocks.__setitem__(1, blocks[1][:-1])),
    "too long": ("CO-P641", lambda blocks: blocks.__setitem__(1, blocks[1] + b"0")),
    "empty": ("CO-P641", lambda blocks: blocks.__setitem__(0, b"")),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_block_that_is_not_the_posted_one_ends_the_step_and_names_its_owner(fault: str) -> None:
    code, change = HOSTILE[fault]
    exchange = make_exchange()
    change(exchange.blocks["bob"])
    with pytest.raises(ProtocolError) as caught:
        exchange.receive()
    assert (caught.value.code, caught.value.site) == (code, "bob")


@pytest.mark.parametrize("count", [0, 7, 9])
def test_digests_of_another_number_of_blocks_are_refused_before_any_block(count: int) -> None:
    exchange = make_exchange()
    digests = np.zeros((count, 32), np.uint8)
    exchange.posts["ana"] = {**exchange.posts["ana"], "masked_blocks": digests}
    with pytest.raises(ProtocolError, match=f"digests of {count} blocks for 50 rows, which fill 8") as caught:
        exchange.receive()
    assert (caught.value.code, caught.value.site) == ("CO-P655", "ana")


def test_other_rows_under_the_same_masks_do_not_leave() -> None:
    """Their difference to what was sent before would be without a mask."""
    exchange, wire = make_exchange(), RecordedWire()
    changed = draw_values()
    changed[20, 0] += 1e-6
    session = Session("ana", PartyChannel(wire, "ana"), ("ana", "bob", "hub"))
    blocks = mask(exchange.link, changed, np.arange(ROWS))
    with pytest.raises(DataError, match="block 3 of its rows under masks differs") as caught:
        masked_rows.send_blocks(exchange.link, session, blocks, exchange.posts["ana"])
    assert caught.value.code == "CO-D131"
    assert [data for _, _, data in wire.log] == exchange.blocks["ana"][:2]
