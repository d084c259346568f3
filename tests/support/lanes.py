"""Which cases of a sweep `make test` checks, and which wait for `make test-long`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def later(*values: Any) -> list[ParameterSet]:
    """Cases for `make test-long`."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]


def diagonal(rows: Sequence[Any], columns: Sequence[Any]) -> list[ParameterSet]:
    """All pairs. `make test` has one for each row, and of the columns one after the other; the others wait."""
    return [
        pytest.param(row, column, marks=() if k % len(columns) == j else pytest.mark.long)
        for k, row in enumerate(rows)
        for j, column in enumerate(columns)
    ]
