"""The table of characteristics as its readers know it: counts with percentages, means with standard deviations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from coterie_node.audit.printed.printed_table import INDENT, PrintedTable

NOT_SHOWN = "..."
# Numbers with more decimals, or of more digits, are written with a power of ten.
MOST_DECIMALS, LARGEST_WHOLE = 6, 1e15
_Cell = Mapping[str, Any]


def print_characteristics(table: Mapping[str, Any]) -> PrintedTable:
    """The table of a result's details: all patients, groups with their SMD, then sites."""
    sites = table.get("sites", [])
    shape = _Shape(len(table["columns"]), len(sites))
    head = ("", "Overall", *table["columns"][1:], *(("SMD",) if shape.grouped else ()), *sites)
    counts = [_show_count(n) for n in (*table["n"], *table.get("site_n", ()))]
    lines = [shape.place("n", counts)]
    for line in table["lines"]:
        lines += list(_print_line(line, shape))
    return PrintedTable(head, (*lines, *_print_rate(table["rate"], table["level"], shape)))


@dataclass(frozen=True)
class _Shape:
    """Number of columns of all patients and groups, and of sites."""

    columns: int
    sites: int

    @property
    def grouped(self) -> bool:
        """Whether there are groups, so that there is a column of their differences."""
        return self.columns > 1

    def place(self, name: str, cells: Sequence[str], smd: str = "") -> tuple[str, ...]:
        """A line, the difference of the groups behind them."""
        difference = (smd,) if self.grouped else ()
        return (name, *cells[: self.columns], *difference, *cells[self.columns :])

    def repeat(self, name: str, text: str, smd: str = "") -> tuple[str, ...]:
        """A line with the same in every cell."""
        return self.place(name, [text] * (self.columns + self.sites), smd)

    def show(self, name: str, part: Mapping[str, Any], show: Callable[[_Cell], str], smd: str = "") -> tuple[str, ...]:
        """A line of a part of the table."""
        own = part.get("site_cells") or [None] * self.sites
        return self.place(name, [NOT_SHOWN if c is None else show(c) for c in (*part["cells"], *own)], smd)


def _print_line(line: Mapping[str, Any], shape: _Shape) -> Iterator[tuple[str, ...]]:
    name, smd = line["label"] or line["name"], _show_difference(line["smd"])
    if line["cells"] is None:
        yield shape.repeat(name, NOT_SHOWN)
        return
    if line["kind"] == "number":
        title = f"{name}, {line['unit']}" if line["unit"] else name
        yield shape.show(f"{title}: mean (SD)", line, _show_moments, smd)
        if line["width"] is not None:
            yield shape.show(f"{INDENT}median [quartiles]", line, _show_quantiles)
    elif line["levels"] == ["0", "1"]:
        yield shape.show(f"{name}: n (%)", line, partial(_show_share, k=1), smd)
    else:
        yield shape.repeat(f"{name}: n (%)", "", smd)
        for k, level in enumerate(line["levels"]):
            yield shape.show(f"{INDENT}{level}", line, partial(_show_share, k=k))
    if any(cell and cell["missing"] for cell in line["cells"]):
        yield shape.show(f"{INDENT}missing", line, lambda cell: str(cell["missing"]))


def _print_rate(rate: Mapping[str, Any] | None, level: float, shape: _Shape) -> Iterator[tuple[str, ...]]:
    if rate is None:
        return
    unit = rate["unit"] or "units of time"
    yield shape.show(f"{rate['event']}: events", rate, lambda cell: str(cell["events"]))
    yield shape.show(f"{INDENT}prevalence, % [{100 * level:g}% CI]", rate, _show_prevalence)
    yield shape.show(f"{INDENT}time at risk, {unit}", rate, lambda cell: _show_size(cell["time"], 6))
    yield shape.show(f"{INDENT}rate per {rate['per']:g} {unit} [{100 * level:g}% CI]", rate, _show_rate)


def _show_count(count: int | None) -> str:
    return NOT_SHOWN if count is None else str(count)


def _show_difference(value: float | None) -> str:
    return "" if value is None else _show_number(value, ".3f")


def _show_number(value: float | None, form: str) -> str:
    """A number in a form; NA where there is none."""
    return "NA" if value is None or not math.isfinite(value) else format(value, form)


def _show_share(cell: _Cell, k: int) -> str:
    return f"{cell['counts'][k]} ({_show_number(cell['percent'][k], '.1f')})"


def _show_moments(cell: _Cell) -> str:
    """Both with two decimals, or with as many as two digits of the deviation need."""
    mean, sd = cell["mean"], cell["sd"]
    decimals = max(1 - math.floor(math.log10(sd)), 2) if sd and math.isfinite(sd) else 2
    forms = (".2f", ".2f") if decimals == 2 else (f".{decimals}f",) * 2 if decimals <= MOST_DECIMALS else (".4g", ".2g")
    return f"{_show_number(mean, forms[0])} ({_show_number(sd, forms[1])})"


def _show_size(value: float | None, digits: int) -> str:
    """A number with so many digits, or all of those before the decimal point."""
    whole = value is not None and math.isfinite(value) and 10.0**digits <= abs(value) < LARGEST_WHOLE
    return _show_number(value, ".0f" if whole else f".{digits}g")


def _show_quantiles(cell: _Cell) -> str:
    if not cell["quantiles"]:
        return NOT_SHOWN
    low, middle, high = (_show_quantile(quantile) for quantile in cell["quantiles"])
    return f"{middle} [{low}, {high}]"


def _show_quantile(quantile: _Cell) -> str:
    """A quantile; in an open bin its end."""
    ends = [None if end is None or not math.isfinite(end) else end for end in (quantile["low"], quantile["high"])]
    value = quantile["value"]
    if value is not None and math.isfinite(value):
        return _show_size(value, 4)
    if ends == [None, None]:
        return "NA"
    return f"<={ends[1]:g}" if ends[0] is None else f">{ends[0]:g}"


def _show_rate(cell: _Cell) -> str:
    rate, low, high = (_show_size(cell[name], 3) for name in ("rate", "low", "high"))
    return f"{rate} [{low}, {high}]"


def _show_prevalence(cell: _Cell) -> str:
    share, low, high = (_show_number(cell[name], ".1f") for name in ("percent", "percent_low", "percent_high"))
    return f"{share} [{low}, {high}]"
