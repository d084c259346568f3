"""What every site derives from a study of characteristics alone: groups, lines, grids of quantiles, and their order."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field as Within

from coterie_learners.core.masked_sum import MIN_PARTIES
from coterie_learners.core.registry import options_of
from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import ColumnName, Frozen, Study, Variable

# A value at a bin's end is in that bin, however floats round.
BIN_ROUNDING = 1e-9
# Quantiles from fewer bins than these would say nothing; and no grid has more.
FEWEST_BINS, MOST_BINS = 4, 2000
ItemKind = Literal["patients", "levels", "number", "bins", "rate"]


class QuantileGrid(Frozen):
    """Bins of `width` from `low` to `high`, in the variable's unit; by default over its declared range.

    What lies below or above them is counted in two open bins.
    """

    width: Annotated[float, Within(gt=0)]
    low: float | None = None
    high: float | None = None


class CharacteristicsOptions(Frozen):
    """The learner section of a table of characteristics.

    `groups`: the formula's left side makes the columns; else there is one column. `quantiles`: grids by number. `event`
    and `time`: columns of an incidence rate, which is given for `per` units of time. `aggregation` auto: masked with
    three sites or more. `by_site`: each site also shows a column of its own patients, in the clear.
    """

    groups: bool = True
    by_site: bool = False
    quantiles: dict[ColumnName, QuantileGrid] = Within(default_factory=dict)
    event: ColumnName | None = None
    time: ColumnName | None = None
    per: Annotated[float, Within(gt=0)] = 1000.0
    aggregation: Literal["auto", "masked", "plain"] = "auto"


@dataclass(frozen=True)
class Line:
    """One variable of the table; `levels` is empty for a number."""

    name: str
    variable: Variable

    @property
    def levels(self) -> tuple[str, ...]:
        """The names of its levels."""
        return ("0", "1") if self.variable.type == "binary" else self.variable.levels


@dataclass(frozen=True)
class Bins:
    """Bins (start + (k - 1) width, start + k width] of a number, with an open one below or above where values can be.

    `whole`: values are whole numbers.
    """

    start: float
    width: float
    steps: int
    below: bool
    above: bool
    whole: bool

    @classmethod
    def of(cls, variable: Variable, grid: QuantileGrid) -> Bins:
        """The bins of a declared grid. Without a `low`, the first bin of a number holds the least value too."""
        low, high = variable.bounds
        whole = variable.type == "count"
        start = grid.low if grid.low is not None else low - whole
        end = grid.high if grid.high is not None else high
        steps = math.ceil((end - start) / grid.width - BIN_ROUNDING) if end > start else 0
        return cls(
            start, grid.width, steps, start > low or (start == low and whole), start + steps * grid.width < high, whole
        )

    @property
    def multiples(self) -> tuple[int, ...]:
        """By how much the bins may be widened: divisors of their number that leave enough of them."""
        return tuple(m for m in range(1, self.steps + 1) if self.steps % m == 0 and self.steps // m >= FEWEST_BINS)

    def count_cells(self, multiple: int) -> int:
        """Number of bins at a multiple of the width, with the open ones."""
        return self.below + self.steps // multiple + self.above

    def place(self, values: Array) -> NDArray[np.int64]:
        """The bin (m,) of each value."""
        at = np.ceil((values - self.start) / self.width - BIN_ROUNDING)
        last = self.steps + self.above
        return np.clip(at, 0 if self.below else 1, last).astype(np.int64) - (not self.below)

    def widen(self, counts: Array, multiple: int) -> Array:
        """Counts (..., cells) of bins that are so many times as wide."""
        first, last = int(self.below), counts.shape[-1] - self.above
        inner = counts[..., first:last].reshape(*counts.shape[:-1], -1, multiple).sum(axis=-1)
        return np.concatenate([counts[..., :first], inner, counts[..., last:]], axis=-1)

    def list_ends(self, multiple: int) -> Array:
        """Lower and upper ends (cells, 2) of the bins; infinite where open."""
        inner = self.start + self.width * multiple * np.arange(self.steps // multiple + 1)
        edges = np.concatenate([[-np.inf] if self.below else [], inner, [np.inf] if self.above else []])
        return np.column_stack([edges[:-1], edges[1:]])


@dataclass(frozen=True)
class Alternative:
    """A way to show an item: by group or for all patients, and with bins that are so many times as wide."""

    grouped: bool
    multiple: int = 1


@dataclass(frozen=True)
class CountedItem:
    """Something that is counted, and the ways to show it in the order to try."""

    kind: ItemKind
    name: str
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class CharacteristicsPlan:
    """What every site derives from the study alone."""

    study: Study
    design: Design
    options: CharacteristicsOptions
    masked: bool

    @classmethod
    def of(cls, study: Study) -> CharacteristicsPlan:
        """The plan of a study."""
        options = options_of(study, CharacteristicsOptions)
        masked = options.aggregation == "masked" or (options.aggregation == "auto" and len(study.sites) >= MIN_PARTIES)
        return cls(study, Design(study), options, masked)

    @property
    def floor(self) -> int:
        """The least count of patients, above zero, that may be shown."""
        return self.study.disclosure.cell

    @property
    def lacks(self) -> bool:
        """Whether values may be missing, so that these are counted; each patient has a group."""
        return self.study.rows.missing == "keep"

    @property
    def group(self) -> Line | None:
        """The variable whose levels are the columns."""
        name = self.design.formula.outcome
        return Line(name, self.study.variables[name]) if self.options.groups else None

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups; none where all patients are in one column."""
        return () if self.group is None else tuple(f"{self.group.name}[{level}]" for level in self.group.levels)

    @property
    def slots(self) -> int:
        """Parts of the patients that are counted apart: the groups, or all of them."""
        return max(len(self.groups), 1)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The variables of the table, in the formula's order."""
        names = self.design.list_covariates()
        names = names if self.options.groups else [self.design.formula.outcome, *names]
        return tuple(Line(name, self.design.declared[name]) for name in dict.fromkeys(names))

    @cached_property
    def bins(self) -> dict[str, Bins]:
        """The bins of each number with a grid."""
        return {name: Bins.of(self.design.declared[name], grid) for name, grid in self.options.quantiles.items()}

    @property
    def has_rate(self) -> bool:
        """Whether there is an incidence rate."""
        return self.options.time is not None

    @cached_property
    def items(self) -> tuple[CountedItem, ...]:
        """Everything that is counted, patients first."""
        return tuple(self._list_items())

    def _list_items(self) -> Iterator[CountedItem]:
        columns = (True, False) if self.groups else (False,)
        ways = tuple(Alternative(grouped) for grouped in columns)
        yield CountedItem("patients", "", ways)
        for line in self.lines:
            yield CountedItem("levels" if line.levels else "number", line.name, ways)
        for name, bins in self.bins.items():
            yield CountedItem("bins", name, tuple(Alternative(g, m) for g in columns for m in bins.multiples))
        if self.has_rate:
            yield CountedItem("rate", str(self.options.event), ways)


