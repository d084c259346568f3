"""Coefficients with their intervals as a forest plot in SVG, for notebooks."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coterie_learners.core.fit import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, LINE, _TOP, NAMES, _MARGIN = 640, 22, 16, 220, 16
INK, RULE, MARK = "#1b1f24", "#9aa3ad", "#0b5cad"
MAX_NAME = 34


def draw_rows(rows: Sequence[Row], measure: str) -> str:
    """The picture of estimates with finite limits; `measure` names the axis, and log scales stay as they are."""
    shown = _list_shown(rows)
    low = min([0.0, *(row.ci_low for row in shown)])
    high = max([0.0, *(row.ci_high for row in shown)])
    scale = (_WIDTH - NAMES - _MARGIN) / ((high - low) or 1.0)
    height = _TOP + LINE * (len(shown) + 2)

    def place(value: float) -> float:
        return round(NAMES + (value - low) * scale, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" width="{_WIDTH}">',
        f"<title>{html.escape(measure)} with confidence limits</title>",
        _line(place(0.0), _TOP, place(0.0), height - LINE, RULE),
    ]
    for number, row in enumerate(shown):
        parts += _draw_row(
            row, _TOP + LINE * (number + 0.5), (place(row.ci_low), place(row.estimate), place(row.ci_high))
        )
    parts.append(_text(place(0.0), height - 6, f"0 ({measure})", "middle"))
    return "".join([*parts, "</svg>"])


def draw_rows_on(axes: Axes, rows: Sequence[Row], measure: str) -> None:
    """The same estimates with their limits on axes of matplotlib, the first row at the top."""
    shown = _list_shown(rows)
    places = range(len(shown))
    axes.axvline(0.0, color=RULE, linewidth=1.0)
    axes.hlines(places, [row.ci_low for row in shown], [row.ci_high for row in shown], color=INK)
    axes.plot([row.estimate for row in shown], places, "s", color=MARK)
    axes.set_yticks(places, [row.term for row in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlabel(measure)


def _list_shown(rows: Sequence[Row]) -> list[Row]:
    """The rows whose estimate and limits are finite."""
    return [row for row in rows if all(map(math.isfinite, (row.estimate, row.ci_low, row.ci_high)))]


def _draw_row(row: Row, y: float, at: tuple[float, float, float]) -> list[str]:
    left, middle, right = at
    name = row.term if len(row.term) <= MAX_NAME else f"{row.term[:MAX_NAME]}…"
    mark = f'<rect x="{middle - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{MARK}"/>'
    return [_text(NAMES - 8, y + 4, name, "end"), _line(left, y, right, y, INK), mark]


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="1.5"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    attributes = f'x="{x}" y="{y}" text-anchor="{anchor}" font-family="sans-serif" font-size="12" fill="{INK}"'
    return f"<text {attributes}>{html.escape(text)}</text>"
