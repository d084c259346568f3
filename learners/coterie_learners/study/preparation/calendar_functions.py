"""Functions of dates: days, completed months and years from one to another, and the year or month of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_learners.study.preparation.kinds import Typed, Unit, ValueType
from coterie_learners.study.syntax import Call, MakeError, Node


def count_months(start: Array, end: Array) -> Array:
    """Completed months (m,) between two dates, fewer than 0 where the second is earlier; NaN where one is missing."""
    (month, day), (later, later_day) = split_months(start), split_months(end)
    out = (later - month - (later_day < day)).astype(np.float64)
    return np.where(np.isnan(start) | np.isnan(end), np.nan, out)


def split_months(days: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Months since January 1970 and days within the month (m,); of a missing date those of 1970-01-01."""
    dates = np.nan_to_num(np.asarray(days, dtype=np.float64), nan=0.0).astype(np.int64).astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    return months.astype(np.int64), (dates - months.astype("datetime64[D]")).astype(np.int64)


_BETWEEN: Mapping[str, Callable[[Array, Array], Array]] = {
    "days": lambda start, end: end - start,
    "months": count_months,
    "years": lambda start, end: np.floor(count_months(start, end) / 12.0),
}
_PARTS: Mapping[str, Callable[[Array], Array]] = {
    "year": lambda days: _keep_missing(days, 1970.0 + split_months(days)[0] // 12),
    "month": lambda days: _keep_missing(days, 1.0 + split_months(days)[0] % 12),
}
CALENDAR = (*_BETWEEN, *_PARTS)


class TypesArguments(Protocol):
    """What checks the arguments of a function."""

    @property
    def explain(self) -> MakeError:
        """What makes an error."""

    def type_as(self, node: Node, form: str) -> Typed:
        """An argument of this form."""

    def join(self, node: Node, *parts: Typed) -> Unit:
        """The unit of what is made of these parts."""


def type_calendar(scope: TypesArguments, node: Call) -> Typed:
    """days(from, to), months(from, to), years(from, to), year(date), month(date)."""
    values = [value for name, value in node.arguments if not name]
    wanted = 2 if node.function in _BETWEEN else 1
    if len(values) != wanted or len(node.arguments) != wanted:
        how = "two dates, such as years(birth, admission)" if wanted == 2 else "one date"
        raise scope.explain(f"{node.function} takes {how}", node.at)
    parts = [scope.type_as(value, "date") for value in values]
    unit, sources = scope.join(node, *parts), frozenset[str]().union(*(part.sources for part in parts))
    if wanted == 1:
        part, (date,) = _PARTS[node.function], parts
        low, high = (1.0, 12.0) if node.function == "month" else _ends(part, date.kind.low, date.kind.high)
        return Typed(ValueType("number", unit, low, high, True), sources, lambda space: part(date.compute(space)))
    between, (start, end) = _BETWEEN[node.function], parts
    low = float(between(np.array(start.kind.high), np.array(end.kind.low)))
    high = float(between(np.array(start.kind.low), np.array(end.kind.high)))
    kind = ValueType("number", unit, low, high, True)
    return Typed(kind, sources, lambda space: between(start.compute(space), end.compute(space)))


def _ends(part: Callable[[Array], Array], low: float, high: float) -> tuple[float, float]:
    return float(part(np.array(low))), float(part(np.array(high)))


def _keep_missing(days: Array, values: NDArray[Any]) -> Array:
    return np.where(np.isnan(days), np.nan, np.asarray(values, dtype=np.float64))
