"""The distinct values of an array are those that numpy finds."""

from __future__ import annotations

import numpy as np
import pytest

from coterie_learners.numeric.array import find_distinct


@pytest.mark.parametrize("n", [0, 1, 2, 300, 4096, 4097])
@pytest.mark.parametrize("kind", ["float64", "int64", "uint8"])
def test_distinct_values_are_numpys(n: int, kind: str) -> None:
    values = np.random.default_rng(n).integers(0, 40, n).astype(kind)
    got = find_distinct(values)
    np.testing.assert_array_equal(got, np.unique(values))
    assert got.dtype == values.dtype


def test_of_several_missing_values_one_is_left() -> None:
    values = np.array([2.0, np.nan, 1.0, np.nan, 2.0, np.inf, -np.inf])
    np.testing.assert_array_equal(find_distinct(values), np.unique(values))
    assert len(find_distinct(np.array([np.nan, np.nan]))) == 1
