"""The sum of the sites' tables as the estimation takes it, in a frame of the pooled moments, and the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from coterie_learners.cola.model.likelihood import Grouped
from coterie_learners.cola.plan import TablePlan
from coterie_learners.cola.tables.patterns import Keys
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.pairwise_sum import pairwise_sum, weighted_gram, weighted_sum
from coterie_learners.study.rows import Block
from coterie_learners.sums import exact
from coterie_learners.sums.frame import Frame, Moments, draw_frame, power_of_two

# A server has the patterns themselves: it may look as often as it likes.
LOOKS = 4


def draw_pooled_frame(plan: TablePlan, tables: Posts) -> Frame:
    """The frame about the moments of all tables together."""
    frame, table = Frame.from_ranges(plan.layout), Sum.of(plan, tables)
    raw = plan.grid.raw(plan.design, table.keys)
    for _ in range(LOOKS):
        x = frame.block(Block(raw, np.zeros(len(raw)))).x
        nothing = Moments(float(pairwise_sum(table.u)), weighted_gram(x, table.u), np.zeros(plan.p), 1.0, 0.0)
        drawn, clear = draw_frame(replace(frame, outcome_centre=0.0, outcome_scale=1.0), nothing)
        frame = replace(drawn, offset_centre=frame.offset_centre)
        if clear:
            break
    return _about_outcome(plan, table, frame)


def _about_outcome(plan: TablePlan, table: Sum, frame: Frame) -> Frame:
    """The frame with a measured outcome about its pooled mean, in units of its spread."""
    if not plan.family.linear:
        return frame
    place, n = plan.tally.place, Fraction(table.n)
    mean = table.exact("outcome") / n if plan.design.formula.intercept else Fraction(0)
    variance = table.exact("squares") / n - mean * (2 * table.exact("outcome") / n - mean)
    spread = power_of_two(float(np.sqrt(float(variance)))) if variance > 0 else 1.0
    return replace(
        frame,
        outcome_centre=float(Fraction(place.centre) + Fraction(place.scale) * mean),
        outcome_scale=place.scale * spread,
    )


def sum_tables(plan: TablePlan, tables: Posts, frame: Frame | None = None) -> Grouped:
    """The sum of the tables: patterns by number, whichever sites have them; in their own frame if none is given."""
    frame = draw_pooled_frame(plan, tables) if frame is None else frame
    table = Sum.of(plan, tables)
    raw = plan.grid.raw(plan.design, table.keys)
    x, declared = frame.block(Block(raw, np.zeros(len(raw)))).x, plan.grid.matrix(plan.design, table.keys)
    measured = _measure(plan, table, frame, raw) if plan.family.pairs else _count(plan, table, frame, x)
    return Grouped(
        names=plan.design.names,
        x=x,
        u=table.u,
        n=table.n,
        saturated=table.single("saturated"),
        constant=table.single("constant"),
        intercepts=(0,) if plan.design.formula.intercept else (),
        declared=declared,
        declared_cross=scale_cross_products(plan, table.raw_cross(raw)),
        frame=frame,
        **measured,
    )


def _count(plan: TablePlan, table: Sum, frame: Frame, x: Array) -> dict[str, Any]:
    """Sums of an outcome that is counted: in the frame by X'y = M' (raw X)'y, or from each pattern's sum."""
    s = table.spread.get("s")
    if s is not None:
        inside = weighted_sum(x, s) if s.ndim == 1 else np.stack([weighted_sum(x, row) for row in s])
    else:
        rows = np.atleast_2d(table.single_array("cross"))
        moved = np.stack([exact.floats(_carry(frame, exact.fractions(row))) for row in rows])
        inside = moved[0] if table.single_array("cross").ndim == 1 else moved
    outcome = table.single_array("outcome")
    return {"cross": inside, "outcome": outcome, "s": None if plan.levels else s, "q": table.spread.get("q")}


def _measure(plan: TablePlan, table: Sum, frame: Frame, raw: Array) -> dict[str, Any]:
    """Sums of a measured outcome, moved exactly from the declared centre to the pooled mean."""
    place = plan.tally.place
    shift = (Fraction(frame.outcome_centre) - Fraction(place.centre)) / Fraction(place.scale)
    unit = Fraction(frame.outcome_scale) / Fraction(place.scale)
    n, outcome, u = Fraction(table.n), table.exact("outcome"), exact.fractions(table.u)
    out: dict[str, Any] = {"outcome": np.asarray(float((outcome - shift * n) / unit))}
    squares = table.exact("squares") - shift * (2 * outcome - shift * n)
    out["squares"] = max(float(squares / unit**2), 0.0)
    s = table.exact("s") if "s" in table.spread else None
    crossed = table.exact("cross") if s is None else exact.sum_weighted(raw, *exact.split(s))
    moved = (crossed - shift * exact.sum_weighted(raw, table.u)) / unit
    out["cross"] = exact.floats(_carry(frame, moved))
    out["s"] = None if s is None else exact.floats((s - shift * u) / unit)
    if "q" in table.spread and s is not None:
        out["q"] = exact.floats((table.exact("q") - shift * (2 * s - shift * u)) / unit**2)
    return out


def _carry(frame: Frame, sums: exact.Exact) -> exact.Exact:
    """M' of a frame times exact sums over the raw columns."""
    moved = [sum((value * sums[k] for k, value in column.items()), Fraction(0)) for column in frame.exact_carry]
    return np.array(moved, dtype=object)