def check_table_plan(plan: CharacteristicsPlan) -> None:
    """StudyError for a study of which no table can be made."""
    study, formula = plan.study, plan.design.formula
    if formula.offset or any(len(term) > 1 or term[0][1] > 1 for term in formula.terms):
        has = "a table has variables and functions of them, no products, powers or offsets"
        message = f"The formula is {study.formula!r}; {has}"
        raise StudyError("CO-S339", f"{message}. Write `group ~ a + b`.")
    if plan.group is not None and not plan.group.levels:
        message = f"{plan.group.name!r} makes the columns, and is declared as {plan.group.variable.type}"
        raise StudyError("CO-S339", f"{message}. Group by a category or binary variable, or set groups = false.")
    _check_grids(plan)
    _check_rate(plan)
    if study.ledger.silent_site == "exclude":
        message = "A site that is excluded between the counts and the squares would be in one of them alone"
        raise StudyError("CO-S332", f'{message}. Set silent_site = "wait" or "abort".')
    if plan.masked and len(study.sites) < MIN_PARTIES:
        message = f"A masked sum over {len(study.sites)} sites would give each the other's share"
        advice = 'Take part with three sites or more, or choose aggregation = "plain" knowingly.'
        raise StudyError("CO-S305", f"{message}. {advice}")


def _check_grids(plan: CharacteristicsPlan) -> None:
    numbers = {line.name for line in plan.lines if not line.levels}
    for name, bins in plan.bins.items() if set(plan.options.quantiles) <= set(plan.design.declared) else ():
        low, high = plan.design.declared[name].bounds
        meets = bins.start < high and bins.start + bins.steps * bins.width > low
        if not meets or not bins.multiples or bins.steps > MOST_BINS:
            message = f"The grid of {name!r} makes {bins.steps} bins, or misses the declared range {low:g} to {high:g}"
            raise StudyError("CO-S340", f"{message}. Choose {FEWEST_BINS} to {MOST_BINS} bins that meet the range.")
    others = sorted(set(plan.options.quantiles) - numbers)
    if others:
        message = f"`quantiles` names {', '.join(others)}, which is no number or count of the table"
        raise StudyError("CO-S340", f"{message}. Name numbers of the formula.")


def _check_rate(plan: CharacteristicsPlan) -> None:
    event, time, variables = plan.options.event, plan.options.time, plan.study.variables
    if (event is None) != (time is None):
        raise StudyError("CO-S341", "An incidence rate needs both `event` and `time`. Name both columns, or neither.")
    if event is None or time is None:
        return
    if variables[event].type != "binary" or variables[time].type not in ("number", "count"):
        message = f"The event {event!r} must be binary and the time {time!r} a number or a count"
        raise StudyError("CO-S341", f"{message}. Change the declarations.")
    if variables[time].bounds[0] < 0.0:
        message = f"The declared range of the time {time!r} begins below 0"
        raise StudyError("CO-S341", f"{message}. Times count from the origin of the study.")
