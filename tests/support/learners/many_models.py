"""Studies of several models on the made-up cohort of `cohorts`, and their rows as sites read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from support.learners import cohorts

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, Data

# Different outcomes, families, options and numbers of rounds.
MODELS: dict[str, dict[str, Any]] = {
    "crude": {"formula": "died ~ male"},
    "adjusted": {"formula": f"died ~ {cohorts.FULL}"},
    "linear": {"formula": f"score ~ {cohorts.FULL}", "family": "gaussian"},
    "counts": {"formula": "visits ~ age + male + offset(years)", "family": "poisson"},
    "robust": {"formula": "died ~ age*male", "robust": "HC3"},
    "firth": {"formula": "died ~ age + stage", "firth": True},
    "ridge": {"formula": "died ~ age + crp", "link": "probit", "ridge": 0.5},
}


def study(models: Mapping[str, Mapping[str, Any]] = MODELS, count: int = 3, **parts: Any) -> Study:
    """A completed study of these models; its masked sums begin at once unless `options` say otherwise."""
    plain = {
        "name": "cohort",
        "sites": list(cohorts.sites(count)),
        "models": [{"name": name, **model} for name, model in models.items()],
        "variables": cohorts.VARIABLES,
        "learner": {"name": "glore", "opening": "none", **parts.pop("options", {})},
        **parts,
    }
    return complete_study(Study.model_validate(plain))


def split(of: Study, codes: cohorts.Codes, sizes: Sequence[int] | None = None) -> dict[str, Data]:
    """The rows of each site as values, of which each model makes its columns."""
    n = len(next(iter(codes.values())))
    parts = cohorts.split_sizes(codes, sizes or cohorts.even_sizes(n, len(of.sites)))
    return {name: ArrayCodes(part) for name, part in zip(of.sites, parts, strict=True)}
