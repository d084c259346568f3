"""Patients by numbers: cohorts drawn from a seed, their studies, their rows split over sites, and pooled fits.

Numbers have about unit spread, so that absolute tolerances mean the same in every test. The pooled fits know nothing
of federation: they see all rows at once, in the variables' own units.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.registry import complete_study
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows, Rows

Array = NDArray[np.float64]
Codes = dict[str, Array]

NAMES = ("north", "south", "east", "west", "mid")
VARIABLES: dict[str, dict[str, Any]] = {
    "died": {"type": "binary"},
    "visits": {"type": "count", "range": [0, 1000]},
    "score": {"type": "number", "range": [-50, 50]},
    "age": {"type": "number", "range": [-5, 5]},
    "crp": {"type": "number", "range": [-4, 6]},
    "male": {"type": "binary"},
    "stage": {"type": "category", "levels": ["I", "II", "III"]},
    "years": {"type": "number", "range": [-3, 3]},
}
FORMULA = "died ~ age + crp + male + stage"
TRUTH = np.array([-0.4, 0.5, -0.3, 0.4, 0.3, -0.5])
FULL = "age + crp + male + stage"


def sites(count: int) -> tuple[str, ...]:
    """Names of that many sites, not in alphabetical order."""
    return NAMES[:count] if count <= len(NAMES) else tuple(f"site-{k * 7 % count}" for k in range(count))


def study(formula: str = FORMULA, count: int = 3, variables: Mapping[str, Any] | None = None, **options: Any) -> Study:
    """A completed GLORE study; `options` are the learner's, `variables` replace declared ones.

    Its masked sums begin at once, so that the rounds can be looked at; a study for a gate has opening="counts".
    """
    plain = {
        "name": "cohort",
        "sites": list(sites(count)),
        "formula": formula,
        "variables": {**VARIABLES, **(variables or {})},
        "learner": {"name": "glore", "opening": "none", **options},
    }
    return _complete_study(json.dumps(plain))


@cache
def _complete_study(plain: str) -> Study:
    # Looking for the learner among all that is installed takes longer than many a test.
    return complete_study(Study.model_validate_json(plain))


def draw(n: int, seed: int = 1, family: str = "binomial", shift: float = 0.0) -> Codes:
    """Rows of the declared variables with an outcome of that family; `shift` moves the linear predictor."""
    rng = np.random.default_rng(seed)
    codes = {
        "age": np.clip(rng.normal(size=n), -5, 5),
        "crp": np.clip(rng.normal(size=n), -4, 6),
        "male": rng.integers(0, 2, n).astype(float),
        "stage": rng.integers(0, 3, n).astype(float),
        "years": rng.uniform(-1, 1, n),
    }
    eta = shift + matrix(codes) @ TRUTH
    codes["died"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    codes["visits"] = rng.poisson(np.exp(eta + codes["years"])).astype(float)
    codes["score"] = eta + rng.normal(size=n)
    return codes


def matrix(codes: Codes) -> Array:
    """The design of FORMULA by hand: intercept, age, crp, male, stage II, stage III."""
    stage = codes["stage"]
    columns = [np.ones_like(stage), codes["age"], codes["crp"], codes["male"], stage == 1, stage == 2]
    return np.column_stack(columns).astype(float)


def split_sizes(codes: Codes, sizes: Sequence[int]) -> list[Codes]:
    """The rows in consecutive parts of these sizes."""
    ends = np.cumsum(sizes)[:-1]
    parts = {name: np.split(column, ends) for name, column in codes.items()}
    return [{name: part[k] for name, part in parts.items()} for k in range(len(sizes))]


def even_sizes(n: int, count: int) -> list[int]:
    """Sizes of `count` parts as equal as can be."""
    return [len(part) for part in np.array_split(np.arange(n), count)]


def rows(of: Study, codes: Codes) -> Rows:
    """Rows as a learner sees them."""
    return ArrayRows.of(Design(of).block(codes))


def split(of: Study, codes: Codes, sizes: Sequence[int] | None = None) -> dict[str, Rows]:
    """The cohort's rows dealt to the study's sites."""
    n = len(next(iter(codes.values())))
    parts = split_sizes(codes, sizes or even_sizes(n, len(of.sites)))
    return {name: rows(of, part) for name, part in zip(of.sites, parts, strict=True)}
