"""Rows in their risk sets: sums over the rows at risk at each time of an event, and over the rows with the event there.

A cell is a stratum and a time of an event in it. Cells stand by stratum, and in a stratum by time. The information of a
Cox model needs sums of x x' over each risk set. Added over all cells they are one sum over the rows, each with the
weight that its own cells give it. So the work is O(n p^2), however many times there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_learners.cox.likelihood.tie_weights import CellSums, TieWeights, average_events
from coterie_learners.numeric.array import Array

Places = NDArray[np.int64]


@dataclass(frozen=True)
class RiskRows:
    """Rows with the cells in whose risk sets they are.

    Columns `x` (n, p), each in one piece where the work is to be fast; `offset` of the predictor, `weight` and `event`
    (n,). A row is at risk in the cells `first` to `last` - 1 (n,), in none where these are equal; an event falls in the
    last of them. `ends` (k + 1,): where the cells of each stratum begin. `patient` (n,): the number of each row's
    patient.
    """

    x: Array
    offset: Array
    weight: Array
    event: NDArray[np.bool_]
    first: Places
    last: Places
    ends: Places
    patient: Places

    @property
    def size(self) -> int:
        """Number of cells."""
        return int(self.ends[-1])

    @property
    def cell(self) -> Places:
        """The cell of each event."""
        return np.asarray(self.last[self.event] - 1)

    def find_predictor(self, beta: Array) -> Array:
        """Each row's x'b + offset (n,)."""
        return np.asarray(self.x @ beta + self.offset)

    def find_risk(self, beta: Array) -> Array:
        """Each row's weight times exp(x'b + offset) (n,)."""
        return np.asarray(self.weight * np.exp(self.find_predictor(beta)))

    def sum_at_risk(self, values: Array) -> Array:
        """Sums of values (n, k) over the risk set of each cell (c, k)."""
        some = self.last > self.first
        starts = self.ends[np.searchsorted(self.ends, self.first, side="right") - 1]
        late = some & (self.first > starts)
        sums = self._sum_from(np.where(some, self.last - 1, self.size), values)
        return sums - self._sum_from(np.where(late, self.first - 1, self.size), values) if late.any() else sums

    def _sum_from(self, cells: Places, values: Array) -> Array:
        """Sums over the rows whose cell is this one, or a later one of its stratum; rows of no cell are after all."""
        sums = _sum_by_cell(cells, self.size + 1, values)[:-1]
        for start, end in zip(self.ends[:-1].tolist(), self.ends[1:].tolist(), strict=True):
            sums[start:end] = np.cumsum(sums[start:end][::-1], axis=0)[::-1]
        return sums

    def sum_cells(self, risk: Array) -> CellSums:
        """S0, S1 over the risk sets and D0, D1 over the events, at the rows' risks (n,)."""
        values = np.empty((len(risk), 1 + self.x.shape[1]), order="F")
        values[:, 0] = risk
        np.multiply(self.x, risk[:, None], out=values[:, 1:])
        at = np.where(self.event, self.last - 1, self.size)
        sums, own = self.sum_at_risk(values), _sum_by_cell(at, self.size + 1, values)[:-1]
        return CellSums(sums[:, 0], sums[:, 1:], own[:, 0], own[:, 1:])

    def sum_products(self, risk: Array, a: Array, b: Array) -> Array:
        """The sum over cells of a S2 - b D2 (p, p): x x' over the rows, each with a weight of its own."""
        sums = np.concatenate([[0.0], np.cumsum(a)])
        weight = risk * (sums[self.last] - sums[self.first])
        weight[self.event] -= risk[self.event] * b[self.cell]
        return np.asarray(self.x.T @ (self.x * weight[:, None]))

    def sum_events(self, by: Array) -> Array:
        """The sum of weight times x times `by` (c,) of its cell over the events (p,)."""
        factor = np.zeros(len(self.weight))
        factor[self.event] = self.weight[self.event] * by[self.cell]
        return np.asarray(self.x.T @ factor)

    def count_events(self) -> tuple[Array, Array]:
        """Number and weight of the events in each cell, each (c,)."""
        count = np.bincount(self.cell, minlength=self.size).astype(np.float64)
        return count, np.bincount(self.cell, self.weight[self.event], self.size).astype(np.float64)

    def score_rows(self, risk: Array, ties: TieWeights, cells: CellSums) -> Array:
        """Each row's score residual times its weight (n, p).

        Therneau and Grambsch 2000, section 4.5; of tied events each is at risk for its share, as R's coxph has it.
        """
        hazard, events = np.concatenate([[0.0], np.cumsum(ties.a)]), self.event
        drift, own = average_events(ties, cells)
        path = np.concatenate([np.zeros((1, self.x.shape[1])), np.cumsum(drift, axis=0)])
        expected = hazard[self.last] - hazard[self.first]
        scores = -risk[:, None] * (self.x * expected[:, None] - (path[self.last] - path[self.first]))
        x, at = self.x[events], self.cell
        scores[events] += self.weight[events, None] * (x - ties.mean[at])
        scores[events] += risk[events, None] * (x * ties.b[at, None] - own[at])
        return np.asarray(scores)


def _sum_by_cell(cells: Places, size: int, values: Array) -> Array:
    columns = [np.bincount(cells, weights=column, minlength=size) for column in values.T]
    return np.asarray(np.stack(columns, axis=1), dtype=np.float64)


def place_times(strata: Places, time: Array, entry: Array, event: NDArray[np.bool_]) -> tuple[Places, Places, Places]:
    """First and last cells of rows (n,), and where strata begin, with a cell for every time that has an event.

    A row is at risk at a time if it entered before it and leaves at it or later.
    """
    first, last = np.zeros(len(time), np.int64), np.zeros(len(time), np.int64)
    ends = [0]
    for level in np.unique(strata).tolist():
        inside = strata == level
        times = np.unique(time[inside & event])
        first[inside] = ends[-1] + np.searchsorted(times, entry[inside], side="right")
        last[inside] = ends[-1] + np.searchsorted(times, time[inside], side="right")
        ends.append(ends[-1] + len(times))
    return first, np.maximum(last, first), np.array(ends, np.int64)
