"""Which cases of a sweep `make test` checks, and which wait for `make test-long`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
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


def one_of_each(cases: Sequence[tuple[Any, ...]], kind: Callable[[Any], Hashable]) -> list[ParameterSet]:
    """All cases. `make test` has one of each kind, in turn the first, the second ... of its kind; the others wait."""
    kinds = [kind(case) for case in cases]
    sizes, seen = Counter(kinds), Counter[Hashable]()
    turns = {name: turn for turn, name in enumerate(dict.fromkeys(kinds))}
    out = []
    for case, name in zip(cases, kinds, strict=True):
        now = seen[name] == turns[name] % sizes[name]
        out.append(pytest.param(*case, marks=() if now else pytest.mark.long))
        seen[name] += 1
    return out
