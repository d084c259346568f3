"""What every site derives from a study of curves alone: roles of columns, the grid of time, groups and strata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field as Within

from coterie_learners.core.masked_sum import MIN_PARTIES
from coterie_learners.core.registry import options_of
from coterie_learners.errors import StudyError, Withheld
from coterie_learners.study.design import Design
from coterie_learners.study.document import ColumnName, Frozen, Study, Text

# Numbers that one step posts: steps times groups times strata.
MOST_CELLS = 200_000
# A step's end is no step of its own for a float's rounding: 1.1 / 0.1 is above 11.
STEP_ROUNDING = 1e-9

_NUMBERS, _TABLES = ("number", "count"), ("category", "binary")
# Which types a column may have, by its role.
_TYPES = {"time": _NUMBERS, "event": _TABLES, "entry": _NUMBERS, "group": _TABLES, "strata": _TABLES}


class TimeGrid(Frozen):
    """Steps of `width` from 0 to `horizon`, both in the unit of the time column."""

    width: Annotated[float, Within(gt=0)]
    horizon: Annotated[float, Within(gt=0)]
    unit: Text = ""

    @property
    def steps(self) -> int:
        """Number of steps."""
        return round(self.horizon / self.width)


class CurveOptions(Frozen):
    """The learner section of a study of curves.

    `time`, `event`, `entry`, `group` and `strata` name columns. An `event` that is a category has competing causes: its
    first level is no event, as in R's `Surv`. `at`: times at which survival is reported.
    `aggregation` auto: masked with three sites or more.
    """

    time: ColumnName
    event: ColumnName
    entry: ColumnName | None = None
    group: ColumnName | None = None
    strata: ColumnName | None = None
    time_grid: TimeGrid
    at: Annotated[tuple[float, ...], Within(max_length=50)] = ()
    aggregation: Literal["auto", "masked", "plain"] = "auto"


@dataclass(frozen=True)
class CurvePlan:
    """What every site derives from the study alone."""

    study: Study
    design: Design
    options: CurveOptions
    masked: bool

    @classmethod
    def of(cls, study: Study) -> CurvePlan:
        """The plan of a study."""
        options = options_of(study, CurveOptions)
        masked = options.aggregation == "masked" or (options.aggregation == "auto" and len(study.sites) >= MIN_PARTIES)
        return cls(study, Design(study), options, masked)

    @property
    def grid(self) -> TimeGrid:
        """The declared grid."""
        return self.options.time_grid

    @property
    def unit(self) -> str:
        """The unit of time, in words."""
        return self.study.variables[self.options.time].unit or "time units"

    @property
    def floor(self) -> int:
        """The least count of patients, above zero, that may be shown."""
        return self.study.disclosure.cell

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups that are compared."""
        return self._label_levels(self.options.group) or ("all",)

    @property
    def strata(self) -> tuple[str, ...]:
        """Names of the strata of the log-rank test."""
        return self._label_levels(self.options.strata) or ("all",)

    @property
    def causes(self) -> tuple[str, ...]:
        """Names of the competing causes of the event; empty where an event is an event."""
        return tuple(self.study.variables[self.options.event].levels[1:])

    @property
    def multiples(self) -> tuple[int, ...]:
        """By how much the grid may be coarsened: every divisor of its number of steps."""
        return list_divisors(self.grid.steps)

    def _label_levels(self, name: str | None) -> tuple[str, ...]:
        if name is None:
            return ()
        variable = self.study.variables[name]
        return tuple(f"{name}[{level}]" for level in variable.levels or ("0", "1"))


def list_divisors(steps: int) -> tuple[int, ...]:
    """The numbers that divide a number of steps."""
    return tuple(m for m in range(1, steps + 1) if steps % m == 0)


