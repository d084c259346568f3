"""Dates as files write them: a declared order of day, month and year, never a guess."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from functools import cached_property

_TOKENS = {"DD": r"(?P<d>[0-9]{1,2})", "MM": r"(?P<m>[0-9]{1,2})", "YYYY": r"(?P<y>[0-9]{4})"}
_COMPACT = {"DD": r"(?P<d>[0-9]{2})", "MM": r"(?P<m>[0-9]{2})", "YYYY": r"(?P<y>[0-9]{4})"}
_FORM = re.compile(r"(DD|MM|YYYY)([-/. ]?)(DD|MM|YYYY)\2(DD|MM|YYYY)")
# A time of day may follow the date; it is left out.
_TIME = r"(?:[ T][0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?)?"


@dataclass(frozen=True)
class DateForm:
    """The form of a date, such as DD.MM.YYYY."""

    text: str

    @classmethod
    def parse(cls, text: str) -> DateForm:
        """Read a form; ValueError for any other text."""
        match = _FORM.fullmatch(text)
        if match is None or len({match[1], match[3], match[4]}) != 3:
            raise ValueError("a date is DD, MM and YYYY in some order, with one sign between them or none")
        return cls(text)

    def read(self, text: str) -> datetime.date | None:
        """The day that a text says; None if it does not have the form, or no calendar has the day."""
        match = self._pattern.fullmatch(text)
        if match is None:
            return None
        try:
            return datetime.date(int(match["y"]), int(match["m"]), int(match["d"]))
        except ValueError:
            return None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        match = _FORM.fullmatch(self.text)
        assert match is not None
        tokens = _TOKENS if match[2] else _COMPACT
        return re.compile(re.escape(match[2]).join(tokens[match[k]] for k in (1, 3, 4)) + _TIME)
