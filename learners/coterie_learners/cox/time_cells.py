"""A site's rows on the grid of time of a common baseline: in which steps they are at risk, and what steps may show.

A row leaves in the step (a, b] that holds its time, and is at risk from the step that holds its entry, as for curves. A
patient's next row takes over in the step that holds the change, so that nobody is at risk twice.

What neighbouring steps show. The difference of their sums is a sum over the rows that leave or enter between them. In
the first round it counts the levels of covariates, in later rounds single patterns of these; each number is one more
unknown of each row. So at each site, in each stratum and step, every pattern of covariates with few values must have
none or at least the floor of events, of other rows that leave, and of rows that enter. And if other covariates are
measured, these rows must have more values of them than all rounds show sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.protocol import Site
from coterie_learners.cox.concordance import count_concordance
from coterie_learners.cox.cox_plan import CoxPlan
from coterie_learners.cox.likelihood.risk_sets import Places, RiskRows
from coterie_learners.cox.patients import CoxRows
from coterie_learners.numeric.array import Array
from coterie_learners.survival.plan import STEP_ROUNDING
from coterie_learners.survival.step_counts import StepCounts

# A covariate with so few values at a site is a table, whatever its declaration.
_MOST_LEVELS = 12


@dataclass(frozen=True)
class PlacedRows:
    """Rows with the first and last step in which each is at risk (n,), whether it `counts`, and its event there."""

    rows: CoxRows
    first: Places
    last: Places
    counts: NDArray[np.bool_]
    event: NDArray[np.bool_]
    steps: int

    def keep_cells(self, cells: Places, strata: int) -> RiskRows:
        """The rows in the risk sets of these cells, each a stratum times the steps plus a step."""
        base = self.rows.strata * self.steps
        first = np.searchsorted(cells, base + self.first, side="left")
        last = np.searchsorted(cells, base + self.last, side="right")
        last = np.where(self.counts, np.maximum(last, first), first)
        ends = np.searchsorted(cells, np.arange(strata + 1) * self.steps, side="left")
        return self.rows.place(first, last, ends, self.event)

    def count_concordance(self, beta: Array) -> Array:
        """Concordant, discordant and tied pairs (3,) of the rows that count, by steps instead of times."""
        at = self.counts
        strata, first, last = (values[at] for values in (self.rows.strata, self.first, self.last))
        eta = self.rows.x[at] @ beta + self.rows.offset[at]
        return count_concordance(eta, strata, last.astype(np.float64), first.astype(np.float64) - 1.0, self.event[at])


def place_rows(plan: CoxPlan, rows: CoxRows, multiple: int) -> PlacedRows:
    """The rows on steps of so many declared widths."""
    steps, width = plan.grid.steps // multiple, plan.grid.width * multiple
    last = np.clip(np.ceil(rows.time / width - STEP_ROUNDING), 1, steps).astype(np.int64) - 1
    first = np.clip(np.floor(rows.entry / width + STEP_ROUNDING), 0, last).astype(np.int64)
    inside = rows.entry < plan.grid.horizon
    goes_on = rows.following >= 0
    goes_on[goes_on] = inside[rows.following[goes_on]]
    # Within the step of a change the later row counts.
    last[goes_on] = np.minimum(last[goes_on], _find_starts(plan, rows, width)[goes_on] - 1)
    event = rows.event & inside & (rows.time <= plan.grid.horizon * (1 + STEP_ROUNDING))
    return PlacedRows(rows, first, last, inside & (last >= first), event, steps)


def _find_starts(plan: CoxPlan, rows: CoxRows, width: float) -> Places:
    """The step of entry of each row's next one; the first for rows without."""
    entry = np.where(rows.following >= 0, rows.entry[rows.following], 0.0)
    return np.floor(entry / width + STEP_ROUNDING).astype(np.int64)