def choose_multiple(time: str, grid: TimeGrid, floor: int, passing: Sequence[float], sites: int) -> int:
    """The smallest multiple of the width at which all sites pass, by the number that do; Withheld if there is none."""
    multiples = list_divisors(grid.steps)
    passes = [m for m, count in zip(multiples, passing, strict=True) if round(count) == sites]
    if passes:
        return passes[0]
    message = (
        f"No steps of {time} up to the horizon {grid.horizon:g} keep every count of every site at 0 or at least "
        f"{floor if floor > 1 else 'the floor of its own policy'}"
    )
    advice = (
        "Merge groups or strata, choose a horizon that more patients reach, or agree on another disclosure.cell; a "
        "site's own policy may have a stricter floor."
    )
    raise Withheld("CO-N132", f"{message}; nothing was counted outside the sites. {advice}")


def check_curve_plan(plan: CurvePlan) -> None:
    """StudyError for a study of which no curves can be made."""
    roles = ("time", "event", "entry", "group", "strata")
    check_roles(plan.study, {role: getattr(plan.options, role) for role in roles})
    tables = len(plan.groups) * len(plan.strata) * max(len(plan.causes), 1)
    check_grid(plan.study, plan.options.time, plan.grid, tables)
    _check_points(plan)
    formula = plan.design.formula
    if formula.outcome != plan.options.event or formula.terms or formula.offset or not formula.intercept:
        message = f"The formula is {plan.study.formula!r}; curves have no covariates"
        raise StudyError("CO-S337", f"{message}. Write `{plan.options.event} ~ 1`, and name the groups as `group`.")
    if plan.masked and len(plan.study.sites) < MIN_PARTIES:
        message = f"A masked sum over {len(plan.study.sites)} sites would give each the other's share"
        advice = 'Take part with three sites or more, or choose aggregation = "plain" knowingly.'
        raise StudyError("CO-S305", f"{message}. {advice}")


def check_roles(study: Study, roles: Mapping[str, str | None]) -> None:
    """StudyError where a column of a time to event, by its role, has two roles or a type that its role cannot take."""
    names = {role: name for role, name in roles.items() if name is not None}
    if len(set(names.values())) != len(names):
        listed = ", ".join(names.values())
        raise StudyError("CO-S204", f"The learner section gives a column two roles: {listed}. Use each once.")
    for role, name in names.items():
        declared = study.variables[name].type
        if declared not in _TYPES[role]:
            message = f"The {role} {name!r} is declared as {declared}"
            raise StudyError("CO-S336", f"{message}; declare it as {' or '.join(_TYPES[role])}.")


def check_grid(study: Study, time: str, grid: TimeGrid, tables: int) -> None:
    """StudyError for a grid of a time column that has another unit, no whole number of steps, or too many cells."""
    declared = study.variables[time].unit
    if grid.unit and grid.unit != declared:
        written = f"is declared in {declared!r}" if declared else "is declared without a unit"
        remedy = "Give both the same unit" if declared else f'Write unit = "{grid.unit}" into [variables.{time}]'
        raise StudyError("CO-S338", f"The time grid is in {grid.unit!r}, and {time} {written}. {remedy}.")
    if grid.steps < 1 or abs(grid.steps * grid.width - grid.horizon) > STEP_ROUNDING * grid.horizon:
        message = f"The horizon {grid.horizon:g} is no multiple of the width {grid.width:g}"
        raise StudyError("CO-S338", f"{message}. Choose another horizon or width.")
    cells = grid.steps * tables
    if cells > MOST_CELLS:
        message = f"{grid.steps} steps with groups, strata and causes are {cells} cells; the limit is {MOST_CELLS}"
        raise StudyError("CO-S338", f"{message}. Choose a larger width.")


def _check_points(plan: CurvePlan) -> None:
    horizon = plan.grid.horizon
    wrong = [time for time in plan.options.at if not 0.0 <= time <= horizon]
    if wrong:
        raise StudyError("CO-S338", f"`at` has {wrong[0]:g}, outside 0 to {horizon:g}. Choose a time in the grid.")
