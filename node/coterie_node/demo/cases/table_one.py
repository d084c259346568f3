"""The table of characteristics of NHEFS by sex, with missing values and the rate of death."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coterie_node.analysis.pooled import Reference
from coterie_node.demo.cases import nhefs
from coterie_node.demo.cases.case import Case
from coterie_node.demo.cases.nhefs import MONTHS

_NUMBERS = ("age", "wt71", "smokeyrs", "sbp")
_LEVELS = ("race", "diabetes", "active", "death")
_STUDY = """\
# Characteristics of the NHEFS cohort by sex. All sites approve this file by its hash.
name = "nhefs-characteristics"
title = "NHEFS: characteristics by sex"
sites = [{sites}]
formula = "sex ~ age + wt71 + smokeyrs + sbp + race + diabetes + active + death"

[learner]
name = "table_one"
event = "death"
time = "months"
per = 1000
quantiles = {{ age = {{ width = 5, low = 30, high = 65 }}, smokeyrs = {{ width = 5, low = 5, high = 45 }} }}

[rows]
missing = "keep"

{months}{variables}"""


def _study_text(sites: Sequence[str]) -> str:
    """The study file."""
    return _STUDY.format(sites=nhefs.quote_names(sites), months=MONTHS, variables=nhefs.VARIABLES)


def _write_sites(folder: Path, sites: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site; returns their paths by site."""
    return nhefs.write_months(folder, sites, ("sex", "months", *_NUMBERS, *_LEVELS))


def _fit_pooled() -> Reference:
    """Every number of the table by pandas on all rows."""
    frame = nhefs.load_months()
    groups = {f"sex[{sex}]": frame[frame["sex"] == sex] for sex in nhefs.LEVEL_WORDS["sex"].values()}
    columns = {"overall": frame, **groups}
    values = {f"n: {column}": float(len(part)) for column, part in columns.items()}
    for column, part in columns.items():
        values |= {f"{term}: {column}": value for term, value in _describe(part)}
    values |= {f"{name} SMD": _compare_numbers(*(g[name] for g in groups.values())) for name in _NUMBERS}
    values |= {f"{name} SMD": _compare_levels(*(g[name] for g in groups.values())) for name in _LEVELS}
    return Reference(values)


def _describe(part: Any) -> Iterator[tuple[str, float]]:
    for name in _NUMBERS:
        yield f"{name} mean", float(part[name].mean())
        yield f"{name} sd", float(part[name].std())
        yield f"{name} missing", float(part[name].isna().sum())
    for name in _LEVELS:
        yield from ((f"{name} = {level}", float(n)) for level, n in part[name].value_counts().items())
    grids = {"age": np.arange(30, 66, 5), "smokeyrs": np.arange(5, 46, 5)}
    for (name, ends), p in itertools.product(grids.items(), (0.25, 0.5, 0.75)):
        yield f"{name} quantile {p:g}", _find_quantile(part[name].to_numpy(float), ends, p)
    yield "rate events", float(part["death"].sum())
    yield "rate time", float(part["months"].sum())
    yield "rate rate", 1000.0 * float(part["death"].sum()) / float(part["months"].sum())


def _find_quantile(values: Any, ends: Any, p: float) -> float:
    """The quantile of values that lie evenly in bins (a, b]."""
    reached = np.array([np.mean(values <= end) for end in ends])
    return float(np.interp(p, reached, ends))


def _compare_numbers(a: Any, b: Any) -> float:
    return float(abs(a.mean() - b.mean()) / np.sqrt(0.5 * (a.var() + b.var())))


def _compare_levels(a: Any, b: Any) -> float:
    levels = sorted({*a.unique(), *b.unique()})[1:]
    p, q = (np.array([np.mean(values == level) for level in levels]) for values in (a, b))
    spread = 0.5 * (np.diag(p) - np.outer(p, p) + np.diag(q) - np.outer(q, q))
    return float(np.sqrt((p - q) @ np.linalg.solve(spread, p - q)))


_NOTE = "NHEFS: the blood pressure of 1982 is missing for 77 of 1,629 people."
CASE = Case(nhefs.name_sites, _study_text, _write_sites, _fit_pooled, (_NOTE,))
