"""The array type of the learners, and the distinct values of an array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Up to so many values are sorted here: `np.unique` imports numpy.ma, which takes longer.
_SORTED_HERE = 4096


def find_distinct(values: NDArray[Any]) -> NDArray[Any]:
    """The distinct values of an array (m,) in ascending order, as `np.unique` has them; of several NaN one."""
    if len(values) > _SORTED_HERE:
        return np.unique(values)
    ordered = np.sort(values)
    first = np.ones(len(ordered), dtype=np.bool_)
    first[1:] = (ordered[1:] != ordered[:-1]) & (ordered[:-1] == ordered[:-1])
    return ordered[first]
