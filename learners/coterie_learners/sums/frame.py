"""The scale on which a fit is computed: columns, outcome and offset about a centre, in units of their own spread.

Results do not depend on units and declared ranges because nothing is summed on either. A frame begins with the ranges
that the study declares; after the first sums it is drawn again around the pooled moments, which all sites know. A site
takes the centre from each raw value before anything else is done with it, so that a spread of 1e-8 of the value loses
no digits to the value.

Powers and products are made of centred variables wherever the formula holds all their lower terms (Nelder's
marginality): then the columns span the same space, and x, x^2, ..., x^10 are hardly collinear. `carry` takes
coefficients back to the raw columns by the binomial expansion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import TypeVar

import numpy as np

from coterie_learners.core.payload import Payload
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.linalg import matmul, matvec
from coterie_learners.study.design import Column, Design
from coterie_learners.study.rows import Block
from coterie_learners.sums.family import OutcomeUnit

Monomial = frozenset[tuple[str, int, int]]
Number = TypeVar("Number", float, Fraction)
# A spread below this share of its centre is known too coarsely; another look from nearer by is needed.
NEAR_ENOUGH = 1e-5
# Squares below this are lost in the fixed point of a masked sum.
RESOLVED = 2.0**-50
# A spread that could not be resolved is taken to be this share of the centre, so that the next look shows it.
GUESS = 1e-8
# Values that differ by less than so many units in the last place of their centre are one value.
ONE_VALUE = 64.0
# So little of a declared range no site can tell from nothing.
SMALLEST = 4e-16


@dataclass(frozen=True)
class _SiteColumns:
    """How a column is made in a frame: raw column `rest` (None: 1) times powers of centred raw columns."""

    rest: int | None
    powers: tuple[tuple[int, int], ...]

    @property
    def is_product(self) -> bool:
        """Whether the column is made of more than one centred column by itself."""
        return bool(self.powers) and (self.rest is not None or sum(k for _, k in self.powers) > 1)


@dataclass(frozen=True)
class Layout:
    """Which columns of a design are centred as variables, which as columns, and which are made of centred ones.

    `unit`: how the fit changes with the outcome's unit, where the outcome is scaled and not centred.
    """

    design: Design
    linear: bool
    parts: tuple[_SiteColumns, ...]
    centred: tuple[bool, ...]
    unit: OutcomeUnit | None = None

    @staticmethod
    def of(design: Design, linear: bool, unit: OutcomeUnit | None = None) -> Layout:
        """The layout of a design; `linear`: the outcome is measured, and centred too."""
        return _lay_out(design, linear, unit)

    @property
    def p(self) -> int:
        """Number of columns."""
        return len(self.parts)

    @cached_property
    def keys(self) -> dict[Monomial, int]:
        """The columns by their factors."""
        return {monomial(column): j for j, column in enumerate(self.design.columns)}

    @cached_property
    def derived(self) -> tuple[int, ...]:
        """Columns that are made of centred ones."""
        return tuple(j for j, c in enumerate(self.design.columns) if c.factors and not self.centred[j])

    @cached_property
    def reach(self) -> Array:
        """By how much a column (p,) may vary in the frame, if it is not 0 or 1: for lengths of steps."""
        return np.array([0.0 if _is_indicator(self.design, c) else 3.0 for c in self.design.columns])

    def indicators(self) -> list[int]:
        """Columns that are 0 or 1 for every row, without the intercept."""
        return [j for j, c in enumerate(self.design.columns) if c.factors and _is_indicator(self.design, c)]


def _lay_out(design: Design, linear: bool, unit: OutcomeUnit | None) -> Layout:
    """The layout of a design, made once; the design keeps it, so that the two leave memory together."""
    kept: dict[tuple[bool, OutcomeUnit | None], Layout] = design.__dict__.setdefault("_layouts", {})
    if (linear, unit) not in kept:
        kept[linear, unit] = replace(_make_layout(design, linear), unit=unit)
    return kept[linear, unit]


def _make_layout(design: Design, linear: bool) -> Layout:
    keys = {monomial(column): j for j, column in enumerate(design.columns)}
    mains = {name: j for name, j in _mains(design, keys).items() if design.formula.intercept}
    closed = {name: j for name, j in mains.items() if _is_closed(name, keys)}
    parts = tuple(_part(column, keys, closed) for column in design.columns)
    pairs = zip(design.columns, parts, strict=True)
    centred = tuple(bool(column.factors) and not part.is_product for column, part in pairs)
    return Layout(design, linear, parts, centred)


@dataclass(frozen=True)
class Frame:
    """Centres and scales (p,) of the columns that are centred, of the outcome, and the centre of the offset.

    Of an outcome that is not measured centre and scale are 0 and 1, but a unit may be the scale of one above zero. A
    column made of centred ones has centre 0 and scale 1. Scales are powers of two, by which nothing is rounded.
    """

    layout: Layout
    centre: Array
    scale: Array
    outcome_centre: float = 0.0
    outcome_scale: float = 1.0
    offset_centre: float = 0.0

    @classmethod
    def from_ranges(cls, layout: Layout) -> Frame:
        """The frame of the declared ranges."""
        design = layout.design
        columns = [c if free else None for c, free in zip(design.columns, layout.centred, strict=True)]
        centre = np.array([0.0 if c is None else c.centre for c in columns])
        scale = np.array([1.0 if c is None else power_of_two(c.scale) for c in columns])
        intercept = design.formula.intercept
        middle = _middle(design, design.formula.offset) if intercept else 0.0
        if not layout.linear:
            unit = (
                1.0 if layout.unit is None else choose_unit(layout.unit, max(design.outcome.bounds[1], layout.unit.low))
            )
            return cls(layout, centre, scale, outcome_scale=unit, offset_centre=middle)
        low, high = (float(b) for b in design.outcome.bounds)
        about = 0.5 * low + 0.5 * high if intercept else 0.0
        return cls(layout, centre, scale, about, power_of_two(max(abs(high - about), abs(low - about))), middle)

    @classmethod
    def from_payload(cls, layout: Layout, model: Mapping[str, object]) -> Frame:
        """The frame that a server posted."""
        single = (float(np.asarray(model[name])) for name in _SINGLE)
        return cls(layout, np.asarray(model["centre"]), np.asarray(model["scale"]), *single)

    def payload(self) -> Payload:
        """The frame as a server posts it."""
        single = {name: np.asarray(getattr(self, name)) for name in _SINGLE}
        return {"centre": self.centre, "scale": self.scale, **single}

    def block(self, raw: Block, out: Array | None = None) -> Block:
        """Rows in this frame, of rows in the variables' own units; `out` (m, p): where their design is written."""
        x = np.empty_like(raw.x, order="F") if out is None else out
        np.subtract(raw.x, self.centre, out=x)
        if self._reciprocal is None:
            np.divide(x, self.scale, out=x)
        else:
            np.multiply(x, self._reciprocal, out=x)
        for j in self.layout.derived:
            part = self.layout.parts[j]
            x[:, j] = 1.0 if part.rest is None else raw.x[:, part.rest]
            for k, power in part.powers:
                for _ in range(power):
                    x[:, j] *= x[:, k]
        if not self.layout.linear:
            offset = None if raw.offset is None else (raw.offset - self.offset_centre) / self.coefficient_unit
            return replace(
                raw, x=x, y=raw.y if self.outcome_scale == 1.0 else raw.y / self.outcome_scale, offset=offset
            )
        y = raw.y - self.outcome_centre
        if raw.offset is not None:
            y = y - (raw.offset - self.offset_centre)
        return replace(raw, x=x, y=y / self.outcome_scale, offset=None)

    @cached_property
    def _reciprocal(self) -> Array | None:
        """One over the scales, if all are powers of two: a product then has the bits of the division, in less time."""
        mantissa, exponent = np.frexp(self.scale)
        return 1.0 / self.scale if np.all(mantissa == 0.5) and np.all(np.abs(exponent) < 1000) else None

    # Back to the variables' own units

    @property
    def coefficient_unit(self) -> float:
        """What a coefficient of 1 is in the outcome's own units."""
        power = 1 if self.layout.unit is None else self.layout.unit.coefficients
        return self.outcome_scale if power == 1 else math.pow(self.outcome_scale, power)

    @property
    def deviance_unit(self) -> float:
        """What a deviance of 1 is, and a dispersion of 1, in the outcome's own units."""
        power = 2 if self.layout.unit is None else self.layout.unit.deviance
        return math.pow(self.outcome_scale, power)

    @cached_property
    def carry(self) -> Array:
        """The matrix M (p, p): coefficients b of this frame are M b on the raw columns, outcome in its own scale."""
        out = np.zeros((self.layout.p, self.layout.p))
        for j in range(self.layout.p):
            for k, value in self._expand(j, float).items():
                out[k, j] = value
        return out

    @cached_property
    def exact_carry(self) -> tuple[dict[int, Fraction], ...]:
        """The columns of that matrix as exact fractions, by raw column."""
        return tuple(self._expand(j, Fraction) for j in range(self.layout.p))

    def _expand(self, j: int, number: Callable[[float], Number]) -> dict[int, Number]:
        """Column j as a polynomial in the raw columns, in this kind of number."""
        columns, keys = self.layout.design.columns, self.layout.keys
        centre, scale = number(float(self.centre[j])), number(float(self.scale[j]))
        if j not in self.layout.derived:
            shift = {keys[frozenset()]: -centre / scale} if centre and frozenset() in keys else {}
            return {j: number(1.0) / scale} | shift
        part = self.layout.parts[j]
        terms = {frozenset() if part.rest is None else monomial(columns[part.rest]): number(1.0)}
        for k, power in part.powers:
            (name, _, _) = next(iter(monomial(columns[k])))
            for _ in range(power):
                terms = _times(terms, name, number(float(self.centre[k])), number(float(self.scale[k])))
        return {keys[key]: value for key, value in terms.items()}

    def outside(self, beta: Array) -> Array:
        """Coefficients (p,) in the variables' own units."""
        raw = matvec(self.carry, beta) * self.coefficient_unit
        if self.layout.design.formula.intercept:
            raw[0] = raw[0] + (self.outcome_centre - self.offset_centre)
        return raw

    def covariance(self, root: Array) -> Array:
        """Covariance (p, p) in the variables' own units from a root R (p, q), R R' being that of this frame.

        A sum of squares: what is large in it cancels nowhere.
        """
        back = self._carry_back(root) * self.coefficient_unit
        whole = matmul(back, back.T)
        return 0.5 * (whole + whole.T)

    def _carry_back(self, matrix: Array) -> Array:
        """M @ matrix, of the few entries of M that are not zero."""
        out = np.zeros_like(matrix)
        for j, row in enumerate(matrix):
            at = np.flatnonzero(self.carry[:, j])
            out[at] = out[at] + self.carry[at, j, None] * row
        return out

    @property
    def origin(self) -> Array:
        """Coefficients (p,) on the raw columns, outcome in its own scale, where those of this frame are zero."""
        out = np.zeros(self.layout.p)
        if self.layout.design.formula.intercept:
            out[0] = (self.outcome_centre - self.offset_centre) / self.coefficient_unit
        return out


