"""Few patients that the levels of two studies on the same rows set apart: by two levels, or by sums of several.

Sums of each level are sums of every combination of levels. So a pattern of all levels stands alone if some combination
is 0 for every other pattern: if its leverage among the distinct patterns is 1 (as in `known_functions`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_node.privacy.values import LevelTable

# A pattern with this leverage or more has a combination of levels to itself.
_ALONE = 1.0 - 1e-9
# More patterns than these are not solved.
_MOST_PATTERNS = 600
_ROUNDED = 1e-10


def differ_little(a: LevelTable, b: LevelTable, floor: int) -> bool:
    """Whether a level of one contains a level of the other and fewer patients than the floor besides."""
    cells = np.bincount(a.codes.astype(np.intp) * b.size + b.codes, minlength=a.size * b.size).reshape(a.size, b.size)
    more = cells.sum(axis=1)[:, None] - cells
    fewer = cells.sum(axis=0)[None, :] - cells
    little = ((fewer == 0) & (more > 0) & (more < floor)) | ((more == 0) & (fewer > 0) & (fewer < floor))
    return bool(np.any(little & (cells > 0)))


def are_twins(a: LevelTable, b: LevelTable, floor: int) -> bool:
    """Whether each level of one is a level of the other, except for fewer patients than the floor, and some are not."""
    cells = np.bincount(a.codes.astype(np.intp) * b.size + b.codes, minlength=a.size * b.size).reshape(a.size, b.size)
    best = cells.argmax(axis=1)
    apart = int(cells.sum() - cells.max(axis=1).sum())
    return len(set(best.tolist())) == a.size == b.size and 0 < apart < floor


def isolate_few(new: Sequence[LevelTable], former: Sequence[LevelTable], plain: Collection[str], floor: int) -> bool:
    """Whether levels of both studies set fewer patients than the floor apart that those of no single study do.

    `plain`: names of raw columns; what these set apart by themselves is not asked here.
    """
    if not new or not former:
        return False
    whole = [*new, *former]
    few = _find_alone(whole, floor)
    for part in filter(None, (new, former, [table for table in whole if table.name in plain])):
        if not few.any():
            return False
        few &= ~_find_alone(part, floor)
    return bool(few.any())


def _find_alone(tables: Sequence[LevelTable], floor: int) -> NDArray[np.bool_]:
    """Which rows (n,) are of a pattern of few patients that has a combination of levels to itself."""
    at, counts = _find_patterns(tables)
    if not tables or len(counts) > _MOST_PATTERNS or not (counts < floor).any():
        return np.zeros(len(at), np.bool_)
    row = np.zeros(len(counts), np.intp)
    row[at] = np.arange(len(at))  # any row of each pattern
    levels = _code_levels(np.column_stack([table.codes[row] for table in tables]))
    u, s, _ = np.linalg.svd(levels, full_matrices=False)
    basis = u[:, s > _ROUNDED * s[0]]
    alone = (np.einsum("ij,ij->i", basis, basis) >= _ALONE) & (counts < floor)
    return np.asarray(alone[at])


def _find_patterns(tables: Sequence[LevelTable]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Each row's pattern of levels (n,), and the rows of each (m,); not of all tables if these are too many."""
    at = np.zeros(len(tables[0].codes) if tables else 0, np.intp)
    counts = np.array([len(at)], np.intp)
    for table in tables:
        if len(counts) > _MOST_PATTERNS:
            break
        joint = at * table.size + table.codes
        cells = np.bincount(joint, minlength=len(counts) * table.size)
        at, counts = (np.cumsum(cells > 0) - 1)[joint], cells[cells > 0]
    return at, counts


def _code_levels(patterns: NDArray[Any]) -> Array:
    """A column of 0 and 1 for each level of each table (m, k), and the constant."""
    parts = [column[:, None] == np.unique(column) for column in patterns.T]
    return np.column_stack([np.ones(len(patterns)), *parts]).astype(np.float64)
