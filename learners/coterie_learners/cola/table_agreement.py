"""Whether the sites of a table model agree (`sums.agreement`): each site's part from its own table, and their sum.

A part is taken at the final estimates, in the frame of the pooled table, which all who take part know. If the fit is
penalised or the pooled score is not zero, each site gets a part of the score in proportion to its part of the
information.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie_learners.cola.model.likelihood import score_at
from coterie_learners.cola.plan import TablePlan
from coterie_learners.cola.pool import carry_back, draw_pooled_frame, sum_tables
from coterie_learners.core.fit import Fit
from coterie_learners.core.model_warnings import advise_on_near_separation
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts
from coterie_learners.numeric.array import Array
from coterie_learners.sums import agreement, soundness
from coterie_learners.sums.frame import Frame

Warnings = tuple[str, ...]


def shapes_of_part(plan: TablePlan) -> dict[str, tuple[int, ...]]:
    """Shapes of a site's part: as in GLORE, without Pearson's chi-squared, which a table need not tell."""
    shapes = agreement.shapes(len(plan.terms))
    return {name: shape for name, shape in shapes.items() if name != "pearson"}


def measure_tables(plan: TablePlan, pooled: Posts, estimates: Array, tables: Posts) -> list[dict[str, Array]]:
    """The part of each table at estimates (p,) in the variables' own units; `pooled` add up to the pool."""
    at, shapes, parts = _final_point(plan, pooled, estimates), shapes_of_part(plan), []
    for table in tables.values():
        score, information, at_an_end = at.score(plan, table)
        part: dict[str, Any] = agreement.part_of(score, information, at.whole)
        part["at_an_end"] = float(at_an_end)
        parts.append({k: np.asarray(part[k], dtype=np.float64).reshape(shape) for k, shape in shapes.items()})
    return parts


@dataclass(frozen=True)
class _Point:
    """The final estimates in the frame of the pooled table, the pooled information, and its share of each score."""

    frame: Frame
    beta: Array
    whole: Array
    carried: Array

    def score(self, plan: TablePlan, table: Payload) -> tuple[Array, Array, bool]:
        """A site's score without its share of the pooled one, its information, and if a mean is an end of its range."""
        score, information, means = score_at(sum_tables(plan, {"own": table}, self.frame), plan.choice, self.beta)
        return score - information @ self.carried, information, plan.family.at_an_end(means)


def _final_point(plan: TablePlan, pooled: Posts, estimates: Array) -> _Point:
    frame = draw_pooled_frame(plan, pooled)
    carry, origin = carry_back(plan, frame)
    beta = np.asarray(np.linalg.solve(carry, estimates - origin), dtype=np.float64)
    total, whole, _ = score_at(sum_tables(plan, pooled, frame), plan.choice, beta)
    carried = np.asarray(np.linalg.solve(whole, total), dtype=np.float64)
    return _Point(frame, beta, whole, carried)


def describe_distance(plan: TablePlan, fit: Fit, pooled: Posts, table: Payload) -> tuple[str, ...]:
    """How far the site with this table stands from the others, for its own people."""
    at = _final_point(plan, pooled, fit.estimates)
    score, information, _ = at.score(plan, table)
    unit, freedom = fit.dispersion / at.frame.outcome_scale**2, _freedom(fit)
    return (agreement.stand_apart(score, information, at.whole, unit, freedom).sentence,)


def _freedom(fit: Fit) -> int:
    """Degrees of freedom of an estimated dispersion; 0 where it is known."""
    return 0 if fit.dispersion_known else fit.n - len(fit.terms)


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
    freedom = _freedom(fit)
    unit = fit.dispersion / draw_pooled_frame(plan, pooled).outcome_scale ** 2
    test = agreement.compare(plan.terms, {**sums, "pearson": np.nan}, unit, freedom)
    ends = 0 if plan.options.firth else test.at_an_end
    warnings = (
        *soundness.end_of_range_warning(ends, plan.family, advise_on_near_separation(plan.study)),
        *soundness.disagreement_warnings(test),
    )
    return {"agreement": agreement.as_dict(test)}, warnings
