"""Whether a column's values lie on a grid: then lattice reduction gives them back from a factor, row by row.

A factor is the columns up to one rotation; its span with 1 holds every column. The whole-number vectors of that span
form a lattice, whose short vectors are the columns that take their values in steps (Lenstra, Lenstra, Lovasz 1982;
red-team test `test_lattice`). Rounding, other columns and units do not help. So every column counts that

- has no value with more than 12 significant digits, as every number that was typed or measured,
- takes values in equal steps of whatever size (mg turned into mmol, standardised scores), or
- has at most half as many values as rows, or lies on a grid once its exponential, square or reciprocal is taken (a
  logarithm or a root of whole years).

No attack is run to decide it: one that fails proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from coterie_learners.rows import Array

DIGITS = 12
# Beyond so many steps between the least and the largest value equal steps are not looked for.
MOST_STEPS = 1e7
GAPS = 200
# Of a step: how far a value may lie off the grid. Values that lie anywhere all do so with a chance of 0.02 ^ rows.
OFF = 0.01
EPS = 4.0 * float(np.finfo(np.float64).eps)
# Powers beyond exp of it hold no digits of a step that is seen.
LARGEST = 30.0


def on_grid(values: Array, noise: float = 0.0) -> bool:
    """Whether a column (n,) lies on a grid; `noise` is the largest error of its values by arithmetic."""
    levels = np.unique(values)
    if 2 * len(levels) <= len(values):
        return True
    errors = np.maximum(noise, EPS * np.abs(levels))
    if _typed(levels, errors) or grid_step(levels, float(errors.max())) is not None:
        return True
    return any(_in_steps(*mapped) for mapped in _mapped(levels, errors))


def _in_steps(values: Array, errors: Array) -> bool:
    """Whether values that arithmetic has changed lie in steps that can still be seen in most of them."""
    seen = 20.0 * errors < _units(values)
    typed = 2 * int(np.sum(seen)) > len(values) and _typed(values[seen], errors[seen])
    return typed or grid_step(np.sort(values), float(errors.max())) is not None


def _mapped(values: Array, errors: Array) -> Iterator[tuple[Array, Array]]:
    """The values under the inverse of what people apply to measurements, each with the errors that they then have."""
    size = np.abs(values)
    yield values**2, 2.0 * size * errors + EPS * size**2
    for base in (math.e, 2.0, 10.0):
        if np.max(values) * math.log(base) < LARGEST:
            powers = base**values
            yield powers, powers * (EPS + errors * math.log(base))
    if np.all(size > 1e3 * errors):
        yield 1.0 / values, (EPS + errors / size) / size


def _units(values: Array) -> Array:
    """The last of 12 significant digits of each value."""
    size = np.abs(values)
    units: Array = 10.0 ** (np.floor(np.log10(np.where(size > 0.0, size, 1.0))) + 1 - DIGITS)
    return units


def _typed(levels: Array, errors: Array) -> bool:
    """Whether no value has more than 12 significant digits, as far as its error lets them be seen."""
    units = _units(levels)
    return bool(np.all(np.abs(levels - np.round(levels / units) * units) <= errors))


def grid_step(levels: Array, error: float) -> float | None:
    """The step of ascending values (k,) that lie on a + whole numbers x step; None if there is none to be seen.

    The greatest common divisor of the smallest gaps by Euclid's algorithm, then fitted to ever larger distances.
    """
    span = float(levels[-1] - levels[0])
    gaps = np.sort(np.diff(levels))
    gaps = gaps[gaps > 4.0 * error][:GAPS]
    if len(gaps) == 0:
        return None
    step, least = float(gaps[0]), max(span / MOST_STEPS, 16.0 * error)
    for gap in gaps[1:].tolist():
        step = _divisor(gap, step, least)
        if step <= least:
            return None
    return _fitted(levels - levels[0], step, span)


def _divisor(a: float, b: float, least: float) -> float:
    """Euclid's algorithm with remainders of either sign, which end where they are `least` or smaller."""
    while b > least:
        a, b = b, abs(a - b * round(a / b))
    return a


def _fitted(distances: Array, step: float, span: float) -> float | None:
    reach = 8.0 * step
    while True:
        near = distances[(distances > 0.6 * step) & (distances <= reach)]
        if len(near):
            counts = np.round(near / step)
            step = float(near @ counts / (counts @ counts))
        if reach >= span:
            break
        reach *= 4.0
    off = np.abs(distances / step - np.round(distances / step))
    return step if float(np.max(off)) <= OFF else None
