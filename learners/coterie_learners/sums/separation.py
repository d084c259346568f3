"""Signs that the maximum of a likelihood lies at infinity: groups with one outcome only, and steps that never end.

Albert and Anderson, Biometrika 1984;71:1-10. A group of rows that an indicator column marks, and that has no events (or
nothing else), is enough; the first look holds all such counts, so that every such level is named at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import Separation
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Column, Design
from coterie_learners.sums.family import Family
from coterie_learners.sums.frame import Frame, Layout

# Under separation the gain of a step vanishes while the steps go on, straight and hardly shorter; in a converging fit
# both vanish. Fisher scoring far from a canonical link may look so for a while: so all four have bounds.
_FLAT_GAIN, _STEADY_STEP, _STRAIGHT, _LONG_STEP = 1e-3, 0.7, 0.99, 0.05


@dataclass(frozen=True)
class LevelCounts:
    """Rows and sums of the outcome, of all rows and of those that the indicator columns `at` mark (k,)."""

    at: tuple[int, ...]
    rows: Array
    outcomes: Array
    n: float
    outcome: float


@dataclass(frozen=True)
class RowGroup:
    """Rows that a design can tell from all others: the column whose coefficient they drive, and what they are."""

    column: str
    name: str
    rows: float
    outcome: float


def groups(layout: Layout, counts: LevelCounts) -> Iterator[RowGroup]:
    """The groups that indicator columns mark; with an intercept, also those that they leave over."""
    design = layout.design
    left_over: dict[str, list[int]] = {}
    for k, j in enumerate(counts.at):
        column = design.columns[j]
        yield RowGroup(column.name, _value(design, column), float(counts.rows[k]), float(counts.outcomes[k]))
        if len(column.factors) == 1:
            left_over.setdefault(column.factors[0].variable, []).append(k)
    if not design.formula.intercept:
        return
    for variable, places in left_over.items():
        rows, outcomes = (float(v[places].sum()) for v in (counts.rows, counts.outcomes))
        levels = design.declared[variable].levels
        label = f"{variable}[{levels[0]}]" if levels else variable
        name = f"{variable} = {levels[0] if levels else 0}"
        yield RowGroup(label, name, counts.n - rows, counts.outcome - outcomes)


def check_levels(layout: Layout, family: Family, counts: LevelCounts | None, advice: str) -> None:
    """Separation that names every group with one outcome only, the reference levels among them."""
    if counts is None or not family.separable:
        return
    all_groups = list(groups(layout, counts))
    sizes = (np.array([getattr(g, field) for g in all_groups]) for field in ("rows", "outcome"))
    least, most = family.find_one_sided(*sizes)
    without = [g for g, is_one in zip(all_groups, least, strict=True) if is_one]
    only = [g for g, is_one in zip(all_groups, most, strict=True) if is_one]
    if without or only:
        raise separation([g.column for g in (*without, *only)], advice, _sentence(without, only))


def _sentence(without: Sequence[RowGroup], only: Sequence[RowGroup]) -> str:
    parts = [f"no events where {', '.join(g.name for g in without)}"] if without else []
    parts += [f"nothing but events where {', '.join(g.name for g in only)}"] if only else []
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}. "


def check_steps(layout: Layout, family: Family, frame: Frame, steps: tuple[float, Array, Array], advice: str) -> None:
    """Separation (naming columns) if the likelihood is flat and the steps go on in one direction.

    `steps`: the gain of the last step, that step and the one before (p,), in the frame.
    """
    gain, step, before = steps
    reach = np.where(layout.reach > 0.0, layout.reach, 1.0 / frame.scale)
    growing = find_growing(gain, step * reach, before * reach)
    if family.separable and np.any(growing):
        names = [n for n, is_growing in zip(layout.design.names, growing.tolist(), strict=True) if is_growing]
        raise separation(names, advice)


def find_growing(gain: float, step: Array, before: Array) -> NDArray[np.bool_]:
    """Which coefficients (p,) grow without bound, from the last two steps over the columns' reach; none if none do."""
    none = np.zeros(len(step), dtype=bool)
    longest = float(np.max(np.abs(step), initial=0.0))
    if gain > _FLAT_GAIN or longest < _LONG_STEP:
        return none
    aligned = linalg.dot(step, before)
    straight = aligned > 0 and aligned**2 >= _STRAIGHT**2 * linalg.dot(step, step) * linalg.dot(before, before)
    if not straight or longest < _STEADY_STEP * float(np.max(np.abs(before))):
        return none
    growing: NDArray[np.bool_] = np.abs(step) > 0.5 * longest
    return growing


def separation(names: Sequence[str], advice: str, which: str = "") -> Separation:
    """The error that names the columns, the groups and the way out."""
    return Separation(
        "CO-N302",
        f"The outcome is separated: coefficients of {', '.join(dict.fromkeys(names))} grow without bound, because "
        f"these columns predict it without error. {which}{advice}",
    )


def _value(design: Design, column: Column) -> str:
    """What an indicator column marks: stage = III, or male = 1 and stage = III."""
    values = (
        (f.variable, "1" if f.level is None else design.declared[f.variable].levels[f.level]) for f in column.factors
    )
    return " and ".join(f"{variable} = {value}" for variable, value in values)
