"""The table of characteristics as its readers know it: counts with percentages, means with standard deviations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from coterie_node.audit.printed.printed_table import INDENT, PrintedTable

NOT_SHOWN = "..."
_Cell = Mapping[str, Any]


def print_characteristics(table: Mapping[str, Any]) -> PrintedTable:
    """The table of a result's details."""
    grouped = len(table["columns"]) > 1
    head = ("", "Overall", *table["columns"][1:], *(("SMD",) if grouped else ()))
    lines = [("n", *(_show_count(n) for n in table["n"]), *(("",) if grouped else ()))]
    for line in table["lines"]:
        lines += list(_print_line(line, len(table["columns"]), grouped))
    return PrintedTable(head, (*lines, *_print_rate(table["rate"], table["level"], grouped)))


def _print_line(line: Mapping[str, Any], columns: int, grouped: bool) -> Iterator[tuple[str, ...]]:
    name = line["label"] or line["name"]
    smd = (_show_difference(line["smd"]),) if grouped else ()
    empty = ("",) if grouped else ()
    if line["cells"] is None:
        yield (name, *[NOT_SHOWN] * columns, *empty)
        return
    if line["kind"] == "number":
        title = f"{name}, {line['unit']}" if line["unit"] else name
        yield (f"{title}: mean (SD)", *_each(line, _show_moments), *smd)
        if line["width"] is not None:
            yield (f"{INDENT}median [quartiles]", *_each(line, _show_quantiles), *empty)
    elif line["levels"] == ["0", "1"]:
        yield (f"{name}: n (%)", *_each(line, lambda cell: _show_share(cell, 1)), *smd)
    else:
        yield (f"{name}: n (%)", *[""] * columns, *smd)
        for k, level in enumerate(line["levels"]):
            yield (f"{INDENT}{level}", *_each(line, lambda cell, k=k: _show_share(cell, k)), *empty)  # type: ignore[misc]
    if any(cell and cell["missing"] for cell in line["cells"]):
        yield (f"{INDENT}missing", *_each(line, lambda cell: str(cell["missing"])), *empty)


def _each(line: Mapping[str, Any], show: Callable[[_Cell], str]) -> list[str]:
    return [NOT_SHOWN if cell is None else show(cell) for cell in line["cells"]]


def _print_rate(rate: Mapping[str, Any] | None, level: float, grouped: bool) -> Iterator[tuple[str, ...]]:
    if rate is None:
        return
    empty, unit = ("",) if grouped else (), rate["unit"] or "units of time"
    yield (f"{rate['event']}: events", *_each(rate, lambda cell: str(cell["events"])), *empty)
    yield (f"{INDENT}time at risk, {unit}", *_each(rate, lambda cell: f"{cell['time']:.6g}"), *empty)
    label = f"{INDENT}rate per {rate['per']:g} {unit} [{100 * level:g}% CI]"
    yield (label, *_each(rate, _show_rate), *empty)


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
    return f"{_show_number(cell['mean'], '.2f')} ({_show_number(cell['sd'], '.2f')})"


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
        return f"{value:.4g}"
    if ends == [None, None]:
        return "NA"
    return f"<={ends[1]:g}" if ends[0] is None else f">{ends[0]:g}"


def _show_rate(cell: _Cell) -> str:
    rate, low, high = (_show_number(cell[name], ".3g") for name in ("rate", "low", "high"))
    return f"{rate} [{low}, {high}]"
