"""Cox's partial likelihood of one site's patients: its value, score and information at given coefficients.

Cox, JRSS B 1972;34:187-220; ties after Breslow, Biometrics 1974;30:89-99, and Efron, JASA 1977;72:557-565. A patient is
at risk at a time if he entered before it and leaves at it or later.

The information needs sums of x x' over each risk set. Added over all event times they are one sum over the patients,
each with the weight that his own event times gave him. So the work is O(n p^2), however many times there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array


@dataclass(frozen=True)
class Survivors:
    """The patients of one stratum: columns `x` (n, p), times, times of entry, and whether they have the event."""

    x: Array
    time: Array
    entry: Array
    event: NDArray[np.bool_]


@dataclass(frozen=True)
class Likelihood:
    """Logarithm of the partial likelihood, score (p,) and information (p, p)."""

    value: float
    score: Array
    information: Array


@dataclass(frozen=True)
class _TieWeights:
    """Sums over the events of one time, each (t,): of 1/S0, of share/S0, and of 1, share, share^2 over S0^2."""

    a: Array
    b: Array
    c: tuple[Array, Array, Array]
    logs: float


def measure_likelihood(patients: Survivors, beta: Array, efron: bool) -> Likelihood:
    """The partial likelihood of one stratum at coefficients (p,)."""
    p = len(beta)
    if not patients.event.any():
        return Likelihood(0.0, np.zeros(p), np.zeros((p, p)))
    eta = patients.x @ beta
    shift = float(eta.max())
    risk = np.exp(eta - shift)
    times, group = np.unique(patients.time[patients.event], return_inverse=True)
    own = patients.x[patients.event]
    weighted = patients.x * risk[:, None]
    s0, s1 = _sum_risk_sets(patients, times, np.column_stack([risk, weighted]))
    d0, d1 = _sum_groups(group, len(times), np.column_stack([risk, weighted])[patients.event])
    ties = _weigh_ties(np.bincount(group), s0, d0, efron)
    score = own.sum(axis=0) - (ties.a @ s1 - ties.b @ d1)
    weights = risk * _add_up_times(patients, times, ties.a)
    weights[patients.event] -= risk[patients.event] * ties.b[group]
    cross = (s1 * ties.c[1][:, None]).T @ d1
    outer = (s1 * ties.c[0][:, None]).T @ s1 - cross - cross.T + (d1 * ties.c[2][:, None]).T @ d1
    information = patients.x.T @ (patients.x * weights[:, None]) - outer
    value = float((eta[patients.event] - shift).sum()) - ties.logs
    return Likelihood(value, score, 0.5 * (information + information.T))


def _sum_risk_sets(patients: Survivors, times: Array, values: Array) -> tuple[Array, Array]:
    """Sums of the values (n, 1 + p) over the risk set of each time: of the first column (t,), and the others (t, p)."""
    sums = _sum_from(patients.time, times, values) - _sum_from(patients.entry, times, values)
    return sums[:, 0], sums[:, 1:]


def _sum_from(keys: Array, times: Array, values: Array) -> Array:
    """Sums of the values over the patients whose key is at a time or later."""
    order = np.argsort(keys, kind="stable")
    ends = np.zeros((len(keys) + 1, values.shape[1]))
    ends[:-1] = np.cumsum(values[order][::-1], axis=0)[::-1]
    return np.asarray(ends[np.searchsorted(keys[order], times, side="left")])


def _sum_groups(group: NDArray[np.intp], size: int, values: Array) -> tuple[Array, Array]:
    columns = [np.bincount(group, weights=column, minlength=size) for column in values.T]
    sums = np.asarray(np.stack(columns, axis=1), dtype=np.float64)
    return sums[:, 0], sums[:, 1:]


def _weigh_ties(counts: NDArray[np.intp], s0: Array, d0: Array, efron: bool) -> _TieWeights:
    at = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = place / counts[at] if efron else np.zeros(len(at))
    whole = s0[at] - share * d0[at]

    def add(values: Array) -> Array:
        return np.asarray(np.bincount(at, weights=values, minlength=len(counts)), dtype=np.float64)

    squares = whole * whole
    c = (add(1.0 / squares), add(share / squares), add(share * share / squares))
    return _TieWeights(add(1.0 / whole), add(share / whole), c, float(np.log(whole).sum()))


def _add_up_times(patients: Survivors, times: Array, a: Array) -> Array:
    """For each patient the sum of `a` over the times at which he is at risk."""
    sums = np.concatenate([[0.0], np.cumsum(a)])
    last, first = (np.searchsorted(times, keys, side="right") for keys in (patients.time, patients.entry))
    return np.asarray(sums[last] - sums[first])


def split_strata(patients: Survivors, strata: NDArray[np.int64]) -> Iterator[Survivors]:
    """The patients of each stratum."""
    for level in np.unique(strata).tolist():
        inside = strata == level
        yield Survivors(patients.x[inside], patients.time[inside], patients.entry[inside], patients.event[inside])
