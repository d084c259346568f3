"""Covariate patterns: the grid of all combinations of declared values, each with a number.

A pattern's number is mixed radix over the formula's covariates in the order of its terms: equal numbers mean equal
values at every site, whatever a site's rows happen to hold. Levels and grids are declared, never read from the data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import DataError, StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Variable
from coterie_learners.study.rows import Codes

Keys = NDArray[np.int64]

MAX_VALUES = 1000
MAX_PATTERNS = 1 << 62


@dataclass(frozen=True)
class Axis:
    """One covariate: its declared values in ascending order (level numbers of a category)."""

    name: str
    values: Array

    @property
    def consecutive(self) -> bool:
        """Whether the values are whole numbers one apart, as levels are."""
        return bool(np.all(np.diff(self.values) == 1.0))

    def places(self, column: NDArray[Any]) -> NDArray[Any]:
        """Positions (m,) of the values in a column; DataError if one is not declared."""
        if self.consecutive:
            return column if self.values[0] == 0.0 else column - self.values[0]
        at = np.minimum(np.searchsorted(self.values, column), len(self.values) - 1)
        off = np.flatnonzero(self.values[at] != column)
        if len(off):
            message = (
                f"{self.name} has {len(off)} values that are not on its declared grid, such as {column[off[0]]:.15g}"
            )
            raise DataError("CO-D302", f"{message}. Round them as the study's `grids` say, or widen the grid.")
        return at


@dataclass(frozen=True)
class Grid:
    """All patterns of a design's covariates, numbered from 0 to `size` - 1."""

    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, design: Design, grids: Mapping[str, Sequence[float]]) -> Grid:
        """The grid of a study; StudyError if a covariate has no short list of declared values."""
        names = tuple(dict.fromkeys(design.list_covariates()))
        for name in grids:
            if name not in names:
                raise StudyError(
                    "CO-S321",
                    f"`grids` names {name!r}, which is not a covariate of the formula. Remove it from `grids`.",
                )
        return cls(tuple(Axis(n, _values(n, design.declared[n], grids.get(n))) for n in names))

    @property
    def size(self) -> int:
        """Number of patterns; StudyError if they cannot be numbered."""
        size = math.prod(len(axis.values) for axis in self.axes)
        if size > MAX_PATTERNS:
            raise StudyError("CO-S323", f"The covariates have {size:.3g} patterns, too many to number. Use GLORE.")
        return size

    def keys(self, codes: Codes, n: int) -> Keys:
        """Pattern numbers (n,) of rows given by their variables' values."""
        # 32 bits pass through the cache in half the time.
        keys: NDArray[Any] = np.zeros(n, dtype=np.int32 if self.size < 1 << 31 else np.int64)
        for axis in self.axes:
            np.multiply(keys, len(axis.values), out=keys)
            places = axis.places(codes[axis.name])
            # A float would carry the sum through floats, which hold no more than 53 bits.
            np.add(keys, places if places.dtype.kind in "iu" else places.astype(keys.dtype), out=keys, casting="unsafe")
        return keys

    def codes(self, keys: Keys) -> dict[str, Array]:
        """The variables' values of these patterns."""
        out: dict[str, Array] = {}
        rest = np.asarray(keys, dtype=np.int64)
        for axis in reversed(self.axes):
            rest, place = np.divmod(rest, len(axis.values))
            out[axis.name] = axis.values[place]
        return out

    def matrix(self, design: Design, keys: Keys) -> Array:
        """Design (m, p) of these patterns on the inside scale."""
        return design.matrix(self.codes(keys), len(keys))

    def raw(self, design: Design, keys: Keys) -> Array:
        """Design (m, p) of these patterns in the variables' own units: whole numbers where the values are."""
        codes = self.codes(keys)
        out = np.ones((len(keys), len(design.columns)))
        for j, column in enumerate(design.columns):
            for factor in column.factors:
                out[:, j] *= factor.values(codes)
        return out


def _values(name: str, variable: Variable, grid: Sequence[float] | None) -> Array:
    if variable.type in ("category", "binary"):
        if grid is not None:
            raise StudyError(
                "CO-S321", f"`grids` names {name!r}, whose values are declared already. Remove it from `grids`."
            )
        return np.arange(max(len(variable.levels), 2), dtype=np.float64)
    low, high = variable.bounds
    if grid is None and variable.type == "number":
        message = f"{name} is a number without a declared grid"
        raise StudyError("CO-S322", f"{message}. Add it to `grids`, cut it into categories, or use GLORE.")
    values = np.arange(np.ceil(low), np.floor(high) + 1.0) if grid is None and high - low <= MAX_VALUES else grid
    if values is None or not 2 <= len(values) <= MAX_VALUES:
        raise StudyError("CO-S322", f"{name} needs between 2 and {MAX_VALUES} declared values: narrow its range.")
    values = np.asarray(values, dtype=np.float64)
    whole = variable.type == "number" or np.all(values == np.rint(values))
    if not (np.all(np.diff(values) > 0) and low <= values[0] and values[-1] <= high and whole):
        raise StudyError(
            "CO-S321", f"The grid of {name} must ascend within its range and fit its type. Correct `grids`."
        )
    return values
