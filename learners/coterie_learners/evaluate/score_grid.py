"""The grid of scores on which patients are counted, and how a site halves it as far as its floors allow.

A range of bins may be counted by itself at a site if there are 0 or at least `floor` patients with the outcome, and
without it, and if not all of its patients have the outcome. The whole range is halved, and halved again, as long as
both halves may be counted. Sums of allowed ranges are allowed, so that the ranges that all sites have in common, which
are coarser, are allowed at each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array

Scale = Literal["spread", "probability", "logit"]
BinPlaces = NDArray[np.int64]
# A score at a bin's lower end is in that bin, however floats round.
_ROUNDING = 1e-9
# The ends of the grid of the logit; what lies beyond is in the outermost bins.
LOGIT_END = 8.0
# A logit beyond this moves neither centre nor width of the spread.
MOST_SPREAD = 20.0
# Standard deviation of the standard logistic distribution, and the least width that patients' scores are given.
LOGISTIC_SD = 1.8137993642342178
LEAST_WIDTH = 1e-6


@dataclass(frozen=True)
class ScoreGrid:
    """`size` bins [k, k + 1) of a predicted probability, or of its logit z.

    On the scale "spread" a bin is an equal share of the logistic distribution about `centre`, of scale `width`: with
    the mean and the standard deviation of z among the patients of the rarer outcome each bin has about as many of them.
    """

    size: int
    scale: Scale
    centre: float = 0.0
    width: float = 1.0

    def place(self, probability: Array, logit: Array) -> BinPlaces:
        """The bin (m,) of each score."""
        if self.scale == "spread":
            share = 0.5 * (1.0 + np.tanh(0.5 * (logit - self.centre) / self.width))
        else:
            share = probability if self.scale == "probability" else (logit + LOGIT_END) / (2.0 * LOGIT_END)
        return np.asarray(np.clip(np.floor(share * self.size + _ROUNDING), 0, self.size - 1), dtype=np.int64)

    @cached_property
    def thresholds(self) -> tuple[float, ...]:
        """The probabilities at the ends of the bins, from 0 to 1."""
        inner = (self._threshold(k) for k in range(1, self.size))
        return (0.0, *inner, 1.0)

    def _threshold(self, k: int) -> float:
        if self.scale == "probability":
            return k / self.size
        if self.scale == "spread":
            logit = self.centre + self.width * (linalg.log(float(k)) - linalg.log(float(self.size - k)))
        else:
            logit = 2.0 * LOGIT_END * k / self.size - LOGIT_END
        return 1.0 / (1.0 + linalg.exp(-logit))

    @cached_property
    def halves(self) -> tuple[tuple[int, int, int], ...]:
        """Each range that can be halved as (first bin, middle, end), each before those within it."""
        return tuple(_list_halves(0, self.size))


def _list_halves(low: int, high: int) -> Iterator[tuple[int, int, int]]:
    if high - low > 1:
        middle = (low + high) // 2
        yield low, middle, high
        yield from _list_halves(low, middle)
        yield from _list_halves(middle, high)


def mark_halves(grid: ScoreGrid, counts: Array, floor: int, sensitive: bool = False) -> Array:
    """Flags (size,): whether all bins together may be counted, then whether this site halves each of `halves`.

    counts (levels, size, 2): patients without and with the outcome. Within what is not halved no flag is set.
    `sensitive`: a range in which nobody has the outcome may not be counted either.
    """
    if floor <= 1:
        return np.ones(grid.size)
    below = np.concatenate([np.zeros((len(counts), 1, 2)), np.cumsum(counts, axis=1)], axis=1)
    open_ranges = {(0, grid.size)} if _may_count(below[:, grid.size], floor, sensitive) else set()
    flags = [float(bool(open_ranges))]
    for low, middle, high in grid.halves:
        parts = (below[:, middle] - below[:, low], below[:, high] - below[:, middle])
        halved = (low, high) in open_ranges and all(_may_count(part, floor, sensitive) for part in parts)
        if halved:
            open_ranges |= {(low, middle), (middle, high)}
        flags.append(float(halved))
    return np.array(flags)


def _may_count(counts: Array, floor: int, sensitive: bool) -> bool:
    """Whether counts (levels, 2) may be counted outside."""
    without, events = counts[:, 0], counts[:, 1]
    small = np.any((counts > 0) & (counts < floor))
    all_events = np.any((events > 0) & (without == 0))
    no_events = sensitive and np.any((without > 0) & (events == 0))
    return not (small or all_events or no_events)


def choose_cuts(grid: ScoreGrid, flags: Array, sites: int) -> tuple[int, ...]:
    """The ends of the ranges that all sites count: (0, ..., size); empty where some site allows none."""
    agreed = np.rint(flags) == sites
    if not agreed[0]:
        return ()
    ends, open_ranges = {0, grid.size}, {(0, grid.size)}
    for (low, middle, high), halved in zip(grid.halves, agreed[1:].tolist(), strict=True):
        if halved and (low, high) in open_ranges:
            open_ranges |= {(low, middle), (middle, high)}
            ends.add(middle)
    return tuple(sorted(ends))


def merge_bins(values: Array, cuts: Sequence[int]) -> Array:
    """Sums (levels, bins, ...) over the ranges between the cuts."""
    return np.add.reduceat(values, list(cuts[:-1]), axis=1)


def find_spread(n: float, total: float, squares: float) -> tuple[float, float]:
    """Centre and width of the spread of so many patients' logits, by their sum and that of their squares."""
    centre = total / n
    variance = max(squares / n - centre * centre, 0.0)
    return centre, max(math.sqrt(variance) / LOGISTIC_SD, LEAST_WIDTH)
