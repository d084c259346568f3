"""The partial likelihood of discrete times: of all sets of as many patients at risk, that those who have the event do.

Cox, JRSS B 1972;34:187-220, section 6; sums over the sets by the recursion of Gail, Lubin and Rubinstein, Biometrika
1981;68:703-707; as R's `coxph(ties = "exact")`. A sum over sets of k patients is a coefficient of the product of
(1 + w z) over the patients. With each one who joins the risk set all sums grow by what those with one patient less are,
so that the work is O(n d p^2) for n patients and at most d tied events. Risk sets of patients who enter late do not
nest: each is then summed on its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coterie_learners.cox.likelihood.partial_likelihood import Likelihood
from coterie_learners.cox.likelihood.risk_sets import Places, RiskRows
from coterie_learners.errors import DataError, ProtocolError
from coterie_learners.numeric.array import Array

# Tied events at one time, beyond which the sums over sets take too long and leave the range of floats.
MOST_TIED = 200


@dataclass(frozen=True)
class SetSums:
    """By size of the sets, over all sets of rows: sums of the product of risks, times the sum of x, and its square.

    `whole` (d + 1,), `first` (d + 1, p), `second` (d + 1, p, p).
    """

    whole: Array
    first: Array
    second: Array

    @classmethod
    def of_nobody(cls, most: int, p: int) -> SetSums:
        """The empty set alone."""
        whole = np.zeros(most + 1)
        whole[0] = 1.0
        return cls(whole, np.zeros((most + 1, p)), np.zeros((most + 1, p, p)))

    def add_rows(self, risk: Array, x: Array) -> None:
        """Let rows with risks (m,) and columns (m, p) join, in place."""
        whole, first, second = self.whole, self.first, self.second
        if len(whole) == 2:  # sets of one are the rows themselves
            whole[1] += risk.sum()
            first[1] += risk @ x
            second[1] += (x * risk[:, None]).T @ x
            return
        for w, row in zip(risk.tolist(), x, strict=True):
            cross = first[:-1, :, None] * row
            outer = whole[:-1, None, None] * np.multiply.outer(row, row)
            second[1:] += w * (second[:-1] + cross + cross.transpose(0, 2, 1) + outer)
            first[1:] += w * (first[:-1] + whole[:-1, None] * row)
            whole[1:] += w * whole[:-1]


def measure_exact_likelihood(rows: RiskRows, beta: Array) -> Likelihood:
    """The exact partial likelihood at coefficients (p,); rows have no weights. DataError for too many tied events."""
    events = rows.count_events()[0].astype(np.int64)
    if np.max(events, initial=0) > MOST_TIED:
        message = f"{np.max(events)} events fall at one time; exact ties are summed for at most {MOST_TIED}"
        raise DataError("CO-D165", f'{message}. Choose ties = "efron".')
    eta = rows.x @ beta + rows.offset
    p = len(beta)
    value, score, information = 0.0, np.zeros(p), np.zeros((p, p))
    for start, end in zip(rows.ends[:-1].tolist(), rows.ends[1:].tolist(), strict=True):
        for cell, (logs, mean, spread) in _sum_stratum(rows, eta, events, (start, end)):
            own = np.flatnonzero(rows.event & (rows.last == cell + 1))
            value += float(eta[own].sum()) - logs
            score += rows.x[own].sum(axis=0) - mean
            information += spread
    return Likelihood(value, score, information)


def _sum_stratum(
    rows: RiskRows, eta: Array, events: Places, ends: tuple[int, int]
) -> list[tuple[int, tuple[float, Array, Array]]]:
    """By cell of a stratum, the last first: logarithm, mean and spread of the sums over the sets of its size."""
    start, end = ends
    inside = (rows.last > rows.first) & (rows.first >= start) & (rows.last <= end)
    if start == end or not inside.any():
        return []
    most, late = int(events[start:end].max()), bool(np.any(rows.first[inside] > start))
    shift = float(eta[inside].max())
    # Risks that add up to the largest size of a set keep the sums within e^size.
    scale = float(np.exp(eta[inside] - shift).sum()) / most
    risk = np.where(inside, np.exp(eta - shift) / scale, 0.0)
    at = SetSums.of_nobody(most, rows.x.shape[1])
    out = []
    for cell in range(end - 1, start - 1, -1):
        if late:
            at = SetSums.of_nobody(int(events[cell]), rows.x.shape[1])
        joins = inside & (rows.first <= cell) & ((rows.last > cell) if late else (rows.last == cell + 1))
        at.add_rows(risk[joins], rows.x[joins])
        out.append((cell, _measure_cell(at, int(events[cell]), shift + float(np.log(scale)))))
    return out


def _measure_cell(at: SetSums, size: int, unit: float) -> tuple[float, Array, Array]:
    whole = float(at.whole[size])
    if not whole > 0.0 or not np.isfinite(whole):
        raise ProtocolError("CO-P509", "Sums over risk sets in which an event falls are not positive.")
    mean = at.first[size] / whole
    return float(np.log(whole)) + size * unit, mean, at.second[size] / whole - np.multiply.outer(mean, mean)
