"""A site's patients counted for a table: by group, level, bin and missing value, with sums of numbers and of time.

A missing value (NaN) is counted apart; a patient without a group is no part of the table. Numbers are summed about the
middle of their declared range, in units of half of it; times in units of the largest declared one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_learners.numeric.pairwise_sum import pairwise_sum
from coterie_learners.study.document import Variable
from coterie_learners.study.elsewhere import over_codes
from coterie_learners.study.rows import CodedRows, Codes
from coterie_learners.table_one.table_plan import Alternative, CharacteristicsPlan, CountedItem, Line

Slots = NDArray[np.int64]


@dataclass
class Tally:
    """Counts and sums by slot (a group, or all patients), filled block by block.

    `patients` (s,). `cells` by variable: levels (s, levels + 1), numbers (s, 2): present and missing. `bins` (s,
    cells). `rate` (s, 2, 3): by time present or missing, and event 0, 1 or missing. `sums` (s,) by number. `time` (s,):
    of patients whose event is known.
    """

    patients: Array
    cells: dict[str, Array] = field(default_factory=dict)
    bins: dict[str, Array] = field(default_factory=dict)
    rate: Array = field(default_factory=lambda: np.zeros((1, 2, 3)))
    sums: dict[str, Array] = field(default_factory=dict)
    time: Array = field(default_factory=lambda: np.zeros(1))

    def add(self, part: Tally) -> None:
        """Take in what was counted of more rows."""
        self.patients = self.patients + part.patients
        self.rate, self.time = self.rate + part.rate, self.time + part.time
        for own, new in ((self.cells, part.cells), (self.bins, part.bins), (self.sums, part.sums)):
            for name, values in new.items():
                _put(own, name, values)

    def count(self, plan: CharacteristicsPlan, item: CountedItem, way: Alternative) -> Array:
        """The counts (s, ...) of an item shown in a way; without missing values where the study has none."""
        counts = self._all_counts(plan, item, way.multiple)
        return counts if way.grouped else counts.sum(axis=0, keepdims=True)

    def _all_counts(self, plan: CharacteristicsPlan, item: CountedItem, multiple: int) -> Array:
        if item.kind == "patients":
            return self.patients[:, None]
        if item.kind == "bins":
            return plan.bins[item.name].widen(self.bins[item.name], multiple)
        if item.kind == "rate":
            return (self.rate if plan.lacks else self.rate[:, :1, :2]).reshape(plan.slots, -1)
        cells = self.cells[item.name]
        return cells if plan.lacks else cells[:, :-1]

    def add_up(self, item: CountedItem, way: Alternative) -> Array:
        """The sums (s,) of a number, or of time."""
        sums = self.time if item.kind == "rate" else self.sums[item.name]
        return sums if way.grouped else sums.sum(axis=0, keepdims=True)


def tally_rows(plan: CharacteristicsPlan, rows: CodedRows) -> Tally:
    """The counts and sums of one site's rows."""
    tally = Tally(np.zeros(plan.slots))
    for part in over_codes(partial(_tally_block, plan), rows):
        tally.add(part)
    return tally


def _tally_block(plan: CharacteristicsPlan, codes: Codes) -> Tally:
    tally = Tally(np.zeros(plan.slots))
    _add(tally, plan, codes, find_slots(plan, codes))
    return tally


def find_slots(plan: CharacteristicsPlan, codes: Codes) -> Slots:
    """The slot (m,) of each row."""
    size = len(next(iter(codes.values())))
    if plan.group is None:
        return np.zeros(size, dtype=np.int64)
    return place_levels(plan.group, codes[plan.group.name])


def place_levels(line: Line, values: NDArray[Any]) -> Slots:
    """The level (m,) of each value; their number where the value is missing."""
    if values.dtype.kind != "f":
        return values.astype(np.int64)
    return np.where(np.isnan(values), len(line.levels), values).astype(np.int64)


