"""Survival curves, or the incidence of a cause, as one SVG: steps with limits, and the numbers at risk beneath.

Colours are those of Okabe and Ito (2008), which people with any colour vision tell apart; each curve has a dash pattern
of its own too. Text and axes are a grey that stands out on white and on black, and there is no background.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from coterie_node.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTH, _PLOT, _LEFT, _RIGHT, _TOP, _AXIS, _ROW = 720.0, 300.0, 150.0, 24.0, 30.0, 56.0, 18.0
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("", "9 4", "2 3", "9 3 2 3", "14 4", "5 5")
_INK, _FAINT = "#6b7785", "#9aa5b155"
_MOST_TICKS = 8
Point = tuple[float, float]


@dataclass(frozen=True)
class _Group:
    """One curve: its name, and by step the ends of steps, survival or incidence, limits, and counts; None for none."""

    name: str
    times: Sequence[float]
    values: Sequence[float]
    low: Sequence[float | None]
    high: Sequence[float | None]
    at_risk: Sequence[float]
    censored: Sequence[float]


@dataclass(frozen=True)
class _Frame:
    """The axes: the unit of time, the width of a step, the horizon, and the curves; of a `cause`, curves that rise."""

    unit: str
    width: float
    horizon: float
    groups: tuple[_Group, ...]
    cause: str = ""

    @property
    def start(self) -> float:
        """The value at which curves begin: all survive, and nobody has had the event."""
        return 0.0 if self.cause else 1.0

    @property
    def height(self) -> float:
        """Height of the figure, with a row of the risk table for each curve."""
        return _TOP + _PLOT + _AXIS + _ROW * (len(self.groups) + 1)

    @property
    def ticks(self) -> list[float]:
        """Times on the axis, each the end of a step."""
        steps = round(self.horizon / self.width)
        stride = next(k for k in _list_strides() if steps / k <= _MOST_TICKS)
        return [self.width * k for k in range(0, steps + 1, stride)]

    def x(self, time: float) -> float:
        """The place of a time."""
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * time / self.horizon

    def y(self, survival: float) -> float:
        """The place of a survival or an incidence."""
        return _TOP + _PLOT * (1.0 - survival)

    def draw_path(self, times: Sequence[float], values: Sequence[float]) -> list[Point]:
        """The corners of steps from where curves begin."""
        points, height = [(self.x(0.0), self.y(self.start))], self.y(self.start)
        for time, value in zip(times, values, strict=True):
            points.append((self.x(time), height))
            height = self.y(value)
            points.append((self.x(time), height))
        return points


def draw_survival(details: Mapping[str, Any], cause: str = "") -> str:
    """The curves of a result's `details.survival` as SVG; of a cause, its cumulative incidence.

    ConfigError (CO-F367) for a result that cannot be read, or has no such cause.
    """
    return "\n".join(_draw(_read(details, cause)))


def draw_survival_on(axes: Axes, details: Mapping[str, Any], cause: str = "") -> None:
    """The same curves with their limits on axes of matplotlib; ConfigError (CO-F367) as `draw_survival`."""
    frame = _read(details, cause)
    for group, colour in zip(frame.groups, itertools.cycle(_COLOURS), strict=False):
        times = [0.0, *group.times]
        low = [frame.start, *(math.nan if limit is None else limit for limit in group.low)]
        high = [frame.start, *(math.nan if limit is None else limit for limit in group.high)]
        axes.step(times, [frame.start, *group.values], where="post", color=colour, label=group.name)
        axes.fill_between(times, low, high, step="post", color=colour, alpha=0.15, linewidth=0.0)
    axes.set(xlim=(0.0, frame.horizon), ylim=(0.0, 1.0), xlabel=frame.unit, ylabel=cause or "survival")
    axes.legend()


def _read(details: Mapping[str, Any], cause: str) -> _Frame:
    try:
        return _read_frame(details, cause)
    except (KeyError, TypeError, ValueError, ArithmeticError, StopIteration):
        message = "The result has survival curves that cannot be read"
        raise ConfigError("CO-F367", f"{message}. Print it again with `coterie study result --json`.") from None


def list_causes(details: Mapping[str, Any]) -> list[str]:
    """The competing causes of a result's `details.survival`."""
    causes = details.get("causes")
    return [str(part.get("cause")) for part in causes if isinstance(part, Mapping)] if isinstance(causes, list) else []


def _read_frame(details: Mapping[str, Any], cause: str) -> _Frame:
    """The curves; ValueError where numbers are none, or columns differ in length."""
    counts = details["groups"]
    own = next(part["groups"] for part in details["causes"] if part["cause"] == cause) if cause else counts
    groups = tuple(_read_group(*pair, "incidence" if cause else "survival") for pair in zip(own, counts, strict=True))
    width, horizon = float(details["grid"]["width"]), float(details["grid"]["horizon"])
    if not groups or not (0.0 < width <= horizon < math.inf) or horizon / width > 1e6:
        raise ValueError("no curves, or no grid")
    return _Frame(str(details["unit"]), width, horizon, groups, cause)


