"""The result of a table of characteristics: its lines as details, and each of its numbers as a term."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from coterie_learners.core.fit import LEVEL, Fit
from coterie_learners.core.masked_sum import UNIT
from coterie_learners.core.protocol import Posts
from coterie_learners.numeric.array import Array
from coterie_learners.table_one.shown_items import Shown
from coterie_learners.table_one.statistics import (
    TABLE_QUANTILES,
    NumberMoments,
    average_pairs,
    compare_means,
    compare_shares,
    find_binned_quantile,
    find_moments,
    limit_rate,
    limit_share,
)
from coterie_learners.table_one.table_plan import Bins, Line

OVERALL = "overall"
_Cell = dict[str, Any]


@dataclass(frozen=True)
class TableNumbers:
    """The pooled counts, sums and squares of what is shown."""

    shown: Shown
    payload: Mapping[str, Any]

    @cached_property
    def counts(self) -> dict[tuple[str, str], Array]:
        """Counts (s, ...) by kind and name."""
        return self.shown.read_counts(np.asarray(self.payload["counts"]))

    @cached_property
    def sums(self) -> dict[tuple[str, str], Array]:
        """Sums (s,) by kind and name."""
        return self.shown.read_sums(np.asarray(self.payload["sums"]))

    @cached_property
    def squares(self) -> dict[tuple[str, str], Array]:
        """Squares (s,) about the means."""
        return self.shown.read_sums(np.asarray(self.payload["squares"]))

    def by_column(self, values: Array) -> list[Array | None]:
        """Values (s, ...) of all patients, then of each group; None for groups that are not shown."""
        groups = len(self.shown.plan.groups)
        parts: list[Array | None] = list(values) if len(values) > 1 else [None] * groups
        return [values.sum(axis=0), *parts]

    def list_moments(self, line: Line) -> list[NumberMoments | None]:
        """NumberMoments of a number in all patients, then in each group."""
        n, sums = self.counts["number", line.name][:, 0], self.sums["number", line.name]
        squares = self.squares["number", line.name]
        (low, high), plan = line.variable.bounds, self.shown.plan
        place, noise = (0.5 * (low + high), 0.5 * (high - low)), len(plan.study.sites) * UNIT if plan.masked else 0.0
        parts = zip(n.tolist(), sums.tolist(), squares.tolist(), strict=True)
        moments = [find_moments(*part, place, noise) for part in parts]
        overall = find_moments(*_merge(n, sums, squares), place, noise * len(moments))
        return [overall, *(moments if len(moments) > 1 else [None] * len(plan.groups))]


def _merge(n: Array, sums: Array, squares: Array) -> tuple[float, float, float]:
    """Number, sum and squares about the mean of several parts together (Chan, Golub and LeVeque 1983)."""
    total, whole = float(n.sum()), float(sums.sum())
    means = sums / np.where(n > 0, n, 1.0)
    mean = whole / total if total > 0 else 0.0
    return total, whole, math.fsum([*squares.tolist(), *(n * (means - mean) ** 2).tolist()])


def build_characteristics(
    shown: Shown, payload: Mapping[str, Any], columns: Shown | None = None, own: Posts = MappingProxyType({})
) -> Fit:
    """The result, from the pooled counts and sums, and the sites' own where each shows its `columns`."""
    numbers, plan = TableNumbers(shown, payload), shown.plan
    lines = [_describe_line(numbers, line) for line in plan.lines]
    rate = _describe_rate(numbers) if plan.has_rate else None
    patients = [None if n is None else int(n[0]) for n in numbers.by_column(numbers.counts["patients", ""])]
    table = {"columns": [OVERALL, *plan.groups], "n": patients, "lines": lines, "rate": rate, "level": LEVEL}
    table |= {} if columns is None else _describe_sites(table, [TableNumbers(columns, post) for post in own.values()])
    table["sites"] = list(own)
    terms = dict(_list_terms(table))
    return Fit(
        learner="table_one",
        family="characteristics",
        link=f"by {plan.group.name}" if plan.group is not None else "of all patients",
        terms=tuple(terms),
        estimates=np.array(list(terms.values())),
        covariance=None,
        n=int(patients[0] or 0),
        events=None,
        rounds=2,
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=None,
        null_deviance=None,
        log_likelihood=None,
        notes=(*_write_notes(shown), *_doubt_deviations(numbers)),
        details={"table": table},
        selected=True,
    )


