"""Cox's partial likelihood of one site's own rows: its value, score and information at given coefficients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coterie_learners.cox.likelihood.risk_sets import RiskRows
from coterie_learners.cox.likelihood.tie_weights import CellSums, TieWeights, sum_expected, sum_outer, weigh_ties
from coterie_learners.numeric.array import Array


@dataclass(frozen=True)
class Likelihood:
    """Logarithm of the partial likelihood, score (p,) and information (p, p)."""

    value: float
    score: Array
    information: Array


@dataclass(frozen=True)
class OwnRisk:
    """A site's own risk sets at given coefficients: predictors and risks of rows (n,), sums over cells, and ties.

    Risks are those of the predictor less `shift`, its largest value, so that none overflows.
    """

    predictor: Array
    risk: Array
    shift: float
    cells: CellSums
    ties: TieWeights

    @classmethod
    def of(cls, rows: RiskRows, beta: Array, efron: bool) -> OwnRisk:
        """The risk sets of rows, some with the event."""
        predictor = rows.find_predictor(beta)
        shift = float(np.max(predictor)) if len(predictor) else 0.0
        risk = np.asarray(rows.weight * np.exp(predictor - shift))
        cells = rows.sum_cells(risk)
        return cls(predictor, risk, shift, cells, weigh_ties(*rows.count_events(), cells, efron))


def measure_likelihood(rows: RiskRows, beta: Array, efron: bool) -> Likelihood:
    """The partial likelihood at coefficients (p,)."""
    own, whole = OwnRisk.of(rows, beta, efron), np.ones(rows.size)
    events = rows.event
    value = float(rows.weight[events] @ (own.predictor[events] - own.shift)) - own.ties.logs
    score = rows.sum_events(whole) - sum_expected(own.ties, own.cells, whole)
    return Likelihood(value, score, measure_information(rows, own, whole))


def measure_information(rows: RiskRows, own: OwnRisk, by: Array) -> Array:
    """The information (p, p), each cell times `by` (c,)."""
    second = rows.sum_products(own.risk, by * own.ties.a, by * own.ties.b)
    return np.asarray(second - sum_outer(own.ties, own.cells, by, np.matmul))
