"""Digits of fits against the same model on all rows: no figure of an earlier comparison may become worse.

Each line is a model that was once compared with R's glm, statsmodels and scikit-learn: its sites, its learners, and how
far it was off. The rows are drawn here with the shape of those. The reference is Newton's method on all rows in
numbers of 64 bits of fraction (numpy's longdouble), so that it is better than what is measured.
`python benchmarks/digits.py [FILTER]`; exit status 1 if a figure is worse than its bound.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr

from coterie_learners.core.fit import Fit
from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse

Long = NDArray[np.longdouble]
SITES = "abcdefgh"
ROOT_2PI = np.sqrt(2.0 * np.longdouble(np.pi))


@dataclass(frozen=True)
class Case:
    """A model, how its rows are dealt to sites, and the bounds: estimates in standard errors, errors, deviances."""

    rows: Callable[[], pd.DataFrame]
    formula: str
    learners: Sequence[Mapping[str, Any]]
    bounds: tuple[float, float, float]
    shares: Sequence[float] = (1, 1, 1)
    family: str = "binomial"
    link: str = "logit"
    split: Mapping[str, Sequence[str]] = field(default_factory=dict)
    ridge: float = 0.0


# The reference


def curve(link: str, eta: Long) -> tuple[Long, Long]:
    """Mean and its derivative at a predictor."""
    if link == "logit":
        mean: Long = np.asarray(1 / (1 + np.exp(-eta)), dtype=np.longdouble)
        return mean, mean * (1 - mean)
    if link == "probit":
        return normal(eta), np.exp(-eta * eta / 2) / ROOT_2PI
    if link == "cloglog":
        return -np.expm1(-np.exp(eta)), np.exp(eta - np.exp(eta))
    return (np.exp(eta), np.exp(eta)) if link == "log" else (eta, np.ones_like(eta))


def normal(eta: Long) -> Long:
    """The normal distribution: the slope about the nearest float, whose value scipy gives to 16 digits."""
    near = eta.astype(np.float64)
    density, step = np.exp(-(near.astype(np.longdouble) ** 2) / 2) / ROOT_2PI, eta - near
    return np.asarray(ndtr(near) + density * step, dtype=np.longdouble)


def solve(a: Long, b: Long) -> Long:
    """a^-1 b for a positive definite (p, p), by Cholesky's factor in long numbers."""
    p, factor = len(a), np.zeros_like(a)
    for j in range(p):
        column = a[j:, j] - factor[j:, :j] @ factor[j, :j]
        factor[j:, j] = column / np.sqrt(column[0])
    out = np.array(b, dtype=np.longdouble)
    for j in range(p):
        out[j] = (out[j] - factor[j, :j] @ out[:j]) / factor[j, j]
    for j in reversed(range(p)):
        out[j] = (out[j] - factor[j + 1 :, j] @ out[j + 1 :]) / factor[j, j]
    return out


def deviance(family: str, y: Long, mean: Long) -> float:
    """The deviance of the rows."""
    if family == "gaussian":
        return float(np.sum((y - mean) ** 2))
    if family in ("poisson", "quasipoisson"):
        return float(2 * np.sum(np.where(y > 0, y * np.log(np.where(y > 0, y, 1) / mean), 0) - (y - mean)))
    return float(-2 * np.sum(np.where(y > 0, np.log(mean), np.log1p(-mean))))


