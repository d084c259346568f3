"""A chain that makes a block every few seconds is looked at seldom while none can come."""

from __future__ import annotations

import pytest

from coterie_chain.ethereum.reader import QUIET_MARGIN, Rhythm


def note_blocks(*blocks: tuple[int, int]) -> Rhythm:
    rhythm = Rhythm()
    for number, time in blocks:
        rhythm.note(number, time)
    return rhythm


def test_no_block_is_expected_before_the_shortest_time_between_two() -> None:
    rhythm = note_blocks((7, 1000), (8, 1009), (9, 1014))
    assert rhythm.count_quiet_seconds(1014.0) == pytest.approx(5 - QUIET_MARGIN)
    assert rhythm.count_quiet_seconds(1018.0) == pytest.approx(1 - QUIET_MARGIN)
    assert rhythm.count_quiet_seconds(1019.0) == 0


@pytest.mark.parametrize(
    "blocks", [(), ((7, 1000),), ((7, 1000), (9, 1010)), ((7, 1000), (7, 1000)), ((7, 1000), (6, 990))]
)
def test_nothing_is_known_before_two_blocks_in_a_row(blocks: tuple[tuple[int, int], ...]) -> None:
    assert note_blocks(*blocks).count_quiet_seconds(1000.0) == 0


def test_blocks_of_one_second_leave_no_quiet() -> None:
    assert note_blocks((1, 1000), (2, 1010), (3, 1010), (4, 1020)).count_quiet_seconds(1020.0) == 0
    assert note_blocks((1, 1000), (2, 990), (3, 1000)).count_quiet_seconds(1000.0) == 0


def test_a_clock_that_is_ahead_leaves_no_quiet_and_one_that_is_behind_leaves_more() -> None:
    rhythm = note_blocks((1, 1000), (2, 1005))
    assert rhythm.count_quiet_seconds(1100.0) == 0
    assert rhythm.count_quiet_seconds(1000.0) == pytest.approx(10 - QUIET_MARGIN)
