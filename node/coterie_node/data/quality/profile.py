"""A profile: a site's columns, in bands and round numbers from enough rows; no row is in it.

Without a floor a profile stays at home (a draft of files on one machine). With a floor k, levels that fewer than k rows
have are left out, ranges begin at the k-th smallest and end at the k-th largest value and are rounded outward, middle
values are rounded to two digits, and shares and missing counts are banded.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from coterie_learners.study.document import Frozen, Name, Text

ColumnKind = Literal["number", "count", "binary", "category", "date", "apart"]
MISSING_BANDS = ("none", "under 5 %", "5 to 20 %", "20 to 50 %", "over 50 %")
SHARE_STEP = 0.05


class LevelShare(Frozen):
    """A level as the file writes it, and its share of the rows that have a value, banded."""

    word: Text
    share: Annotated[float, Field(ge=0, le=1)]


class ColumnProfile(Frozen):
    """One column: its name in the file, the variable that it seems to hold, and what is known of its values.

    quarters: the values below which a quarter, half and three quarters of the rows lie, in two digits. codes: words and
    numbers that seem to mean missing. form: of a date. apart: why the column is no variable. question: what a person
    has to confirm.
    """

    name: Text
    variable: Text
    kind: ColumnKind
    unit: Text = ""
    levels: tuple[LevelShare, ...] = ()
    low: float | None = None
    high: float | None = None
    quarters: tuple[float, float, float] | None = None
    missing: Text = "none"
    codes: tuple[Text, ...] = ()
    form: Text = ""
    apart: Text = ""
    questions: tuple[Annotated[str, Field(max_length=500)], ...] = ()


class FileForm(Frozen):
    """How the site's file is written, for its mapping."""

    separator: Literal[",", ";", "|", "\t"] = ","
    decimal: Literal[".", ","] = "."
    encoding: Text = "utf-8"
    skip: Annotated[int, Field(ge=0, le=1000)] = 0


class SiteProfile(Frozen):
    """All columns of one site's rows; `floor` 0 means that it stays at home. `rows` is rounded down to two digits."""

    format: Literal[1] = 1
    site: Name
    floor: Annotated[int, Field(ge=0)]
    rows: Annotated[int, Field(ge=0)]
    file: Text = ""
    written: FileForm = FileForm()
    columns: tuple[ColumnProfile, ...]
    order: tuple[tuple[Text, ...], ...] = ()

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        variables = [column.variable for column in self.columns if column.kind != "apart"]
        for names in ([column.name for column in self.columns], variables):
            if twice := [name for name, times in Counter(names).items() if times > 1]:
                raise ValueError(f"it has {twice[0]!r} for two columns")
        return self

    def find(self, variable: str) -> ColumnProfile | None:
        """The column that holds a variable."""
        fit = (column for column in self.columns if column.variable == variable and column.kind != "apart")
        return next(fit, None)


def round_digits(value: float, digits: int = 2) -> float:
    """The value to so many significant digits."""
    if not value or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def widen(low: float, high: float) -> tuple[float, float]:
    """A range widened to round numbers: to whole steps of 1, 2 or 5 times a power of ten, about a fifth of its width.

    It begins at 0 where a range of values above 0 comes near it.
    """
    span = high - low if high > low else max(abs(high), 1.0)
    power = 10.0 ** math.floor(math.log10(span / 5.0))
    step = next(k * power for k in (1.0, 2.0, 5.0, 10.0) if k * power >= span / 5.0)
    start, end = math.floor(low / step) * step, math.ceil(high / step) * step
    start = 0.0 if 0.0 <= start <= span else start
    return _tidy(start, step), _tidy(end if end > start else start + step, step)


def _tidy(value: float, step: float) -> float:
    """A multiple of a step without the noise of binary fractions."""
    return round(value, max(0, 1 - math.floor(math.log10(step))))


def band_missing(missing: int, rows: int) -> str:
    """The share of rows without a value, as one of five bands."""
    share = missing / rows if rows else 0.0
    if not missing:
        return MISSING_BANDS[0]
    return next(band for band, most in zip(MISSING_BANDS[1:], (0.05, 0.2, 0.5, 1.1), strict=True) if share < most)


def band_share(count: int, total: int) -> float:
    """A share to the next twentieth."""
    return round(round(count / total / SHARE_STEP) * SHARE_STEP, 2) if total else 0.0
