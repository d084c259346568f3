"""The baseline hazard that all sites have in common, and what predicted survival needs of it.

Cumulative hazard by Breslow, or by Efron where the ties are his (Therneau and Grambsch 2000, section 10.2), at the
centre of the declared ranges. For a row z away from there, with H, V and m the hazard, its variance and the mean sum,

    S = exp(-H e^(z'b)),   Var(log S) = e^(2 z'b) (V + (z H - m)' C (z H - m)),   C the covariance of b,

as R's `survfit` of a Cox model has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coterie_learners.core.payload import Payload
from coterie_learners.cox.common_baseline import PooledCells, find_cell_times, find_ties
from coterie_learners.cox.cox_plan import CoxPlan
from coterie_learners.cox.likelihood.tie_weights import average_events
from coterie_learners.numeric.elementary import exp_of_array


def describe_baseline(plan: CoxPlan, model: Payload, cells: PooledCells) -> dict[str, Any]:
    """The baseline by stratum as JSON has it, in the variables' own units."""
    ties, sums = find_ties(plan, cells, model)
    means = average_events(ties, sums)[0] * plan.scale
    times = find_cell_times(plan, cells)
    strata = []
    for level in range(plan.strata):
        inside = cells.at // cells.steps == level
        hazard = np.cumsum(ties.a[inside])
        columns = {
            "times": times[inside],
            "events": cells.events[inside],
            "hazard": hazard,
            "survival": exp_of_array(-hazard),
            "variance": np.cumsum(ties.c[0][inside]),
            "mean": np.cumsum(means[inside], axis=0),
        }
        strata.append({"stratum": _name_stratum(plan, level), **{k: v.tolist() for k, v in columns.items()}})
    grid = {"width": plan.grid.width * cells.multiple, "declared_width": plan.grid.width, "horizon": plan.grid.horizon}
    unit = plan.study.variables[plan.options.time].unit
    return {"unit": unit, "grid": grid, "centre": plan.centre.tolist(), "by": plan.options.strata, "strata": strata}


def _name_stratum(plan: CoxPlan, level: int) -> str:
    if plan.options.strata is None:
        return ""
    return str((plan.study.variables[plan.options.strata].levels or ("0", "1"))[level])
