"""Fits of two made-up data sets that R fitted too (tests/golden/r): stays in hospital, and the cohort of all scripts.

The stays are of five hospitals, of which the last has nobody in intensive care; fewer sites hold them together. The
cohort is of four, of which the last has nobody older than 80.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.audit.result import Result

GOLDEN = Path(__file__).parents[2] / "golden" / "r"
STAYS: dict[str, dict[str, Any]] = {
    "age": {"type": "number", "range": [18, 100]},
    "ward": {"type": "category", "levels": ["medical", "surgical", "intensive"]},
    "frail": {"type": "binary"},
    "logdays": {"type": "number", "range": [0, 7]},
    "stay": {"type": "number", "range": [0.05, 200]},
    "infections": {"type": "count", "range": [0, 60]},
    "readmit": {"type": "binary"},
    "rare": {"type": "binary"},
    "w": {"type": "number", "range": [0.1, 5]},
    "f": {"type": "count", "range": [1, 5]},
    "capped": {"type": "count", "range": [0, 5]},
    "pain": {"type": "category", "levels": ["none", "mild", "severe"]},
}
COHORT: dict[str, dict[str, Any]] = {
    "age": {"type": "category", "levels": ["lt65", "65_79", "ge80"]},
    "sex": {"type": "category", "levels": ["F", "M"]},
    "diabetes": {"type": "binary"},
    "htn": {"type": "binary"},
    "death": {"type": "binary"},
    "visits": {"type": "count", "range": [0, 100]},
    "capped": {"type": "count", "range": [0, 9]},
    "los": {"type": "number", "range": [-100, 100]},
    "stay": {"type": "number", "range": [0.01, 100]},
    "followup": {"type": "number", "range": [0.01, 100]},
    "cci": {"type": "count", "range": [0, 40]},
    "disposition": {"type": "category", "levels": ["home", "transfer", "death"]},
}
# The sites' own files behind each site of a study, by how many sites it has.
SPLITS = {
    2: {"north": "ABCD", "south": "E"},
    3: {"north": "AB", "south": "C", "west": "DE"},
    4: {"north": "A", "south": "B", "west": "C", "east": "D"},
    5: {"north": "A", "south": "B", "west": "C", "east": "D", "mid": "E"},
}
WHOLE = ("deviance", "null deviance", "null df", "AIC", "dispersion")


@dataclass(frozen=True)
class Reference:
    """What R says: estimate and standard error by term (NaN where there is none), and numbers of the whole fit."""

    terms: dict[str, tuple[float, float]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)


@cache
def references(script: str) -> dict[str, Reference]:
    """The values that a script stored, by R's name of the model."""
    read: defaultdict[str, Reference] = defaultdict(Reference)
    lines = (GOLDEN / "stored" / f"{script}.csv").read_text().splitlines()
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        value, error = float(row["estimate"]), math.nan if row["std_error"] == "NA" else float(row["std_error"])
        if row["term"] in WHOLE:
            read[row["model"]].numbers[row["term"]] = value
        else:
            read[row["model"]].terms[row["term"]] = value, error
    return dict(read)


def write_site_files(data: str, count: int, folder: Path) -> dict[str, Path]:
    """One file for each of that many sites."""
    rows: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    split = {own: site for site, members in SPLITS[count].items() for own in members}
    with (GOLDEN / "data" / f"{data}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if data == "stays":
                row["logdays"] = repr(math.log(float(row["days"])))
                row["part"] = repr(math.log(float(row["days"])) / 100.0)
                row["capped"] = str(min(int(row["infections"]), 5))
                row["entered"] = str(min(10 * int(row["f"]), int(row["days"]) - 5))
                row["rare"] = str(int(row["readmit"] == "1" and int(row["infections"]) >= 4))
            else:
                row["capped"] = str(min(int(row["visits"]), 9))
                row["part"] = repr(math.log(float(row["followup"])) / 100.0)
                row["stay"] = repr(math.exp(float(row["los"]) / 20.0))
            rows[split[row["site"]]].append(row)
    for site, lines in rows.items():
        text = [",".join(lines[0]), *(",".join(row.values()) for row in lines)]
        (folder / f"{site}.csv").write_text("\n".join(text) + "\n")
    return {site: folder / f"{site}.csv" for site in SPLITS[count] if site in rows}


def study_of(files: Mapping[str, Path], data: str, formula: str, learner: Mapping[str, Any], **keys: Any) -> Study:
    """A study of these files, without floors."""
    plain = {
        "name": "reference",
        "sites": list(files),
        "formula": formula,
        "learner": dict(learner),
        "rows": {"constant": "allow", "collinear": "allow"},
        "disclosure": {"cell": 0, "rows": 1},
        "variables": STAYS if data == "stays" else COHORT,
        **keys,
    }
    return complete_study(Study.model_validate(plain))


def fit_files(files: Mapping[str, Path], data: str, formula: str, learner: Mapping[str, Any], **keys: Any) -> Result:
    """The product's fit of these files, replayed to the bit."""
    result = analyse(study_of(files, data, formula, learner, **keys), dict(files))
    assert result.replay is not None
    assert result.replay.grade == "identical"
    return result


def largest_differences(result: Result, reference: Reference) -> tuple[float, float]:
    """How far estimates and whole-fit numbers, and how far standard errors are from R's, relatively."""
    names = [term.replace("[", "").replace("]", "") for term in result.fit.terms]
    estimates, errors = result.params, result.bse
    theta = result.fit.details.get("theta")
    if theta is not None:
        names, estimates = [*names, "theta"], np.append(estimates, theta["estimate"])
        errors = np.append(errors, theta["std_error"])
    assert sorted(names) == sorted(reference.terms)
    pairs = np.array([reference.terms[name] for name in names])
    scale = np.maximum(np.abs(pairs[:, 0]), np.nan_to_num(pairs[:, 1]))
    off = [float(np.max(np.abs(estimates - pairs[:, 0]) / scale))]
    whole = {
        "deviance": result.fit.deviance,
        "null deviance": result.fit.null_deviance,
        "null df": result.fit.df_null,
        "AIC": result.fit.aic,
        "dispersion": result.fit.dispersion,
    }
    for name, value in reference.numbers.items():
        number = whole[name]
        assert number is not None, name
        off.append(abs(number / value - 1.0))
    return max(off), float(np.nanmax([0.0, *np.abs(errors / pairs[:, 1] - 1.0)]))
