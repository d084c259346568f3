"""The cells of products: patients with some levels and without others, whose sums follow from the columns' sums.

With the columns A, B and A:B the sums over A without B are those of A less those of A:B. So A without B is a level too,
and so is every cell whose sums follow from columns that the formula has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Column, Design
from coterie_learners.study.formula import MAX_COLUMNS

# A variable and its level: 1 or 0 of a binary one, 1 for a number that is not zero.
_Condition = tuple[str, int]
Conditions = frozenset[_Condition]
EVERYBODY: Conditions = frozenset()
_MEASURED = ("number", "count")


@dataclass(frozen=True)
class Cell:
    """A cell by name: its variables, and the patients in `whole` who are not in one of `less`.

    Without `whole` it is the patients in one of `less`. No two of `less` have a patient in common.
    """

    name: str
    variables: frozenset[str]
    key: Conditions
    whole: Conditions | None
    less: tuple[Conditions, ...]

    def find(self, masks: Mapping[Conditions, Array]) -> Array:
        """Membership (m,), 1 or 0, from the masks of other conditions."""
        out = sum(masks[part] for part in self.less)
        return np.asarray(out if self.whole is None else masks[self.whole] - out)


def list_product_cells(design: Design) -> tuple[Cell, ...]:
    """The cells of a design's products, each after those that it follows from; StudyError if they are too many."""
    columns = dict.fromkeys(read_conditions(column) for column in design.columns)
    if all(len(conditions) < 2 for conditions in columns):
        return ()
    closure = _Closure(design, frozenset(columns))
    for conditions in (EVERYBODY, *columns):
        closure.add(conditions)
    return (*closure.derived.values(), *_list_rests(closure, tuple(columns)))


def read_conditions(column: Column) -> Conditions:
    """Which conditions a patient meets whose value of a column is not zero."""
    return frozenset((factor.variable, 1 if factor.level is None else factor.level) for factor in column.factors)


def mark_columns(design: Design, x: Array) -> dict[Conditions, Array]:
    """Masks (m,), 1 or 0, of the rows that meet the conditions of each column of a design matrix (m, p)."""
    masks = {EVERYBODY: np.ones(len(x))}
    for j, column in enumerate(design.columns):
        if (conditions := read_conditions(column)) not in masks:
            masks[conditions] = (x[:, j] != 0).astype(np.float64)
    return masks


@dataclass
class _Closure:
    """Sets of conditions whose sums are known, and by which step the others follow from the columns' ones."""

    design: Design
    columns: frozenset[Conditions]
    known: dict[Conditions, None] = field(default_factory=dict)
    derived: dict[Conditions, Cell] = field(default_factory=dict)
    # For conditions and another variable: the levels of that variable for which the sums are known.
    _beside: defaultdict[Conditions, defaultdict[str, set[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(set))
    )

    def name(self, conditions: Conditions) -> str:
        """Conditions in words, in the order of the alphabet, so that studies with other orders of terms agree."""
        return " and ".join(_name_one(self.design, *one) for one in sorted(conditions))

    def add(self, conditions: Conditions) -> None:
        """Add conditions whose sums are known, and all that follows."""
        waiting = [conditions]
        while waiting:
            new = waiting.pop()
            if new in self.known:
                continue
            self.known[new] = None
            if len(self.known) > 2 * MAX_COLUMNS:
                message = f"The products of the formula have more than {2 * MAX_COLUMNS} cells"
                raise StudyError("CO-S203", f"{message}, each of which would be counted. Use a shorter formula.")
            waiting += self._follow(new)

    def _follow(self, new: Conditions) -> Iterator[Conditions]:
        """What follows from conditions that have become known."""
        for variable in list(self._beside[new]):
            yield from self._complete(new, variable)
        for variable, level in sorted(new):
            rest = new - {(variable, level)}
            self._beside[rest][variable].add(level)
            yield from self._complete(rest, variable)

    def _complete(self, rest: Conditions, variable: str) -> Iterator[Conditions]:
        """The one level that lacks beside others and all of them, or all of them beside every level."""
        levels = _list_levels(self.design, variable)
        missing, here = levels - self._beside[rest][variable], tuple(sorted(self._beside[rest][variable]))
        parts = tuple(rest | {(variable, level)} for level in here)
        if rest in self.known and len(missing) == 1:
            yield from self._derive(rest | {(variable, missing.pop())}, rest, parts)
        elif rest not in self.known and levels and not missing:
            yield from self._derive(rest, None, parts)

    def _derive(self, key: Conditions, whole: Conditions | None, less: tuple[Conditions, ...]) -> Iterator[Conditions]:
        if key not in self.columns and key not in self.derived:
            self.derived[key] = Cell(self.name(key), _variables(key), key, whole, less)
            yield key


def _list_rests(closure: _Closure, columns: tuple[Conditions, ...]) -> Iterator[Cell]:
    """For a product without its factors: the rows that meet its other columns' conditions, but not all of its own."""
    for product in columns:
        if all(product - {one} in closure.known for one in product):
            continue
        inside = [conditions for conditions in closure.known if conditions < product]
        for whole in inside:
            more = product - whole
            discrete = all(_list_levels(closure.design, variable) for variable, _ in more)
            if len(more) > 1 and discrete and not any(whole < other for other in inside):
                parts = [closure.name(whole)] if whole else []
                name = " and ".join([*parts, f"not ({closure.name(more)})"])
                yield Cell(name, _variables(product), product | {(name, 0)}, whole, (product,))


def _variables(conditions: Conditions) -> frozenset[str]:
    return frozenset(variable for variable, _ in conditions)


def _list_levels(design: Design, variable: str) -> set[int]:
    """All levels of a variable by number; none of a number, whose zeros no sum shows."""
    declared = design.declared[variable]
    if declared.type in _MEASURED:
        return set()
    return set(range(len(declared.levels))) if declared.levels else {0, 1}


def _name_one(design: Design, variable: str, level: int) -> str:
    declared = design.declared[variable]
    if declared.type in _MEASURED:
        return f"{variable} not zero"
    return f"{variable}[{declared.levels[level]}]" if declared.levels else f"{variable} = {level}"