def pooled(case: Case, frame: pd.DataFrame) -> tuple[Long, Long, float]:
    """Estimates, standard errors and deviance of the model on all rows."""
    x, y, offset = design(case, frame)
    beta = np.zeros(x.shape[1], dtype=np.longdouble)
    if case.link in ("logit", "log"):
        share = y.mean()
        beta[0] = np.log(share / (1 - share) if case.link == "logit" else share)
    penalty = np.diag(np.array([0, *[case.ridge] * (x.shape[1] - 1)], dtype=np.longdouble))
    for _ in range(200):
        mean, slope = curve(case.link, x @ beta + offset)
        variance = {"gaussian": np.ones_like(mean), "poisson": mean, "quasipoisson": mean}.get(
            case.family, mean * (1 - mean)
        )
        information = (x.T * (slope * slope / variance)) @ x + penalty
        step = solve(information, x.T @ (slope * (y - mean) / variance) - penalty @ beta)
        beta = beta + step
        if float(step @ information @ step) < 1e-34:
            break
    covariance = solve(information, np.eye(len(beta), dtype=np.longdouble))
    scale: Any = np.longdouble(1)
    if case.family == "gaussian":
        scale = np.sum((y - mean) ** 2) / (len(y) - len(beta))
    elif case.family.startswith("quasi"):
        scale = np.sum((y - mean) ** 2 / variance) / (len(y) - len(beta))
    return beta, np.sqrt(scale * np.diag(covariance)), deviance(case.family, y, mean)


def design(case: Case, frame: pd.DataFrame) -> tuple[Long, Long, Long]:
    """Columns, outcome and offset of a formula with names, products, squares and offset(...), in long numbers."""
    left, right = case.formula.split("~")
    columns, offset = [np.ones(len(frame), dtype=np.longdouble)], np.zeros(len(frame), dtype=np.longdouble)
    for term in (part.strip() for part in right.split("+")):
        if term.startswith("offset("):
            offset = frame[term[7:-1]].to_numpy(np.longdouble)
            continue
        columns += expand(frame, term)
    return np.column_stack(columns), frame[left.strip()].to_numpy(np.longdouble), offset


def expand(frame: pd.DataFrame, term: str) -> list[Long]:
    """The columns of one term."""
    out: list[Long] = [np.ones(len(frame), dtype=np.longdouble)]
    for name in term.split(":"):
        base, _, power = name.partition("^")
        if frame[base].dtype.kind not in "bif":
            more = [(frame[base] == level).to_numpy(np.longdouble) for level in sorted(set(frame[base]))[1:]]
        else:
            more = [frame[base].to_numpy(np.longdouble) ** int(power or 1)]
        out = [a * b for b in more for a in out]
    return out


# What is measured


def study_of(case: Case, learner: Mapping[str, Any], frame: pd.DataFrame, sites: Sequence[str]) -> Study:
    """The study of a case: ranges as people declare them."""
    plain: dict[str, Any] = {
        "name": "digits",
        "sites": list(sites),
        "formula": case.formula,
        "variables": {str(name): declare(frame, str(name)) for name in frame if name != "pid"},
        "learner": {**learner},
        "disclosure": {"cell": 0, "rows": 1, "rebuild": "allow"},
        "rows": {"constant": "allow", "collinear": "allow", "minimum": 1},
    }
    if case.split:
        plain |= {"columns": {site: list(names) for site, names in case.split.items()}, "identifier": ["pid"]}
        plain.pop("rows")
    return complete_study(Study.model_validate(plain))


def declare(frame: pd.DataFrame, name: str) -> dict[str, Any]:
    """The declaration of a variable."""
    values = frame[name]
    if values.dtype.kind not in "bif":
        return {"type": "category", "levels": sorted(set(values))}
    if set(values) <= {0, 1}:
        return {"type": "binary"}
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "i":
        return {"type": "count", "range": [0, int(high)]}
    return {"type": "number", "range": [2 * low - high, 2 * high - low]}


def fit(case: Case, learner: Mapping[str, Any], frame: pd.DataFrame) -> Fit:
    """The federated fit of a case, from files."""
    sites = list(case.split) or list(SITES[: len(case.shares)])
    with tempfile.TemporaryDirectory() as folder:
        paths = {site: Path(folder) / f"{site}.csv" for site in sites}
        for site, part in zip(sites, deal(case, frame, sites), strict=True):
            part.to_csv(paths[site], index=False)
        return analyse(study_of(case, learner, frame, sites), dict(paths)).fit


def deal(case: Case, frame: pd.DataFrame, sites: Sequence[str]) -> Iterator[pd.DataFrame]:
    """The file of each site."""
    if case.split:
        whole = frame.assign(pid=np.arange(len(frame)) + 1000)
        yield from (whole[["pid", *case.split[site]]] for site in sites)
        return
    ends = np.rint(np.cumsum(case.shares) / np.sum(case.shares) * len(frame)).astype(int)
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        yield frame.iloc[start:end]


