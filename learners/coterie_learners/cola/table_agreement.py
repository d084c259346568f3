"""Whether the sites of a table model agree (`sums.agreement`): each site's part from its own table, and their sum.

A part is taken at the final estimates, in the frame of the pooled table, which all who take part know. Where the fit is
penalised or the pooled score is not zero, each site carries its share of the score by its share of the information.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coterie_learners.cola.model.likelihood import score_at
from coterie_learners.cola.plan import TablePlan
from coterie_learners.cola.pool import carry_back, draw_pooled_frame, sum_tables
from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts
from coterie_learners.numeric.array import Array
from coterie_learners.sums import agreement, soundness

Warnings = tuple[str, ...]


def shapes_of_part(plan: TablePlan) -> dict[str, tuple[int, ...]]:
    """Shapes of a site's part: as in GLORE, without Pearson's chi-squared, which a table need not tell."""
    shapes = agreement.shapes(len(plan.terms))
    return {name: shape for name, shape in shapes.items() if name != "pearson"}


def measure_tables(plan: TablePlan, pooled: Posts, estimates: Array, tables: Posts) -> list[dict[str, Array]]:
    """The part of each table at estimates (p,) in the variables' own units; `pooled` add up to the pool."""
    frame = draw_pooled_frame(plan, pooled)
    carry, origin = carry_back(plan, frame)
    beta = np.asarray(np.linalg.solve(carry, estimates - origin), dtype=np.float64)
    total, whole, _ = score_at(sum_tables(plan, pooled, frame), plan.choice, beta)
    carried = np.linalg.solve(whole, total)
    shapes, parts = shapes_of_part(plan), []
    for name, table in tables.items():
        score, information, means = score_at(sum_tables(plan, {name: table}, frame), plan.choice, beta)
        part: dict[str, Any] = agreement.part_of(score - information @ carried, information, whole)
        part["at_an_end"] = float(plan.family.at_an_end(means))
        parts.append({k: np.asarray(part[k], dtype=np.float64).reshape(shape) for k, shape in shapes.items()})
    return parts


def is_testable(plan: TablePlan) -> bool:
    """Whether one model for all sites is what the study fits: with an intercept for each it is not."""
    return not plan.site_intercepts


def compare_tables(plan: TablePlan, fit: Fit, tables: Posts) -> tuple[dict[str, Any], Warnings]:
    """The test from tables that everybody reads."""
    if len(tables) < 2 or not is_testable(plan) or not fit.dispersion > 0.0:
        return {}, ()
    parts = measure_tables(plan, tables, fit.estimates, tables)
    return _compare(plan, fit, tables, {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]})


def compare_sums(plan: TablePlan, fit: Fit, pooled: Payload, end: Payload) -> tuple[dict[str, Any], Warnings]:
    """The test from the last server post of a masked sum; a sentence where a site left before it."""
    if not bool(end["complete"]):
        return {}, (
            "The test whether the sites agree was not made: a site left after its table was in the sum and before the "
            "test. Its rows are in the model. Propose the study again without that site if they should not be.",
        )
    return _compare(plan, fit, {"sum": pooled}, end) if fit.dispersion > 0.0 else ({}, ())


def _compare(plan: TablePlan, fit: Fit, pooled: Posts, sums: Mapping[str, Any]) -> tuple[dict[str, Any], Warnings]:
    freedom = 0 if fit.dispersion_known else fit.n - len(fit.terms)
    unit = fit.dispersion / draw_pooled_frame(plan, pooled).outcome_scale ** 2
    test = agreement.compare(plan.terms, {**sums, "pearson": np.nan}, unit, freedom)
    ends = 0 if plan.options.firth else test.at_an_end
    warnings = (*soundness.end_of_range_warning(ends, plan.family), *soundness.disagreement_warnings(test))
    return {"agreement": agreement.as_dict(test)}, warnings
