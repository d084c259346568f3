"""Cox models with one baseline hazard for all sites, on the study's grid of time: equal to the fit on the pooled rows.

What leaves a site. First, as for curves, which widths of steps pass its floor (`time_cells`), and on the narrowest that
passes everywhere its numbers of rows that have the event, leave otherwise and enter, by stratum and step. Then, in each
round, for each step with an event in the pool: S0 and S1, the sums of risk and of risk times x over its rows at risk,
and with Efron's ties D0 and D1, the same over those with the event; and one matrix.

The matrix. The information needs the sum over steps of d S2 / S0, S2 being the sum of risk times x x'. With 1 / S0 as
the round before foretells it, a site adds up its own rows itself, and posts p (p + 1) / 2 numbers instead of as many
for each step. The score is exact in each round, the information is no smaller than the exact one and differs from it by
the square of the last step. So the fit rests at the maximum, with the exact information.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from coterie_learners.core.disclosure import Exposure, TimeSteps
from coterie_learners.core.masked_sum import SiteSums, check_patient_counts
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Posts, Script, Site, each, server
from coterie_learners.cox.closing import (
    add_scores,
    count_patients,
    describe_exposure,
    list_closing_shapes,
    pack_drift,
    transform_times,
)
from coterie_learners.cox.cox_plan import CoxPlan
from coterie_learners.cox.likelihood.partial_likelihood import Likelihood
from coterie_learners.cox.likelihood.risk_sets import Places, RiskRows
from coterie_learners.cox.likelihood.tie_weights import CellSums, TieWeights, sum_expected, sum_outer, weigh_ties
from coterie_learners.cox.newton_step import (
    begin_at_zero,
    check_events,
    falls,
    halve_step,
    look_nearer,
    refuse_more_rounds,
    take_step,
)
from coterie_learners.cox.patients import read_cox_rows
from coterie_learners.cox.time_cells import (
    count_rows,
    find_patterns,
    list_count_shapes,
    passes_patterns,
    place_rows,
)
from coterie_learners.errors import ProtocolError
from coterie_learners.numeric import linalg
from coterie_learners.numeric.array import Array
from coterie_learners.sums.opening.counts import PooledCounts
from coterie_learners.survival.kaplan_meier import estimate_curve
from coterie_learners.survival.plan import choose_multiple
from coterie_learners.survival.step_counts import StepCounts


@dataclass(frozen=True)
class PooledCells:
    """The steps with an event in the pool, by number `at` (c,), with `events` and their `weight` in each (c,).

    `zero`: the risk sets at coefficients of zero, without S1 and D1. `counts` are those of all steps.
    """

    multiple: int
    at: Places
    events: Array
    weight: Array
    zero: CellSums
    counts: StepCounts

    @property
    def steps(self) -> int:
        """Number of steps in a stratum."""
        return int(self.counts.events.shape[-1])


def list_cell_shapes(plan: CoxPlan, size: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one site's sums of a round, for so many cells."""
    over_events = {"d0": (size,), "d1": (size, plan.p)} if plan.efron else {}
    sums = {"s0": (size,), "s1": (size, plan.p), **over_events}
    return {**sums, "second": plan.upper, "linear": (plan.p,), "constant": ()}


def fit_common_baseline(plan: CoxPlan, pooled: PooledCounts | None) -> Script:
    """The width that passes everywhere, the counts, then rounds of sums and one step by the server until it rests."""
    cells = yield from _open_grid(plan, pooled)
    form = SiteSums(list_cell_shapes(plan, len(cells.at)), plan.masked).form
    model: Payload = {**begin_at_zero(plan), **_weigh(plan, cells, cells.zero)}
    for t in range(plan.options.max_rounds):
        topic = f"sums/{t}"
        reveals = partial(_expose_sums, plan, t, pooled)
        posts = yield from each(topic, _share_sums, plan, topic, cells, model, expects=form, reveals=reveals)
        model = yield from server(f"model/{t}", add_sums, plan, cells, model, posts)
        if "units" in model:
            plan = plan.move(model["shift"], model["units"])
        if model["converged"]:
            return (yield from _close(plan, cells, pooled, model, t + 1))
    raise refuse_more_rounds(plan, model)


