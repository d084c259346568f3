"""A site's rows of a Cox study: times, events and scaled columns, with the checks that no patient can fail.

A patient has one row, or several with a start and a stop each, between which covariates change. These may not overlap,
and only the last one may end with the event.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.protocol import Site
from coterie_learners.cox.cox_plan import CoxPlan
from coterie_learners.cox.likelihood.risk_sets import Places, RiskRows, place_times
from coterie_learners.errors import DataError, StudyError, pluralise
from coterie_learners.numeric.array import Array
from coterie_learners.survival.step_counts import check_times


@dataclass(frozen=True)
class CoxRows:
    """Rows: scaled columns `x` (n, p); time, entry, event, offset, weight, stratum and patient, each (n,).

    `following` (n,): the place of the same patient's next row, or -1.
    """

    x: Array
    time: Array
    entry: Array
    event: NDArray[np.bool_]
    offset: Array
    weight: Array
    strata: Places
    patient: Places
    following: Places

    def place(self, first: Places, last: Places, ends: Places, event: NDArray[np.bool_]) -> RiskRows:
        """The rows in these cells."""
        return RiskRows(self.x, self.offset, self.weight, event, first, last, ends, self.patient)

    def place_at_events(self) -> RiskRows:
        """The rows with a cell for every time at which one of them has the event."""
        return self.place(*place_times(self.strata, self.time, self.entry, self.event), self.event)


def read_cox_rows(plan: CoxPlan, site: Site) -> CoxRows:
    """This site's rows; DataError for rows that no patient can have."""
    blocks, options = list(site.codes.codes()), plan.options
    codes = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    time = np.asarray(codes[options.time], dtype=np.float64)
    n = len(time)
    # Without late entry everybody is at risk from before the first time, a time of 0 included.
    entry = np.full(n, -1.0) if options.entry is None else np.asarray(codes[options.entry], dtype=np.float64)
    check_times(options.time, options.entry, time, entry)
    event, patient = np.asarray(codes[options.event]) == plan.event_code, number_rows(plan, site, n)
    offset, weights = plan.design.formula.offset, plan.design.weights
    x = plan.place(plan.design.matrix(codes, n)[:, 1:])
    if plan.options.baseline == "site":
        # A baseline of its own does not feel where the columns are measured from; digits do.
        x = x - x.mean(axis=0)
    return CoxRows(
        x=np.asfortranarray(x),
        time=time,
        entry=entry,
        event=event,
        offset=np.zeros(n) if offset is None else np.asarray(codes[offset], dtype=np.float64),
        weight=np.asarray(codes[weights], dtype=np.float64) if weights else np.ones(n),
        strata=np.zeros(n, np.int64) if options.strata is None else np.asarray(codes[options.strata]).astype(np.int64),
        patient=patient,
        following=_link_rows(options.time, patient, time, entry, event) if options.entry else np.full(n, -1),
    )


def number_rows(plan: CoxPlan, site: Site, n: int) -> Places:
    """The number of each row's patient (n,); each row's own place where rows are taken for patients."""
    identifiers = site.read_patients() if plan.by_patient else None
    if identifiers is None:
        if plan.options.robust == "patient":
            message = 'robust = "patient" needs the column that identifies patients'
            raise StudyError("CO-S324", f'{message}. Name it: patient = "column".')
        return np.arange(n)
    return np.unique(np.array(identifiers, dtype=np.str_), return_inverse=True)[1].ravel().astype(np.int64)


def _link_rows(name: str, patient: Places, time: Array, entry: Array, event: NDArray[np.bool_]) -> Places:
    """The place of a patient's next row (n,), or -1; DataError for rows that overlap or go on after the event."""
    order = np.lexsort((entry, patient))
    here, then = order[:-1], order[1:]
    same = patient[here] == patient[then]
    here, then = here[same], then[same]
    overlaps = int(np.count_nonzero(entry[then] < time[here]))
    if overlaps:
        message = (
            f"{pluralise(overlaps, 'row begins', 'rows begin')} before an earlier row of the same patient ends ({name})"
        )
        raise DataError("CO-D163", f"{message}. A patient's rows may not overlap; correct their times.")
    late = int(np.count_nonzero(event[here]))
    if late:
        message = f"{pluralise(late, 'row has', 'rows have')} the event although the same patient has a later row"
        raise DataError("CO-D164", f"{message}. Only a patient's last row may end with the event.")
    following = np.full(len(time), -1)
    following[here] = then
    return following
