"""A column that fills too little of its declared range is refused before it is shared; a constant one is not."""

from __future__ import annotations

import numpy as np
import pytest

from coterie_learners.errors import DataError
from coterie_learners.secure.secure_join import check_width

NAMES = ("age", "creatinine")


def columns(width: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    rng = np.random.default_rng(5)
    return np.column_stack([rng.uniform(-1, 1, 400), -0.99 + width * rng.standard_normal(400)])


@pytest.mark.parametrize("width", [0.12 / 450, 1e-5, 1e-9])
def test_a_column_that_fills_little_of_its_range_is_refused_with_its_name(width: float) -> None:
    with pytest.raises(DataError) as caught:
        check_width(columns(width), NAMES, "registry")
    assert caught.value.code == "CO-D344"
    assert "creatinine" in str(caught.value)
    assert "age" not in str(caught.value).replace("range", "")


@pytest.mark.parametrize("width", [0.0, 0.002, 0.1])
def test_a_constant_column_and_a_column_of_ordinary_width_pass(width: float) -> None:
    check_width(columns(width), NAMES, "registry")
