"""The places of the columns in their declared ranges, so that fixed point is not spent on an empty part of a range.

A site posts, for each of its columns, an interval of a public grid that has all of its values: half-widths are powers
of two of the declared range's, middles multiples of them. The interval is at least 64 standard deviations wide to both
sides together, and it is the whole range where that is not wider: then it says nothing. If a range is far too wide,
readers learn place and unit of the values, to within some ten standard deviations, and nothing about any row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.payload import Field, Payload
from coterie_learners.core.protocol import Posts
from coterie_learners.errors import DataError, ProtocolError
from coterie_learners.numeric.array import Array

INTERVALS = {"levels": Field("<i8", (None,)), "places": Field("<i8", (None,))}
# Half-widths are 2^-level of the declared range's.
DEEPEST = 30
# An interval has at least so many standard deviations to each side of the middle of the values.
REACH = 32.0
# A column's standard deviation in half-widths of its interval: of variances above its square 26 of 44 bits are left.
LEAST_SPREAD = 2e-3


@dataclass(frozen=True)
class Intervals:
    """Levels and places (c) of columns: the half-width of an interval is 2^-level, its middle place * 2^-level."""

    levels: NDArray[np.int64]
    places: NDArray[np.int64]

    @classmethod
    def of_ranges(cls, columns: int) -> Intervals:
        """The declared ranges themselves."""
        return cls(np.zeros(columns, np.int64), np.zeros(columns, np.int64))

    @property
    def half(self) -> Array:
        """Half-widths (c) of the intervals, in those of the declared ranges."""
        return np.ldexp(1.0, -self.levels)

    @property
    def middle(self) -> Array:
        """Middles (c) of the intervals, in [-1, 1] of the declared ranges."""
        return self.places * self.half

    def place(self, values: Array) -> Array:
        """Values (n, c) in [-1, 1] of the declared ranges as values in [-1, 1] of the intervals."""
        return np.asarray(np.clip((values - self.middle) / self.half, -1.0, 1.0))

    def payload(self) -> Payload:
        """The intervals as a site posts them."""
        return {"levels": self.levels, "places": self.places}


def find_intervals(values: Array) -> Intervals:
    """The intervals of a site's columns (n, c), whose values lie in [-1, 1]; a constant column has the whole range."""
    columns = values.shape[1]
    if not len(values):
        return Intervals.of_ranges(columns)
    low, high, spread = values.min(axis=0), values.max(axis=0), values.std(axis=0)
    reach = np.maximum(REACH * spread, 0.5 * (high - low))
    return _cover(0.5 * (low + high), np.where(high > low, reach, 1.0))


def _cover(middle: Array, reach: Array) -> Intervals:
    """The smallest intervals of the grid about these middles (c) that have everything within the reach (c)."""
    levels = np.clip(np.floor(-np.log2(2.0 * reach)), 0, DEEPEST).astype(np.int64)
    most = (1 << levels) - 1  # an interval does not leave the range
    places = np.clip(np.rint(np.ldexp(middle, levels)).astype(np.int64), -most, most)
    return Intervals(levels, places)


def merge_intervals(terms: Posts, columns: int, order: Mapping[str, Sequence[int]] | None) -> Intervals:
    """The intervals of all columns from the sites' posts: by owner in its `order`, or of rows the ones that have all.

    ProtocolError for numbers that are no intervals.
    """
    owners = terms if order is None else {name: terms[name] for name in order}
    posted = {name: _read(name, post, columns if order is None else len(order[name])) for name, post in owners.items()}
    if order is not None:
        whole = Intervals.of_ranges(columns)
        for name, own in posted.items():
            whole.levels[list(order[name])], whole.places[list(order[name])] = own.levels, own.places
        return whole
    low = np.min([own.middle - own.half for own in posted.values()], axis=0)
    high = np.max([own.middle + own.half for own in posted.values()], axis=0)
    return _cover(0.5 * (low + high), 0.5 * (high - low))


def _read(name: str, post: Payload, columns: int) -> Intervals:
    levels, places = np.asarray(post["levels"]), np.asarray(post["places"])
    sizes = len(levels) == len(places) == columns
    if not sizes or np.any(levels < 0) or np.any(levels > DEEPEST) or np.any(np.abs(places) >= (1 << np.abs(levels))):
        message = f"{name} posts intervals of its columns that no range has"
        raise ProtocolError("CO-P654", f"{message}. Ask that site to check its node and version.", name, "terms")
    return Intervals(levels.astype(np.int64), places.astype(np.int64))


def check_spread(values: Array, name: str) -> None:
    """DataError if a column varies in so small a part of its interval that the field's numbers cannot tell."""
    spread = values.std(axis=0) if len(values) else np.zeros(0)
    narrow = np.flatnonzero((spread > 0.0) & (spread < LEAST_SPREAD) & ~np.all(values == np.rint(values), axis=0))
    if len(narrow):
        share = float(spread[narrow].min())
        raise DataError(
            "CO-D344",
            f"{name}: its column {int(narrow[0]) + 1} of {values.shape[1]} varies by {share:.1e} half-widths of the "
            f"range that its values fill (standard deviation); below {LEAST_SPREAD:g} the secure sums lose digits, and "
            "at last take it for constant. Look for a value far from all others; or narrow the range in the study to "
            "what the values can be.",
        )
