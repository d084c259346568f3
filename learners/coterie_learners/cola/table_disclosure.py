"""What a table of covariate patterns discloses: the rows of every pattern, and X'y with its facts on the outcome.

The counts are the table. X'y gives the events with and without every level, and for any pattern whose unit vector is a
combination of the columns (all of them, where there are no more patterns than columns) the events among its rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coterie_learners.core.disclosure import PATTERNS, Exposure, indicators
from coterie_learners.core.payload import Payload
from coterie_learners.core.protocol import Site
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import INTERCEPT, Design

# Relative to the largest singular value; smaller ones are rounding for a reader that solves the equations.
_DETERMINED = 1e-9
# The solving is a singular value decomposition of the table; beyond this only columns are looked at.
_MAX_PATTERNS = 2000


def expose_table(design: Design, raw: Array, table: Payload, n: int, imputed: int, least: int = 0) -> Exposure:
    """What readers can solve from a posted table whose patterns have the design `raw` (m, p), standing on n rows.

    Counts below `imputed` are not those of any patients; patterns of fewer than `least` rows are not in the
    table. Sums of counts and measurements are no counts of patients.
    """
    names = _names(design, raw)
    cells, kinds = {}, {}
    if "n" in table:
        shown = zip(names, table["n"].tolist(), strict=True)
        cells = {name: count for name, count in shown if count >= imputed}
        kinds = dict.fromkeys(cells, PATTERNS)
    if design.outcome.type in ("binary", "category") and "n" in table:
        for level, events in _events(design, raw, table).items():
            for name, count in events.items():
                cells[f"{name} & {level}"] = count
                kinds[f"{name} & {level}"] = f"{design.formula.outcome} by covariates"
    binary = design.outcome.type == "binary"
    return Exposure(
        what="The table of covariate patterns",
        rows=n,
        events=int(table["outcome"]) if binary else None,
        parameters=table["outcome"].size * len(design.columns),
        cells=cells,
        kinds=kinds,
        by_columns=True,
        least_pattern=least,
    )


def list_table_kinds(design: Design) -> tuple[str, ...]:
    """The kinds of counts that a table of covariate patterns shows, by the names of `Exposure.kinds`."""
    counted = design.outcome.type in ("binary", "category")
    return (PATTERNS, f"{design.formula.outcome} by covariates") if counted else (PATTERNS,)


def expose_masked_table(what: str, site: Site, n: int) -> Exposure:
    """What leaves under masks: nothing of this site alone."""
    return Exposure(what=what, rows=n, sums_only=True, parties=len(site.parties))


def _events(design: Design, raw: Array, table: Payload) -> Mapping[str, Mapping[str, int]]:
    """Numbers of rows by value of the outcome and group of patients."""
    n = np.asarray(table["n"], dtype=np.float64)
    source = "s" if "s" in table else "cross"
    sums = np.atleast_2d(table[source])
    totals = np.atleast_1d(table["outcome"])
    rest = n - sums.sum(axis=0) if source == "s" else n @ raw - sums.sum(axis=0)
    everybody = float(n.sum())
    values = [*sums, rest]
    out = {}
    for k, value in enumerate(values):
        total = float(totals[k]) if k < len(totals) else everybody - float(totals.sum())
        shown = _by_pattern(design, raw, value) if source == "s" else _by_column(design, raw, value, total)
        level = design.outcome.levels[(k + 1) % len(values)] if design.outcome.levels else (1, 0)[k]
        out[f"{design.formula.outcome}={level}"] = {"all": round(total), **shown}
    return out


def _by_pattern(design: Design, raw: Array, events: Array) -> dict[str, int]:
    return {name: round(count) for name, count in zip(_names(design, raw), events.tolist(), strict=True)}


def _by_column(design: Design, raw: Array, cross: Array, total: float) -> dict[str, int]:
    """Events in and out of each column of indicators, in first levels, and in the patterns that X'y determines."""
    at = indicators(design)
    cells = {}
    for j in at:
        name = design.names[j]
        cells[f"{name}=1"], cells[f"{name}=0"] = round(float(cross[j])), round(total - float(cross[j]))
    for variable in {f.variable for j in at for f in design.columns[j].factors if f.level is not None}:
        own_columns = [j for j in at if [f.variable for f in design.columns[j].factors] == [variable]]
        cells[f"{variable}, first level"] = round(total - float(sum(cross[j] for j in own_columns)))
    return cells | _find_determined(design, raw, cross)


def _find_determined(design: Design, raw: Array, cross: Array) -> dict[str, int]:
    """Events of the patterns whose number is the same in all tables with this X'y."""
    if not 0 < len(raw) <= _MAX_PATTERNS:
        return {}
    left, size, right = np.linalg.svd(raw, full_matrices=False)
    keep = size > _DETERMINED * size[0]
    left, size, right = left[:, keep], size[keep], right[keep]
    fixed = np.flatnonzero(1.0 - np.sum(left * left, axis=1) < _DETERMINED)
    solved = (left[fixed] / size) @ (right @ cross)
    names = _names(design, raw[fixed])
    return {name: round(value) for name, value in zip(names, solved.tolist(), strict=True)}


def _names(design: Design, raw: Array) -> list[str]:
    columns = [(j, name) for j, name in enumerate(design.names) if name != INTERCEPT]
    return ["pattern " + ", ".join(f"{name}={row[j]:g}" for j, name in columns) for row in raw.tolist()]
