"""Studies and data for Secure GLM: rows at hospitals with a helper, and the same patients' columns at owners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import statsmodels.api as sm
from scipy.special import expit

from coterie_learners.core.registry import complete_study
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows, Data, OwnColumns
from coterie_node.analysis.pooled import Reference

HELPER = "hub"


@dataclass(frozen=True)
class GlmCohort:
    """The pooled table (n, m) in own units with its outcome, and what each site holds of it."""

    study: Study
    x: Array
    y: Array
    data: Mapping[str, Data]
    offset: Array | None = None

    @property
    def pooled(self) -> Reference:
        """statsmodels' GLM on the pooled rows."""
        design = np.column_stack([np.ones(len(self.x)), self.x])
        fit = sm.GLM(self.y, design, family=sm.families.Binomial(), offset=self.offset).fit(tol=1e-13, maxiter=100)
        names = Design(self.study).names
        return Reference(
            dict(zip(names, fit.params.tolist(), strict=True)), dict(zip(names, fit.bse.tolist(), strict=True))
        )


def draw_patients(n: int, m: int, seed: int = 1) -> tuple[Array, Array]:
    """Ages (number), counts and binary columns by turns, correlated, and an outcome that depends on them."""
    rng = np.random.default_rng(seed)
    mixed = 0.6 * rng.normal(size=(n, 1)) + 0.8 * rng.normal(size=(n, m))
    kinds = (lambda v: np.clip(60.0 + 9.0 * v, 20.0, 100.0), lambda v: np.clip(np.rint(3.0 + 1.5 * v), 0.0, 9.0))
    x = np.column_stack([kinds[j % 3](mixed[:, j]) if j % 3 < 2 else mixed[:, j] > 0.4 for j in range(m)])
    eta = -0.6 + mixed @ (0.5 * rng.normal(size=m))
    return x, (rng.random(n) < expit(eta)).astype(float)


def declare_variables(m: int) -> dict[str, Any]:
    kinds: list[dict[str, Any]] = [
        {"type": "number", "range": [20, 100]},
        {"type": "count", "range": [0, 9]},
        {"type": "binary"},
    ]
    return {f"x{j}": kinds[j % 3] for j in range(m)} | {"y": {"type": "binary"}}


def make_study(m: int, sites: Sequence[str], learner: str = "secure_glm", **parts: Any) -> Study:
    """A completed study of y on all columns; `options` are the learner's, the rest goes into the document."""
    options = parts.pop("options", {})
    plain = {
        "name": "logistic",
        "sites": list(sites),
        "formula": parts.pop("formula", "y ~ " + " + ".join(f"x{j}" for j in range(m))),
        "variables": parts.pop("variables", declare_variables(m)),
        "learner": {"name": learner, **options},
    }
    return complete_study(Study.model_validate({**plain, **parts}))


def rows_cohort(n: int = 260, m: int = 3, hospitals: int = 2, seed: int = 1, **options: Any) -> GlmCohort:
    """Rows split over hospitals; two of them have a helper."""
    x, y = draw_patients(n, m, seed)
    names = [f"s{k}" for k in range(hospitals)]
    helpers = [HELPER] if hospitals == 2 else []
    study = make_study(m, [*names, *helpers], helpers=helpers, options=options)
    design = np.column_stack([np.ones(n), x])
    cuts = np.array_split(np.arange(n), hospitals)
    return GlmCohort(study, x, y, {s: ArrayRows(design[c], y[c]) for s, c in zip(names, cuts, strict=True)})


def columns_cohort(
    n: int = 260, m: int = 3, owners: Sequence[str] = ("ana", "bob"), extra: int = 12, seed: int = 1, **options: Any
) -> GlmCohort:
    """The same patients' columns at owners; the last of them has the outcome; each has some other patients too."""
    x, y = draw_patients(n, m, seed)
    parts = np.array_split(np.arange(m), len(owners))
    holders = {o: [f"x{j}" for j in part] for o, part in zip(owners, parts, strict=True)}
    holders[owners[-1]].append("y")
    columns = {**holders, HELPER: []}
    study = make_study(m, list(columns), columns=columns, identifier=["code"], options=options)
    scaled, rng, data = Design(study).columns[1:], np.random.default_rng(seed + 50), {}
    for k, (owner, part) in enumerate(zip(owners, parts, strict=True)):
        more, outcomes = draw_patients(extra, m, seed + 9 + k)
        order = rng.permutation(n + extra)
        own = (np.vstack([x, more]) - [c.centre for c in scaled]) / [c.scale for c in scaled]
        codes = [(f"P{i}",) for i in range(n)] + [(f"{owner}{i}",) for i in range(extra)]
        outcome = np.concatenate([y, outcomes])[order] if owner == owners[-1] else None
        names = tuple(f"x{j}" for j in part)
        data[owner] = OwnColumns(tuple(codes[i] for i in order), names, own[order][:, part], outcome)
    return GlmCohort(study, x, y, data)
