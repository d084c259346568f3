"""What the opening of a masked study counts: patients, events and sites of each level, before any other sum is opened.

The first masked sum is X'X and X'y of the pool: a level that one patient of the pool has would show that patient's
values, a level that one hospital has that hospital's. So the sites first open, under masks, what those sums would show
anyway: patients, events and number of sites for each level. The study goes on if each level has none or at least the
floor, at none or at least three sites, and if not everybody in it has the outcome. Else it stops, and nothing more is
known than these counts.

The counts are opened in stages (`stages`). What may be part of a level is counted only once every level of the stages
before has passed: first each level of one column of the file, the outcome's too; then levels that join two columns, and
the events in each level of one; then levels that join three, and the events in those of two; sizes of weights at the
end. So of a level of one patient that one number is known, and not the outcome.

With `opening = "bits"` nobody sees the counts: the sites compare them with the floor on shares (`bits`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core import masked_sum
from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Site
from coterie_learners.errors import DataError, Withheld
from coterie_learners.numeric.array import Array, find_distinct
from coterie_learners.study.design import INTERCEPT, Column, Design
from coterie_learners.study.elsewhere import over_blocks
from coterie_learners.study.rows import Block, Rows
from coterie_learners.sums.opening.cells import Cell, list_product_cells, mark_columns
from coterie_learners.sums.opening.labels import PostedLabels
from coterie_learners.sums.opening.stages import Stage, Stages, count_columns, list_stages, order_levels

# At least so many sites must have a level, if any has it: otherwise the sum is that of one site, or of two.
SITES = 3
# A number with so few values at a site is solved by its three moments.
FEW_VALUES = 3
_FIRST_ROWS = 64
OPENING = "opening"
# Weights from which rows are counted, falling; below the last one nobody's weight matters beside these.
_POWERS = 10.0 ** np.arange(12, -13, -1)
# The p of the p% rule: all others' weight is below this share.
DOMINANCE = 0.1
# Patients and events of the pool by level; empty where the pool was judged by bits, and nobody knows them.
PooledCounts = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Opening:
    """What is counted: a study's design, the floor, and whether the outcome has events.

    `rows_of` gives a site's rows, or its patterns with weights. `grids`: numbers whose few values are levels.
    `by_patient`: a patient may have several rows. `by_rows`: each row has one outcome. `least`: the sums that follow
    leave patterns of fewer rows out. `by_bits`: nobody sees the counts. `values`: whole values of the outcome, each a
    level, where the sums that follow tell how many have each. `outcome_levels`: those of an outcome with several, which
    are counted too, and in each of which events are counted. `cause`: the level of the outcome that is its event, where
    the design and its rows have it as 0 or 1. `prefix`: of its steps' names, where a study opens two sets of rows.
    `events_by_level`: events are counted in each level too, and not of the pool alone. `beside`: how many columns the
    levels of other models join, which are opened in the same steps.
    """

    design: Design
    floor: int
    events: bool
    rows_of: Callable[[Site], Rows]
    grids: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    by_patient: bool = False
    by_rows: bool = False
    least: int = 0
    by_bits: bool = False
    values: range = range(0)
    outcome_levels: tuple[str, ...] = ()
    cause: str = ""
    prefix: str = ""
    events_by_level: bool = True
    beside: tuple[int, ...] = ()
    _counted: dict[int, tuple[object, dict[str, Array]]] = field(
        default_factory=dict, init=False, compare=False, repr=False
    )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The levels (k,) by name: whole groups first, then every column that may be zero."""
        return (*(name for name, _, _ in self._parts(self._empty)), *self.mass_names, *self.value_names)

    @property
    def _empty(self) -> Block:
        return Block(np.zeros((0, len(self.design.columns))), np.zeros(0))

    @property
    def mass_names(self) -> tuple[str, ...]:
        """Weights from so much on as levels, the largest first, where rows weigh by a column or an offset."""
        columns = [name for name in (self.design.weights, self.design.formula.offset) if name]
        what = " and ".join(columns)
        return tuple(f"a weight by {what} of at least {power:.0e}" for power in _POWERS) if columns else ()

    @property
    def value_names(self) -> tuple[str, ...]:
        """The outcome's values as levels."""
        return tuple(f"{self.design.formula.outcome} = {value}" for value in self.values)

    @property
    def outcome_names(self) -> tuple[str, ...]:
        """The outcome's own levels: with it, or, of one that is 0 or 1, without; or each of several."""
        outcome = self.design.formula.outcome
        if self.outcome_levels:
            return tuple(f"{outcome}[{level}]" for level in self.outcome_levels)
        if self.cause:
            return (f"{outcome}[{self.cause}]", f"{outcome}, not {self.cause}")
        both = (f"{outcome} = 1", f"{outcome} = 0") if self.is_binary else (f"{outcome}, not zero",)
        return both if self.events else ()

    @cached_property
    def is_of_outcome(self) -> NDArray[np.bool_]:
        """Which levels (k,) are the outcome's own: in these no events are counted."""
        return np.isin(self.names, self.outcome_names)

    @cached_property
    def is_of_weight(self) -> NDArray[np.bool_]:
        """Which levels (k,) are sizes of weights."""
        return np.isin(self.names, self.mass_names)

    @cached_property
    def joined(self) -> tuple[int, ...]:
        """The number of the file's columns that each level (k,) joins; 0 for everybody."""
        outcome = self.joins[self.design.formula.outcome]
        # An outcome's value is part of the outcome.
        more = (0,) * len(self.mass_names) + (outcome + 1,) * len(self.value_names)
        return (*(joined for _, joined, _ in self._parts(self._empty)), *more)

    @cached_property
    def joins(self) -> Mapping[str, int]:
        """How many columns of the file are behind each variable of a level."""
        names = (factor.variable for column in self.design.columns for factor in column.factors)
        return {name: count_columns(self.design, name) for name in (*names, self.design.formula.outcome)}

    @cached_property
    def levels_at(self) -> Stages:
        """The stage in which each level (k,) is counted."""
        return order_levels(self.joined, self.beside, self.is_of_weight)

    @cached_property
    def events_at(self) -> Stages:
        """The stage in which events in each level (k,) are counted: after the level, and after the outcome."""
        outcome = self.levels_at[self.is_of_outcome]
        return np.maximum(self.levels_at, outcome.min() if len(outcome) else 1) + 1

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The numbers of the stages, in order."""
        no_events = not self.events or not self.events_by_level
        without = self.is_of_outcome | self.is_of_weight | np.isin(self.names, self.value_names) | no_events
        return list_stages(self.levels_at, np.where(without, 0, self.events_at))

    def shapes_of(self, stage: Stage) -> dict[str, tuple[int, ...]]:
        """Shapes of a site's counts in one stage."""
        levels, events = (len(stage.levels),), self.shapes["events"][:-1]
        return {"patients": levels, "events": (*events, len(stage.events)), "sites": levels}

    def count_stage(self, stage: Stage, site: Site) -> dict[str, Array]:
        """This site's counts of one stage; its rows are counted once."""
        data, counts = self._counted.get(id(site.data), (None, {}))
        if data is None or data is not site.data:
            counts = self.count(site)
            self._counted[id(site.data)] = (site.data, counts)
        return {
            "patients": counts["patients"][stage.levels],
            "events": counts["events"][..., stage.events],
            "sites": counts["sites"][stage.levels],
        }

    def begin(self) -> dict[str, Array]:
        """The pool's counts before any is opened: none, and NaN for events that are still to be counted."""
        later = [stage.events for stage in self.stages]
        events = np.zeros(self.shapes["events"])
        events[..., np.concatenate(later)] = np.nan
        return {"patients": np.zeros(len(self.names)), "events": events, "sites": np.zeros(len(self.names))}

    def topic_of(self, stage: Stage) -> str:
        """The name of a stage's step."""
        return self.topic if stage.number == 1 else f"{self.topic}/{stage.number}"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of a site's counts."""
        size = (len(self.names),)
        events = (len(self.outcome_levels), *size) if self.outcome_levels else size
        return {"patients": size, "events": events, "sites": size}

    def count(self, site: Site) -> dict[str, Array]:
        """This site's patients and events by level (k,), and whether it has the level."""
        if self.by_patient:
            return self._count_patients(site)
        levels = len(self.names) - len(self.mass_names) - len(self.values)
        patients, events = np.zeros(len(self.names)), np.zeros(self.shapes["events"])
        for own, having in over_blocks(self._count_block, self.rows_of(site)):
            patients += own
            events[..., :levels] += having
        return self._complete(patients, events)

    def _count_block(self, block: Block) -> tuple[Array, Array | float]:
        """Patients of a block by level (k,), and events by level of a covariate."""
        masks = np.array([mask for _, _, mask in self._parts(block)])
        weight = np.ones(len(block)) if block.weight is None else block.weight
        mass = self._mass(block) if self.mass_names else weight
        masses = [weight[mass >= power].sum() for power in _POWERS[: len(self.mass_names)]]
        patients = np.concatenate([masks @ weight, masses, self._count_values(block.y, weight)])
        return patients, self._count_events(masks, weight, block.y)

    def _complete(self, patients: Array, events: Array) -> dict[str, Array]:
        own = self.is_of_outcome & (not self.outcome_levels)
        return {
            "patients": patients,
            "events": np.where(own, 0.0, events),
            # A rare event may be at two of three hospitals: so a site with it counts twice.
            "sites": (patients > 0) * np.where(own, 2.0, 1.0),
        }

    def _count_events(self, masks: Array, weight: Array, y: Array) -> Array | float:
        """Patients with the outcome by level (k,), or with each of its levels (l, k)."""
        if self.outcome_levels:
            return np.array([masks @ (weight * (y == level)) for level in range(len(self.outcome_levels))])
        return np.asarray(masks @ (weight * (y != 0))) if self.events and self.events_by_level else 0.0

    def _mass(self, block: Block) -> Array:
        """The weight of each row (m,) at the null model, up to a common factor."""
        prior = np.ones(len(block)) if block.prior is None else block.prior
        if block.offset is None:
            return prior
        shape = -np.abs(block.offset) if self.is_binary else block.offset
        return np.asarray(prior * np.exp(np.clip(shape, -500.0, 500.0)))

    def _count_values(self, y: Array, weight: Array) -> Array:
        """Rows by value of the outcome."""
        if not self.values:
            return np.zeros(0)
        places = (y - self.values.start).astype(np.int64)
        return np.bincount(places, weight, len(self.values)).astype(np.float64)

    def _count_patients(self, site: Site) -> dict[str, Array]:
        """The same of patients who may have several rows: a patient with a row in a level is in it."""
        inside: list[set[int]] = [set() for _ in self.names]
        having: list[set[int]] = [set() for _ in self.names]
        for block in self.rows_of(site).blocks():
            assert block.group is not None
            for k, (_, _, mask) in enumerate(self._parts(block)):
                inside[k] |= set(block.group[mask > 0].tolist())
                having[k] |= set(block.group[(mask > 0) & (block.y != 0)].tolist()) if self.events else set()
            masses = len(self.mass_names)
            for k, power in enumerate(_POWERS[:masses], len(self.names) - masses - len(self.values)):
                inside[k] |= set(block.group[self._mass(block) >= power].tolist())
            for value in np.unique(block.y).tolist() if self.values else ():
                place = len(self.names) - len(self.values) + int(value) - self.values.start
                inside[place] |= set(block.group[block.y == value].tolist())
        patients, events = (np.array([float(len(ids)) for ids in sets]) for sets in (inside, having))
        return self._complete(patients, events)

    def check(self, counts: Mapping[str, Array]) -> None:
        """Withheld if the sums that follow would show few patients, or one or two sites.

        If nobody has zero in a number, this says nothing about anybody: only its level is known.
        """
        if self.outcome_levels:
            # All patients of a level have one level of the outcome where the largest count of these is all of them.
            counts = {**counts, "events": np.where(self.is_of_outcome, 0.0, counts["events"].max(axis=0))}
        counts_only = not self.is_binary and not self.outcome_levels and counts["patients"][0] == counts["events"][0]
        for name, patients, events, sites in zip(
            self.names, *(counts[key].tolist() for key in ("patients", "events", "sites")), strict=True
        ):
            full = self.judges_full and 0 < patients == events and not counts_only
            if name in self.mass_names:
                continue
            self.refuse(name, 0 < patients < self.floor, 0 < sites < SITES, full)
        self._check_masses(counts)
        if counts["patients"][0] <= len(self.design.columns):
            self.refuse_few_rows()

    def _check_masses(self, counts: Mapping[str, Array]) -> None:
        """Withheld if nearly all weight is at one or two sites, or at few patients: a sum is then theirs."""
        at = slice(len(self.names) - len(self.mass_names) - len(self.values), len(self.names) - len(self.values))
        above, sites = counts["patients"][at], counts["sites"][at]
        between = np.diff(above, prepend=0.0)
        for k, name in enumerate(self.mass_names):
            most_below = between[k + 1 :] @ _POWERS[k : len(above) - 1]
            if most_below < DOMINANCE * (between[: k + 1] @ _POWERS[: k + 1]):
                self.refuse(f"{name}, which is nearly all weight,", above[k] < self.floor, sites[k] < SITES, False)

    @property
    def whose(self) -> str:
        """The patients whose counts they are."""
        return "the evaluated part of the pool" if self.prefix else "the pool"

    @property
    def topic(self) -> str:
        """The name of the step of the counts."""
        return self.prefix + OPENING

    @property
    def is_binary(self) -> bool:
        """Whether the outcome is 0 or 1."""
        return self.design.outcome.type == "binary"

    @property
    def judges_full(self) -> bool:
        """Whether a level all of whose patients have the outcome is refused."""
        return self.floor > 1 and self.events

    def refuse(self, level: str, small: bool, few: bool, full: bool) -> None:
        """Withheld if a level has few patients, is at few sites, or if everybody in it has the outcome."""
        kind = (
            f"has fewer than {self.floor} patients in {self.whose} (small level)"
            if small
            else f"is at fewer than {SITES} sites (few sites), so that the sums of those sites would be known"
            if few
            else "has the outcome in every patient (full cell), so that it would be known of each of them"
            if full
            else ""
        )
        if kind:
            way_out = VALUES_WAY_OUT if level in self.value_names else EVALUATED_WAY_OUT if self.prefix else WAY_OUT
            raise Withheld("CO-N131", f"The study stops before its sums are opened: {level} {kind}. {way_out}")

    def refuse_few_rows(self) -> NoReturn:
        """Withheld because the pool has no more rows than columns."""
        message = "The study stops before its sums are opened: the pool has no more rows than columns"
        raise Withheld("CO-N131", f"{message} (rows and columns). Shorten the formula, or take part with more rows.")

    def _parts(self, block: Block) -> Iterator[tuple[str, int, Array]]:
        """The levels: each one's name, how many columns of the file it joins, and who is in it (m,), 1 or 0.

        They are everybody, each level of a category, zero and not zero, and the cells of products.
        """
        yield "the pool", 0, np.ones(len(block))
        for j, column in enumerate(self.design.columns):
            if column.name == INTERCEPT:
                continue
            inside, joined = (block.x[:, j] != 0).astype(np.float64), self._join(column)
            yield f"{column.name}, not zero" if self._is_measured(column) else f"{column.name}", joined, inside
            if not self._is_measured(column) and len(column.factors) == 1 and column.factors[0].level is None:
                yield f"{column.name} = 0", joined, 1.0 - inside
        yield from self._references(block)
        yield from self._list_cells(block)
        kinds = range(len(self.outcome_levels)) if self.outcome_levels else (1, 0)
        for name, kind in zip(self.outcome_names, kinds, strict=False):
            has = block.y == kind if self.outcome_levels else (block.y != 0) == kind
            yield name, self.joins[self.design.formula.outcome], has.astype(np.float64)
        for j, column in enumerate(self.design.columns):
            for value in self._grid_of(column):
                yield f"{column.name} = {value:g}", self._join(column), (block.x[:, j] == value).astype(float)

    def _join(self, column: Column) -> int:
        return sum(self.joins[factor.variable] for factor in column.factors)

    def _grid_of(self, column: Column) -> tuple[float, ...]:
        if len(column.factors) != 1 or column.factors[0].power != 1:
            return ()
        return self.grids.get(column.factors[0].variable, ())

    def _references(self, block: Block) -> Iterator[tuple[str, int, Array]]:
        """The first level of each category, unless it has a column: who is in none of the others."""
        groups: dict[str, list[int]] = {}
        for j, column in enumerate(self.design.columns):
            if len(column.factors) == 1 and column.factors[0].level is not None:
                groups.setdefault(column.factors[0].variable, []).append(j)
        for variable, at in groups.items():
            levels = self.design.declared[variable].levels
            if len(at) < len(levels):
                yield f"{variable}[{levels[0]}]", self.joins[variable], 1.0 - block.x[:, at].sum(axis=1)

    @cached_property
    def _cells(self) -> tuple[Cell, ...]:
        return list_product_cells(self.design)

    def _list_cells(self, block: Block) -> Iterator[tuple[str, int, Array]]:
        """The rows that have some levels of a product and not the others."""
        if not self._cells:
            return
        masks = mark_columns(self.design, block.x)
        by_itself = {column.factors[0].variable for column in self.design.columns if len(column.factors) == 1}
        for cell in self._cells:
            masks[cell.key] = cell.find(masks)
            if len(cell.variables) > 1 or not cell.variables <= by_itself:
                yield cell.name, sum(self.joins[name] for name in cell.variables), masks[cell.key]

    def _is_measured(self, column: Column) -> bool:
        kinds = (self.design.declared[factor.variable].type for factor in column.factors)
        return any(kind in ("number", "count") for kind in kinds)


