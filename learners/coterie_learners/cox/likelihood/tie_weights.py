"""Score, information and value of a Cox model from sums over its cells, with tied events after Breslow or Efron.

Cox, JRSS B 1972;34:187-220; Breslow, Biometrics 1974;30:89-99; Efron, JASA 1977;72:557-565. If a cell has d events, the
k-th (from 0) has the risk set S0 - f D0 with f = k/d (Efron) or f = 0 (Breslow). S0, S1 are the sums of risk and of
risk times x over the risk set, D0, D1 those over the events. Weighted events count by their mean weight, as in R.

All of it has the same bits on every machine: a server posts what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import ProtocolError
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.elementary import exp_of_array, log_of_array

Multiply = Callable[[Array, Array], Array]
# A part of a risk set below this share of it is rounding: its mean says nothing.
_NOTHING = 1e-12


@dataclass(frozen=True)
class CellSums:
    """By cell: sums of risk `s0` (c,) and of risk times x `s1` (c, p) at risk, and `d0`, `d1` over the events."""

    s0: Array
    s1: Array
    d0: Array
    d1: Array

    def predict(self, step: Array) -> CellSums:
        """The sums as the means of x foretell them at coefficients that are `step` (p,) further.

        The error is of second order. No sum comes out larger than it is, so an information from it is no smaller.
        """
        rest0, rest1 = self.s0 - self.d0, self.s1 - self.d1
        some = np.asarray(rest0 > _NOTHING * self.s0)
        rest = np.where(some, rest0 * _grow(rest0, rest1, some, step), np.maximum(rest0, 0.0))
        events = self.d0 * _grow(self.d0, self.d1, np.asarray(self.d0 > 0.0), step)
        return CellSums(rest + events, self.s1, events, self.d1)


def _grow(sums: Array, first: Array, some: NDArray[np.bool_], step: Array) -> Array:
    mean = first / np.where(some, sums, 1.0)[:, None]
    return exp_of_array(np.where(some, linalg.matvec(mean, step), 0.0))


@dataclass(frozen=True)
class TieWeights:
    """By cell, over its events: sums of 1/R (`a`), f/R (`b`), and 1, f, f^2 over R^2 (`c`), R being the risk set.

    All are times the events' mean weight. `mean` (c, p) is the mean of x over the risk sets of a cell's events.
    `logs`: the sum of log R over all cells.
    """

    a: Array
    b: Array
    c: tuple[Array, Array, Array]
    mean: Array
    logs: float


def weigh_ties(events: Array, weight: Array, cells: CellSums, efron: bool) -> TieWeights:
    """What the events (c,) of each cell, with their weight (c,), make of its sums."""
    counts = events.astype(np.int64)
    at = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = place / counts[at] if efron else np.zeros(len(at))
    risk = cells.s0[at] - share * cells.d0[at]
    if not np.all(risk > 0.0) or not np.all(np.isfinite(risk)):
        raise ProtocolError("CO-P509", "Sums over risk sets in which an event falls are not positive.")
    own = (weight / np.maximum(events, 1.0))[at]

    def add(values: Array) -> Array:
        return np.asarray(np.bincount(at, weights=own * values, minlength=len(counts)), dtype=np.float64)

    squares = risk * risk
    a, b = add(1.0 / risk), add(share / risk)
    c = (add(1.0 / squares), add(share / squares), add(share * share / squares))
    mean = (a[:, None] * cells.s1 - b[:, None] * cells.d1) / np.where(weight > 0.0, weight, 1.0)[:, None]
    return TieWeights(a, b, c, mean, float(accumulate(own * log_of_array(risk))))


def average_events(ties: TieWeights, cells: CellSums) -> tuple[Array, Array]:
    """By cell (c, p): the sums of mean x over R, and of f times it, each mean being that of one event's risk set."""
    whole, part, square = (values[:, None] for values in ties.c)
    return whole * cells.s1 - part * cells.d1, part * cells.s1 - square * cells.d1


def accumulate(values: Array) -> Array:
    """The sum over cells, one after the other; zero of none."""
    return np.asarray(np.cumsum(values, axis=0)[-1] if len(values) else np.zeros(values.shape[1:]))


def sum_expected(ties: TieWeights, cells: CellSums, by: Array) -> Array:
    """What the score takes off the events' sum of x (p,), each cell times `by` (c,)."""
    return accumulate((by * ties.a)[:, None] * cells.s1 - (by * ties.b)[:, None] * cells.d1)


def sum_outer(ties: TieWeights, cells: CellSums, by: Array, multiply: Multiply = linalg.matmul) -> Array:
    """The squared means (p, p) that the information takes off the sum of x x', each cell times `by` (c,)."""
    whole, part, square = ((by * values)[:, None] for values in ties.c)
    cross = multiply((cells.s1 * part).T, cells.d1)
    outer = multiply((cells.s1 * whole).T, cells.s1) - cross - cross.T + multiply((cells.d1 * square).T, cells.d1)
    return np.asarray(0.5 * (outer + outer.T))
