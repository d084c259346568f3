"""Small cells of a site's table: what is not shared.

Floors in use: 5 (OHDSI), 11 (US Centers for Medicare and Medicaid Services, PEDSnet).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coterie_learners.cola.tables.pattern_counts import Counts


def drop_small_cells(counts: Counts, floor: int) -> Counts:
    """Without the patterns that have fewer rows: they leave every sum, and look like patterns that do not occur."""
    return counts.select(counts.sums["n"] >= floor)


def impute_small_cells(counts: Counts, floor: int) -> Counts:
    """Patterns with fewer rows count as half the floor, rounded up; sums of the outcome stay as they are."""
    n = np.where(counts.sums["n"] < floor, float((floor + 1) // 2), counts.sums["n"])
    return replace(counts, sums={**counts.sums, "n": n})


def round_small_cells(counts: Counts, floor: int) -> NDArray[np.int64]:
    """Patterns and rows below the floor, (2,), each rounded up to a multiple of the floor."""
    small = counts.sums["n"] < floor
    exact = np.array([np.count_nonzero(small), counts.sums["n"][small].sum()])
    return np.asarray(np.ceil(exact / floor) * floor, dtype=np.int64)
