"""Whether a site's own rows vary enough for the study: constant columns and columns that others make up.

Nothing here says a value or a count of a value: what varies nowhere is named, and the option of the study that allows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from coterie_learners.design import Codes, Design
from coterie_learners.errors import Collinear
from coterie_learners.linalg import cholesky
from coterie_learners.rows import Array, Block, Rows
from coterie_node.findings import Origin, listed


@dataclass
class Spread:
    """Least and largest value of each variable so far."""

    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)

    def add(self, codes: Codes) -> None:
        """Take in more rows; NaN is passed over."""
        for name, values in codes.items():
            self.low[name] = float(np.fmin.reduce(values, initial=self.low.get(name, np.inf)))
            self.high[name] = float(np.fmax.reduce(values, initial=self.high.get(name, -np.inf)))

    def constant(self, name: str) -> bool:
        """Whether all rows have the same value."""
        return self.low[name] == self.high[name]


class Gram:
    """Centred cross-products of the columns, and which of them vary; blocks are merged by Chan, Golub, LeVeque (1983)."""

    def __init__(self, p: int, centred: bool) -> None:
        self.n = 0
        self.centred = centred
        self.sums = np.zeros((p, p))
        self.mean = np.zeros(p)
        self.low, self.high = np.full(p, np.inf), np.full(p, -np.inf)

    def add(self, block: Block) -> None:
        """Take in a block (m, p)."""
        m = len(block)
        mean = block.x.mean(axis=0) if self.centred else self.mean
        x = block.x - mean
        apart = mean - self.mean
        self.sums += x.T @ x + apart[:, None] * apart * (self.n * m / (self.n + m))
        self.n += m
        self.mean = self.mean + apart * (m / self.n)
        self.low, self.high = np.minimum(self.low, block.x.min(axis=0)), np.maximum(self.high, block.x.max(axis=0))

    @property
    def varies(self) -> Array:
        """Indices of the columns that are not constant."""
        return np.flatnonzero(self.low < self.high)
