"""The figures of an evaluation as coordinates: ROC curve, calibration and net benefit, drawn as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SIDE, _LEFT, _TOP, _FOOT, _RIGHT = 250.0, 52.0, 14.0, 44.0, 14.0
_MARKS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Ends of an axis whose quarters are round numbers.
_ENDS = (0.004, 0.008, 0.02, 0.04, 0.08, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Panel:
    """One figure: its title, axes, a line through points in pixels, single points, and a dotted line beside it."""

    title: str
    across: str
    up: str
    line: tuple[tuple[float, float], ...]
    points: tuple[tuple[float, float, str], ...]
    beside: tuple[tuple[float, float], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: float = _LEFT + _SIDE + _RIGHT
    height: float = _TOP + _SIDE + _FOOT
    left: float = _LEFT
    bottom: float = _TOP + _SIDE

    @property
    def path(self) -> str:
        """The line as SVG's polyline has it."""
        return _write_path(self.line)

    @property
    def beside_path(self) -> str:
        """The dotted line."""
        return _write_path(self.beside)


def _write_path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


@dataclass(frozen=True)
class _Frame:
    """The places of a range's numbers in pixels."""

    x_end: float = 1.0
    y_low: float = 0.0
    y_end: float = 1.0

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point; points outside are drawn on the edge."""
        across = min(max(x / self.x_end, 0.0), 1.0)
        up = min(max((y - self.y_low) / (self.y_end - self.y_low), 0.0), 1.0)
        return _LEFT + _SIDE * across, _TOP + _SIDE * (1.0 - up)

    @property
    def x_ticks(self) -> tuple[tuple[float, str], ...]:
        """Marks across."""
        return tuple((_LEFT + _SIDE * mark, f"{mark * self.x_end:.2g}") for mark in _MARKS)

    @property
    def y_ticks(self) -> tuple[tuple[float, str], ...]:
        """Marks upwards."""
        height = self.y_end - self.y_low
        return tuple((_TOP + _SIDE * (1.0 - mark), f"{self.y_low + mark * height:.2g}") for mark in _MARKS)


def _choose_end(most: float) -> float:
    """A round end of an axis beyond a number; 1 at the most."""
    return next((end for end in _ENDS if end >= most), 1.0)


def draw_evaluation(evaluation: Mapping[str, Any]) -> tuple[Panel, ...]:
    """ROC curve, calibration plot and decision curve of all patients."""
    group = evaluation["groups"][0]
    panels = (_draw_roc(group), _draw_calibration(group), _draw_benefit(group))
    return tuple(panel for panel in panels if panel is not None)


def _draw_roc(group: Mapping[str, Any]) -> Panel | None:
    if group["auc"] is None:
        return None
    frame = _Frame()
    line = tuple(frame.at(1.0 - point["specificity"], point["sensitivity"]) for point in group["roc"])
    beside = (frame.at(0.0, 0.0), frame.at(1.0, 1.0))
    title = f"ROC curve, AUC {group['auc']['value']:.3f}"
    return Panel(title, "1 - specificity", "sensitivity", line, (), beside, frame.x_ticks, frame.y_ticks)


def _draw_calibration(group: Mapping[str, Any]) -> Panel:
    most = max(max(part["predicted"], part["observed"]) for part in group["ranges"])
    end = _choose_end(1.02 * most)
    frame = _Frame(end, 0.0, end)
    points = tuple((*frame.at(part["predicted"], part["observed"]), f"n = {part['n']}") for part in group["ranges"])
    line = tuple((x, y) for x, y, _ in points)
    beside = (frame.at(0.0, 0.0), frame.at(end, end))
    return Panel("Calibration", "predicted", "observed share", line, points, beside, frame.x_ticks, frame.y_ticks)


def _draw_benefit(group: Mapping[str, Any]) -> Panel | None:
    points = group["net_benefit"]
    if not points:
        return None
    share = group["observed"]
    last = max((p["threshold"] for p in points if p["net_benefit"] > 0.0), default=points[-1]["threshold"])
    step = _choose_end(4.0 / 3.0 * 1.02 * share) / 4.0
    frame = _Frame(_choose_end(last), -step, 3.0 * step)
    shown = [point for point in points if point["threshold"] <= frame.x_end]
    line = tuple(frame.at(point["threshold"], point["net_benefit"]) for point in shown)
    inside = (point for point in shown if point["treat_all"] >= frame.y_low)
    beside = tuple(frame.at(point["threshold"], point["treat_all"]) for point in inside)
    title = "Net benefit; dotted: treat all"
    return Panel(title, "threshold", "net benefit", line, (), beside, frame.x_ticks, frame.y_ticks)
