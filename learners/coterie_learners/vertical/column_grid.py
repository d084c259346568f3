"""Whether a column's values lie on a grid: then lattice reduction gives them back from a factor, row by row.

A factor is the columns up to one rotation; its span with 1 holds every column. The whole-number vectors of that span
form a lattice, whose short vectors are the columns that take their values in steps (Lenstra, Lenstra, Lovasz 1982;
red-team test `test_lattice`). Rounding, other columns, units, or a few values filled in by a mean do not help.
So every column counts of which most values

- have at most 12 significant digits, as every number that was few_digits or measured,
- lie in equal steps of whatever size (mg turned into mmol, standardised scores), or
- lie on a grid once their exponential, square or reciprocal is taken (a logarithm or a root of whole days),

and every column with at most half as many values as rows.

No attack is run to decide it: one that fails proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array

DIGITS = 12
# Beyond so many steps between the least and the largest value equal steps are not looked for.
MOST_STEPS = 1e7
GAPS = 200
# At most so many values, spread evenly, are looked at; if no part of a column shows a grid, the column has none.
MOST_LEVELS = 2000
# A fraction of a step: how far a value may lie off the grid. Values that lie anywhere all do so with a chance of 0.02 ^
# rows.
OFF = 0.01
# Parts of so many values; a part without a value that was filled in shows the step of the others.
_PART, TRIES = 12, 40
# Digits are seen where an error is so many times smaller than the last of them.
SEEN = 8.0
_EPS = 4.0 * float(np.finfo(np.float64).eps)
# Powers beyond exp of it hold no digits of a step that is seen.
LARGEST = 30.0


def lies_on_grid(values: Array, noise: float = 0.0) -> bool:
    """Whether most values of a column (n,) lie on a grid; `noise` is the largest error of its values by arithmetic.

    It is presumed for a column whose digits the arithmetic hides in every row.
    """
    levels, rows = np.unique(values, return_counts=True)
    if 2 * len(levels) <= len(values):
        return True
    thin = slice(None, None, -(-len(levels) // MOST_LEVELS))
    levels, rows = levels[thin], rows[thin]
    errors = np.maximum(noise, _EPS * np.abs(levels))
    seen = SEEN * errors <= _units(levels)
    few_digits = 2 * np.sum(rows[seen & _has_few_digits(levels, errors)]) >= np.sum(rows[seen])
    if few_digits or _lies_in_steps(levels, errors):
        return True
    return any(_lies_visibly_on_grid(*undone) for undone in _undo_maps(levels, errors))


def _lies_visibly_on_grid(values: Array, errors: Array) -> bool:
    """Whether most values that arithmetic has changed lie on a grid that can still be seen."""
    seen = SEEN * errors <= _units(values)
    order = np.argsort(values)
    return 2 * int(np.sum(seen & _has_few_digits(values, errors))) >= len(values) or _lies_in_steps(
        values[order], errors[order]
    )


def _lies_in_steps(levels: Array, errors: Array) -> bool:
    """Whether most of the ascending values lie in equal steps: all of them, or those beside some that were filled in.

    A step that a few values share is looked for in parts of them, and compared with all.
    """
    error = float(errors.max())
    if find_grid_step(levels, error) is not None:
        return True
    rng = np.random.default_rng(0)
    for _ in range(TRIES if len(levels) > 2 * _PART else 0):
        part = np.sort(rng.choice(levels, _PART, replace=False))
        step = find_grid_step(part, error)
        if step is not None:
            steps = (levels - part[0]) / step
            if 2 * int(np.sum(np.abs(steps - np.round(steps)) <= OFF)) >= len(levels):
                return True
    return False


def _undo_maps(values: Array, errors: Array) -> Iterator[tuple[Array, Array]]:
    """The values under the inverse of what people apply to measurements, each with the errors that they then have."""
    size = np.abs(values)
    yield values**2, 2.0 * size * errors + _EPS * size**2
    for base in (math.e, 2.0, 10.0):
        if np.max(size) * math.log(base) < LARGEST:
            powers = base**values
            yield powers, powers * (_EPS + errors * math.log(base))
    if np.all(size > 1e3 * errors):
        yield 1.0 / values, (_EPS + errors / size) / size


def _units(values: Array) -> Array:
    """The last of 12 significant digits of each value."""
    size = np.abs(values)
    units: Array = 10.0 ** (np.floor(np.log10(np.where(size > 0.0, size, 1.0))) + 1 - DIGITS)
    return units


def _has_few_digits(values: Array, errors: Array) -> NDArray[np.bool_]:
    """Which values have at most 12 significant digits, as far as their error lets them be seen."""
    units = _units(values)
    few_digits: NDArray[np.bool_] = np.abs(values - np.round(values / units) * units) <= errors
    return few_digits


def find_grid_step(levels: Array, error: float) -> float | None:
    """The step of ascending values (k,) that lie on a + whole numbers x step; None if there is none to be seen.

    The greatest common divisor of the smallest gaps by Euclid's algorithm, then fitted to ever larger distances.
    """
    span = float(levels[-1] - levels[0])
    gaps = np.sort(np.diff(levels))
    wide = int(np.sum(gaps > 4.0 * error))
    if wide == 0 or 4 * wide < 3 * len(gaps):  # most of what there is to see is hidden by errors
        return None
    gaps = gaps[-wide:][:GAPS]
    step, least = float(gaps[0]), max(span / MOST_STEPS, 16.0 * error)
    for gap in gaps[1:].tolist():
        step = _find_divisor(gap, step, least)
        if step <= least:
            return None
    return _fit_step(levels - levels[0], step, span)


def _find_divisor(a: float, b: float, least: float) -> float:
    """Euclid's algorithm with remainders of either sign, which end where they are `least` or smaller."""
    while b > least:
        a, b = b, abs(a - b * round(a / b))
    return a


def _fit_step(distances: Array, step: float, span: float) -> float | None:
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
