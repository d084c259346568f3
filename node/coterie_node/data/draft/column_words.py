"""The distinct values of one column, counted: those that mean missing, numbers, dates, yes and no."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from coterie_node.data.coding import MISSING, NUMBER
from coterie_node.data.draft.vocabulary import load_vocabulary
from coterie_node.data.mapping.dates import DateForm

FORMS = ("YYYY-MM-DD", "DD.MM.YYYY", "MM/DD/YYYY", "DD/MM/YYYY", "YYYY/MM/DD", "DD-MM-YYYY", "YYYYMMDD")
YEARS = range(1900, 2101)
# A code for missing lies far from all measurements: beyond so many times the width of the rest.
FAR = 1.2
# A value among others may be a code where it is so many times as frequent as any value near it.
HEAP = 2


@dataclass(frozen=True)
class ColumnWords:
    """A column as text: every distinct value that is not blank, without blanks around it, and how many rows have it."""

    header: str
    counts: Counter[str]
    rows: int
    decimal: str = "."

    @classmethod
    def of(cls, header: str, texts: Sequence[str | None], decimal: str = ".") -> ColumnWords:
        """Count a column's values."""
        counts = Counter(text.strip() for text in texts if text is not None)
        for word in MISSING:
            counts.pop(word, None)
        return cls(header, counts, len(texts), decimal)

    @cached_property
    def words_for_missing(self) -> tuple[str, ...]:
        """Words that mean missing, such as `unbekannt`."""
        known = {word.casefold() for word in load_vocabulary()["missing"]["words"]}
        return tuple(sorted(word for word in self.counts if word.casefold() in known))

    @cached_property
    def values(self) -> Counter[str]:
        """What is neither blank nor a word for missing."""
        words = set(self.words_for_missing)
        return Counter({word: count for word, count in self.counts.items() if word not in words})

    @cached_property
    def numbers(self) -> dict[float, int] | None:
        """The values as numbers with their counts; None if one of them is no number."""
        out: dict[float, int] = {}
        for word, count in self.values.items():
            value = self.read_number(word)
            if value is None:
                return None
            out[value] = out.get(value, 0) + count
        return out or None

    @cached_property
    def codes_for_missing(self) -> tuple[float, ...]:
        """Numbers such as -99 that lie far from all other values of the column."""
        numbers = dict(self.numbers or {})
        out: list[float] = []
        for code in load_vocabulary()["missing"]["numbers"]:
            rest = [value for value in numbers if value != code and value not in out]
            if code in numbers and len(rest) > 1 and _is_far(float(code), min(rest), max(rest)):
                out.append(float(code))
        return tuple(out)

    @cached_property
    def doubtful_codes(self) -> tuple[float, ...]:
        """Numbers such as 99 that may mean missing, but lie near the others."""
        known = {float(code) for code in load_vocabulary()["missing"]["numbers"]}
        likely = {value for value in self.measurements if value in known and abs(value) >= 88.0}
        return tuple(sorted(value for value in likely if self._is_heaped(value)))

    @cached_property
    def measurements(self) -> dict[float, int]:
        """The numbers that are no codes for missing, with their counts."""
        return {value: count for value, count in (self.numbers or {}).items() if value not in self.codes_for_missing}

    @property
    def present(self) -> int:
        """Rows that have a value."""
        codes = sum((self.numbers or {}).get(code, 0) for code in self.codes_for_missing)
        return sum(self.values.values()) - codes

    @cached_property
    def date_forms(self) -> tuple[str, ...]:
        """The forms in which all values are dates of the last or this century."""
        if not self.values:
            return ()
        return tuple(form for form in FORMS if all(_is_day(DateForm(form), word) for word in self.values))

    @property
    def yes_and_no(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """The words for yes and those for no; None if there are others, or only one of the two."""
        words, vocabulary = {word.casefold() for word in self.values}, load_vocabulary()
        yes = tuple(sorted(word for word in words if word in vocabulary["yes"]["words"]))
        no = tuple(sorted(word for word in words if word in vocabulary["no"]["words"]))
        return (yes, no) if yes and no and len(yes) + len(no) == len(words) else None

    def _is_heaped(self, value: float) -> bool:
        """Whether a value is far more frequent than each of those beside it."""
        near = [
            n for other, n in self.measurements.items() if other != value and abs(other - value) <= 0.1 * abs(value)
        ]
        return self.measurements[value] > max(2, HEAP * max(near, default=0))

    def read_number(self, word: str) -> float | None:
        """The finite number that a word writes; None if it writes none."""
        plain = word.replace(",", ".") if self.decimal == "," and "." not in word else word
        if not re.match(NUMBER, plain) or (self.decimal == "," and "." in word):
            return None
        value = float(plain)
        return value if math.isfinite(value) else None


def _is_far(code: float, low: float, high: float) -> bool:
    """Whether a code lies far outside the range of the other values."""
    if code < 0.0:
        return low >= 0.0
    return code > high + FAR * (high - low) or (code > FAR * high and code > high + 5.0 and high - low < code / 2.0)


def _is_day(form: DateForm, word: str) -> bool:
    day = form.read(word)
    return day is not None and day.year in YEARS
