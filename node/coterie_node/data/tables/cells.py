"""From values of Python, of any type, to columns of one type: numbers where all are numbers, text otherwise."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, cast

import numpy as np

from coterie_node.data.arrow import pa, pc
from coterie_node.data.arrow_values import Values, read_doubles, set_null

# A column of a workbook or a query may hold so many letters in one cell.
MAX_CELL = 1 << 15


def make_column(values: Sequence[object]) -> Values:
    """A column of doubles where every value is a number or missing, of text otherwise; ValueError for other values."""
    plain = _make_plain(values)
    if plain is not None:
        return plain
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return pa.array([_number(value) for value in values], pa.float64())
    return pa.array([write_cell(value) for value in values], pa.string())


def _make_plain(values: Sequence[object]) -> Values | None:
    """The same column where Arrow sees at once that it has numbers or short texts alone; None otherwise."""
    try:
        column: Values = pa.array(cast(Any, values))
    except (pa.ArrowException, OverflowError):
        return None
    return None if pa.types.is_boolean(column.type) else make_plain(column)


def make_plain(column: Values) -> Values | None:
    """A column of Arrow as `make_column` makes it of its values, if it has numbers or short texts; else None."""
    if pa.types.is_boolean(column.type):
        return cast(Values, pc.if_else(column, "1", "0"))
    if pa.types.is_integer(column.type):
        return cast(Values, pc.cast(column, pa.float64(), safe=False))
    if pa.types.is_floating(column.type):
        doubles = pc.cast(column, pa.float64())
        return set_null(doubles, np.isnan(read_doubles(doubles)))
    if pa.types.is_string(column.type):
        text: Any = column
        return column if (pc.max(pc.utf8_length(text)).as_py() or 0) <= MAX_CELL else None
    return None


def write_cell(value: object) -> str | None:
    """A value as a text file would have it: dates as year-month-day, whole numbers without a point, yes as 1."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        return str(int(value))
    if isinstance(value, datetime.datetime):
        midnight = (value.hour, value.minute, value.second, value.microsecond) == (0, 0, 0, 0)
        return value.date().isoformat() if midnight else value.isoformat(" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, int | float | Decimal | str):
        text = str(value)
        if len(text) > MAX_CELL:
            raise ValueError(f"a value has {len(text)} characters; the limit is {MAX_CELL}")
        return text
    raise ValueError(f"a value is of type {type(value).__name__}, which is neither number, text nor date")


def _number(value: object) -> float | None:
    assert value is None or isinstance(value, int | float)
    return None if value is None or math.isnan(value) else float(value)
