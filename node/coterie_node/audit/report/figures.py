"""The report's two figures as coordinates: the template draws them as inline SVG, whose text stays text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coterie_learners.core.fit import Fit, coefficient_table
from coterie_learners.core.heterogeneity import Heterogeneity
from coterie_learners.study.design import INTERCEPT

WIDTH = 720.0
RIGHT, TOP, ROW, FOOT = 20.0, 24.0, 22.0, 46.0
# Room for the labels: at most 34 letters of 12 pixels.
LEAST_LEFT, MOST_LEFT, LETTER = 90.0, 250.0, 7.6
Z = 1.959963984540054
# Ratios outside this are drawn as arrows: a rare level must not squeeze all the others into a point.
WIDEST = math.log(50.0)
MOST_SITES = 6


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    """One line of a forest plot: its height, label, point and interval in pixels; arrows where the interval is cut."""

    y: float
    label: str
    value: str
    x: float
    low: float
    high: float
    pooled: bool
    cut_low: bool
    cut_high: bool


@dataclass(frozen=True)
class Forest:
    """A forest plot: estimates with 95 % intervals, by site where the ledger shows the sites' own sums."""

    width: float
    height: float
    axis: str
    nothing: float
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    left: float


@dataclass(frozen=True)
class ConvergenceCurve:
    """The convergence plot: one point a round on a logarithmic axis."""

    width: float
    height: float
    axis: str
    points: tuple[tuple[float, float, str], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]

    @property
    def path(self) -> str:
        """The points as SVG's polyline has them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in self.points)


def draw_forest(fit: Fit, sites: Heterogeneity | None) -> Forest | None:
    """The forest plot of a fit; None where the method has no standard errors."""
    rows = [row for row in coefficient_table(fit) if row.term != INTERCEPT and math.isfinite(row.ci_low)]
    if not rows:
        return None
    lines = [
        line
        for row in rows
        for line in [(row.term, row.estimate, row.ci_low, row.ci_high, True), *_list_site_intervals(sites, row.term)]
    ]
    ends = [min(max(v, -WIDEST), WIDEST) if fit.ratio else v for _, _, low, high, _ in lines for v in (low, high)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    left = _measure_labels([line[0] for line in lines])
    scale = (WIDTH - left - RIGHT) / ((high - low) or 1.0)

    def x(value: float) -> float:
        return left + (min(max(value, low), high) - low) * scale

    bars = tuple(
        Bar(
            TOP + ROW * k + ROW / 2, label, _format_interval(b, lo, hi, bool(fit.ratio)), x(b), x(lo), x(hi), pooled,
            lo < low, hi > high,
        )
        for k, (label, b, lo, hi, pooled) in enumerate(lines)
    )  # fmt: skip
    axis = f"{fit.ratio} with 95 % interval, logarithmic" if fit.ratio else "coefficient with 95 % interval"
    marks = _ratio_ticks(low, high) if fit.ratio else [(v, f"{v:.3g}") for v in _even_marks(low, high, 5)]
    ticks = tuple(Tick(x(value), label) for value, label in marks)
    return Forest(WIDTH, TOP + ROW * len(lines) + FOOT, axis, x(0.0), bars, ticks, left)


def draw_convergence(rounds: Sequence[Mapping[str, float]]) -> ConvergenceCurve | None:
    """How long each round's next step is, in standard errors; None for a learner that does not tell."""
    steps = [math.sqrt(max(r["gain"], 0.0)) for r in rounds if "gain" in r]
    if len(steps) < 2 or len(steps) != len(rounds):
        return None
    height, left, top, foot = 260.0, 90.0, 20.0, 46.0
    logs = [math.log10(max(s, 1e-16)) for s in steps]
    low, high = math.floor(min(logs)), math.ceil(max(logs) + 1e-9)
    down = (height - top - foot) / max(high - low, 1)
    across = (WIDTH - left - RIGHT) / max(len(steps) - 1, 1)
    points = tuple(
        (left + across * k, top + (high - v) * down, f"{s:.2g}")
        for k, (v, s) in enumerate(zip(logs, steps, strict=True))
    )
    every = max(1, len(steps) // 12)
    x_ticks = tuple(Tick(left + across * k, str(k + 1)) for k in range(0, len(steps), every))
    stride = max(1, (high - low) // 6)
    y_ticks = tuple(Tick(top + (high - v) * down, f"1e{v:+d}") for v in range(low, high + 1, stride))
    return ConvergenceCurve(WIDTH, height, "length of the next step, in standard errors", points, x_ticks, y_ticks)


def _measure_labels(labels: Sequence[str]) -> float:
    """The place in pixels where the labels end and the plot begins."""
    return min(max(LEAST_LEFT, 14.0 + LETTER * max(map(len, labels))), MOST_LEFT)


def _list_site_intervals(sites: Heterogeneity | None, term: str) -> list[tuple[str, float, float, float, bool]]:
    if sites is None or len(sites.sites) > MOST_SITES or term not in sites.terms:
        return []
    j = sites.terms.index(term)
    intervals = []
    for site, b, e in zip(sites.sites, sites.own[:, j].tolist(), sites.own_errors[:, j].tolist(), strict=True):
        if math.isfinite(b) and math.isfinite(e):
            intervals.append((site, b, b - Z * e, b + Z * e, False))
    return intervals


def _format_interval(estimate: float, low: float, high: float, ratio: bool) -> str:
    values = [math.exp(min(v, 700.0)) for v in (estimate, low, high)] if ratio else [estimate, low, high]
    return "{:.3g} [{:.3g}, {:.3g}]".format(*values)


def _ratio_ticks(low: float, high: float) -> list[tuple[float, str]]:
    marks = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
    marks_inside = [m for m in marks if low - 1e-9 <= math.log(m) <= high + 1e-9]
    if len(marks_inside) >= 2:
        return [(math.log(m), f"{m:g}") for m in marks_inside]
    return [(v, f"{math.exp(v):.3g}") for v in _even_marks(low, high, 4)]


def _even_marks(low: float, high: float, count: int) -> list[float]:
    return [low + (high - low) * k / (count - 1) for k in range(count)]
