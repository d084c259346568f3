"""Counting a site's rows by covariate pattern, in one pass and in memory that does not grow with the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from coterie_learners.cola.tables.patterns import Grid, Keys
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.elsewhere import over_codes
from coterie_learners.study.rows import CodedRows, Codes
from coterie_learners.sums.family import Baseline, Family
from coterie_learners.sums.frame import Frame, Layout

# A block whose grid has more patterns than this, and than this many for each of its rows, is counted by what occurs.
DENSE, DENSE_PER_ROW = 1 << 16, 4


@dataclass(frozen=True)
class CountPlan:
    """What is counted: patterns of the grid, and per pattern the measures of the family.

    `levels`: of a multinomial outcome, 0 for any other. `exposure`: an offset counts as person-time (log link); with
    the identity link it is taken from the outcome.
    """

    design: Design
    grid: Grid
    family: Family

    @property
    def levels(self) -> int:
        """Levels of a multinomial outcome, 0 for another outcome."""
        return len(self.design.outcome.levels) if not self.family.by_rows else 0

    @property
    def exposure(self) -> bool:
        """Whether an offset makes exposures of rows."""
        return self.design.formula.offset is not None and not self.family.linear

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of what is summed per pattern, in order."""
        if self.levels:
            return ("n", *(f"s{k}" for k in range(1, self.levels)))
        return ("n", *self.family.measures, *(("exposure",) if self.exposure else ()))

    @property
    def place(self) -> Baseline:
        """The zeros from which outcome and offset are measured."""
        frame = Frame.from_ranges(Layout.of(self.design, linear=self.family.linear))
        return Baseline(frame.outcome_centre, frame.outcome_scale, frame.offset_centre)


@dataclass(frozen=True)
class Counts:
    """The patterns that occur at a site, ascending, with the sums of each measure over their rows (m,)."""

    keys: Keys
    sums: dict[str, Array]

    def select(self, mask: NDArray[np.bool_]) -> Counts:
        """Only the patterns that the mask marks."""
        return Counts(self.keys[mask], {name: values[mask] for name, values in self.sums.items()})


# The patterns that occur in a block, or None if all of the grid are counted, and their measures (c, m).
BlockCounts = tuple[Keys | None, Array]


@dataclass
class PatternCounter:
    """Counters that take in what was counted in blocks of rows."""

    plan: CountPlan
    dense: Array | None = None
    parts: list[tuple[Keys, Array]] = field(default_factory=list)

    def add(self, part: BlockCounts) -> None:
        """Take in more rows."""
        occurring, sums = part
        if occurring is None:
            self.dense = sums if self.dense is None else np.add(self.dense, sums, out=self.dense)
            return
        self.parts.append((occurring, sums))
        if len(self.parts) > 64:
            self.parts = [_join_parts(self.parts)]

    def counts(self) -> Counts:
        """What was counted."""
        parts = list(self.parts)
        if self.dense is not None:
            occurring = np.flatnonzero(self.dense[0] > 0)
            parts.append((occurring, self.dense[:, occurring]))
        nothing = (np.zeros(0, np.int64), np.zeros((len(self.plan.measures), 0)))
        keys, sums = parts[0] if len(parts) == 1 else _join_parts([nothing, *parts])
        return Counts(keys, dict(zip(self.plan.measures, sums, strict=True)))


def count_block(plan: CountPlan, codes: Codes) -> BlockCounts:
    """Count the rows of a block."""
    size = plan.grid.size
    outcome = np.asarray(codes[plan.design.formula.outcome])
    keys = plan.grid.keys(codes, len(outcome))
    if size <= max(DENSE, DENSE_PER_ROW * len(keys)):
        return None, _sum_measures(plan, keys, size, codes, outcome)
    occurring, places = np.unique(keys, return_inverse=True)
    return occurring.astype(np.int64), _sum_measures(plan, places, len(occurring), codes, outcome)


def _sum_measures(plan: CountPlan, keys: Keys, size: int, codes: Codes, outcome: Array) -> Array:
    """Measures (c, size) of a block whose rows fall into places 0 to size - 1."""
    if plan.family.binary:
        # One count of (pattern, outcome) gives both, in whole numbers.
        levels = plan.levels or 2
        joint = keys * keys.dtype.type(levels) if size * levels < 1 << 31 else keys.astype(np.int64) * levels
        np.add(joint, outcome.astype(joint.dtype, copy=False), out=joint)
        table = np.bincount(joint, minlength=size * levels).reshape(size, levels).T
        return np.concatenate([table.sum(axis=0)[None], table[1:]]).astype(np.float64)
    sums = [np.bincount(keys, minlength=size).astype(np.float64)]
    weights = _weigh_rows(plan, codes, outcome.astype(np.float64))
    return np.stack(sums + [np.bincount(keys, w, minlength=size) for w in weights])


def _weigh_rows(plan: CountPlan, codes: Codes, y: Array) -> Sequence[Array]:
    """Each row's share in the measures after the first."""
    name, place = plan.design.formula.offset, plan.place
    offset = np.full(len(y), place.offset) if name is None else np.asarray(codes[name], dtype=np.float64)
    shares = plan.family.tally(y, offset, place)
    return (*shares, np.exp(offset - place.offset)) if plan.exposure else shares


def count_patterns(plan: CountPlan, rows: CodedRows) -> Counts:
    """Count all rows of a site."""
    tally = PatternCounter(plan)
    for part in over_codes(partial(count_block, plan), rows):
        tally.add(part)
    return tally.counts()


def _join_parts(parts: Sequence[tuple[Keys, Array]]) -> tuple[Keys, Array]:
    keys, places = np.unique(np.concatenate([k for k, _ in parts]), return_inverse=True)
    stacked = np.concatenate([sums for _, sums in parts], axis=1)
    return keys, np.stack([np.bincount(places, row, minlength=len(keys)) for row in stacked])