_SINGLE = ("outcome_centre", "outcome_scale", "offset_centre")


@dataclass(frozen=True)
class Moments:
    """Pooled sums in a frame: rows n, X'X (p, p), X'y (p,), y'y, the sum of y, and of the offset."""

    n: float
    gram: Array
    cross: Array
    squares: float
    outcome: float
    offset: float = 0.0


def draw_frame(frame: Frame, moments: Moments) -> tuple[Frame, bool]:
    """A frame about pooled moments, and whether they were seen from near enough for it to be the last."""
    intercept = frame.layout.design.formula.intercept
    spreads = column_spreads(frame, moments)
    centre, scale = frame.centre.copy(), frame.scale.copy()
    for j, spread in spreads.items():
        centre[j] = frame.centre[j] + frame.scale[j] * spread.mean
        scale[j] = power_of_two(float(frame.scale[j]) * spread.size)
    clear = all(spread.sharp or spread.constant for spread in spreads.values())
    offset = frame.offset_centre + (frame.coefficient_unit * moments.offset / moments.n if intercept else 0.0)
    if not frame.layout.linear:
        size = choose_unit(frame.layout.unit, frame.outcome_scale * moments.outcome / moments.n)
        return Frame(frame.layout, centre, scale, outcome_scale=size, offset_centre=offset), clear
    spread = outcome_spread(frame, moments)
    about = frame.outcome_centre + frame.outcome_scale * spread.mean
    unit = power_of_two(frame.outcome_scale * spread.size)
    drawn = Frame(frame.layout, centre, scale, about, unit, frame.offset_centre)
    return drawn, clear and (spread.sharp or spread.constant)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a column in a frame; whether the latter can be trusted, and is that of one value.

    If it cannot be trusted, it is a guess, with which the next step shows more.
    """

    mean: float
    size: float
    sharp: bool
    constant: bool


def column_spreads(frame: Frame, moments: Moments) -> dict[int, Spread]:
    """The spread of each column that is centred by itself."""
    layout = frame.layout
    fitted_means = moments.gram[0] / moments.n if layout.design.formula.intercept else np.zeros(layout.p)
    squares = np.diag(moments.gram) / moments.n
    declared = Frame.from_ranges(layout)
    free = (j for j, centred in enumerate(layout.centred) if centred)
    places = ((j, float(frame.centre[j]), float(frame.scale[j]), float(declared.scale[j])) for j in free)
    return {j: _spread(float(fitted_means[j]), float(squares[j]), *place) for j, *place in places}


def outcome_spread(frame: Frame, moments: Moments) -> Spread:
    """The spread of a measured outcome."""
    mean = moments.outcome / moments.n if frame.layout.design.formula.intercept else 0.0
    declared = Frame.from_ranges(frame.layout).outcome_scale
    return _spread(mean, moments.squares / moments.n, frame.outcome_centre, frame.outcome_scale, declared)


def _spread(mean: float, square: float, centre: float, scale: float, declared: float) -> Spread:
    variance = square - mean * mean
    if variance >= max(NEAR_ENOUGH**2 * square, RESOLVED):
        return Spread(mean, math.sqrt(variance), True, False)
    guess = max(math.sqrt(max(variance, 0.0)), GUESS * abs(mean), GUESS)
    about = abs(centre + scale * mean)
    constant = scale * guess <= max(ONE_VALUE * math.ulp(about), SMALLEST * declared)
    return Spread(mean, guess, False, constant)


def move_moments(moments: Moments, old: Frame, new: Frame) -> Moments:
    """The moments in another frame of the same layout, which has no columns made of centred ones."""
    shift = (old.centre - new.centre) / new.scale
    ratio = old.scale / new.scale
    ones = moments.gram[0] if old.layout.design.formula.intercept else np.zeros(old.layout.p)
    scaled = moments.gram * ratio[:, None] * ratio
    sums = ones * ratio
    gram = scaled + sums[:, None] * shift + shift[:, None] * sums + moments.n * shift[:, None] * shift
    lift = (old.outcome_centre - new.outcome_centre) / new.outcome_scale if new.layout.linear else 0.0
    stretch = old.outcome_scale / new.outcome_scale
    outcome = moments.outcome * stretch
    cross = moments.cross * ratio * stretch + shift * outcome + lift * (sums + moments.n * shift)
    squares = moments.squares * stretch**2 + 2.0 * lift * outcome + moments.n * lift * lift
    return Moments(moments.n, gram, cross, squares, outcome + moments.n * lift, moments.offset)


def choose_unit(unit: OutcomeUnit | None, mean: float) -> float:
    """The unit in which an outcome with this mean is summed: 1, or a power of two near it."""
    return 1.0 if unit is None or unit.low <= mean <= unit.high else power_of_two(mean)


def monomial(column: Column) -> Monomial:
    """A column's factors as a set: the variables, their powers and their levels."""
    return frozenset((f.variable, f.power, -1 if f.level is None else f.level) for f in column.factors)


