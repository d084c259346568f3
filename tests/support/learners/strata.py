"""Patients whose covariates are categories: studies of COLA-GLM and its secure form, their rows, and pooled fits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import statsmodels.api as sm
from scipy import stats
from support.learners import cohorts
from support.learners.cohorts import Array, Codes
from support.learners.pooled import LINKS

from coterie_learners.core.registry import complete_study
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes

N = 600
LEVELS = ("I", "II", "III")
VARIABLES: dict[str, dict[str, Any]] = {
    "died": {"type": "binary"},
    "visits": {"type": "count", "range": [0, 1000]},
    "stay": {"type": "number", "range": [-50, 50]},
    "went": {"type": "category", "levels": ["home", "care", "other"]},
    "male": {"type": "binary"},
    "smoker": {"type": "binary"},
    "stage": {"type": "category", "levels": list(LEVELS)},
    "drugs": {"type": "count", "range": [0, 4]},
    "dose": {"type": "number", "range": [0, 2]},
    "years": {"type": "number", "range": [-3, 3]},
}
FULL = "male + smoker + stage + drugs + dose"
GRIDS = {"dose": [0.0, 0.25, 1.0, 2.0]}
LAWS = {"quasibinomial": "binomial", "quasipoisson": "poisson"}
FAMILIES = {"binomial": sm.families.Binomial, "poisson": sm.families.Poisson, "gaussian": sm.families.Gaussian}


def study(
    formula: str = f"died ~ {FULL}", count: int = 3, learner: str = "cola", floor: int = 0, **options: Any
) -> Study:
    """A completed study; `options` are the learner's, `floor` the study's least cell.

    The sums of secure_cola begin at once, so that they can be looked at; a study for a gate has opening="counts".
    """
    if learner == "secure_cola":
        options = {"opening": "none", **options}
    if "dose" in formula and "grids" not in options:
        options["grids"] = GRIDS
    plain = {
        "name": "strata",
        "sites": list(cohorts.sites(count)),
        "formula": formula,
        "variables": VARIABLES,
        "disclosure": {"cell": floor},
        "learner": {"name": learner, **options},
    }
    return _complete_study(json.dumps(plain))


@cache
def _complete_study(plain: str) -> Study:
    return complete_study(Study.model_validate_json(plain))


def draw(n: int = N, seed: int = 1) -> Codes:
    """Rows of all variables."""
    rng = np.random.default_rng(seed)
    codes = {
        "male": rng.integers(0, 2, n).astype(float),
        "smoker": (rng.random(n) < 0.3).astype(float),
        "stage": rng.choice(3, n, p=[0.5, 0.3, 0.2]).astype(float),
        "drugs": rng.integers(0, 5, n).astype(float),
        "dose": rng.choice(GRIDS["dose"], n),
        "years": np.round(rng.uniform(-1, 1, n), 2),
    }
    eta = matrix(codes) @ np.array([-1.0, 0.5, 0.4, 0.3, 0.8, 0.1, -0.3])
    codes["died"] = (rng.random(n) < 1 / (1 + np.exp(-eta))).astype(float)
    codes["visits"] = rng.poisson(np.exp(eta + codes["years"])).astype(float)
    codes["stay"] = eta + rng.normal(size=n)
    codes["went"] = np.where(codes["died"] == 1, 2.0, rng.integers(0, 2, n))
    return codes


def matrix(codes: Codes) -> Array:
    """The design of FULL by hand, in the variables' own units."""
    stage = codes["stage"]
    columns = [
        np.ones_like(stage),
        codes["male"],
        codes["smoker"],
        stage == 1,
        stage == 2,
        codes["drugs"],
        codes["dose"],
    ]
    return np.column_stack(columns).astype(float)


def split(of: Study, codes: Codes, sizes: Sequence[int] | None = None) -> dict[str, ArrayCodes]:
    """The rows dealt to the study's sites."""
    parts = cohorts.split_sizes(codes, sizes or cohorts.even_sizes(len(codes["died"]), len(of.sites)))
    return {name: ArrayCodes(part) for name, part in zip(of.sites, parts, strict=True)}


def pooled(of: Study, codes: Codes, x: Array | None = None) -> Any:
    """statsmodels' fit on all rows."""
    formula, options = Design(of).formula, of.learner.options
    law = LAWS.get(options["family"], options["family"])
    link = options["link"] or {"binomial": "logit", "poisson": "log", "gaussian": "identity"}[law]
    offset = None if formula.offset is None else codes[formula.offset]
    model = sm.GLM(
        codes[formula.outcome],
        matrix(codes) if x is None else x,
        family=FAMILIES[law](link=LINKS[link]()),
        offset=offset,
    )
    scale = "X2" if options["family"] in LAWS else None
    kind = "HC0" if options["robust"] else "nonrobust"
    # Its own measure, the deviance, stops far too early where convergence is linear.
    return model.fit(tol=1e-14, tol_criterion="params", maxiter=500, scale=scale, cov_type=kind)


def newton(x: Array, u: Array, s: Array, firth: bool = False) -> Array:
    """Logistic regression of events s among u rows by plain numpy; with Firth's score, written anew."""
    beta = np.zeros(x.shape[1])
    for _ in range(2000):
        mean = 1 / (1 + np.exp(-(x @ beta)))
        w = u * mean * (1 - mean)
        information = (x.T * w) @ x
        leverage = w * np.einsum("ij,jk,ik->i", x, np.linalg.inv(information), x)
        move = np.linalg.solve(information, x.T @ (s - u * mean + (leverage * (0.5 - mean) if firth else 0.0)))
        beta = beta + move * min(1.0, 2.0 / np.abs(move).max())
        if np.abs(move).max() < 1e-14:
            break
    return beta


def sandwich(codes: Codes, beta: Array) -> Array:
    """HC0 errors of the probit model, with the expected information as R takes it (statsmodels: observed)."""
    x, y = matrix(codes), codes["died"]
    eta = x @ beta
    mean, slope = stats.norm.cdf(eta), stats.norm.pdf(eta)
    variance = mean * (1 - mean)
    bread = np.linalg.inv((x.T * (slope**2 / variance)) @ x)
    meat = (x.T * ((y - mean) * slope / variance) ** 2) @ x
    return np.asarray(np.sqrt(np.diag(bread @ meat @ bread)))


def rows_of(table: Mapping[str, Any]) -> int:
    """Rows in a posted table."""
    return int(np.sum(table["n"]))