VALUES_WAY_OUT = (
    "The sums for the shape of these counts disclose how many patients have each. Merge the largest counts (12 or more "
    'into 12, with that range), or choose family = "quasipoisson", whose sums do not disclose it.'
)
EVALUATED_WAY_OUT = (
    "Evaluate more rows (evaluate.held_out, evaluate.where), merge the level with another one, or leave the column out."
)
WAY_OUT = (
    "Merge the level with another one, leave the column out, or wait for more patients; differences between hospitals "
    "are no columns of a masked study (site_intercepts = true fits each hospital's own intercept, which no sum shows)."
)


def share_counts(site: Site, opening: Opening, stage: Stage) -> Payload:
    """A stage's counts under masks; DataError where a number has so few values that its moments show them."""
    if stage.number == 1:
        check_numbers(site, opening)
    return masked_sum.mask_sums(site, opening.topic_of(stage), opening.count_stage(stage, site))


def check_numbers(site: Site, opening: Opening) -> None:
    """DataError where a number has so few values at this site that its moments show them."""
    if opening.floor <= 1:
        return  # no count is too small, so no value needs to hide
    variables, rows = opening.design.declared, opening.rows_of(site)
    if opening.by_rows and not opening.events and _has_few_values(over_blocks(_list_outcomes, rows)):
        raise _refuse_few(opening.design.formula.outcome, site)
    for j, column in enumerate(opening.design.columns):
        single = len(column.factors) == 1 and column.factors[0].power == 1
        if not single or variables[column.factors[0].variable].type != "number":
            continue
        own = over_blocks(partial(_list_column, j), rows)
        if column.factors[0].variable not in opening.grids and _has_few_values(own):
            raise _refuse_few(column.name, site)


