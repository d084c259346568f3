"""How often, of two patients of one site and stratum, the one with the higher predictor has the event first.

Harrell et al., Stat Med 1996;15:361-387. A pair counts if one has the event while the other is at risk after it, or is
censored at that time. As R's `concordance` has it with the sites as strata; ties in the predictor count one half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coterie_learners.cox.likelihood.risk_sets import Places
from coterie_learners.numeric.array import Array

# Predictors that agree to so many digits are tied: a sum's last digits depend on where a row stands.
_DIGITS = 10


def count_concordance(eta: Array, strata: Places, time: Array, entry: Array, event: NDArray[np.bool_]) -> Array:
    """Concordant, discordant and tied pairs (3,) of a site's rows with predictors, strata and times, each (n,)."""
    rank = np.unique(np.round(eta, _DIGITS), return_inverse=True)[1].ravel().astype(np.int64)
    total = np.zeros(3)
    for level in np.unique(strata).tolist():
        at = strata == level
        total += _count_stratum(rank[at], time[at], entry[at], event[at])
    return total


def _count_stratum(rank: Places, time: Array, entry: Array, event: NDArray[np.bool_]) -> Array:
    later = np.where(event, time, np.nextafter(time, np.inf))
    mine, at = rank[event], time[event]
    # Patients who leave after the event, less those who enter at it or later.
    after = _compare(rank, later, mine, at, "right")
    return after - _compare(rank, entry, mine, at, "left")


def _compare(rank: Places, keys: Array, mine: Places, at: Array, side: str) -> Array:
    """Pairs of an event with rows whose key is beyond `at`: rows of lower, higher and equal rank (3,)."""
    order = np.argsort(-keys, kind="stable")
    ordered = np.sort(keys)
    ends = len(keys) - np.searchsorted(ordered, at, side="right" if side == "right" else "left")
    if not ends.any():  # nobody enters late
        return np.zeros(3)
    lower, upto = (_count_below(rank[order], ends, mine + more) for more in (0, 1))
    return np.array([float(lower.sum()), float((ends - upto).sum()), float((upto - lower).sum())])


def _count_below(sequence: Places, ends: Places, bounds: Places) -> Places:
    """How many of the first `ends` numbers are below each bound, digit by digit from the highest (a wavelet matrix)."""
    low, high, total = np.zeros_like(ends), ends.copy(), np.zeros_like(ends)
    for bit in range(int(max(sequence.max(initial=0), bounds.max(initial=0))).bit_length() - 1, -1, -1):
        is_zero = (sequence >> bit) & 1 == 0
        zeros = np.concatenate([[0], np.cumsum(is_zero)])
        goes_right = (bounds >> bit) & 1 == 1
        before, until = zeros[low], zeros[high]
        total += np.where(goes_right, until - before, 0)
        low = np.where(goes_right, zeros[-1] + low - before, before)
        high = np.where(goes_right, zeros[-1] + high - until, until)
        sequence = np.concatenate([sequence[is_zero], sequence[~is_zero]])
    return total