def differences(case: Case, frame: pd.DataFrame, got: Fit) -> tuple[float, float, float]:
    """Largest differences: of estimates in standard errors, of standard errors and of the deviance in relation."""
    beta, errors, wanted = pooled(case, frame)
    estimates = float(np.max(np.abs(got.estimates - beta) / errors))
    of_errors = 0.0 if case.ridge else float(np.max(np.abs(got.std_errors / errors - 1)))
    off = 0.0 if got.deviance is None or case.ridge else abs(got.deviance / wanted - 1)
    return estimates, of_errors, off


# The cases


def binary_rows() -> pd.DataFrame:
    """1,253 patients with nine binary covariates."""
    rng = np.random.default_rng(1253)
    frame = pd.DataFrame({f"x{j}": (rng.random(1253) < 0.1 + 0.08 * j).astype(int) for j in range(1, 10)})
    eta = -1.2 + frame.to_numpy() @ np.array([0.8, -0.5, 0.3, 0.6, -0.7, 0.2, 0.9, -0.3, 0.4])
    return frame.assign(y=(rng.random(1253) < 1 / (1 + np.exp(-eta))).astype(int))


def cohort_rows() -> pd.DataFrame:
    """1,500 patients with outcomes of all kinds, an exposure and a covariate on a grid."""
    rng, n = np.random.default_rng(1500), 1500
    frame = pd.DataFrame(
        {
            "sex": rng.integers(0, 2, n),
            "smoker": (rng.random(n) < 0.3).astype(int),
            "group": np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
            "visits": rng.integers(0, 4, n),
        }
    )
    part = 0.5 * frame["sex"] - 0.4 * frame["smoker"] + 0.3 * (frame["group"] == "b") + 0.2 * frame["visits"]
    exposure = np.log(rng.choice([0.5, 1.0, 2.0], n))
    return frame.assign(
        died=(rng.random(n) < 1 / (1 + np.exp(1.0 - part))).astype(int),
        count=rng.poisson(np.exp(0.5 + 0.5 * part + exposure)),
        stay=np.round(5 + part + rng.normal(0, 1.5, n), 3),
        exposure=exposure,
    )


def stay_rows() -> pd.DataFrame:
    """Lengths of stay with factors and a number."""
    rng, n = np.random.default_rng(7), 900
    frame = cohort_rows().iloc[:n][["sex", "smoker", "group"]].assign(age=np.round(rng.normal(60, 12, n), 1))
    part = 0.04 * frame["age"] + frame["sex"] * frame["smoker"] - 0.0002 * frame["age"] ** 2
    return frame.assign(stay=np.round(6 + part + rng.normal(0, 2, n), 3))


def cost_rows(noise: float = 0.0) -> pd.DataFrame:
    """Costs of 1,338 insured; with `noise` a second weight that is nearly the first."""
    rng, n = np.random.default_rng(1338), 1338
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 65, n).astype(float),
            "bmi": np.round(rng.normal(30.6, 6.1, n), 2),
            "children": rng.integers(0, 6, n),
            "smoker": (rng.random(n) < 0.2).astype(int),
        }
    )
    part = 250 * frame["age"] + 330 * frame["bmi"] + 470 * frame["children"] + 23_800 * frame["smoker"]
    frame = frame.assign(cost=np.round(part - 11_900 + rng.normal(0, 6_000, n), 2))
    return frame.assign(bmi2=frame["bmi"] + rng.normal(0, noise, n)) if noise else frame


def scaled_rows() -> pd.DataFrame:
    """Covariates in units of 1e9 and 1e-9."""
    rng, frame = np.random.default_rng(9), cohort_rows()[["died"]]
    return frame.assign(large=1e9 * rng.normal(size=1500), small=1e-9 * rng.normal(size=1500))