def _refuse_few(name: str, site: Site) -> DataError:
    message = f"The number {name!r} has {FEW_VALUES} values or fewer at {site.name}"
    return DataError("CO-D152", f"{message}, which its sums would show. Declare it as binary, count or category.")


def _list_outcomes(block: Block) -> list[float]:
    return _list_few(block.y)


def _list_column(j: int, block: Block) -> list[float]:
    return _list_few(block.x[:, j])


def _list_few(values: Array) -> list[float]:
    """The distinct values, or some of them if they are more than FEW_VALUES."""
    # The first rows nearly always have so many: then nothing is sorted.
    for part in (values[:_FIRST_ROWS], values):
        distinct: list[float] = find_distinct(part)[: FEW_VALUES + 1].tolist()
        if len(distinct) > FEW_VALUES:
            break
    return distinct


def _has_few_values(parts: Iterable[list[float]]) -> bool:
    """Whether a column has FEW_VALUES distinct values or fewer; of each part FEW_VALUES + 1 of them are enough."""
    values: set[float] = set()
    for part in parts:
        values |= set(part)
        if len(values) > FEW_VALUES:
            return False
    return bool(values)


def expose_counts(
    opening: Opening, labels: PostedLabels, what: str, pooled: PooledCounts, site: Site, payload: Payload
) -> Exposure:
    """What the counts reveal: the pool's beside those of earlier stages, or with `by_bits` answers on these."""
    return Exposure(
        what=what,
        rows=opening.rows_of(site).n,
        sums_only=True,
        parties=len(site.parties),
        labels=labels,
        opening=True,
        pooled=pooled,
        by_patient=opening.by_patient,
        least_pattern=opening.least,
    )


def describe_pool(exposure: Exposure, pooled: PooledCounts | None) -> Exposure:
    """What leaves after the opening, with what the opening showed; None: there was none."""
    uncounted = pooled is not None and not pooled
    return replace(exposure, unopened=pooled is None, pooled=pooled or {}, uncounted=uncounted)