def _describe_sites(table: Mapping[str, Any], sites: Sequence[TableNumbers]) -> dict[str, Any]:
    """The table with a cell of each site in every line, in the order of its columns; None for what is not shown."""
    plan = sites[0].shown.plan
    n = [int(site.counts["patients", ""].sum()) if ("patients", "") in site.counts else None for site in sites]
    own = [[_first_cell(_describe_line(site, line)) for site in sites] for line in plan.lines]
    lines = [{**line, "site_cells": cells} for line, cells in zip(table["lines"], own, strict=True)]
    rate = table["rate"]
    if rate is not None:
        rate = {**rate, "site_cells": [_first_cell(_describe_rate(site)) for site in sites]}
    return {"site_n": n, "lines": lines, "rate": rate}


def _first_cell(part: Mapping[str, Any] | None) -> _Cell | None:
    return part["cells"][0] if part and part["cells"] else None


def _describe_line(numbers: TableNumbers, line: Line) -> dict[str, Any]:
    kind = "levels" if line.levels else "number"
    way = numbers.shown.find_way(kind, line.name)
    base = {"name": line.name, "label": line.variable.label, "unit": line.variable.unit, "kind": kind}
    grouped = way is not None and (way.grouped or not numbers.shown.plan.groups)
    base |= {"shown": "nothing" if way is None else "groups" if grouped else OVERALL}
    if way is None:
        return base | {"cells": None, "smd": None, "smd_pairs": None}
    return base | (_describe_levels(numbers, line) if line.levels else _describe_number(numbers, line))


def _describe_levels(numbers: TableNumbers, line: Line) -> dict[str, Any]:
    columns, size = numbers.by_column(numbers.counts["levels", line.name]), len(line.levels)
    cells = [None if column is None else _describe_shares(column, size) for column in columns]
    groups = [column[:size] for column in columns[1:] if column is not None]
    pairs = [compare_shares(a, b) for a, b in itertools.combinations(groups, 2)]
    return {"levels": list(line.levels), "cells": cells, **_describe_differences(pairs)}


def _describe_shares(column: Array, size: int) -> _Cell:
    counts, n = column[:size].tolist(), float(column[:size].sum())
    limits = [limit_share(count, n) for count in counts]
    return {
        "n": int(n),
        "missing": int(column[size]) if len(column) > size else 0,
        "counts": [int(count) for count in counts],
        "percent": [100.0 * count / n if n else math.nan for count in counts],
        "low": [100.0 * low for low, _ in limits],
        "high": [100.0 * high for _, high in limits],
    }


def _describe_number(numbers: TableNumbers, line: Line) -> dict[str, Any]:
    moments, counts = numbers.list_moments(line), numbers.by_column(numbers.counts["number", line.name])
    quantiles, width = _describe_quantiles(numbers, line)
    cells = [
        None if m is None or c is None else {**_describe_moments(m, c), "quantiles": q}
        for m, c, q in zip(moments, counts, quantiles, strict=True)
    ]
    groups = [m for m in moments[1:] if m is not None]
    pairs = [compare_means(a, b) for a, b in itertools.combinations(groups, 2)]
    return {"cells": cells, "width": width, **_describe_differences(pairs)}


def _describe_moments(moments: NumberMoments, counts: Array) -> _Cell:
    missing = int(counts[1]) if len(counts) > 1 else 0
    return {"n": int(moments.n), "missing": missing, "mean": moments.mean, "sd": moments.sd}


def _describe_quantiles(numbers: TableNumbers, line: Line) -> tuple[list[list[_Cell] | None], float | None]:
    """The quantiles of each column, and the width of the bins; None for what is not shown."""
    way = numbers.shown.find_way("bins", line.name)
    if way is None:
        return [None] * (1 + len(numbers.shown.plan.groups)), None
    bins = numbers.shown.plan.bins[line.name]
    columns = numbers.by_column(numbers.counts["bins", line.name])
    described = [None if column is None else _describe_bins(bins, way.multiple, column) for column in columns]
    return described, bins.width * way.multiple


def _describe_bins(bins: Bins, multiple: int, column: Array) -> list[_Cell]:
    quantiles = ((p, *find_binned_quantile(bins, multiple, column, p)) for p in TABLE_QUANTILES)
    return [dict(zip(("p", "value", "low", "high"), quantile, strict=True)) for quantile in quantiles]


def _describe_differences(pairs: Sequence[float]) -> dict[str, Any]:
    return {"smd": average_pairs(pairs) if pairs else None, "smd_pairs": list(pairs)}