def wide_rows() -> pd.DataFrame:
    """300 covariates."""
    rng = np.random.default_rng(300)
    x = rng.normal(size=(9000, 300)).round(6)
    y = (rng.random(9000) < 1 / (1 + np.exp(-0.1 * x[:, :20].sum(axis=1)))).astype(int)
    return pd.DataFrame(x, columns=[f"z{j}" for j in range(300)]).assign(y=y)


def lacking_rows() -> pd.DataFrame:
    """The cohort, of which the last site lacks a level."""
    frame = cohort_rows()
    frame.loc[frame.index >= 1000, "group"] = frame["group"].iloc[1000:].replace("c", "a")
    return frame


def glore(**options: Any) -> dict[str, Any]:
    return {"name": "glore", "max_rounds": 100, **options}


def tables(*schemes: str, **options: Any) -> list[dict[str, Any]]:
    """COLA-GLM, and the secure tables of these schemes."""
    return [{"name": "cola", **options}, *({"name": "secure_cola", "scheme": s, **options} for s in schemes)]


NINE = "y ~ " + " + ".join(f"x{j}" for j in range(1, 10))
SPLIT = {"a": ["y", "x1", "x2", "x3"], "b": ["x4", "x5", "x6"], "c": ["x7", "x8", "x9"]}
FULL = "sex + smoker + group + visits"
VALORIS = [{"name": "valoris", "mode": "per_site"}, {"name": "valoris", "mode": "aggregated"}]
COUNTS: dict[str, Any] = {"family": "poisson", "link": "log"}
PLAIN_COSTS = "cost ~ age + bmi + children + smoker"
CASES: Mapping[str, Case] = {
    "logit, 9 binary, 2 sites": Case(binary_rows, NINE, [glore(aggregation="plain")], (1.6e-13, 2.8e-8, 2e-16), (1, 1)),
    "logit, 9 binary, 3 sites": Case(binary_rows, NINE, [glore()], (1.6e-13, 2.8e-8, 2e-16)),
    "logit, 9 binary, 5 sites": Case(binary_rows, NINE, [glore()], (1.6e-13, 2.8e-8, 2e-16), (1,) * 5),
    "logit, 9 binary, 90, 9, 1 %": Case(binary_rows, NINE, [glore()], (1.6e-13, 2.8e-8, 2e-16), (90, 9, 1)),
    "logit, tables": Case(binary_rows, NINE, tables("bfv", "newton"), (1.7e-13, 2.8e-8, 8e-16)),
    "probit": Case(binary_rows, NINE, [glore(), *tables("bfv", "newton")], (7.3e-8, 3.5e-8, 1e-15), link="probit"),
    "cloglog, tables": Case(binary_rows, NINE, tables("bfv"), (1.2e-6, 1.4e-7, 7e-15), link="cloglog"),
    "cloglog, rounds": Case(
        binary_rows, NINE, [glore(), *tables("newton")[1:]], (1.2e-6, 1.4e-7, 7e-15), link="cloglog"
    ),
    "VALORIS": Case(binary_rows, NINE, VALORIS, (2.1e-11, 2.8e-8, 9e-15), split=SPLIT),
    "VERTIGO": Case(binary_rows, NINE, [{"name": "vertigo"}], (1.8e-12, 2.8e-8, 8e-15), split=SPLIT),
    "logit, cohort": Case(
        cohort_rows, f"died ~ {FULL}", [glore(), *tables("bfv", "ckks", "newton")], (2.5e-13, 5.3e-11, 2e-16)
    ),
    "Poisson": Case(cohort_rows, f"count ~ {FULL}", [glore(), *tables("bfv")], (1.3e-13, 7e-15, 1e-15), **COUNTS),
    "Poisson, offset": Case(
        cohort_rows, f"count ~ {FULL} + offset(exposure)", [glore(), *tables("bfv")], (5.6e-14, 2.3e-11, 1e-15),
        **COUNTS,
    ),
    "quasi-Poisson": Case(
        cohort_rows, f"count ~ {FULL}", [glore(), *tables()], (2.4e-13, 3.1e-11, 1e-15),
        family="quasipoisson", link="log",
    ),
    "quasi-binomial": Case(
        cohort_rows, f"died ~ {FULL}", [glore(), *tables()], (2.4e-13, 3.1e-11, 1e-15), family="quasibinomial"
    ),
    "Gaussian": Case(
        cohort_rows, f"stay ~ {FULL}", [glore(), *tables("bfv")], (2.7e-13, 1.1e-14, 4e-16), family="gaussian",
        link="identity",
    ),
    "Gaussian, offset": Case(
        cohort_rows, f"stay ~ {FULL} + offset(exposure)", [glore(), *tables("bfv")], (2.7e-13, 1.1e-14, 4e-16),
        family="gaussian", link="identity",
    ),
    "Gaussian, products and a square": Case(
        stay_rows,
        "stay ~ sex + smoker + group + age + age^2 + sex:smoker + sex:group + smoker:group + sex:smoker:group",
        [glore()], (6.4e-13, 2e-13, 3e-16), family="gaussian", link="identity",
    ),
    "Gaussian, costs, 4 sites": Case(
        cost_rows, PLAIN_COSTS, [glore()], (6.2e-14, 4e-15, 2e-16), (1,) * 4, "gaussian", "identity"
    ),
    # Under masks a level at two sites is refused: the sums of these two would follow.
    "a site lacks a level": Case(
        lacking_rows, f"died ~ {FULL}", [glore(aggregation="plain"), *tables()], (9e-14, 5e-11, 2e-16)
    ),
    "a site of 8 rows": Case(cohort_rows, f"died ~ {FULL}", [glore()], (9e-14, 5e-11, 2e-16), (800, 692, 8)),
    "a site of 3 rows": Case(
        cohort_rows, f"died ~ {FULL}", [glore()], (9e-14, 5e-11, 2e-16), (500, 500, 497, 3)
    ),
    "ridge, logit": Case(cohort_rows, f"died ~ {FULL}", [glore(ridge=2.0)], (2e-13, 0, 0), ridge=2.0),
    "ridge, Gaussian": Case(
        cost_rows, PLAIN_COSTS, [glore(ridge=2.0)], (2e-13, 0, 0), (1,) * 4, "gaussian", "identity", ridge=2.0
    ),
    "units of 1e9 and 1e-9": Case(scaled_rows, "died ~ large + small", [glore()], (3e-13, 1e-12, 2e-16)),
    "300 covariates": Case(
        wide_rows, "y ~ " + " + ".join(f"z{j}" for j in range(300)), [glore()], (3e-14, 1e-12, 2e-16)
    ),
    "bmi beside bmi + noise": Case(
        lambda: cost_rows(1e-3), f"{PLAIN_COSTS} + bmi2", [glore()], (2.8e-11, 4.6e-8, 7e-15), (1,) * 4, "gaussian",
        "identity",
    ),
}  # fmt: skip
# A deviance is a sum of numbers of 16 digits: what it was off by once is not what it must be.
ROUNDING = 1e-15


def label(learner: Mapping[str, Any]) -> str:
    """A learner in a word."""
    return " ".join(str(learner[key]) for key in ("name", "scheme", "mode", "aggregation") if key in learner)


def options_of(case: Case, learner: Mapping[str, Any]) -> dict[str, Any]:
    """The learner with the family and link of the case, where it has a choice."""
    if learner["name"] in ("valoris", "vertigo"):
        return dict(learner)
    return {**learner, "family": case.family, "link": case.link}


def main(chosen: str = "") -> int:
    """Print all differences; 1 if one is beyond its bound."""
    lost = 0
    for name, case in CASES.items():
        if chosen not in name:
            continue
        frame = case.rows()
        for learner in case.learners:
            off = differences(case, frame, fit(case, options_of(case, learner), frame))
            worse = [bool(a > max(b, ROUNDING)) for a, b in zip(off, case.bounds, strict=True)]
            lost += any(worse)
            figures = "  ".join(f"{a:.1e} ({b:.1e}){'!' * w}" for a, b, w in zip(off, case.bounds, worse, strict=True))
            print(f"{name:32s} {label(learner):22s} {figures}", flush=True)
    print(f"worse than before: {lost}")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
