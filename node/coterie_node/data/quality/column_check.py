"""What a site's people see of one variable, at home: what is missing, wrong or far off, and how it is spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.study.days import write_day
from coterie_learners.study.document import Variable
from coterie_node.data.arrow_values import Mask
from coterie_node.data.coding import FAULTS, Coded, faults, value_at
from coterie_node.data.findings import Findings, Places, quote
from coterie_node.data.source import Batch

# A value is far from the rest beyond so many quartile distances from the quartiles (Tukey's outer fences).
OUTER_FENCE = 3.0
_EXAMPLES = 3
# Numbers that many files have in place of a missing value.
_MISSING_CODES = (-1, -8, -9, -88, -99, -888, -999, -9999, 9, 88, 99, 888, 999, 9999, 99999)


@dataclass(frozen=True)
class ColumnCheck:
    """One variable of the study in all rows of the site.

    wrong: rows whose value the study does not take. faults: these in sentences. levels: counts by level.
    """

    name: str
    kind: str
    unit: str
    rows: int
    missing: int
    wrong: int
    faults: tuple[str, ...]
    outliers: tuple[str, ...]
    quarters: tuple[float, float, float, float, float] | None
    levels: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """The check as JSON has it."""
        return {
            "name": self.name,
            "type": self.kind,
            "unit": self.unit,
            "rows": self.rows,
            "missing": self.missing,
            "wrong": self.wrong,
            "faults": list(self.faults),
            "outliers": list(self.outliers),
            "levels": self.levels,
            "quartiles": None if self.quarters is None else list(self.quarters),
        }

    @property
    def spread(self) -> str:
        """Least value, quartiles and largest value, or the counts of the levels."""
        if self.quarters is not None:
            show = write_day if self.kind == "date" else "{:.4g}".format
            low, first, middle, third, high = map(show, self.quarters)
            return f"{low} [{first}, {middle}, {third}] {high}"
        return ", ".join(f"{level} {count}" for level, count in self.levels.items())


@dataclass
class ColumnTally:
    """Takes in one variable's values batch by batch."""

    name: str
    variable: Variable
    findings: Findings = field(default_factory=Findings)
    read: int = 0
    missing: int = 0
    wrong: int = 0
    outside: Counter[float] = field(default_factory=Counter)
    parts: list[Array] = field(default_factory=list)

    def add(self, coded: Coded, batch: Batch) -> Mask:
        """Take in the next rows; returns which of them (m,) have a value that the study takes."""
        wrong = np.zeros(len(coded.values), dtype=np.bool_)
        for code, mask in faults(coded, self.variable):
            self.findings.note(self.name, code, mask, self.read, lambda i: value_at(batch[self.name], i))
            wrong |= mask
            if code == "CO-D113":
                self.outside.update(coded.values[mask & np.isin(coded.values, _MISSING_CODES)].tolist())
        self.read += len(coded.values)
        self.wrong += int(np.count_nonzero(wrong))
        self.missing += int(np.count_nonzero(coded.missing))
        usable: Mask = ~(wrong | coded.missing)
        self.parts.append(np.where(usable, coded.values, np.nan))
        return usable

    def conclude(self, places: Places) -> ColumnCheck:
        """The check of all rows."""
        values = np.concatenate(self.parts) if self.parts else np.zeros(0)
        numeric = self.variable.type in ("number", "count", "date")
        quarters = _find_quarters(values) if numeric else None
        return ColumnCheck(
            name=self.name,
            kind=self.variable.type,
            unit=self.variable.unit,
            rows=self.read,
            missing=self.missing,
            wrong=self.wrong,
            faults=tuple(self._describe_faults(places)),
            outliers=(*self._list_missing_codes(), *self._list_outliers(values, quarters, places)),
            quarters=quarters,
            levels={} if numeric else _count_levels(values, self.variable),
        )

    def _list_missing_codes(self) -> list[str]:
        """Numbers outside the range that files often have in place of a missing value."""
        return [
            f"{value:g} in {count_rows(count)} may mean that the value is missing; if so, a mapping has "
            f'missing = ["{value:g}"] under [columns.{self.name}]'
            for value, count in self.outside.items()
        ]

    def _list_outliers(self, values: Array, quarters: Sequence[float] | None, places: Places) -> tuple[str, ...]:
        return () if quarters is None or self.variable.type == "date" else _find_outliers(values, quarters, places)

    def _describe_faults(self, places: Places) -> list[str]:
        return [
            f"{self.name} is {FAULTS[code]} {self.findings.rows((name, code), self.read, places)}"
            for name, code in self.findings.by_column
        ]


def count_rows(count: int) -> str:
    """So many rows, in words."""
    return f"{count} row" if count == 1 else f"{count} rows"


def _find_quarters(values: Array) -> tuple[float, float, float, float, float] | None:
    present = values[~np.isnan(values)]
    if not len(present):
        return None
    low, first, middle, third, high = np.quantile(present, [0.0, 0.25, 0.5, 0.75, 1.0]).tolist()
    return low, first, middle, third, high


def _find_outliers(values: Array, quarters: Sequence[float], places: Places) -> tuple[str, ...]:
    width = quarters[3] - quarters[1]
    low, high = quarters[1] - OUTER_FENCE * width, quarters[3] + OUTER_FENCE * width
    (far,) = np.nonzero((values < low) | (values > high))
    if not width or not len(far):
        return ()
    rows = far[:_EXAMPLES].tolist()
    shown = [f"{place} {quote(float(values[row]))}" for place, row in zip(places(rows), rows, strict=True)]
    more = f" and {len(far) - _EXAMPLES} more" if len(far) > _EXAMPLES else ""
    lie = f"{count_rows(len(far))} {'lies' if len(far) == 1 else 'lie'} far"
    return (f"{lie} from the others: {', '.join(shown)}{more}",)


def _count_levels(values: Array, variable: Variable) -> dict[str, int]:
    levels = variable.levels or ("0", "1")
    return {level: int(np.count_nonzero(values == k)) for k, level in enumerate(levels)}
