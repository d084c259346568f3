"""Secure Lasso over the paper's grid of rows and columns, as deployed: medians as a table and as one SVG picture.

    lasso_grid.py [REPEATS [PICTURE.svg]]       default 10 repeats, no picture

Each cell has two medians: seconds from the first step, when files are read, to the last site's result; and CPU seconds
of all processes from their start to their end, Anvil's among them. A cell that a rule of the study or a site's gate
refuses has the code of that refusal. The picture shows CPU seconds, which a machine's load moves less; both axes are
logarithmic, and a line is a number of columns.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deployed import read_children_seconds, run_once
from secure_lasso import Job, draw_frames, study_text

from coterie_node.errors import CoterieError

ROWS, COLUMNS = (5, 50, 500, 1_000, 5_000, 10_000), (2, 10, 20, 40)
_COLOURS = ("#1b6ca8", "#c8553d", "#588157", "#6d597a")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _FOOT = 640.0, 400.0, 70.0, 110.0, 20.0, 50.0

# Seconds by rows and columns.
Cells = Mapping[tuple[int, int], float]


def time_cell(rows: int, columns: int, repeats: int) -> tuple[float, float] | str:
    """The medians of the wall and CPU seconds of one cell, or the code of a refusal."""
    job = Job(f"{rows} x {columns}", rows, columns)
    frames, walls, used = draw_frames(job), [], []
    try:
        for _ in range(repeats):
            before = read_children_seconds()
            walls.append(run_once(study_text(job), frames)[1])
            used.append(read_children_seconds() - before)
    except CoterieError as error:
        return error.code
    return statistics.median(walls), statistics.median(used)


def draw_grid(cells: Cells) -> str:
    """The SVG picture of the cells."""
    places = _Places(cells)
    lines = [_draw_line(cells, columns, k, places) for k, columns in enumerate(COLUMNS)]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" width="{_WIDTH:g}" '
        f'height="{_HEIGHT:g}" font-family="sans-serif" font-size="12" role="img" aria-label="Secure Lasso">'
    )
    title = (
        "<title>Secure Lasso: CPU seconds of all processes by rows in common, a line for each number of columns</title>"
    )
    return "\n".join([head, title, *places.draw_axes(), *lines, "</svg>"]) + "\n"


class _Places:
    """From rows and seconds to pixels, both on logarithmic scales."""

    def __init__(self, cells: Cells) -> None:
        self._rows = math.log10(min(ROWS)), math.log10(max(ROWS))
        low, high = math.floor(math.log10(min(cells.values()))), math.ceil(math.log10(max(cells.values())))
        self._seconds = low, max(high, low + 1)

    def find_x(self, rows: int) -> float:
        low, high = self._rows
        return _LEFT + (math.log10(rows) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def find_y(self, seconds: float) -> float:
        low, high = self._seconds
        return _HEIGHT - _FOOT - (math.log10(seconds) - low) / (high - low) * (_HEIGHT - _TOP - _FOOT)

    def draw_axes(self) -> list[str]:
        """Lines and numbers of both axes."""
        low, high = self._seconds
        ticks = [factor * 10.0**power for power in range(low, high + 1) for factor in (1, 2, 5)]
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        return [
            *(self._draw_row_tick(rows) for rows in ROWS),
            *(self._draw_second_tick(tick) for tick in ticks if tick <= 10.0**high),
            f'<text x="{middle:g}" y="{_HEIGHT - 10:g}" text-anchor="middle">rows in common</text>',
            f'<text x="{_LEFT:g}" y="{_TOP - 6:g}" text-anchor="middle">CPU seconds</text>',
        ]

    def _draw_row_tick(self, rows: int) -> str:
        x, bottom = self.find_x(rows), _HEIGHT - _FOOT
        line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP:g}" y2="{bottom:g}" stroke="#ddd"/>'
        return f'{line}<text x="{x:.1f}" y="{bottom + 16:g}" text-anchor="middle">{rows:,}</text>'

    def _draw_second_tick(self, seconds: float) -> str:
        y, right = self.find_y(seconds), _WIDTH - _RIGHT
        line = f'<line x1="{_LEFT:g}" x2="{right:g}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        return f'{line}<text x="{_LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{seconds:g}</text>'


def _draw_line(cells: Cells, columns: int, k: int, places: _Places) -> str:
    points = [(places.find_x(r), places.find_y(cells[r, columns])) for r in ROWS if (r, columns) in cells]
    if not points:
        return ""
    colour, (x, y) = _COLOURS[k % len(_COLOURS)], points[-1]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    dots = "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points)
    label = f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{colour}">{columns} columns</text>'
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}{label}'


def _print_row(rows: int, values: Sequence[tuple[float, float] | str]) -> None:
    words = (value if isinstance(value, str) else f"{value[0]:.2f} s, CPU {value[1]:.2f} s" for value in values)
    print(f"| {rows:,} | " + " | ".join(words) + " |", flush=True)


def main() -> None:
    """Time every cell, print the table, and draw the picture."""
    repeats = int((sys.argv[1:] or ["10"])[0])
    cells: dict[tuple[int, int], float] = {}
    load = [os.getloadavg()[0]]
    print("| rows in common | " + " | ".join(f"{m} columns" for m in COLUMNS) + " |\n" + "|---" * 5 + "|")
    for rows in ROWS:
        values = [time_cell(rows, columns, repeats) for columns in COLUMNS]
        cells |= {(rows, m): value[1] for m, value in zip(COLUMNS, values, strict=True) if not isinstance(value, str)}
        load.append(os.getloadavg()[0])
        _print_row(rows, values)
    print(f"medians of {repeats}, load {min(load):.1f} to {max(load):.1f}")
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(draw_grid(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
