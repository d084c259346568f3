"""What the sites sum once more at the end: concordance, the test of proportional hazards, sandwich errors.

Proportional hazards: the score test that a coefficient changes with a function g of time (Grambsch and Therneau,
Biometrika 1994;81:515-526, as R's `cox.zph` has it from version 3.0 on), from the score and the information with each
cell times g and g^2. Sandwich: Lin and Wei, JASA 1989;84:1074-1078.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coterie_learners.core.disclosure import Exposure
from coterie_learners.core.protocol import Site
from coterie_learners.cox.concordance import count_concordance
from coterie_learners.cox.cox_plan import CoxPlan
from coterie_learners.cox.likelihood.partial_likelihood import OwnRisk, measure_information
from coterie_learners.cox.likelihood.risk_sets import RiskRows
from coterie_learners.cox.likelihood.tie_weights import sum_expected
from coterie_learners.cox.patients import CoxRows, number_rows
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.elementary import log_of_array
from coterie_learners.sums.opening.counts import PooledCounts, describe_pool


@dataclass(frozen=True)
class OwnRiskSets:
    """A site's own risk sets at the final coefficients, with the time of each cell `at` (c,)."""

    placed: RiskRows
    risk: OwnRisk
    at: Array


def list_closing_shapes(plan: CoxPlan) -> dict[str, tuple[int, ...]]:
    """Shapes of one site's sums at the end."""
    out: dict[str, tuple[int, ...]] = {"patients": ()} if plan.design.weights else {"patients": (), "pairs": (3,)}
    if plan.transform != "none":
        out |= {"drift": (plan.p,), "drift_cross": plan.upper, "drift_square": plan.upper}
    return out | ({"meat": plan.upper} if plan.options.robust else {})


def sum_at_end(plan: CoxPlan, rows: CoxRows, sets: OwnRiskSets, beta: Array) -> dict[str, Array]:
    """One site's sums at the end, each cell with the site's own risk sets."""
    out = {"patients": np.asarray(float(count_patients(rows)))}
    if not plan.design.weights:
        out["pairs"] = count_concordance(rows.x @ beta + rows.offset, rows.strata, rows.time, rows.entry, rows.event)
    if plan.transform != "none":
        by = transform_times(plan, sets.at)
        drift = sets.placed.sum_events(by) - sum_expected(sets.risk.ties, sets.risk.cells, by)
        matrices = [measure_information(sets.placed, sets.risk, weight) for weight in (by, by * by)]
        out |= pack_drift(drift, *matrices)
    if plan.options.robust:
        own = sets.risk
        out["meat"] = add_scores(plan, sets.placed, sets.placed.score_rows(own.risk, own.ties, own.cells))
    return out


def pack_drift(drift: Array, cross: Array, square: Array) -> dict[str, Array]:
    """Score (p,) and blocks of the information (p, p) of the coefficients' change with time, as they are posted."""
    upper = np.triu_indices(len(drift))
    return {"drift": drift, "drift_cross": cross[upper], "drift_square": square[upper]}


def transform_times(plan: CoxPlan, at: Array) -> Array:
    """The function of time at times (c,), over what makes it of the order of 1."""
    most = plan.study.variables[plan.options.time].bounds[1]
    return log_of_array(np.maximum(at / most, 1e-9)) if plan.transform == "log" else at / most


def add_scores(plan: CoxPlan, placed: RiskRows, scores: Array) -> Array:
    """The upper triangle of the sum of u u' over rows, or over patients with the sum of their rows' u."""
    if plan.options.robust == "patient":
        columns = [np.bincount(placed.patient, weights=column) for column in scores.T]
        scores = np.stack(columns, axis=1)
    return np.asarray((scores.T @ scores)[np.triu_indices(plan.p)])


def count_patients(rows: CoxRows) -> int:
    """How many patients the rows are of."""
    return len(np.unique(rows.patient))


def describe_exposure(plan: CoxPlan, site: Site, pooled: PooledCounts | None, what: str, first: bool) -> Exposure:
    """Masked sums over all sites of a Cox model; the first one counts the floor on events."""
    events = 0
    for codes in site.codes.codes() if first else ():
        events += int(np.count_nonzero(np.asarray(codes[plan.options.event]) == plan.event_code))
    n = site.codes.n
    exposure = Exposure(
        what=what,
        rows=len(np.unique(number_rows(plan, site, n))) if plan.by_patient else n,
        events=events if first else None,
        parameters=plan.p if first else 0,
        sums_only=True,
        parties=len(site.parties),
        by_patient=plan.by_patient,
    )
    return describe_pool(exposure, pooled)
