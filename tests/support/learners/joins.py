"""Studies and data for Secure Lasso: columns of partly overlapping patients at owners, a helper without data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie_learners.core.registry import complete_study
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows, Data, OwnColumns

RANGES = ((-8.0, 8.0), (0.0, 40.0), (-5.0, 15.0), (0.0, 1.0), (-2.0, 2.0), (10.0, 90.0))
OUTCOME = (-60.0, 60.0)


@dataclass(frozen=True)
class JoinCohort:
    """The joint patients' table, in the variables' own units, and what each site holds of its own patients."""

    study: Study
    x: Array
    y: Array
    data: Mapping[str, Data]


def variables(columns: int) -> dict[str, Any]:
    """Declared variables x0, x1, ... and y."""
    numbers = {f"x{j}": {"type": "number", "range": RANGES[j % len(RANGES)]} for j in range(columns)}
    return {**numbers, "y": {"type": "number", "range": OUTCOME}}


def draw(n: int, columns: int, seed: int = 1) -> tuple[Array, Array]:
    """Correlated columns inside their ranges, half of which matter, and an outcome."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, columns)) @ (np.eye(columns) + 0.3 * rng.normal(size=(columns, columns)))
    unit = np.clip(mixed / 6.0, -1.0, 1.0)
    low, high = (np.array([RANGES[j % len(RANGES)][k] for j in range(columns)]) for k in (0, 1))
    x = 0.5 * (low + high) + 0.5 * (high - low) * unit
    weights = rng.normal(size=columns) * (np.arange(columns) % 2 == 0)
    y = np.clip(unit @ weights * 40.0 + rng.normal(size=n) * 3.0 + 2.0, *OUTCOME)
    return x, y


def study(
    columns: int,
    holders: Mapping[str, Sequence[str]],
    split: str = "columns",
    sites: Sequence[str] = (),
    **options: Any,
) -> Study:
    """A completed study of y on all columns; `holders` says who holds what, an empty list marking the helper."""
    plain = {
        "name": "joined",
        "sites": list(sites or holders),
        "formula": "y ~ " + " + ".join(f"x{j}" for j in range(columns)),
        "variables": variables(columns),
        "learner": {"name": "secure_lasso", **options},
    }
    if split == "columns":
        plain |= {"columns": {k: tuple(v) for k, v in holders.items()}, "identifier": ("given", "born")}
    return complete_study(Study.model_validate(plain))


def cohort(
    n: int = 120,
    columns: int = 4,
    extra: int = 15,
    owners: Sequence[str] = ("ana", "bob"),
    helper: str = "hub",
    seed: int = 1,
    **options: Any,
) -> JoinCohort:
    """n joint patients; each owner has `extra` others, and its own order of rows; the last owner has the outcome."""
    x, y = draw(n, columns, seed)
    parts = np.array_split(np.arange(columns), len(owners))
    holders: dict[str, list[str]] = {o: [f"x{j}" for j in part] for o, part in zip(owners, parts, strict=True)}
    holders[owners[-1]].append("y")
    holders[helper] = []
    join_study = study(columns, holders, **options)
    rng = np.random.default_rng(seed + 100)
    data = {}
    for k, (owner, part) in enumerate(zip(owners, parts, strict=True)):
        others, other_values = draw(extra, columns, seed + 7 + k)
        order = rng.permutation(n + extra)
        own = np.vstack([x, others])[order]
        names = [(f"Pat {i}", f"19{i % 90:02d}") for i in range(n)]
        names += [(f"Only {owner} {i}", "2001") for i in range(extra)]
        outcome = np.concatenate([y, other_values])[order] if owner == owners[-1] else None
        data[owner] = OwnColumns(
            tuple(names[i] for i in order),
            tuple(f"x{j}" for j in part),
            scale_columns(join_study, own)[:, part],
            outcome,
        )
    return JoinCohort(join_study, x, y, data)


def scale_columns(join_study: Study, x: Array) -> Array:
    """Columns on the inside scale."""
    columns = Design(join_study).columns[1:]
    return (x - [c.centre for c in columns]) / [c.scale for c in columns]


def rows_cohort(n: int = 150, columns: int = 4, sites: int = 3, seed: int = 1, **options: Any) -> JoinCohort:
    """The same table with its rows split over sites."""
    x, y = draw(n, columns, seed)
    names = [f"s{k}" for k in range(sites)]
    join_study = study(columns, {}, "rows", names, **options)
    z = np.column_stack([np.ones(n), x])
    cuts = np.array_split(np.arange(n), sites)
    return JoinCohort(
        join_study, x, y, {name: ArrayRows(z[part], y[part]) for name, part in zip(names, cuts, strict=True)}
    )