def _read_group(group: Mapping[str, Any], counts: Mapping[str, Any], name: str) -> _Group:
    times, values = ([float(value) for value in group[key]] for key in ("times", name))
    at_risk, censored = ([float(value) for value in counts[key]] for key in ("at_risk", "censored"))
    low, high = ([_read_limit(value) for value in group[key]] for key in ("low", "high"))
    if {len(column) for column in (values, at_risk, censored, low, high)} != {len(times)} or not times:
        raise ValueError("columns differ in length")
    if not all(math.isfinite(value) for value in (*times, *values, *at_risk, *censored)):
        raise ValueError("a value is no number")
    return _Group(str(group["group"]), times, values, low, high, at_risk, censored)


def _read_limit(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)


def _list_strides() -> Iterator[int]:
    """1, 2, 3, 4, 5, 6, 10, 12, then the same with a zero each time."""
    power = 1
    while True:
        yield from (power * k for k in (1, 2, 3, 4, 5, 6))
        yield from (power * 12,) if power == 1 else ()
        power *= 10


def _draw(frame: _Frame) -> Iterator[str]:
    names = ", ".join(group.name for group in frame.groups)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {frame.height:g}" role="img" '
        'font-family="system-ui, DejaVu Sans, sans-serif" font-size="12">'
    )
    what = f"Cumulative incidence of {frame.cause}" if frame.cause else "Survival curves"
    method = "Aalen-Johansen" if frame.cause else "Kaplan-Meier"
    yield f"<title>{escape(what)}: {escape(names)}</title>"
    yield f"<desc>{method} estimates with 95 % limits by {escape(frame.unit)}; beneath, patients at risk.</desc>"
    yield from _draw_axes(frame)
    for number, group in enumerate(frame.groups):
        yield from _draw_group(frame, group, number)
    yield from _draw_risk_table(frame)
    yield "</svg>"


def _draw_axes(frame: _Frame) -> Iterator[str]:
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = frame.y(value)
        yield _draw_line((_LEFT, y), (_WIDTH - _RIGHT, y), _FAINT, 1.0)
        yield _write(_LEFT - 8, y + 4, f"{value:g}", "end")
    yield _draw_line((_LEFT, frame.y(0.0)), (_WIDTH - _RIGHT, frame.y(0.0)), _INK, 1.0)
    for time in frame.ticks:
        x, y = frame.x(time), frame.y(0.0)
        yield _draw_line((x, y), (x, y + 5), _INK, 1.0)
        yield _write(x, y + 19, f"{time:g}", "middle")
    yield _write((_LEFT + _WIDTH - _RIGHT) / 2, frame.y(0.0) + 36, f"Time ({frame.unit})", "middle")
    name = f"Cumulative incidence: {frame.cause}" if frame.cause else "Survival"
    yield _write(_LEFT - 40, _TOP - 12, name, "start")


def _draw_group(frame: _Frame, group: _Group, number: int) -> Iterator[str]:
    colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
    bounds = [(k, lo, hi) for k, (lo, hi) in enumerate(zip(group.low, group.high, strict=True))]
    known = [(group.times[k], lo, hi) for k, lo, hi in bounds if lo is not None and hi is not None]
    if known:
        times = [time for time, _, _ in known]
        upper = frame.draw_path(times, [hi for _, _, hi in known])
        lower = frame.draw_path(times, [lo for _, lo, _ in known])
        area = _join([*upper, *reversed(lower)])
        yield f'<polygon points="{area}" fill="{colour}" fill-opacity="0.13" stroke="none"/>'
    pattern = f' stroke-dasharray="{dash}"' if dash else ""
    path = _join(frame.draw_path(group.times, group.values))
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{pattern}/>'
    for time, value, censored in zip(group.times, group.values, group.censored, strict=True):
        if censored > 0 and time < frame.horizon:
            x, y = frame.x(time), frame.y(value)
            yield _draw_line((x, y - 4), (x, y + 4), colour, 1.2)


def _draw_risk_table(frame: _Frame) -> Iterator[str]:
    top = _TOP + _PLOT + _AXIS
    yield _write(8, top, "At risk", "start", weight=600)
    for number, group in enumerate(frame.groups):
        colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number % len(_DASHES)]
        y = top + _ROW * (number + 1)
        pattern = f' stroke-dasharray="{dash}"' if dash else ""
        yield f'<path d="M8 {y - 4:g}h26" stroke="{colour}" stroke-width="2"{pattern}/>'
        yield _write(40, y, group.name if len(group.name) <= 14 else f"{group.name[:13]}…", "start")
        for time in frame.ticks:
            yield _write(frame.x(time), y, f"{_count_at(frame, group, time):.0f}", "middle")


def _count_at(frame: _Frame, group: _Group, time: float) -> float:
    """How many are at risk in the step that ends at a time; at 0 in the first."""
    return group.at_risk[min(max(round(time / frame.width) - 1, 0), len(group.at_risk) - 1)]


def _draw_line(start: Point, end: Point, colour: str, width: float) -> str:
    x1, y1, x2, y2 = (f"{value:.1f}" for value in (*start, *end))
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" stroke-width="{width:g}"/>'


def _write(x: float, y: float, text: str, anchor: str, weight: int = 400) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}"'
    return f'<text {place} fill="{_INK}">{escape(text)}</text>'


def _join(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