def _open_grid(plan: CoxPlan, pooled: PooledCounts | None) -> Any:
    sums = SiteSums({"passes": (len(plan.multiples),)}, plan.masked)
    flags = yield from each(
        "grid", _share_widths, plan, expects=sums.form, reveals=partial(_expose_widths, plan, pooled)
    )
    passing = sums.add(flags)["passes"]
    check_patient_counts("passes", passing)
    multiple = choose_multiple(plan.options.time, plan.grid, plan.floor, passing.tolist(), len(flags))
    form = SiteSums(list_count_shapes(plan, multiple), plan.masked).form
    reveals = partial(_expose_counts, plan, multiple, pooled)
    posts = yield from each("counts", _share_counts, plan, multiple, expects=form, reveals=reveals)
    return pool_cells(plan, multiple, posts)


def _close(plan: CoxPlan, cells: PooledCells, pooled: PooledCounts | None, model: Payload, rounds: int) -> Any:
    form = SiteSums(list_closing_shapes(plan), plan.masked).form
    reveals = partial(_expose_closing, plan, pooled)
    posts = yield from each("closing", _share_closing, plan, cells, model, expects=form, reveals=reveals)
    end = yield from server("end", _add_closing, plan, cells, model, posts)
    return {**model, **end, "rounds": rounds, "cells": cells, "plan": plan}


# At a site


def _share_widths(site: Site, plan: CoxPlan) -> Payload:
    """Whether what neighbouring steps show passes the floor at this site, by width of the steps."""
    rows, (patterns, measured) = read_cox_rows(plan, site), find_patterns(plan, site)
    floor = max(plan.floor, site.own_floor)
    passes = [passes_patterns(plan, place_rows(plan, rows, m), patterns, measured, floor) for m in plan.multiples]
    sums = {"passes": np.array(passes, dtype=np.float64)}
    return SiteSums({"passes": (len(plan.multiples),)}, plan.masked).post(site, "grid", sums)


def _share_counts(site: Site, plan: CoxPlan, multiple: int) -> Payload:
    """This site's counts on steps of so many declared widths."""
    counts = count_rows(plan, place_rows(plan, read_cox_rows(plan, site), multiple))
    return SiteSums(list_count_shapes(plan, multiple), plan.masked).post(site, "counts", counts)


def _share_sums(site: Site, plan: CoxPlan, topic: str, cells: PooledCells, model: Payload) -> Payload:
    """This site's sums at the model's coefficients of the scaled columns."""
    placed = _place(plan, cells, site)
    risk = placed.find_risk(np.asarray(model["beta"]))
    own = placed.sum_cells(risk)
    second = placed.sum_products(risk, np.asarray(model["a"]), np.asarray(model["b"]))
    events = placed.event
    sums = {
        **vars(own),
        "second": second[np.triu_indices(plan.p)],
        "linear": placed.sum_events(np.ones(placed.size)),
        "constant": np.asarray(placed.weight[events] @ placed.offset[events]),
    }
    return SiteSums(list_cell_shapes(plan, placed.size), plan.masked).post(site, topic, sums)


def _share_closing(site: Site, plan: CoxPlan, cells: PooledCells, model: Payload) -> Payload:
    """This site's sums at the end, by the risk sets of the pool."""
    rows, beta = read_cox_rows(plan, site), np.asarray(model["best"])
    on_steps = place_rows(plan, rows, cells.multiple)
    placed, (ties, sums) = on_steps.keep_cells(cells.at, plan.strata), find_ties(plan, cells, model)
    risk = placed.find_risk(beta)
    out = {"patients": np.asarray(float(count_patients(rows)))}
    if not plan.design.weights:
        out["pairs"] = on_steps.count_concordance(beta)
    if plan.transform != "none":
        by = transform_cells(plan, cells)
        cross, square = (placed.sum_products(risk, w * ties.a, w * ties.b) for w in (by, by * by))
        out |= pack_drift(placed.sum_events(by), cross, square)
    if plan.options.robust:
        out["meat"] = add_scores(plan, placed, placed.score_rows(risk, ties, sums))
    return SiteSums(list_closing_shapes(plan), plan.masked).post(site, "closing", out)


