"""From a column of text or of Arrow values to numbers and level numbers, and what is wrong with them.

Text that counts as missing, besides Arrow nulls and NaN, is listed in MISSING; a declared level of that name wins. A
category may declare the level that a missing value has.
Nothing is stripped or guessed: a field is exactly the value, or it is reported.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.study.days import read_day, write_day
from coterie_learners.study.document import Variable
from coterie_node.data.arrow import pa, pc
from coterie_node.data.arrow_values import Mask, Values, read_doubles, read_mask, set_null, text_values
from coterie_node.data.findings import join_values

DictionaryValues: TypeAlias = "pa.DictionaryArray[Any, Any]"

MISSING = ("", "NA", "NaN", "nan", "null", "NULL")
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"

FAULTS = {
    "CO-D112": "not a finite decimal number",
    "CO-D113": "out of the declared range",
    "CO-D114": "not a whole number",
    "CO-D115": "neither 0 nor 1",
    "CO-D116": "not a declared level",
    "CO-D117": "missing",
    "CO-D190": "not a date as YYYY-MM-DD",
}


@dataclass(frozen=True)
class Coded:
    """Values (m,), NaN for those that are missing or wrong, and which of these are missing."""

    values: Array
    missing: Mask


def code(column: Values, variable: Variable) -> Coded:
    """Numbers of a numeric variable, or level numbers of a category, counted from 0."""
    coded = _code_as_it_is(column, variable)
    if not variable.missing:
        return coded
    level = float(variable.levels.index(variable.missing))
    return Coded(np.where(coded.missing, level, coded.values), np.zeros_like(coded.missing))


def _code_as_it_is(column: Values, variable: Variable) -> Coded:
    if pa.types.is_dictionary(column.type):
        return _through_dictionary(cast(DictionaryValues, column), variable)
    if variable.type == "date":
        return _code_dates(column)
    if variable.type == "category":
        text = column if _is_text(column.type) else pc.cast(column, pa.string())
        missing = _missing_text(text, variable)
        levels = pc.index_in(text, value_set=text_values(variable.levels, text.type))
        return Coded(_floats(levels), missing)
    if _is_text(column.type):
        return _code_numbers(column, variable)
    values = _floats(column)
    return Coded(values, np.isnan(values))


def _code_dates(column: Values) -> Coded:
    """Days since 1970-01-01."""
    text = column if _is_text(column.type) else pc.cast(column, pa.string())
    missing = read_mask(pc.or_(pc.is_null(text), pc.is_in(text, value_set=text_values(MISSING, text.type))))
    days = [np.nan if value is None else _read_date(value) for value in text.to_pylist()]
    return Coded(np.array([np.nan if day is None else day for day in days], dtype=np.float64), missing)


def _read_date(text: str) -> float | None:
    """The day of a date, behind which a time of day may stand; None for any other text."""
    return read_day(text[:10]) if len(text) == 10 or text[10:11] in ("T", " ") else None


def _code_numbers(column: Values, variable: Variable) -> Coded:
    # If every value is a finite number, none is a word for missing, so such words are not looked for.
    if not column.null_count:
        try:
            values = _floats(column)
        except pa.ArrowInvalid:
            values = np.array([np.nan])
        if np.all(np.isfinite(values)):
            return Coded(values, np.zeros(len(values), dtype=np.bool_))
    missing = _missing_text(column, variable)
    return Coded(_floats(_parse_text(set_null(column, missing) if missing.any() else column)), missing)


def faults(coded: Coded, variable: Variable) -> Iterator[tuple[str, Mask]]:
    """Error codes and the rows (m,) that they hold for; missing values are left to the caller."""
    values = coded.values
    unread = ~coded.missing & ~np.isfinite(values)
    if variable.type == "category":
        yield "CO-D116", unread
    elif variable.type == "binary":
        yield "CO-D115", ~coded.missing & (values != 0) & (values != 1)
    else:
        low, high = variable.bounds
        outside = ~unread & ((values < low) | (values > high))
        yield ("CO-D190" if variable.type == "date" else "CO-D112"), unread
        yield "CO-D113", outside
        if variable.type == "count":
            yield "CO-D114", ~coded.missing & ~unread & ~outside & (values != np.floor(values))


def is_storable(kind: pa.DataType, variable: Variable) -> bool:
    """Whether a Parquet column of this type can hold the variable."""
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    if variable.type == "date":
        return bool(
            _is_text(inner) or pa.types.is_date(inner) or pa.types.is_timestamp(inner) or pa.types.is_null(inner)
        )
    if pa.types.is_integer(inner) or pa.types.is_null(inner):
        return True
    if variable.type == "category":
        return _is_text(inner) or bool(pa.types.is_string_view(inner))
    fits = pa.types.is_floating(inner) or pa.types.is_decimal(inner)
    return bool(fits or (variable.type == "binary" and pa.types.is_boolean(inner)))


def advice(fault: str, variable: Variable, value: object) -> str:
    """What to do about a fault of which `value` is an example."""
    text = value if isinstance(value, str) else ""
    if fault == "CO-D190":
        return "Write dates as 2021-03-09, or name their form in a mapping."
    if fault == "CO-D117":
        return 'Fill them in, or let the study leave such rows out with rows.missing = "drop".'
    if fault == "CO-D116":
        return _advice_on_level(variable, text)
    if fault == "CO-D113":
        low, high = variable.bounds
        if variable.type == "date":
            return f"The study allows {write_day(low)} to {write_day(high)}. Check the value."
        return (
            f"The study allows {low:.15g} to {high:.15g} {variable.unit}".rstrip() + ". Check the unit and the value."
        )
    if fault == "CO-D114":
        return "A count is a whole number: correct it, or declare the variable as a number."
    if text != text.strip() and re.match(NUMBER, text.strip()):
        return "Remove the blanks around it."
    if fault == "CO-D115":
        return "Code a binary variable as 0 and 1."
    if re.match(r"^[+-]?[0-9]{1,3}(,[0-9]{3})+$", text):
        whole = text.replace(",", "")
        comma = f"; if the comma is a decimal one, {text.replace(',', '.')}" if text.count(",") == 1 else ""
        return f"If the comma sets thousands apart, write {whole}{comma}. The file must say which; nothing is guessed."
    if re.match(r"^[+-]?[0-9]+,[0-9]+$", text):
        return "Write decimals with a dot, 1.5 and not 1,5."
    return f"Write a plain number; what is missing is written as {join_values(MISSING, 9)}."


def _advice_on_level(variable: Variable, text: str) -> str:
    levels = f"The study declares the levels {join_values(variable.levels, 20)}."
    if text != text.strip() and text.strip() in variable.levels:
        return f"Remove the blanks around it. {levels}"
    folded = {level.casefold(): level for level in variable.levels}
    near = difflib.get_close_matches(text[:200].casefold(), folded, 1, 0.8)
    return (
        f"Did you mean {join_values([folded[near[0]]], 1)}? {levels}"
        if near
        else f"{levels} Recode it, or add the level."
    )


def value_at(column: Values, i: int) -> object:
    """The i-th value as Python has it; bytes where Parquet text is not UTF-8."""
    value = column[i]
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return value.cast(pa.binary()).as_py()


def as_text(column: Values) -> list[str]:
    """The values as text, blank where there is none."""
    text = column if _is_text(column.type) else pc.cast(column, pa.string())
    return [value or "" for value in text.to_pylist()]


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _missing_text(text: Values, variable: Variable) -> Mask:
    words = [word for word in MISSING if word not in variable.levels]
    is_missing_word = pc.is_in(text, value_set=text_values(words, text.type))
    return read_mask(pc.or_(pc.is_null(text), is_missing_word))


def _parse_text(text: Values) -> Values:
    """Doubles, null where the text is no number; "inf" and "NAN" come out as what they are, and are refused later."""
    try:
        return _doubles(text)
    except pa.ArrowInvalid:
        return _doubles(pc.if_else(pc.match_substring_regex(text, NUMBER), text, None))


def _doubles(column: Values) -> Values:
    return cast(Values, pc.cast(column, pa.float64(), safe=False))


def _floats(column: Values) -> Array:
    """Doubles (m,), NaN for null."""
    return read_doubles(_doubles(column))


def _through_dictionary(column: DictionaryValues, variable: Variable) -> Coded:
    entries = _code_as_it_is(column.dictionary, variable)
    # A null index means no entry: it points to one more, which is missing.
    none = len(entries.values)
    index = np.nan_to_num(_floats(column.indices), nan=none).astype(np.intp)
    return Coded(np.append(entries.values, np.nan)[index], np.append(entries.missing, True)[index])
