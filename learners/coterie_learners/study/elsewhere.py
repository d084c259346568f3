"""Rows on other machines of the same hospital: sums of each block are computed there, and only these come back.

A learner asks for its sums by `over_blocks` and `over_codes`. Rows of this machine are handed to the work here. Rows
elsewhere are cut at the same places, so that the sums have the same bits wherever the rows are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeGuard, TypeVar, runtime_checkable

from coterie_learners.numeric.parallel import in_parallel
from coterie_learners.study.rows import Block, CodedRows, Codes, Rows

BlockSum = TypeVar("BlockSum")


@runtime_checkable
class RowsElsewhere(Protocol):
    """Rows that are not handed out."""

    @property
    def n(self) -> int:
        """Number of rows."""

    def over_blocks(self, work: Callable[[Block], BlockSum]) -> Iterator[BlockSum]:
        """What work makes of each block, in order; computed where the block is."""


@runtime_checkable
class CodesElsewhere(Protocol):
    """Rows as the variables' values that are not handed out."""

    @property
    def n(self) -> int:
        """Number of rows."""

    def over_codes(self, work: Callable[[Codes], BlockSum]) -> Iterator[BlockSum]:
        """What work makes of each block's values, in order; computed where the block is."""

    def together(self, work: Callable[[CodedRows], BlockSum]) -> BlockSum:
        """What work makes of all values at once, on one machine; small, and no row."""


def _is_elsewhere(rows: Rows) -> TypeGuard[RowsElsewhere]:
    """Whether these rows are not handed out; isinstance would look at every member of the protocol at each call."""
    return hasattr(rows, "over_blocks")


def over_blocks(work: Callable[[Block], BlockSum], rows: Rows) -> Iterable[BlockSum]:
    """work(block) for every block, in order."""
    return rows.over_blocks(work) if _is_elsewhere(rows) else map(work, rows.blocks())


def over_blocks_in_parallel(work: Callable[[Block], BlockSum], rows: Rows) -> Iterable[BlockSum]:
    """The same on all processors of this machine, if the rows are here."""
    return rows.over_blocks(work) if _is_elsewhere(rows) else in_parallel(work, rows.blocks())


def over_codes(work: Callable[[Codes], BlockSum], rows: CodedRows) -> Iterable[BlockSum]:
    """work(codes) for every block of values, in order."""
    return rows.over_codes(work) if isinstance(rows, CodesElsewhere) else map(work, rows.codes())