def scale_values(variable: Variable, values: NDArray[Any]) -> Array:
    """Values (m,) about the middle of the declared range, in units of half of it; NaN stays NaN."""
    low, high = variable.bounds
    return np.asarray((np.asarray(values, dtype=np.float64) - 0.5 * (low + high)) / (0.5 * (high - low)))


def _add(tally: Tally, plan: CharacteristicsPlan, codes: Codes, slots: Slots) -> None:
    tally.patients = tally.patients + np.bincount(slots, minlength=plan.slots)
    for line in plan.lines:
        values = codes[line.name]
        if line.levels:
            _put(tally.cells, line.name, _cross(slots, place_levels(line, values), plan.slots, len(line.levels) + 1))
        else:
            _add_number(tally, plan, line, np.asarray(values, dtype=np.float64), slots)
    if plan.options.event and plan.options.time:
        _add_rate(tally, plan, codes, slots)


def _add_number(tally: Tally, plan: CharacteristicsPlan, line: Line, values: Array, slots: Slots) -> None:
    lacking = np.isnan(values)
    _put(tally.cells, line.name, _cross(slots, lacking.astype(np.int64), plan.slots, 2))
    if lacking.any():
        values, slots = values[~lacking], slots[~lacking]
    scaled = scale_values(line.variable, values)
    # Sums in pairs: adding a million equal values one by one would make a spread of their rounding.
    sums = [float(pairwise_sum(scaled[slots == slot])) for slot in range(plan.slots)]
    _put(tally.sums, line.name, np.array(sums))
    if line.name in plan.bins:
        bins = plan.bins[line.name]
        _put(tally.bins, line.name, _cross(slots, bins.place(values), plan.slots, bins.count_cells(1)))


def _add_rate(tally: Tally, plan: CharacteristicsPlan, codes: Codes, slots: Slots) -> None:
    event_name, time_name = str(plan.options.event), str(plan.options.time)
    event = place_levels(Line(event_name, plan.study.variables[event_name]), codes[event_name])
    time = np.asarray(codes[time_name], dtype=np.float64)
    lacking = np.isnan(time)
    counts = _cross(slots, lacking * 3 + event, plan.slots, 6).reshape(plan.slots, 2, 3)
    tally.rate = tally.rate + counts
    known = ~lacking & (event < 2)
    scaled = time[known] / plan.study.variables[time_name].bounds[1]
    tally.time = tally.time + np.bincount(slots[known], scaled, plan.slots)


def _cross(slots: Slots, places: Slots, rows: int, columns: int) -> Array:
    """The two-way table (rows, columns)."""
    return np.bincount(slots * columns + places, minlength=rows * columns).reshape(rows, columns).astype(np.float64)


def _put(sums: dict[str, Array], name: str, part: Array) -> None:
    sums[name] = sums[name] + part if name in sums else np.asarray(part, dtype=np.float64)


def sum_squares(plan: CharacteristicsPlan, rows: CodedRows, means: dict[str, Array]) -> dict[str, Array]:
    """Squares (s,) of each number about these means (s,), both on the declared scale; s is 1 for all patients."""

    def square_block(codes: Codes) -> dict[str, Array]:
        about = _scale_about(plan, codes, find_slots(plan, codes), means)
        return {name: np.asarray(np.bincount(at, v * v, len(means[name])), np.float64) for name, v, at in about}

    squares = {name: np.zeros(len(values)) for name, values in means.items()}
    for part in over_codes(square_block, rows):
        squares = {name: squares[name] + part[name] for name in squares}
    return squares


def _scale_about(
    plan: CharacteristicsPlan, codes: Codes, slots: Slots, means: dict[str, Array]
) -> Iterator[tuple[str, Array, Slots]]:
    """Each number's present values about their means, with their slots."""
    for name, mean in means.items():
        scaled = scale_values(plan.design.declared[name], codes[name])
        present = ~np.isnan(scaled)
        at = slots[present] if len(mean) > 1 else np.zeros(int(np.count_nonzero(present)), dtype=np.int64)
        yield name, scaled[present] - mean[at], at
