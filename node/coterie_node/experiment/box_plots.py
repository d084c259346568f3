"""Box plots as one SVG picture: a box for each model, its trials beside it as points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from coterie_node.experiment.comparison import Quartiles

_WIDTH, _LEFT, _RIGHT, _TOP, _ROW, _FOOT = 760.0, 210.0, 20.0, 16.0, 26.0, 44.0
# Points of a row lie at these heights in turn, so that nearly equal trials do not hide each other.
_HEIGHTS = (0.0, 3.5, -3.5, 1.8, -1.8, 5.0, -5.0)
# The same picture on a light and on a dark page, by itself or within one.
_STYLE = (
    "<style>.bp-ink{fill:#1b1f24}.bp-grid{stroke:#e3e7eb}.bp-line{stroke:#1b1f24}.bp-box{fill:#cfe0f3}"
    ".bp-dot{fill:#b3361e;fill-opacity:.6}@media (prefers-color-scheme:dark){.bp-ink{fill:#e6eaee}"
    ".bp-grid{stroke:#343c44}.bp-line{stroke:#e6eaee}.bp-box{fill:#27496b}.bp-dot{fill:#ff9d7a}}</style>"
)
_REACH = 1.5  # whiskers end at the last trial within so many times the box's length (Tukey 1977)


def draw_box_plots(areas: Mapping[str, Sequence[float]], axis: str) -> str:
    """An SVG picture of values by name; a name without values has a label alone."""
    every = [value for values in areas.values() for value in values]
    low, high = (min(every), max(every)) if every else (0.0, 1.0)
    margin = 0.04 * (high - low) or 0.05
    scale = _Scale(low - margin, high + margin)
    height = _TOP + _ROW * len(areas) + _FOOT
    rows = [_draw_row(name, values, k, scale) for k, (name, values) in enumerate(areas.items())]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height:g}" width="{_WIDTH:g}" '
        f'height="{height:g}" font-family="sans-serif" font-size="12" role="img" aria-label="{escape(axis)}">'
    )
    return (
        "\n".join([head, f"<title>{escape(axis)}</title>{_STYLE}", _draw_axis(scale, height, axis), *rows, "</svg>"])
        + "\n"
    )


class _Scale:
    """From values to pixels."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def place(self, value: float) -> float:
        """The pixel of a value."""
        return _LEFT + (value - self.low) / (self.high - self.low) * (_WIDTH - _LEFT - _RIGHT)

    def ticks(self) -> list[float]:
        """Round values at about five places."""
        step = 10.0**-3
        for candidate in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100):
            step = candidate
            if (self.high - self.low) / step <= 7:
                break
        first = int(self.low / step) + 1
        return [k * step for k in range(first, int(self.high / step) + 1)]


def _draw_axis(scale: _Scale, height: float, axis: str) -> str:
    bottom, parts = height - _FOOT, []
    for tick in scale.ticks():
        x = scale.place(tick)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP:g}" y2="{bottom:g}" class="bp-grid"/>')
        parts.append(f'<text class="bp-ink" x="{x:.1f}" y="{bottom + 16:g}" text-anchor="middle">{tick:.6g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="bp-ink" x="{middle:g}" y="{height - 8:g}" text-anchor="middle">{escape(axis)}</text>')
    return "\n".join(parts)


def _draw_row(name: str, values: Sequence[float], k: int, scale: _Scale) -> str:
    y = _TOP + _ROW * (k + 0.5)
    parts = [f'<text class="bp-ink" x="{_LEFT - 8:g}" y="{y + 4:g}" text-anchor="end">{escape(name)}</text>']
    if values:
        box = Quartiles.of(values)
        reach = _REACH * (box.high - box.low)
        ends = [v for v in values if box.low - reach <= v <= box.high + reach]
        low, q1, q2, q3, high = map(scale.place, (min(ends), box.low, box.median, box.high, max(ends)))
        parts += [
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y:g}" y2="{y:g}" class="bp-line"/>',
            f'<rect x="{q1:.1f}" y="{y - 7:g}" width="{max(q3 - q1, 0.5):.1f}" height="14" class="bp-box bp-line"/>',
            f'<line x1="{q2:.1f}" x2="{q2:.1f}" y1="{y - 7:g}" y2="{y + 7:g}" class="bp-line" stroke-width="2"/>',
        ]
        parts += [
            f'<circle cx="{scale.place(v):.1f}" cy="{y + _HEIGHTS[j % len(_HEIGHTS)]:g}" r="1.8" class="bp-dot"/>'
            for j, v in enumerate(values)
        ]
    return "\n".join(parts)
