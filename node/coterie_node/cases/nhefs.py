"""The demo's cohort: NHEFS, the follow-up of 1,629 smokers of the first US health survey, from the package causaldata.

Outcome: death by 1992. Rows without a systolic blood pressure (77) or a cholesterol value (16) are left out by every
site alike (`missing = "drop"`); NHEFS codes an unknown diagnosis of diabetes as a level of its own, which is kept.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coterie_node.errors import ConfigError

SEED = 20240
SITE_NAMES = ("north", "south", "west", "east", "centre")
LEVELS = {
    "sex": {0: "male", 1: "female"},
    "race": {0: "white", 1: "black-or-other"},
    "diabetes": {0: "never", 1: "ever", 2: "unknown"},
    "active": {0: "very", 1: "moderately", 2: "inactive"},
}
NUMBERS = ("age", "smokeintensity", "smokeyrs", "wt71", "sbp", "cholesterol")
OUTCOME = "death"
FORMULA = "death ~ age + sex + race + smokeintensity + smokeyrs + wt71 + sbp + cholesterol + diabetes + active"

STUDY = """\
# Death by 1992 in NHEFS, by what the survey measured. All sites approve this file by its hash.
name = "nhefs-mortality"
title = "NHEFS: death by 1992"
sites = [{sites}]
formula = "{formula}"

[learner]
name = "glore"

[rows]
missing = "drop"
# A small site may have nobody with a rare level; the pooled rows do.
constant = "{constant}"

[variables.death]
type = "binary"
label = "death by 1992"

[variables.age]
type = "number"
unit = "years in 1971"
range = [18, 100]

[variables.sex]
type = "category"
levels = ["male", "female"]

[variables.race]
type = "category"
levels = ["white", "black-or-other"]

[variables.smokeintensity]
type = "number"
unit = "cigarettes a day in 1971"
range = [0, 120]

[variables.smokeyrs]
type = "number"
unit = "years of smoking"
range = [0, 90]

[variables.wt71]
type = "number"
unit = "kg in 1971"
range = [25, 250]

[variables.sbp]
type = "number"
unit = "mmHg in 1982"
range = [60, 300]

[variables.cholesterol]
type = "number"
unit = "mg/dl in 1971"
range = [50, 600]

[variables.diabetes]
type = "category"
levels = ["never", "ever", "unknown"]

[variables.active]
type = "category"
levels = ["very", "moderately", "inactive"]
"""


def site_names(count: int) -> tuple[str, ...]:
    """Names for the demo's sites."""
    return SITE_NAMES[:count] if count <= len(SITE_NAMES) else tuple(f"site-{k:02d}" for k in range(1, count + 1))


def study_text(sites: Sequence[str]) -> str:
    """The demo's study file."""
    listed = ", ".join(f'"{name}"' for name in sites)
    return STUDY.format(sites=listed, formula=FORMULA, constant="refuse" if len(sites) <= 5 else "allow")


def cohort() -> Any:
    """The cohort as a pandas data frame with the study's levels in words; ConfigError if the demo extra is missing."""
    try:
        from causaldata import nhefs
    except ImportError:
        told = "The demo needs the packages of its extra. Run `make setup`, or `pip install coterie[demo]`."
        raise ConfigError("CO-F101", told) from None
    frame = nhefs.load_pandas().data[[OUTCOME, *NUMBERS, *LEVELS]].copy()
    for column, words in LEVELS.items():
        frame[column] = frame[column].astype(int).map(words)
    frame[OUTCOME] = frame[OUTCOME].astype(int)
    return frame


def split(rows: int, sites: Sequence[str]) -> Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Row numbers for each site: a permutation with a fixed seed, cut into shares of unequal size."""
    order = np.random.default_rng(SEED).permutation(rows)
    weights = np.linspace(2.0, 1.0, len(sites)) if len(sites) <= 5 else np.ones(len(sites))
    cuts = np.round(np.cumsum(weights)[:-1] / weights.sum() * rows).astype(int)
    return dict(zip(sites, np.split(order, cuts), strict=True))


def write_sites(folder: Path, sites: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site; returns their paths by site."""
    frame = cohort()
    paths = {}
    for name, rows in split(len(frame), sites).items():
        paths[name] = folder / name / "data.csv"
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        part = frame.iloc[rows]
        part.to_csv(paths[name], index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    return paths


def pooled_fit() -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Coefficients and standard errors of statsmodels' GLM on all complete rows, in the order of the study's terms."""
    import statsmodels.api as sm

    frame = cohort().dropna()
    columns = [np.ones(len(frame))]
    for name in FORMULA.partition("~")[2].split("+"):
        columns += _columns(frame, name.strip())
    y = frame[OUTCOME].to_numpy(float)
    fit = sm.GLM(y, np.column_stack(columns), family=sm.families.Binomial()).fit(tol=1e-14, maxiter=100)
    return np.asarray(fit.params), np.asarray(fit.bse)


def _columns(frame: Any, name: str) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    if name not in LEVELS:
        return [frame[name].to_numpy(float)]
    return [(frame[name] == level).to_numpy(float) for level in list(LEVELS[name].values())[1:]]
