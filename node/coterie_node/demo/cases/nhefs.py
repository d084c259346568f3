"""The demos' cohort: NHEFS, the follow-up of 1,629 smokers of the first US health survey, from the package causaldata.

Outcome: death by 1992. Rows without a systolic blood pressure (77) or a cholesterol value (16) are left out by every
site alike (`missing = "drop"`); NHEFS codes an unknown diagnosis of diabetes as a level of its own, which is kept.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coterie_chain.keys.private_files import replace_private
from coterie_node.errors import ConfigError

SPLIT_SEED = 20240
SITE_NAMES = ("north", "south", "west", "east", "centre")
LEVEL_WORDS = {
    "sex": {0: "male", 1: "female"},
    "race": {0: "white", 1: "black-or-other"},
    "diabetes": {0: "never", 1: "ever", 2: "unknown"},
    "active": {0: "very", 1: "moderately", 2: "inactive"},
}
NUMERIC_COLUMNS = ("age", "smokeintensity", "smokeyrs", "wt71", "sbp", "cholesterol")
OUTCOME = "death"

# Months from January 1983 to the end of 1992: the cohort of the demos on times to an event.
HORIZON = 120
MONTHS = """\
[variables.months]
type = "number"
unit = "months"
range = [0, 120]

"""

# Every variable of the cohort as a study declares it.
VARIABLES = """\
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


def name_sites(count: int) -> tuple[str, ...]:
    """Names for the demo's sites."""
    return SITE_NAMES[:count] if count <= len(SITE_NAMES) else tuple(f"site-{k:02d}" for k in range(1, count + 1))


def load_cohort(*extra_columns: str) -> Any:
    """The cohort as a pandas data frame with the study's levels in words, and `extra_columns`.

    ConfigError if the demo extra is missing.
    """
    try:
        from causaldata import nhefs
    except ImportError:
        message = "The demo needs the packages of its extra. Run `make setup`, or `pip install coterie[demo]`."
        raise ConfigError("CO-F101", message) from None
    frame = nhefs.load_pandas().data[[*extra_columns, OUTCOME, *NUMERIC_COLUMNS, *LEVEL_WORDS]].copy()
    for column, words in LEVEL_WORDS.items():
        frame[column] = frame[column].astype(int).map(words)
    frame[OUTCOME] = frame[OUTCOME].astype(int)
    return frame


def split(rows: int, sites: Sequence[str]) -> Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """Row numbers for each site: a permutation with a fixed seed, cut into shares of unequal size."""
    order = np.random.default_rng(SPLIT_SEED).permutation(rows)
    weights = np.linspace(2.0, 1.0, len(sites)) if len(sites) <= 5 else np.ones(len(sites))
    cuts = np.round(np.cumsum(weights)[:-1] / weights.sum() * rows).astype(int)
    return dict(zip(sites, np.split(order, cuts), strict=True))


def quote_names(sites: Sequence[str]) -> str:
    """The names as a TOML list's content."""
    return ", ".join(f'"{name}"' for name in sites)


def write_frame(frame: Any, path: Path) -> Path:
    """Write a data frame as a site's CSV file, which only its owner may read (mode 0600)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_private(path, frame.to_csv(index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\n"))
    return path


def build_design(frame: Any, names: Sequence[str]) -> tuple[tuple[str, ...], np.ndarray[Any, np.dtype[np.float64]]]:
    """Terms as a study names them and their columns (n, p), intercept first, for a main effect of each name."""
    terms, columns = ["(Intercept)"], [np.ones(len(frame))]
    for name in names:
        for level in list(LEVEL_WORDS[name].values())[1:] if name in LEVEL_WORDS else [None]:
            terms.append(name if level is None else f"{name}[{level}]")
            columns.append((frame[name] if level is None else frame[name] == level).to_numpy(float))
    return tuple(terms), np.column_stack(columns)


def load_months() -> Any:
    """The cohort with months to death, or to the end of 1992."""
    frame = load_cohort("yrdth", "modth")
    months = (frame.pop("yrdth").fillna(0) - 83) * 12 + frame.pop("modth").fillna(0)
    frame["months"] = np.where(frame["death"] == 1, months, HORIZON)
    return frame


def write_months(folder: Path, sites: Sequence[str], columns: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site with these columns; returns their paths by site."""
    frame = load_months()[list(columns)]
    shares = split(len(frame), sites)
    return {name: write_frame(frame.iloc[rows], folder / name / "data.csv") for name, rows in shares.items()}
