"""From a column of the site's file to the values that the study declares.

What the mapping does not say is left as it is, so that the checks of rows report it: nothing is guessed. A number is
computed in double precision as value * factor / divisor + offset, in this order.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from coterie_node.data.arrow import pa, pc
from coterie_node.data.arrow_values import Mask, Values, read_doubles, read_mask, set_null, text_values
from coterie_node.data.coding import MISSING, NUMBER, DictionaryValues
from coterie_node.data.mapping.document import ColumnMapping, TableForm

ValueKind = Literal["number", "count", "binary", "category", "date", "text"]
YES, NO = ("1", "yes", "true"), ("0", "no", "false")


@dataclass(frozen=True)
class Conversion:
    """How one variable comes from the file's columns."""

    rule: ColumnMapping
    form: TableForm
    kind: ValueKind

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns of the file that it reads."""
        other = (self.rule.since,) if self.rule.since and _read_day(self.rule.since) is None else ()
        return (self.rule.source, *other)

    def apply(self, batch: Mapping[str, Values]) -> Values:
        """The variable's values of a batch: doubles, or text where some are no numbers."""
        column = self._blank(batch[self.rule.source])
        if self.rule.date is not None:
            return self._read_dates(column, batch)
        if self.rule.levels:
            return _recode(column, self.rule.levels, self.rule.ignore_case)
        if self.kind == "binary":
            return self._read_yes(column)
        return self._read_numbers(column) if self.kind in ("number", "count") else column

    def _blank(self, column: Values) -> Values:
        """The column as text or doubles, null where a declared word means missing."""
        plain = decode(column)
        if not pa.types.is_string(plain.type):
            plain = pc.cast(plain, pa.float64(), safe=False) if self._is_number(plain) else pc.cast(plain, pa.string())
        if not pa.types.is_string(plain.type):
            return _null_numbers(plain, self._numbers_for_missing)
        text = plain if self.form.keep_blanks else pc.utf8_trim_whitespace(plain)
        words = (*self.form.missing, *self.rule.missing)
        known = [word for word in (*words, *MISSING) if word not in self.rule.levels or word in words]
        return set_null(text, read_mask(pc.is_in(text, value_set=text_values(known, text.type))))

    def _is_number(self, column: Values) -> bool:
        kind = column.type
        numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        return bool(numeric and self.kind in ("number", "count") and self.rule.date is None)

    @property
    def _numbers_for_missing(self) -> list[float]:
        words = (word.replace(",", ".") for word in (*self.form.missing, *self.rule.missing))
        return [float(word) for word in words if re.match(NUMBER, word)]

    def _read_numbers(self, column: Values) -> Values:
        if pa.types.is_string(column.type):
            plain = self._write_plain(column)
            numeric = _matches(plain, NUMBER)
            values = pc.cast(set_null(plain, ~numeric), pa.float64())
        else:
            plain, numeric, values = column, np.ones(len(column), dtype=np.bool_), column
        values = _null_numbers(values, self._numbers_for_missing)
        if self.rule.converts:
            values = self._convert(values)
        unread = ~numeric & read_mask(pc.is_valid(plain))
        if not unread.any():
            return values
        # Text that is no number goes on as it is, so that the checks name it.
        return cast(Values, pc.if_else(_booleans(unread), plain, pc.cast(values, pa.string())))

    def _write_plain(self, text: Values) -> Values:
        """Numbers with a point and nothing else; in quotation marks where a point has another meaning here."""
        form = self.form
        if (form.decimal, form.thousands) == (".", ""):
            return text
        plain = text
        if form.thousands:
            separator = re.escape(form.thousands)
            grouped = rf"^[+-]?[0-9]{{1,3}}({separator}[0-9]{{3}})+({re.escape(form.decimal)}[0-9]*)?$"
            whole = _matches(text, grouped)
            plain = pc.if_else(_booleans(whole), pc.replace_substring(text, form.thousands, ""), text)
        if form.decimal == ",":
            doubtful = _matches(plain, r"\.")
            plain = pc.if_else(_booleans(doubtful), pc.replace_substring_regex(plain, "^(.*)$", r"'\1'"), plain)
            plain = pc.replace_substring(plain, ",", ".")
        return plain

    def _convert(self, values: Values) -> Values:
        numbers = read_doubles(values) * self.rule.factor / self.rule.divisor + self.rule.offset
        missing = read_mask(pc.is_null(values))
        return set_null(pa.array(numbers, pa.float64()), missing)

    def _read_yes(self, column: Values) -> Values:
        yes, no = (self.rule.yes, self.rule.no) if self.rule.yes else (YES, NO)
        text = column if pa.types.is_string(column.type) else pc.cast(column, pa.string())
        return _recode(text, dict.fromkeys(yes, "1") | dict.fromkeys(no, "0"), True)

    def _read_dates(self, column: Values, batch: Mapping[str, Values]) -> Values:
        form = self.rule.date
        assert form is not None
        days = [None if text is None else form.read(text) for text in as_texts(column)]
        if not self.rule.since:
            iso = [text if day is None else day.isoformat() for text, day in zip(as_texts(column), days, strict=True)]
            return pa.array(iso, pa.string())
        start = _read_day(self.rule.since)
        starts: list[datetime.date | None] = [start] * len(days)
        if start is None:
            starts = self._read_starts(batch[self.rule.since], form.read)
        return _count_days(as_texts(column), days, starts)

    def _read_starts(self, column: Values, read: Callable[[str], datetime.date | None]) -> list[datetime.date | None]:
        return [None if text is None else read(text) for text in as_texts(self._blank(column))]