def list_count_shapes(plan: CoxPlan, multiple: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the counts by stratum and step, and of the weights where rows weigh."""
    names = ["events", "censored", *(("entries",) if plan.options.entry else ())]
    masses = ["mass_events", "mass_censored", *(("mass_entries",) if plan.options.entry else ()), "event_weight"]
    shape = (plan.strata, plan.grid.steps // multiple)
    return dict.fromkeys([*names, *(masses if plan.weighs else ())], shape)


def count_rows(plan: CoxPlan, placed: PlacedRows) -> dict[str, Array]:
    """The counts of `list_count_shapes`, whether the study posts them or not."""
    rows, event = placed.rows, placed.event
    mass = rows.weight * np.exp(rows.offset)

    def add(mask: NDArray[np.bool_], steps: Places, by: Array) -> Array:
        at = rows.strata[mask] * placed.steps + steps[mask]
        sums = np.bincount(at, by[mask], plan.strata * placed.steps)
        return np.asarray(sums.reshape(plan.strata, placed.steps), dtype=np.float64)

    counts, ones = placed.counts, np.ones(len(event))
    out = {}
    for name, by in (("", ones), ("mass_", mass)):
        out[f"{name}events"] = add(counts & event, placed.last, by)
        out[f"{name}censored"] = add(counts & ~event, placed.last, by)
        out[f"{name}entries"] = add(counts, placed.first, by)
    return out | {"event_weight": add(counts & event, placed.last, rows.weight)}


def passes_patterns(plan: CoxPlan, placed: PlacedRows, patterns: Places, measured: int, floor: int) -> bool:
    """Whether the sums that neighbouring steps show of this site reach the floor, as this module explains."""
    if floor <= 1:
        return True
    counts = count_rows(plan, placed)
    at_risk = StepCounts(counts["events"], counts["censored"], counts["entries"]).at_risk
    if np.any((at_risk > 0) & (at_risk < floor)) or np.any((counts["events"] > 0) & (counts["events"] == at_risk)):
        return False
    shown = plan.options.max_rounds * (plan.p + 1) if measured else 0
    return all(_is_ample(placed, patterns, floor, (measured, shown), kind) for kind in _list_kinds(plan, placed))


def _list_kinds(plan: CoxPlan, placed: PlacedRows) -> Iterator[tuple[NDArray[np.bool_], Places]]:
    """Which rows leave or enter in which step: with the event, otherwise, and late."""
    yield placed.counts & placed.event, placed.last
    yield placed.counts & ~placed.event, placed.last
    if plan.options.entry is not None:
        yield placed.counts & (placed.first > 0), placed.first


def _is_ample(
    placed: PlacedRows,
    patterns: Places,
    floor: int,
    numbers: tuple[int, int],
    kind: tuple[NDArray[np.bool_], Places],
) -> bool:
    (inside, steps), (measured, shown) = kind, numbers
    cell = placed.rows.strata[inside] * placed.steps + steps[inside]
    by_pattern = np.unique(np.stack([cell, patterns[inside]]), axis=1, return_counts=True)[1]
    by_cell = np.unique(cell, return_counts=True)[1]
    return bool(np.all(by_pattern >= floor) and np.all(by_cell * measured >= shown))


def find_patterns(plan: CoxPlan, site: Site) -> tuple[Places, int]:
    """Each row's pattern of the covariates with few values (n,), and how many others are measured."""
    blocks = list(site.codes.codes())
    design = plan.design
    names = dict.fromkeys(source for name in design.list_covariates() for source in design.sources_of(name))
    names |= dict.fromkeys(n for n in (plan.design.weights, plan.design.formula.offset) if n)
    patterns, measured = np.zeros(site.codes.n, np.int64), 0
    for name in names:
        values, codes = np.unique(np.concatenate([block[name] for block in blocks]), return_inverse=True)
        if len(values) > _MOST_LEVELS:
            measured += 1
        else:
            patterns = np.unique(patterns * len(values) + codes.ravel(), return_inverse=True)[1].ravel()
    return patterns, measured
