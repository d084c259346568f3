"""Two made-up data sets that R fitted (tests/golden/r/columns.R), their columns split over two to five owners."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from support.learners.cohorts import Codes
from support.learners.r_stays import COHORT, GOLDEN, STAYS

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study

OUTCOMES = {"gaussian": "stay", "gamma": "stay", "poisson": "count", "quasipoisson": "count", "binomial": "yes"}
COVARIATES = {
    "stays": ("age", "ward", "frail", "w", "f"),
    "cohort": ("age", "sex", "diabetes", "htn", "cci"),
}
DECLARED: dict[str, dict[str, dict[str, Any]]] = {
    "stays": {**STAYS, "yes": {"type": "binary"}, "count": STAYS["infections"], "time": STAYS["logdays"]},
    "cohort": {
        **COHORT,
        "yes": {"type": "binary"},
        "count": COHORT["visits"],
        "time": {"type": "number", "range": [-10, 10]},
    },
}
# R's name of a model: family, link, what follows the covariates in the formula.
MODELS: dict[str, tuple[str, str, str]] = {
    "gaussian": ("gaussian", "identity", ""),
    "gaussian_offset": ("gaussian", "identity", "+ offset(time)"),
    "poisson": ("poisson", "log", ""),
    "poisson_offset": ("poisson", "log", "+ offset(time)"),
    "quasipoisson": ("quasipoisson", "log", ""),
    "gamma_log": ("gamma", "log", ""),
    "logit": ("binomial", "logit", ""),
    "logit_offset": ("binomial", "logit", "+ offset(time)"),
    "probit": ("binomial", "probit", ""),
    "cloglog": ("binomial", "cloglog", ""),
    "cloglog_offset": ("binomial", "cloglog", "+ offset(time)"),
    "probit_no_intercept": ("binomial", "probit", "- 1"),
}
# Which of the five covariates each owner holds, by how many owners there are; the first holds the outcome as well.
OWNERS: dict[str, dict[str, tuple[int, ...]]] = {
    "2": {"hub": (0,), "clinic": (1, 2, 3, 4)},
    "3": {"hub": (0, 3), "clinic": (1, 4), "lab": (2,)},
    "3 in another order": {"lab": (1,), "hub": (), "clinic": (0, 2, 3, 4)},
    "5": {"hub": (4,), "clinic": (0,), "lab": (1,), "registry": (2,), "insurer": (3,)},
}


@cache
def codes(data: str) -> Codes:
    """All columns of a data set as the learners have them."""
    with (GOLDEN / "data" / f"{data}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    texts = {name: [row[name] for row in rows] for name in COVARIATES[data]}
    days, yes, count = ("days", "readmit", "infections") if data == "stays" else ("followup", "death", "visits")
    stay = [float(r["stay"]) if data == "stays" else math.exp(float(r["los"]) / 20.0) for r in rows]
    own = {"stay": stay, "yes": [float(r[yes]) for r in rows], "count": [float(r[count]) for r in rows]}
    own["time"] = [math.log(float(r[days])) for r in rows]
    levels: dict[str, list[str]] = {name: DECLARED[data][name].get("levels", []) for name in texts}
    values = {n: [float(levels[n].index(v) if levels[n] else v) for v in column] for n, column in texts.items()}
    return {name: np.array(column) for name, column in (own | values).items()}


def study(data: str, model: str, owners: str, **learner: Any) -> Study:
    """A completed study of one of R's models on one of the splits."""
    family, link, more = MODELS[model]
    outcome, covariates = OUTCOMES[family], COVARIATES[data]
    time = ("time",) if "offset" in more else ()
    columns = {
        site: [*((outcome, *time) if site == "hub" else ()), *(covariates[k] for k in at)]
        for site, at in OWNERS[owners].items()
    }
    return complete(data, f"{outcome} ~ {' + '.join(covariates)} {more}", columns, family=family, link=link, **learner)


def complete(data: str, formula: str, columns: Mapping[str, Sequence[str]], **learner: Any) -> Study:
    """A completed study of these columns."""
    used = [name for own in columns.values() for name in own]
    plain = {
        "name": "owners",
        "sites": list(columns),
        "formula": formula,
        "variables": {name: DECLARED[data][name] for name in used},
        "columns": columns,
        "identifier": ["code"],
        "learner": learner,
        "disclosure": {"rebuild": "allow", "cell": 0, "rows": 1},
    }
    return complete_study(Study.model_validate_json(json.dumps(plain)))