def _describe_rate(numbers: TableNumbers) -> dict[str, Any] | None:
    options, study = numbers.shown.plan.options, numbers.shown.plan.study
    event, time = str(options.event), str(options.time)
    if numbers.shown.find_way("rate", event) is None:
        return None
    scale = study.variables[time].bounds[1]
    counts, times = numbers.by_column(numbers.counts["rate", event]), numbers.by_column(numbers.sums["rate", event])
    cells = [
        None if c is None or t is None else _describe_events(c, scale * float(t), options.per)
        for c, t in zip(counts, times, strict=True)
    ]
    return {"event": event, "time": time, "unit": study.variables[time].unit, "per": options.per, "cells": cells}


def _describe_events(counts: Array, time: float, per: float) -> _Cell:
    """Events of the patients whose event is known: their prevalence in percent, and their rate, with exact limits."""
    events, n = float(counts[1]), float(counts[:2].sum())
    (low, high), share = limit_rate(events, time), limit_share(events, n)
    rate = events / time if time > 0 else math.nan
    prevalence = {"percent": 100.0 * events / n if n else math.nan}
    prevalence |= {f"percent_{end}": 100.0 * limit for end, limit in zip(("low", "high"), share, strict=True)}
    counted = {"n": int(n), "events": int(events), **prevalence, "time": time}
    return {**counted, "rate": per * rate, "low": per * low, "high": per * high}


# Every number by a name of its own


def _list_terms(table: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    columns = [*table["columns"], *table["sites"]]
    for column, n in zip(columns, [*table["n"], *table.get("site_n", ())], strict=True):
        if n is not None:
            yield f"n: {column}", float(n)
    for line in table["lines"]:
        for column, cell in zip(columns, list_cells(line), strict=bool(line["cells"])):
            for name, value in _list_cell(line, cell or {}):
                yield f"{line['name']} {name}: {column}", value
        if line["smd"] is not None and math.isfinite(line["smd"]):
            yield f"{line['name']} SMD", line["smd"]
    for column, cell in zip(columns, list_cells(table["rate"] or {}), strict=bool(table["rate"])):
        for name in ("events", "time", "rate"):
            if cell and math.isfinite(cell[name]):
                yield f"rate {name}: {column}", float(cell[name])


def list_cells(part: Mapping[str, Any]) -> list[_Cell | None]:
    """The cells of a line or of the rate: all patients, each group, each site; none of what is not shown."""
    return [*(part.get("cells") or ()), *(part.get("site_cells") or ())] if part.get("cells") else []


def _list_cell(line: Mapping[str, Any], cell: _Cell) -> Iterator[tuple[str, float]]:
    for level, count in zip(line.get("levels", ()), cell.get("counts", ()), strict=True) if cell else ():
        yield f"= {level}", float(count)
    if cell.get("missing"):
        yield "missing", float(cell["missing"])
    for name in ("mean", "sd"):
        if name in cell and math.isfinite(cell[name]):
            yield name, cell[name]
    for quantile in cell.get("quantiles") or ():
        if math.isfinite(quantile["value"]):
            yield f"quantile {quantile['p']:g}", quantile["value"]


def _write_notes(shown: Shown) -> Iterator[str]:
    plan = shown.plan
    below = f"would show a count of a site from 1 to {plan.floor - 1}, or a patient's value"
    for item, way in zip(plan.items, shown.ways, strict=True):
        name = {"patients": "Patients", "bins": f"Quantiles of {item.name}", "rate": "Rate"}.get(item.kind, item.name)
        if way is None:
            yield f"{name}: not shown, as it {below}."
        elif plan.groups and not way.grouped:
            yield f"{name}: shown for all patients alone, as groups {below}."
        if way is not None and item.kind == "bins":
            yield f"{name} are of bins of {plan.bins[item.name].width * way.multiple:g}{_name_unit(shown, item.name)}."
    if plan.groups:
        pairs = ", the mean over all pairs of groups" if len(plan.groups) > 2 else ""
        yield f"SMD: standardised mean difference{pairs}, without missing values."


def _doubt_deviations(numbers: TableNumbers) -> Iterator[str]:
    """Of which numbers a standard deviation is lost in the width of the declared range, or most of its digits."""
    for line in numbers.shown.plan.lines:
        if line.levels or numbers.shown.find_way("number", line.name) is None:
            continue
        unclear = [m for m in numbers.list_moments(line) if m is not None and m.is_unclear]
        if unclear:
            least, unit = max(m.least for m in unclear), _name_unit(numbers.shown, line.name)
            yield (
                f"{line.name}: sums over its declared range cannot tell a standard deviation below {least:.2g}{unit}, "
                "so that few digits of it are sure, or none. Declare a narrower range."
            )


def _name_unit(shown: Shown, name: str) -> str:
    unit = shown.plan.design.declared[name].unit
    return f" {unit}" if unit else ""