def _place(plan: CoxPlan, cells: PooledCells, site: Site) -> RiskRows:
    return place_rows(plan, read_cox_rows(plan, site), cells.multiple).keep_cells(cells.at, plan.strata)


# What leaves


def _expose_widths(plan: CoxPlan, pooled: PooledCounts | None, site: Site, payload: Payload) -> Exposure:
    """Which widths pass: bounds on counts, and no count."""
    return _expose(plan, site, pooled, "Which widths of steps pass the floor", first=False)


def _expose_counts(plan: CoxPlan, multiple: int, pooled: PooledCounts | None, site: Site, payload: Payload) -> Exposure:
    """What readers can solve from the counts by step, in the clear of one site."""
    o, grid = plan.options, plan.grid
    tables = () if o.strata is None else (o.strata,)
    times = TimeSteps(o.time, o.event, o.entry or "", tables, grid.width * multiple, grid.steps // multiple, o.cause)
    exposure = _expose(plan, site, pooled, "Counts of events and of other rows that leave, by step of time", first=True)
    if plan.masked:
        return replace(exposure, times=times)
    cells = {
        f"{name} in step {k % times.steps + 1}, stratum {k // times.steps + 1}": round(float(count))
        for name in ("events", "censored", "entries")
        if name in payload
        for k, count in enumerate(np.ravel(payload[name]).tolist())
    }
    kinds = {name: f"{name.split()[0]} by step of {o.time}" for name in cells}
    return replace(exposure, times=times, cells=cells, kinds=kinds)


def _expose_sums(plan: CoxPlan, t: int, pooled: PooledCounts | None, site: Site, payload: Payload) -> Exposure:
    """Sums over risk sets: their differences are sums that passed the floor with the grid."""
    return _expose(plan, site, pooled, f"Sums over risk sets of round {t}", first=False)


def _expose_closing(plan: CoxPlan, pooled: PooledCounts | None, site: Site, payload: Payload) -> Exposure:
    """The same of the sums at the end."""
    return _expose(plan, site, pooled, "Sums at the end", first=False)


def _expose(plan: CoxPlan, site: Site, pooled: PooledCounts | None, what: str, first: bool) -> Exposure:
    exposure = describe_exposure(plan, site, pooled, what, first)
    return exposure if plan.masked else replace(exposure, sums_only=False, parties=0, unopened=False, by_columns=True)


# From the sums of all sites


def pool_cells(plan: CoxPlan, multiple: int, posts: Posts) -> PooledCells:
    """The steps with events, and the risk sets at zero; Separation without events."""
    sums = SiteSums(list_count_shapes(plan, multiple), plan.masked).add(posts)
    for name in ("events", "censored", "entries"):
        if name in sums:
            check_patient_counts(name, sums[name])
    counts = _complete(sums, "")
    if np.any(counts.at_risk < counts.events + counts.censored):
        raise ProtocolError("CO-P508", "More patients leave in a step than are at risk there.")
    check_events(plan, float(counts.entries.sum()), float(counts.events.sum()))
    at = np.flatnonzero(counts.events.ravel())
    masses = _complete(sums, "mass_") if plan.weighs else counts
    weight = sums["event_weight"] if plan.weighs else counts.events
    nothing = np.zeros((len(at), plan.p))
    zero = CellSums(masses.at_risk.ravel()[at], nothing, masses.events.ravel()[at], nothing)
    return PooledCells(multiple, at, counts.events.ravel()[at], weight.ravel()[at], zero, counts)


def _complete(sums: dict[str, Array], prefix: str) -> StepCounts:
    """Counts or weights with their entries, all in the first step if none is late."""
    events, censored = sums[f"{prefix}events"], sums[f"{prefix}censored"]
    entries = sums.get(f"{prefix}entries")
    if entries is None:
        entries = np.zeros_like(events)
        entries[..., 0] = (events + censored).sum(axis=-1)
    return StepCounts(events, censored, entries)


def add_sums(plan: CoxPlan, cells: PooledCells, last: Payload, posts: Posts) -> Payload:
    """The next server post: a Newton-Raphson step, half of the last one again, or the end of the fit."""
    sums = SiteSums(list_cell_shapes(plan, len(cells.at)), plan.masked).add(posts)
    nothing = {"d0": np.zeros(len(cells.at)), "d1": np.zeros((len(cells.at), plan.p))}
    own = CellSums(**{name: np.asarray((nothing | sums)[name]) for name in ("s0", "s1", "d0", "d1")})
    ties, whole = weigh_ties(cells.events, cells.weight, own, plan.efron), np.ones(len(cells.at))
    value = linalg.dot(sums["linear"], np.asarray(last["beta"])) + float(sums["constant"]) - ties.logs
    if falls(last, plan, value):
        model = halve_step(last)
        reached = CellSums(*(np.asarray(last[name]) for name in ("s0", "s1", "d0", "d1")))
        return {**model, **_weigh(plan, cells, reached.predict(np.asarray(model["step"])))}
    information = linalg.symmetric(sums["second"], plan.p) - sum_outer(ties, own, whole)
    again = look_nearer(plan, last, information, sums["linear"] / cells.weight.sum(), float(cells.events.sum()))
    if again is not None:
        return {**again, **_weigh(plan, cells, cells.zero)}
    model = take_step(plan, last, Likelihood(value, sums["linear"] - sum_expected(ties, own, whole), information))
    ahead = own if model["converged"] else own.predict(np.asarray(model["step"]))
    return {**model, **vars(own), **_weigh(plan, cells, ahead)}


def _weigh(plan: CoxPlan, cells: PooledCells, sums: CellSums) -> Payload:
    ties = weigh_ties(cells.events, cells.weight, sums, plan.efron)
    return {"a": ties.a, "b": ties.b}


def find_ties(plan: CoxPlan, cells: PooledCells, model: Payload) -> tuple[TieWeights, CellSums]:
    """The pool's risk sets at the final coefficients."""
    sums = CellSums(*(np.asarray(model[name]) for name in ("s0", "s1", "d0", "d1")))
    return weigh_ties(cells.events, cells.weight, sums, plan.efron), sums


def find_cell_times(plan: CoxPlan, cells: PooledCells) -> Array:
    """The end of each cell's step (c,)."""
    return np.asarray(plan.grid.width * cells.multiple * (cells.at % cells.steps + 1.0))


def transform_cells(plan: CoxPlan, cells: PooledCells) -> Array:
    """The function of time in the test of proportional hazards, by cell (c,)."""
    if plan.transform != "km":
        return transform_times(plan, find_cell_times(plan, cells))
    pool = cells.counts.pool_strata()
    times = np.arange(1.0, cells.steps + 1.0)
    curve = estimate_curve(times, *(values[0] for values in (pool.at_risk, pool.events, pool.censored)))
    return np.asarray(1.0 - np.concatenate([[1.0], curve.survival])[cells.at % cells.steps])


def _add_closing(plan: CoxPlan, cells: PooledCells, model: Payload, posts: Posts) -> Payload:
    """The sums at the end over all sites, with the pool's risk sets taken off."""
    sums = SiteSums(list_closing_shapes(plan), plan.masked).add(posts)
    counts = {"n": np.asarray(sums["patients"]), "events": np.asarray(float(cells.counts.events.sum()))}
    if plan.transform == "none":
        return {**sums, **counts, "converged": np.True_}
    ties, own = find_ties(plan, cells, model)
    by = transform_cells(plan, cells)
    drift = sums["drift"] - sum_expected(ties, own, by)
    pairs = zip(("drift_cross", "drift_square"), (by, by * by), strict=True)
    matrices = [linalg.symmetric(sums[name], plan.p) - sum_outer(ties, own, weight) for name, weight in pairs]
    return {**sums, **pack_drift(drift, *matrices), **counts, "converged": np.True_}
