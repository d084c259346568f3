"""What a result says of competing causes: incidence by group, Gray's tests, and tests of each cause's hazards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from coterie_learners.numeric.array import Array
from coterie_learners.survival.cumulative_incidence import IncidenceCurve, estimate_incidence
from coterie_learners.survival.gray import compare_incidence
from coterie_learners.survival.log_rank import compare_groups, write_test
from coterie_learners.survival.plan import STEP_ROUNDING, CurvePlan
from coterie_learners.survival.step_counts import StepCounts

_COLUMNS = ("times", "events", "incidence", "variance", "low", "high")


def describe_causes(plan: CurvePlan, counts: StepCounts, times: Array) -> list[dict[str, Any]]:
    """By cause: the incidence in each group at the ends of the steps, and the tests; as JSON has them."""
    return [{"cause": cause, **_describe_cause(plan, counts, times, k)} for k, cause in enumerate(plan.causes)]


def _describe_cause(plan: CurvePlan, counts: StepCounts, times: Array, at: int) -> dict[str, Any]:
    pooled = counts.pool_strata()
    own = pooled.select_cause(at).events
    groups = []
    for g, name in enumerate(plan.groups):
        curve = estimate_incidence(times, pooled.at_risk[0, g], pooled.events[0, g], own[0, g])
        points = [dict(zip(("time", *_COLUMNS[2:]), row, strict=True)) for row in _find_points(plan, curve)]
        groups.append({"group": name, **{key: getattr(curve, key).tolist() for key in _COLUMNS}, "at": points})
    return {"groups": groups, **_run_tests(plan, counts, at)}


def _find_points(plan: CurvePlan, curve: IncidenceCurve) -> Iterator[tuple[float, ...]]:
    """Time, incidence, variance and limits at the study's times, or at the horizon; 0 before the end of a step."""
    at = plan.options.at or (plan.grid.horizon,)
    places = np.searchsorted(curve.times, np.asarray(at) * (1 + STEP_ROUNDING), side="right") - 1
    for time, place in zip(at, places.tolist(), strict=True):
        row = [float(getattr(curve, key)[place]) for key in _COLUMNS[2:]]
        yield (time, *row) if place >= 0 else (time, 0.0, 0.0, math.nan, math.nan)


def _run_tests(plan: CurvePlan, counts: StepCounts, at: int) -> dict[str, Any]:
    """Gray's test and the log-rank test of the cause's hazards, both stratified as well where there are strata.

    Gray's test has no form for patients who enter late.
    """
    if len(plan.groups) < 2:
        return {}
    tests: dict[str, Any] = {}
    for prefix, part in (("", counts.pool_strata()), *((("stratified_", counts),) if len(plan.strata) > 1 else ())):
        own = part.select_cause(at)
        rank = compare_groups(own)
        tests[f"{prefix}log_rank"] = {"chi2": rank.chi2, "df": rank.df, "p": rank.p}
        if plan.options.entry is None:
            tests[f"{prefix}gray"] = vars(compare_incidence(part.at_risk, part.events, own.events)).copy()
    return tests


def write_causes(plan: CurvePlan, causes: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The incidence by group, and the tests, in sentences."""
    by = f", stratified by {plan.options.strata}"
    names = {"gray": "Gray's test", "log_rank": "log-rank test of its hazards"}
    for cause in causes:
        for kind, test in ((key, cause[key]) for key in cause if key not in ("cause", "groups")):
            name = names[kind.removeprefix("stratified_")] + (by if kind.startswith("stratified_") else "")
            yield f"{cause['cause']}: {name}: {write_test(test['chi2'], test['df'], test['p'])}."
        for group in cause["groups"]:
            for point in group["at"]:
                limits = f"[{_show(point['low'])}, {_show(point['high'])}]"
                when = f"by {point['time']:g} {plan.unit}"
                yield f"Incidence of {cause['cause']} {when}, {group['group']}: {point['incidence']:.4f} {limits}"
    if causes and plan.options.entry is not None and len(plan.groups) > 1:
        yield "Gray's test has no form for patients who enter late; the log-rank tests take its place."


def _show(value: float) -> str:
    return "NA" if math.isnan(value) else f"{value:.4f}"
