"""The result of a study of curves: restricted means as a coefficient table, curves and tests as details and sentences.

The first term is the restricted mean of the first group, each other one the difference of a group from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from coterie_learners.core.fit import Fit
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import INTERCEPT
from coterie_learners.survival.incidence_result import describe_causes, write_causes
from coterie_learners.survival.kaplan_meier import (
    SurvivalCurve,
    estimate_curve,
    find_quantiles,
    find_survival,
    measure_restricted_mean,
)
from coterie_learners.survival.log_rank import LogRank, compare_groups, write_test
from coterie_learners.survival.plan import CurvePlan
from coterie_learners.survival.step_counts import StepCounts

QUANTILES = (0.25, 0.5, 0.75)


def build_curve_fit(plan: CurvePlan, counts: StepCounts, multiple: int) -> Fit:
    """The result, from the pooled counts on the grid that passed."""
    pooled = counts.pool_strata()
    times = plan.grid.width * multiple * np.arange(1.0, counts.events.shape[-1] + 1.0)
    curves = [
        estimate_curve(times, *(a[0, g] for a in (pooled.at_risk, pooled.events, pooled.censored)))
        for g in range(len(plan.groups))
    ]
    tests = _run_tests(plan, counts)
    estimates, covariance = _compare_means([measure_restricted_mean(curve) for curve in curves])
    details = _describe_curves(plan, curves, multiple) | {name: _describe_test(test) for name, test in tests.items()}
    causes = {"causes": describe_causes(plan, counts, times)} if plan.causes else {}
    return Fit(
        learner="survival_curves",
        family="Aalen-Johansen" if plan.causes else "Kaplan-Meier",
        link="restricted mean",
        terms=(INTERCEPT, *plan.groups[1:]),
        estimates=estimates,
        covariance=covariance,
        n=round(float(counts.entries.sum())),
        events=round(float(counts.events.sum())),
        rounds=1,
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=None,
        null_deviance=None,
        log_likelihood=None,
        notes=(
            *_write_notes(plan, multiple, tests),
            *write_causes(plan, causes.get("causes", [])),
            *write_curves(plan, curves),
        ),
        details={"survival": details | causes},
    )


def _run_tests(plan: CurvePlan, counts: StepCounts) -> dict[str, LogRank]:
    if len(plan.groups) < 2:
        return {}
    tests = {"log_rank": compare_groups(counts.pool_strata())}
    return tests | ({"stratified_log_rank": compare_groups(counts)} if len(plan.strata) > 1 else {})


def _compare_means(means: list[tuple[float, float]]) -> tuple[Array, Array]:
    """The first group's mean and the others' differences from it, with their covariance."""
    values, variances = (np.array(part) for part in zip(*means, strict=True))
    estimates = np.concatenate([values[:1], values[1:] - values[0]])
    covariance = np.diag(variances)
    covariance[1:, 1:] += variances[0]
    covariance[0, 1:] = covariance[1:, 0] = -variances[0]
    return estimates, covariance


def _describe_curves(plan: CurvePlan, curves: list[SurvivalCurve], multiple: int) -> dict[str, Any]:
    names = ("times", "at_risk", "events", "censored", "survival", "std_error", "low", "high", "hazard", "hazard_error")
    groups = []
    for name, curve in zip(plan.groups, curves, strict=True):
        mean, variance = measure_restricted_mean(curve)
        quantiles = [
            dict(zip(("p", "time", "low", "high"), (p, *find_quantiles(curve, p)), strict=True)) for p in QUANTILES
        ]
        at = zip(plan.options.at, find_survival(curve, plan.options.at), strict=True)
        points = [dict(zip(("time", "survival", "low", "high"), (t, *s), strict=True)) for t, s in at]
        columns = {key: getattr(curve, key).tolist() for key in names}
        means = {"restricted_mean": mean, "restricted_mean_error": math.sqrt(variance)}
        groups.append({"group": name, **columns, "quantiles": quantiles, "at": points, **means})
    grid = {"width": plan.grid.width * multiple, "declared_width": plan.grid.width, "horizon": plan.grid.horizon}
    return {"unit": plan.unit, "grid": grid, "groups": groups}


def _describe_test(test: LogRank) -> dict[str, Any]:
    arrays = {name: getattr(test, name).tolist() for name in ("observed", "expected", "covariance")}
    return arrays | {name: getattr(test, name) for name in ("chi2", "df", "p", "trend_chi2", "trend_p")}


def _write_notes(plan: CurvePlan, multiple: int, tests: dict[str, LogRank]) -> Iterator[str]:
    grid, unit = plan.grid, plan.unit
    yield f"Estimates are restricted mean times up to {grid.horizon:g} {unit}: of the first group, then differences."
    if plan.causes:
        yield f"Curves, means and these log-rank tests are of the time to any cause of {plan.options.event}."
    if multiple > 1:
        width = f"{grid.width * multiple:g} {unit} instead of {grid.width:g}"
        why = "the floor of a site's own policy needs it"
        if plan.floor > 1:
            why = f"at this width each count of each site is 0 or at least {plan.floor}"
        yield f"Steps of {width}: {why}."
    names = {"log_rank": "Log-rank test", "stratified_log_rank": f"Log-rank test, stratified by {plan.options.strata}"}
    for name, test in tests.items():
        yield f"{names[name]}: {write_test(test.chi2, test.df, test.p)}."
        if test.df > 1 and not math.isnan(test.chi2):
            trend = f"chi-squared {test.trend_chi2:.4f} on 1 df, p = {test.trend_p:.3g}"
            yield f"{names[name]}, trend over the groups: {trend}."


def write_curves(plan: CurvePlan, curves: list[SurvivalCurve]) -> Iterator[str]:
    """The curves as a table, a line for each step in which somebody leaves."""
    for name, curve in zip(plan.groups, curves, strict=True):
        median, low, high = find_quantiles(curve, 0.5)
        yield f"{name}: median {_show(median)} {plan.unit} [{_show(low)}, {_show(high)}]"
        yield f"{'time':>10s} {'at risk':>8s} {'events':>7s} {'censored':>8s} {'survival':>9s} {'95% CI':>18s}"
        for k in np.flatnonzero(curve.events + curve.censored).tolist():
            limits = f"[{_show(curve.low[k])}, {_show(curve.high[k])}]"
            counts = f"{curve.at_risk[k]:8.0f} {curve.events[k]:7.0f} {curve.censored[k]:8.0f}"
            yield f"{curve.times[k]:10g} {counts} {curve.survival[k]:9.4f} {limits:>18s}"


def _show(value: float) -> str:
    return "NA" if math.isnan(value) else f"{value:.4g}"
