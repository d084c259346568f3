"""A patient's visits as one value: any, all, first, last, count, mean, min, max, sum; missing values are passed over.

`first` and `last` are of the visits that have a value, by the column that the study orders visits by; visits of one
place in that order stand as the file has them. Values are added from the least on, so that the file's order has no
part in a sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_learners.study.preparation.kinds import Visits

Aggregate = Callable[[Array, Visits], Array]


def _pick(values: Array, visits: Visits, last: bool) -> Array:
    """Each patient's first or last value (g,) by the visits' order."""
    assert visits.order is not None
    known = np.flatnonzero(~np.isnan(values) & ~np.isnan(visits.order))
    ordered = known[np.lexsort((known, visits.order[known], visits.patient[known]))]
    return _take_ends(values, visits, ordered, last)


def _take_ends(values: Array, visits: Visits, ordered: NDArray[np.intp], last: bool) -> Array:
    """Each patient's first or last value (g,) of rows that are ordered by patient; NaN of patients without a row."""
    out = np.full(visits.count, np.nan)
    patients = visits.patient[ordered]
    if last:  # of a patient's rows the last one is written last
        ends = np.append(patients[1:] != patients[:-1], True) if len(patients) else np.zeros(0, bool)
    else:
        ends = np.append(True, patients[1:] != patients[:-1]) if len(patients) else np.zeros(0, bool)
    out[patients[ends]] = values[ordered[ends]]
    return out


def _by_size(values: Array, visits: Visits) -> NDArray[np.intp]:
    """The rows that have a value, by patient and value."""
    known = np.flatnonzero(~np.isnan(values))
    return known[np.lexsort((values[known], visits.patient[known]))]


def _least(values: Array, visits: Visits) -> Array:
    return _take_ends(values, visits, _by_size(values, visits), last=False)


def _largest(values: Array, visits: Visits) -> Array:
    return _take_ends(values, visits, _by_size(values, visits), last=True)


def _sum(values: Array, visits: Visits) -> Array:
    rows = _by_size(values, visits)
    sums = np.bincount(visits.patient[rows], weights=values[rows], minlength=visits.count)
    return np.where(_count_known(values, visits) > 0, sums, np.nan)


def _mean(values: Array, visits: Visits) -> Array:
    return _sum(values, visits) / np.maximum(_count_known(values, visits), 1.0)


def _count_known(values: Array, visits: Visits) -> Array:
    return np.bincount(visits.patient[~np.isnan(values)], minlength=visits.count).astype(np.float64)


def _count_true(values: Array, visits: Visits) -> Array:
    return np.bincount(visits.patient[values == 1.0], minlength=visits.count).astype(np.float64)


AGGREGATES: Mapping[str, Aggregate] = {
    "any": _largest,
    "all": _least,
    "first": lambda values, visits: _pick(values, visits, last=False),
    "last": lambda values, visits: _pick(values, visits, last=True),
    "count": _count_true,
    "mean": _mean,
    "min": _least,
    "max": _largest,
    "sum": _sum,
}


def combine_visits(values: Array, visits: Visits) -> Array:
    """One number (g,) for all of a patient's values, which others than these hardly have; of one visit its value.

    The privacy log compares patients between studies by it instead of the raw values; it is no digest that keeps
    values secret, and never leaves a site.
    """
    out = np.full(visits.count, np.nan)
    rows = np.lexsort((values, visits.patient))
    counts = np.bincount(visits.patient, minlength=visits.count)
    words = (values[rows] + 0.0).view(np.uint64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    for place in range(int(counts.max(initial=0))):
        has = np.flatnonzero(counts > place)
        word = words[starts[has] + place]
        if place == 0:
            out[has] = values[rows[starts[has]]]
            mixed = np.zeros(visits.count, np.uint64)
        mixed[has] = (mixed[has] ^ word ^ (word >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
        mixed[has] ^= mixed[has] >> np.uint64(32)
        several = has[counts[has] > 1]
        out[several] = (mixed[several] >> np.uint64(12)).astype(np.float64) / 2.0**52
    return out
