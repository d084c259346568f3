"""A site's patients counted on the grid of time: events, censored patients, and entries where there are any.

A patient leaves in the step (a, b] that holds the time; a time of 0 is in the first step. A patient who enters late is
at risk from the step that holds the entry. A patient who is still at risk at the horizon is censored there. So the
counts are those of R's `Surv(floor(entry), ceiling(time), event)`, in units of the width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import DataError, pluralise
from coterie_learners.numeric.array import Array
from coterie_learners.study.rows import CodedRows, Codes
from coterie_learners.survival.plan import STEP_ROUNDING, CurvePlan


@dataclass(frozen=True)
class StepCounts:
    """Counts of patients by stratum, group and step, each (s, g, t) of whole numbers.

    `events` and `censored` leave in a step; `entries` are at risk from that step. `causes` (c, s, g, t) are the events
    by competing cause, where there are any.
    """

    events: Array
    censored: Array
    entries: Array
    causes: Array | None = None

    @property
    def at_risk(self) -> Array:
        """Patients at risk in each step."""
        exits = np.cumsum(self.events + self.censored, axis=-1)
        before = np.concatenate([np.zeros_like(exits[..., :1]), exits[..., :-1]], axis=-1)
        return np.asarray(np.cumsum(self.entries, axis=-1) - before)

    def coarsen(self, multiple: int) -> StepCounts:
        """The same patients on steps that are so many times as wide."""
        causes = None if self.causes is None else _merge_steps(self.causes, multiple)
        events, censored, entries = (_merge_steps(a, multiple) for a in (self.events, self.censored, self.entries))
        return StepCounts(events, censored, entries, causes)

    def pool_strata(self) -> StepCounts:
        """The same patients as one stratum."""
        causes = None if self.causes is None else self.causes.sum(axis=1, keepdims=True)
        events, censored, entries = (a.sum(axis=0, keepdims=True) for a in (self.events, self.censored, self.entries))
        return StepCounts(events, censored, entries, causes)

    def select_cause(self, at: int) -> StepCounts:
        """The same patients, those with another cause than this one as censored."""
        assert self.causes is not None
        return StepCounts(self.causes[at], self.censored + self.events - self.causes[at], self.entries)


def _merge_steps(counts: Array, multiple: int) -> Array:
    return np.asarray(counts.reshape(*counts.shape[:-1], -1, multiple).sum(axis=-1))


def count_steps(plan: CurvePlan, rows: CodedRows) -> StepCounts:
    """The counts of one site's rows; DataError for rows that no patient can have."""
    shape = (len(plan.strata), len(plan.groups), plan.grid.steps)
    causes = max(len(plan.causes), 1)
    sums = [np.zeros((causes, *shape)), np.zeros(shape), np.zeros(shape)]
    for codes in rows.codes():
        for total, part in zip(sums, _count_block(plan, codes, shape), strict=True):
            total += part
    by_cause, left, entries = sums
    return StepCounts(by_cause.sum(axis=0), left, entries, by_cause if plan.causes else None)


def _count_block(plan: CurvePlan, codes: Codes, shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    options, grid = plan.options, plan.grid
    time = np.asarray(codes[options.time], dtype=np.float64)
    entry = np.zeros(len(time)) if options.entry is None else np.asarray(codes[options.entry], dtype=np.float64)
    event = np.asarray(codes[options.event], dtype=np.float64)
    check_times(options.time, options.entry, time, entry)
    inside = entry < grid.horizon
    last = np.clip(np.ceil(time / grid.width - STEP_ROUNDING), 1, grid.steps).astype(np.int64) - 1
    first = np.clip(np.floor(entry / grid.width + STEP_ROUNDING), 0, last).astype(np.int64)
    has_event = (event > 0) & (time <= grid.horizon * (1 + STEP_ROUNDING))
    cell = _levels_of(codes, options.strata, len(time)) * shape[1] + _levels_of(codes, options.group, len(time))
    leaves, enters = cell * shape[2] + last, cell * shape[2] + first
    size = shape[0] * shape[1] * shape[2]
    causes = [leaves[inside & has_event & (event == number)] for number in range(1, max(len(plan.causes), 1) + 1)]
    places = (*causes, leaves[inside & ~has_event], enters[inside])
    *events, censored, entries = (np.bincount(at, minlength=size).reshape(shape).astype(np.float64) for at in places)
    return np.stack(events), censored, entries


def _levels_of(codes: Codes, name: str | None, n: int) -> NDArray[np.int64]:
    """Level numbers (n,) of a table; zeros where the study names none."""
    return np.zeros(n, dtype=np.int64) if name is None else np.asarray(codes[name]).astype(np.int64)


def check_times(time_name: str, entry_name: str | None, time: Array, entry: Array) -> None:
    """DataError for times, and times of entry where the study names these, that no patient can have."""
    columns = ((time_name, time), *(((entry_name, entry),) if entry_name is not None else ()))
    for name, values in columns:
        negative = int(np.count_nonzero(values < 0))
        if negative:
            message = f"The column {name!r} has {pluralise(negative, 'time')} below 0"
            raise DataError("CO-D161", f"{message}. Times count from the origin of the study; correct these rows.")
    late = int(np.count_nonzero(entry >= time)) if entry_name is not None else 0
    if late:
        rows = pluralise(late, "row has", "rows have")
        message = f"{rows} an entry ({entry_name}) that is not before the time ({time_name})"
        raise DataError("CO-D162", f"{message}. Correct these rows, or leave them out.")


def passes_floor(counts: StepCounts, floor: int) -> bool:
    """Whether no count is below the floor, zero apart, and nowhere all patients at risk have an event.

    Every reader can solve these counts and sums of them. Differences of numbers at risk are such sums.
    """
    if floor <= 1:
        return True
    at_risk = counts.at_risk
    events = counts.events if counts.causes is None else counts.causes
    small = [np.any((a > 0) & (a < floor)) for a in (events, counts.censored, counts.entries, at_risk)]
    return not any(small) and not bool(np.any((counts.events > 0) & (counts.events == at_risk)))
