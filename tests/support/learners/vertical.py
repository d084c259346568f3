"""Patients whose variables lie at different sites: cohorts, their studies, each site's own columns, and pooled fits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import statsmodels.api as sm
from support.learners.cohorts import Array, Codes

from coterie_learners.core.registry import complete_study
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import OwnColumns

NUMBER = {"type": "number", "range": [-6, 6]}
# Three sites with three measurements and three findings each; north holds the outcome as well.
COLUMNS_BY_SITE = {
    "north": ("died", "a1", "a2", "a3", "p1", "p2", "p3"),
    "south": ("b1", "b2", "b3", "q1", "q2", "q3"),
    "east": ("c1", "c2", "c3", "r1", "r2", "r3"),
}


def study(
    columns_by_site: Mapping[str, Sequence[str]] = COLUMNS_BY_SITE,
    learner: str = "vertigo",
    formula: str | None = None,
    rows: Mapping[str, Any] | None = None,
    **options: Any,
) -> Study:
    """A completed study on split columns; names that begin with p, q or r are binary. `options` are the learner's."""
    names = [name for site in columns_by_site.values() for name in site]
    variables = {name: NUMBER if name[0] in "abc" else {"type": "binary"} for name in names}
    plain = {
        "name": "split",
        "sites": list(columns_by_site),
        "formula": formula or "died ~ " + " + ".join(name for name in names if name != "died"),
        "variables": variables,
        "columns": {site: list(own) for site, own in columns_by_site.items()},
        "identifier": ["code"],
        "learner": {"name": learner, **options},
        "disclosure": {"rebuild": "allow"},
        "rows": dict(rows or {}),
    }
    return complete_study(Study.model_validate_json(json.dumps(plain)))


def draw(
    n: int, seed: int = 7, columns_by_site: Mapping[str, Sequence[str]] = COLUMNS_BY_SITE, effect: float = 0.5
) -> Codes:
    """Correlated measurements, findings of 10 to 60 per cent, and an outcome that depends on all of them."""
    rng = np.random.default_rng(seed)
    names = [name for site in columns_by_site.values() for name in site if name != "died"]
    numbers = [name for name in names if name[0] in "abc"]
    mixed = rng.standard_normal((n, len(numbers))) @ (
        np.eye(len(numbers)) + 0.1 * rng.standard_normal((len(numbers),) * 2)
    )
    codes = {name: np.clip(column, -6, 6) for name, column in zip(numbers, mixed.T, strict=True)}
    for name in names:
        if name not in codes:
            codes[name] = (rng.random(n) < rng.uniform(0.1, 0.6)).astype(float)
    x = np.column_stack([codes[name] for name in names])
    eta = -0.4 + (x - x.mean(axis=0)) @ rng.normal(0, effect, len(names))
    codes["died"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    return codes


def split(of: Study, codes: Codes, seed: int = 3) -> dict[str, OwnColumns]:
    """Each site's own columns, in an order of its own."""
    n, rng = len(next(iter(codes.values()))), np.random.default_rng(seed)
    identifiers = [(f"patient {k:05d}",) for k in range(n)]
    out = {}
    for name in of.sites:
        design, order = Design(of, name), rng.permutation(n)
        own = {variable: codes[variable][order] for variable in design.variables}
        people = tuple(identifiers[k] for k in order)
        outcome, offset = (own.get(name or "") for name in (design.formula.outcome, design.formula.offset))
        out[name] = OwnColumns(people, design.names, design.matrix(own, n), outcome, offset)
    return out


def matrix(of: Study, codes: Codes) -> Array:
    """The pooled design in the variables' own units (main effects of numbers and binary variables)."""
    columns = [np.ones(len(codes["died"])) if name == "(Intercept)" else codes[name] for name in Design(of).names]
    return np.column_stack(columns)


def pooled(of: Study, codes: Codes) -> tuple[Array, Array]:
    """statsmodels' estimates and standard errors on the joined columns."""
    done = sm.Logit(codes["died"], matrix(of, codes)).fit(disp=0, method="newton", tol=1e-14, maxiter=100)
    return np.asarray(done.params), np.asarray(done.bse)