class Sum:
    """Tables added up by pattern number: floats as they are, pairs exactly."""

    def __init__(self, plan: TablePlan, keys: Keys, tables: Posts) -> None:
        self.plan, self.keys, self.tables = plan, keys, tables
        self.spread = {name: _spread(plan, name, keys, tables) for name in plan.per_pattern}
        self.u = self.spread["exposure" if plan.tally.exposure else "n"]

    @classmethod
    def of(cls, plan: TablePlan, tables: Posts) -> Sum:
        """The sum of these tables."""
        return cls(plan, np.unique(np.concatenate([t["keys"] for t in tables.values()])), tables)

    @property
    def n(self) -> float:
        """Number of rows."""
        return self.single("rows") if self.plan.tally.exposure else float(np.sum(self.u.astype(np.int64)))

    def single_array(self, name: str) -> Array:
        """A field that is a sum over all patterns, added up over the tables."""
        return linalg.total([t[name] for t in self.tables.values()])

    def single(self, name: str) -> float:
        """The same as a number; 0 for a field that the model does not need."""
        return float(self.single_array(name)) if name in self.plan.single else 0.0

    def exact(self, name: str) -> Any:
        """A field that is a pair, as exact fractions."""
        if name in self.spread:
            parts = [(self._place(t, name), self._place(t, f"{name}_low")) for t in self.tables.values()]
        else:
            parts = [(t[name], t[f"{name}_low"]) for t in self.tables.values()]
        return exact.add_pairs(parts)

    def raw_cross(self, raw: Array) -> Array:
        """X'y of the raw columns (p,) or (k - 1, p), as floats."""
        if "s" in self.spread:
            return np.asarray(self.spread["s"] @ raw)
        return self.single_array("cross")

    def _place(self, table: Payload, name: str) -> Array:
        out = np.zeros(len(self.keys))
        out[np.searchsorted(self.keys, table["keys"])] = table[name]
        return out


def stack_by_site(plan: TablePlan, tables: Posts, frame: Frame | None = None) -> Grouped:
    """The tables one below the other, with an intercept for each site in place of the common one."""
    frame = draw_pooled_frame(plan, tables) if frame is None else frame
    parts = [sum_tables(plan, {name: table}, frame) for name, table in tables.items()]
    own = np.repeat(np.eye(len(parts)), [len(part.x) for part in parts], axis=0)

    def below(name: str) -> Array | None:
        fields = [getattr(part, name) for part in parts]
        return None if fields[0] is None else np.concatenate(fields)

    def sums(name: str) -> float:
        return float(linalg.total([getattr(part, name) for part in parts]))

    def cross_all(name: str) -> Array:
        fields = [getattr(part, name) for part in parts]
        return np.concatenate([[field[0] for field in fields], linalg.total([field[1:] for field in fields])])

    def stack_all(name: str) -> Array:
        return np.concatenate([own, np.concatenate([getattr(part, name)[:, 1:] for part in parts])], axis=1)

    return Grouped(
        names=(*(f"site[{name}]" for name in tables), *plan.design.names[1:]),
        x=stack_all("x"),
        u=np.concatenate([part.u for part in parts]),
        cross=cross_all("cross"),
        n=sums("n"),
        outcome=np.asarray(sums("outcome")),
        s=below("s"),
        q=below("q"),
        squares=sums("squares"),
        saturated=sums("saturated"),
        constant=sums("constant"),
        intercepts=tuple(range(len(parts))),
        declared=stack_all("declared"),
        declared_cross=cross_all("declared_cross"),
        frame=frame,
    )


def scale_cross_products(plan: TablePlan, cross: Array) -> Array:
    """X'y of the variables' own units on the scale of the declared ranges."""
    columns = plan.design.columns
    centre, scale = np.array([c.centre for c in columns]), np.array([c.scale for c in columns])
    return np.asarray((cross - cross[..., :1] * centre) / scale)


def carry_back(plan: TablePlan, frame: Frame, sites: int = 0) -> tuple[Array, Array]:
    """The matrix that carries coefficients to the variables' own units, and what is added to each there.

    With so many site intercepts in front; for a multinomial outcome block by block.
    """
    common, centre = frame.carry * frame.outcome_scale, frame.outcome_centre - frame.offset_centre
    if sites:
        out = np.zeros((sites + plan.p - 1, sites + plan.p - 1))
        out[:sites, :sites] = np.eye(sites) * frame.outcome_scale
        out[:sites, sites:] = common[0, 1:]
        out[sites:, sites:] = common[1:, 1:]
        return out, np.concatenate([np.full(sites, centre), np.zeros(plan.p - 1)])
    blocks = max(plan.levels, 1)
    out, origin = np.zeros((blocks * plan.p, blocks * plan.p)), np.zeros(blocks * plan.p)
    for k in range(blocks):
        out[k * plan.p : (k + 1) * plan.p, k * plan.p : (k + 1) * plan.p] = common
    if plan.design.formula.intercept:
        origin[:: plan.p] = centre
    return out, origin


def _spread(plan: TablePlan, name: str, keys: Keys, tables: Mapping[str, Payload]) -> Array:
    """A field's sum over the sites in every pattern of `keys`."""
    shape = (plan.levels, len(keys)) if name == "s" and plan.levels else (len(keys),)
    stacked = np.zeros((len(tables), *shape))
    for row, table in zip(stacked, tables.values(), strict=True):
        row[..., np.searchsorted(keys, table["keys"])] = table[name]
    whole = name == "n" or plan.family.binary
    # Whole numbers add up exactly in any order.
    return np.asarray(stacked.sum(axis=0)) if whole else linalg.total(stacked)