def power_of_two(value: float) -> float:
    """The power of two next to a positive number."""
    mantissa, exponent = math.frexp(value)
    return math.ldexp(1.0, exponent - (mantissa < math.sqrt(0.5))) if value > 0.0 else 1.0


def _mains(design: Design, keys: Mapping[Monomial, int]) -> dict[str, int]:
    """The column of each measured variable by itself."""
    numeric = (name for name in design.variables if design.declared[name].type in ("number", "count"))
    return {name: keys[key] for name in numeric if (key := frozenset([(name, 1, -1)])) in keys}


def _is_closed(name: str, keys: Mapping[Monomial, int]) -> bool:
    """Whether the formula holds, beside each term with a power of this variable, the term with the power below."""
    return all(_lower(key, name) in keys for key in keys if any(v == name for v, _, _ in key))


def _lower(key: Monomial, name: str) -> Monomial:
    return frozenset((v, k - (v == name), level) for v, k, level in key if v != name or k > 1)


def _part(column: Column, keys: Mapping[Monomial, int], closed: Mapping[str, int]) -> _SiteColumns:
    powers = tuple((closed[f.variable], f.power) for f in column.factors if f.level is None and f.variable in closed)
    rest = frozenset(key for key in monomial(column) if key[2] >= 0 or key[0] not in closed)
    return _SiteColumns(keys[rest] if rest else None, powers)


def _times(terms: Mapping[Monomial, Number], name: str, centre: Number, scale: Number) -> dict[Monomial, Number]:
    """A polynomial times (variable - centre) / scale."""
    out: dict[Monomial, Number] = {}
    for key, value in terms.items():
        power = next((k for v, k, _ in key if v == name), 0)
        higher = frozenset([entry for entry in key if entry[0] != name]) | {(name, power + 1, -1)}
        for place, share in ((higher, value / scale), (key, -value * centre / scale)):
            out[place] = out[place] + share if place in out else share
    return out


def _middle(design: Design, name: str | None) -> float:
    if name is None:
        return 0.0
    low, high = design.declared[name].bounds
    return 0.5 * low + 0.5 * high


def _is_indicator(design: Design, column: Column) -> bool:
    return all(f.level is not None or design.declared[f.variable].type == "binary" for f in column.factors)
