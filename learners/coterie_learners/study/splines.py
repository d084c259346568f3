"""Spline bases from declared knots: B-splines (de Boor 1978), natural cubic splines, restricted cubic splines.

The columns are those of R's `splines::bs` and `splines::ns` and of `rms::rcs` with the same knots: `ns` takes out the
second derivatives at the boundary by the Householder reflections of LINPACK's `dqrdc`, elementwise and in this order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coterie_learners.numeric.array import Array

CUBIC = 4


@dataclass(frozen=True)
class BSpline:
    """R's bs(x, knots = , degree = , Boundary.knots = ): all B-splines but the first."""

    knots: tuple[float, ...]
    boundary: tuple[float, float]
    degree: int = 3

    @property
    def breaks(self) -> tuple[float, ...]:
        """The points at which the pieces meet."""
        return (self.boundary[0], *self.knots, self.boundary[1])

    def evaluate(self, x: Array) -> Array:
        """The columns (m, k) at x (m,)."""
        order = self.degree + 1
        return evaluate_splines(place_knots(self.knots, self.boundary, order), x, order)[:, 1:]


@dataclass(frozen=True)
class NaturalSpline:
    """R's ns(x, knots = , Boundary.knots = ): cubic between the boundary knots, linear beyond them."""

    knots: tuple[float, ...]
    boundary: tuple[float, float]

    @property
    def breaks(self) -> tuple[float, ...]:
        """The points at which the pieces meet."""
        return (self.boundary[0], *self.knots, self.boundary[1])

    def evaluate(self, x: Array) -> Array:
        """The columns (m, k) at x (m,)."""
        low, high = self.boundary
        basis = self._splines(np.clip(x, low, high), 0)
        for end, outside in ((low, x < low), (high, x > high)):
            if np.any(outside):
                at = np.array([end])
                slope = self._splines(at, 1)[0]
                basis[outside] = self._splines(at, 0)[0] + slope * (x[outside] - end)[:, None]
        return self._reflect(basis)[:, 2:]

    def _splines(self, x: Array, derivative: int) -> Array:
        knots = place_knots(self.knots, self.boundary, CUBIC)
        return evaluate_splines(knots, x, CUBIC, derivative)[:, 1:]

    def _reflect(self, basis: Array) -> Array:
        """basis Q, where Q R are the second derivatives at the boundary."""
        out = basis.copy()
        for start, vector in enumerate(self._reflections):
            share = np.zeros(len(out))
            for j in range(start, len(vector)):
                share = share + vector[j] * out[:, j]
            share = -share / vector[start]
            for j in range(start, len(vector)):
                out[:, j] = out[:, j] + share * vector[j]
        return out

    @cached_property
    def _reflections(self) -> tuple[tuple[float, ...], ...]:
        """The two Householder vectors of LINPACK's decomposition."""
        rows = self._splines(np.array(self.boundary), 2)
        columns = [[float(value) for value in row] for row in rows]
        vectors = []
        for at, column in enumerate(columns):
            norm = math.sqrt(sum(value * value for value in column[at:]))
            norm = math.copysign(norm, column[at]) if column[at] else norm
            vector = [0.0] * at + [value / norm for value in column[at:]]
            vector[at] += 1.0
            for other in columns[at + 1 :]:
                share = -sum(v * o for v, o in zip(vector, other, strict=True)) / vector[at]
                other[:] = [o + share * v for v, o in zip(vector, other, strict=True)]
            vectors.append(tuple(vector))
        return tuple(vectors)


@dataclass(frozen=True)
class RestrictedSpline:
    """rms::rcs(x, knots): x, and truncated cubes that are linear beyond the outer knots, over (last - first)^2."""

    knots: tuple[float, ...]

    @property
    def breaks(self) -> tuple[float, ...]:
        """The points at which the pieces meet."""
        return self.knots

    def evaluate(self, x: Array) -> Array:
        """The columns (m, k - 1) at x (m,), for k knots."""
        *_, before, last = self.knots
        unit = (last - self.knots[0]) * (last - self.knots[0])
        columns = [x]
        for knot in self.knots[:-2]:
            tail = (before - knot) * _cube(x - last) - (last - knot) * _cube(x - before)
            columns.append((_cube(x - knot) + tail / (last - before)) / unit)
        return np.column_stack(columns)


@dataclass(frozen=True)
class OrthogonalPolynomial:
    """R's poly(x, degree, coefs = list(alpha = , norm2 = )), by its three-term recurrence."""

    alpha: tuple[float, ...]
    norm2: tuple[float, ...]

    @property
    def breaks(self) -> tuple[float, ...]:
        """A polynomial has one piece."""
        return ()

    def evaluate(self, x: Array) -> Array:
        """The columns (m, degree) at x (m,)."""
        columns = [np.ones(len(x)), x - self.alpha[0]]
        for k in range(1, len(self.alpha)):
            ratio = self.norm2[k + 1] / self.norm2[k]
            columns.append((x - self.alpha[k]) * columns[k] - ratio * columns[k - 1])
        return np.column_stack([c / math.sqrt(self.norm2[k + 1]) for k, c in enumerate(columns)][1:])


def place_knots(knots: Sequence[float], boundary: tuple[float, float], order: int) -> Array:
    """All knots of splines of an order: the boundary's as often as the order."""
    return np.array([boundary[0]] * order + sorted(knots) + [boundary[1]] * order)


def evaluate_splines(knots: Array, x: Array, order: int, derivative: int = 0) -> Array:
    """All B-splines of an order at x (m,) inside the knots, or their derivative: (m, number of knots - order)."""
    last = len(knots) - 1 - int(np.count_nonzero(knots == knots[-1]))
    piece = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, last)
    values = np.zeros((len(x), len(knots) - 1))
    values[np.arange(len(x)), piece] = 1.0
    for k in range(2, order + 1):
        values = _raise_order(knots, x, values, k, differentiate=k > order - derivative)
    return values


def _raise_order(knots: Array, x: Array, values: Array, order: int, differentiate: bool) -> Array:
    """Splines of an order from those of the order below (de Boor 1978, X.15), or their derivatives."""
    count = len(knots) - order
    out = np.zeros((len(x), count))
    for j in range(count):
        for at, sign in ((j, 1.0), (j + 1, -1.0)):
            width = knots[at + order - 1] - knots[at]
            if width == 0.0:
                continue
            if differentiate:
                out[:, j] += sign * (order - 1) * values[:, at] / width
            else:
                weight = (x - knots[at]) if sign > 0.0 else (knots[at + order - 1] - x)
                out[:, j] += weight * values[:, at] / width
    return out


def _cube(x: Array) -> Array:
    above = np.maximum(x, 0.0)
    return np.asarray(above * above * above)