def decode(column: Values) -> Values:
    """A column without a dictionary, and with text of one kind."""
    plain = column
    if pa.types.is_dictionary(column.type):
        plain = cast(Values, cast(DictionaryValues, column).dictionary_decode())
    large = pa.types.is_large_string(plain.type) or pa.types.is_string_view(plain.type)
    return pc.cast(plain, pa.string()) if large or pa.types.is_null(plain.type) else plain


def as_texts(column: Values) -> list[str | None]:
    """The values as text, None for null."""
    text = column if pa.types.is_string(column.type) else pc.cast(column, pa.string())
    return cast("list[str | None]", text.to_pylist())


def _count_days(
    texts: list[str | None], days: list[datetime.date | None], starts: list[datetime.date | None]
) -> Values:
    """Days between dates: null where one is missing; the text where it is no date."""
    if all(text is None or day is not None for text, day in zip(texts, days, strict=True)):
        spans = [None if a is None or b is None else float((b - a).days) for a, b in zip(starts, days, strict=True)]
        return pa.array(spans, pa.float64())
    rows = zip(texts, starts, days, strict=True)
    return pa.array([t if b is None else None if a is None else str((b - a).days) for t, a, b in rows], pa.string())


def _read_day(text: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None


def _recode(column: Values, targets: Mapping[str, str], ignore_case: bool) -> Values:
    """The study's words for the file's; any other value as it is."""
    text = column if pa.types.is_string(column.type) else pc.cast(column, pa.string())
    words = [word.lower() if ignore_case else word for word in targets]
    place = pc.index_in(pc.utf8_lower(text) if ignore_case else text, value_set=text_values(words, text.type))
    target = pc.take(text_values(list(targets.values()), text.type), place)
    return cast(Values, pc.coalesce(target, text))


def _matches(text: Values, pattern: str) -> Mask:
    """Which texts (m,) have the pattern in them; null has not."""
    return read_mask(pc.match_substring_regex(text, pattern).fill_null(False))


def _null_numbers(values: Values, codes: list[float]) -> Values:
    if not codes:
        return values
    return set_null(values, read_mask(pc.is_in(values, value_set=pa.array(codes, pa.float64()))))


def _booleans(mask: Mask) -> Values:
    return pa.array(mask, pa.bool_())
