"""What a Gram matrix or a factor of it discloses to its readers: in words, as JSON, and for the release gate.

Both are the data up to one rotation. Their readers can (red-team tests do):
- rebuild binary columns exactly, from the payload alone: the span of 1 and the factor holds few vectors of zeros and
  ones besides the true ones (A2; continuous columns beside them do not protect them, and for many binary columns
  independent component analysis does the same);
- rebuild columns whose values lie on a grid (`column_grid`), nearly every clinical one, by lattice reduction: those of
  few small values themselves, others up to sums with small coefficients, which known ranges settle;
- rebuild every row after learning r linearly independent rows by other means, by solving for the rotation (A3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from coterie_learners.core.disclosure import Exposure
from coterie_learners.numeric.array import Array
from coterie_learners.vertical.column_grid import lies_on_grid

# Up to so many dimensions q all 2^(q - 1) patterns of 0 and 1 are tried.
MAX_SPAN = 16
LEFT = 1e-6


@dataclass(frozen=True)
class FactorDisclosure:
    """What a site's factor (n, r) discloses.

    `binary` names columns with two values, which readers can rebuild; `gridded` the others that lie on a grid;
    `rebuilt` those that the attack on binary ones did rebuild in this payload, None where its span has too many
    dimensions to count through.
    """

    n: int
    rank: int
    columns: int
    binary: tuple[str, ...]
    gridded: tuple[str, ...]
    rebuilt: tuple[str, ...] | None

    @property
    def words(self) -> str:
        """The disclosure in sentences."""
        message = f"The factor ({self.n} x {self.rank}) is the site's {self.columns} columns up to one rotation."
        if self.binary:
            some = f" It discloses these {len(self.binary)} binary columns exactly: {', '.join(self.binary)}."
            tried = "" if self.rebuilt is None else f" (An attack on it rebuilt {len(self.rebuilt)} of them.)"
            message += some + tried
        if self.gridded:
            message += (
                f" Lattice reduction gives these {len(self.gridded)} columns on a grid back: {', '.join(self.gridded)}."
            )
        return f"{message} A reader who already knows {self.rank} of its rows can compute all {self.n}."

    def exposure(self, what: str) -> Exposure:
        """What the release gate asks; `what` names the payload. With a column every count of it comes back."""
        message = f"{what}, which is these columns up to one rotation"
        return Exposure(what=message, rows=self.n, rebuilt=self.binary, gridded=self.gridded)

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return {
            "rows": self.n,
            "rank": self.rank,
            "columns": self.columns,
            "binary_columns": list(self.binary),
            "grid_columns": list(self.gridded),
            "rebuilt_by_attack": None if self.rebuilt is None else list(self.rebuilt),
            "rows_that_reveal_all": self.rank,
            "words": self.words,
        }


def assess_factor(x: Array, names: Sequence[str], factor: Array, noise: Array | None = None) -> FactorDisclosure:
    """Judge a factor (n, r) of columns x (n, m) in their own units, by running the attack on binary ones.

    `noise` (m,) is the largest rounding error of each column's values.
    """
    errors = np.zeros(len(names)) if noise is None else noise
    two = {name: column for name, column in zip(names, x.T, strict=True) if len(np.unique(column)) == 2}
    vectors = binary_vectors(factor) if two else np.zeros((0, len(x)))
    rebuilt = (
        None if vectors is None else tuple(name for name, column in two.items() if _contains_column(column, vectors))
    )
    grid = [
        name for name, column, e in zip(names, x.T, errors, strict=True) if name not in two and lies_on_grid(column, e)
    ]
    return FactorDisclosure(len(x), factor.shape[1], x.shape[1], tuple(two), tuple(grid), rebuilt)


def binary_vectors(factor: Array, most: int = MAX_SPAN) -> Array | None:
    """All vectors of zeros and ones (k, n) in the span of 1 and the columns of a factor (n, r), up to complement.

    The attack A2: write the span in terms of q of its rows, count through their 2^(q - 1) patterns, keep those that
    stay 0 or 1 in all rows. None if q is larger than `most`.
    """
    n = len(factor)
    if factor.shape[1] > most:  # a factor's columns are independent
        return None
    u, s, _ = np.linalg.svd(np.c_[np.ones(n), factor], full_matrices=False)
    span = u[:, s > 1e-8 * s[0]]
    q = span.shape[1]
    if q > most:
        return None
    pivots = scipy.linalg.qr(span.T, mode="economic", pivoting=True)[2][:q]
    of_pivots = span @ np.linalg.inv(span[pivots])
    patterns = ((np.arange(1, 2 ** (q - 1))[:, None] >> np.arange(q)) & 1).astype(float)
    for start in range(0, n, 64):
        values = patterns @ of_pivots[start : start + 64].T
        patterns = patterns[(np.abs(values * (values - 1.0)) < LEFT).all(axis=1)]
    vectors: Array = np.rint(patterns @ of_pivots.T)
    return vectors


def _contains_column(column: Array, vectors: Array) -> bool:
    upper = (column == column.max()).astype(float)
    return bool(np.any(np.all(vectors == upper, axis=1) | np.all(vectors == 1.0 - upper, axis=1)))
