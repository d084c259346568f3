"""Fits of sites' files against R: glm, lm, brglm2, sandwich, nnet, MASS, stored with their scripts (tests/golden/r).

The files go the whole way: CSV, checks, design, sums, masks, ledger, replay. Site D has nobody older than 80. R's fits
come to rest before they are stored, so that the digits here are the product's. `make references` makes them again.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse
from coterie_node.audit.result import Result
from coterie_node.errors import ReleaseRefused

SCRIPTS = ("MASS", "brglm2", "glm", "lm", "nnet", "sandwich")
GOLDEN = Path(__file__).parents[2] / "golden" / "r"
VARIABLES: dict[str, dict[str, Any]] = {
    "age": {"type": "category", "levels": ["lt65", "65_79", "ge80"]},
    "sex": {"type": "category", "levels": ["F", "M"]},
    "diabetes": {"type": "binary"},
    "htn": {"type": "binary"},
    "cci": {"type": "count", "range": [0, 40]},
    "cci_sd": {"type": "number", "range": [0, 40]},
    "death": {"type": "binary"},
    "died": {"type": "count", "range": [0, 1]},
    "rare": {"type": "binary"},
    "visits": {"type": "count", "range": [0, 100]},
    "visits_sd": {"type": "number", "range": [0, 100]},
    "logfollowup": {"type": "number", "range": [-10, 10]},
    "los": {"type": "number", "range": [-100, 100]},
    "disposition": {"type": "category", "levels": ["home", "transfer", "death"]},
    "y": {"type": "binary"},
    "x": {"type": "number", "range": [-10, 10]},
    "z": {"type": "number", "range": [0, 20]},
}
STEEP = ("y", "x", "z")
X = "age + sex + diabetes + htn"
# What R calls a model; its formula here, and the learner's options.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "logit": (f"death ~ {X}", {}),
    "logit_cci_numeric": (f"death ~ {X} + cci", {}),
    "logit_interaction": ("death ~ age * sex + cci + cci^2", {}),
    "probit": (f"death ~ {X}", {"link": "probit"}),
    "cloglog": (f"death ~ {X}", {"link": "cloglog"}),
    "poisson_log_on_binary": (f"died ~ {X}", {"family": "poisson"}),
    "poisson": (f"visits ~ {X}", {"family": "poisson"}),
    "poisson_offset_log_followup": (f"visits ~ {X} + offset(logfollowup)", {"family": "poisson"}),
    "quasipoisson": (f"visits ~ {X}", {"family": "quasipoisson"}),
    "quasibinomial": (f"death ~ {X}", {"family": "quasibinomial"}),
    "gaussian": (f"los ~ {X}", {"family": "gaussian"}),
    "linear": (f"los ~ {X}", {"family": "gaussian"}),
    "linear_interaction": ("los ~ age * sex + cci + cci^2", {"family": "gaussian"}),
    "linear_mean": ("los ~ 1", {"family": "gaussian"}),
    "linear_no_intercept": ("los ~ 0 + sex + cci", {"family": "gaussian"}),
    "linear_offset": ("los ~ age + sex + offset(logfollowup)", {"family": "gaussian"}),
    "steep_logit": ("y ~ x + z", {}),
    "steep_probit": ("y ~ x + z", {"link": "probit"}),
    "steep_cloglog": ("y ~ x + z", {"link": "cloglog"}),
    "logit_site_intercepts": (f"death ~ {X}", {"site_intercepts": True}),
    "firth": (f"death ~ {X}", {"firth": True}),
    "firth_separated": ("death ~ age + sex + rare", {"firth": True}),
    "hc0_logit": (f"death ~ {X}", {"robust": True}),
    "hc0_probit": (f"death ~ {X}", {"robust": True, "link": "probit"}),
    "hc0_cloglog": (f"death ~ {X}", {"robust": True, "link": "cloglog"}),
    "hc0_poisson_on_binary": (f"died ~ {X}", {"robust": True, "family": "poisson"}),
    "hc0_poisson": (f"visits ~ {X}", {"robust": True, "family": "poisson"}),
    "hc0_linear": (f"los ~ {X}", {"robust": True, "family": "gaussian"}),
    "multinomial": (f"disposition ~ {X}", {"family": "multinomial"}),
    # lm.ridge's lambda is on the squares of a column; a linear model's penalty is in units of the rows' squares too.
    "ridge_10": ("los ~ cci_sd + visits_sd", {"family": "gaussian", "ridge": 10.0}),
    "ridge_1000": ("los ~ cci_sd + visits_sd", {"family": "gaussian", "ridge": 1000.0}),
}
MASKED, PLAIN = {"name": "glore", "aggregation": "masked"}, {"name": "glore", "aggregation": "plain"}
TABLES = {"name": "cola", "suppress": "none"}
SECURE = {"name": "secure_cola", "scheme": "masks"}
NEWTON = {"name": "secure_cola", "scheme": "newton"}
BY_TABLES = ("quasi", "logit_site", "firth", "hc0", "multinomial")
# Digits in common that every fit must have; the rest is R's rounding.
DIGITS = 11.0
# R's default stop lies so far from rest for a steep cloglog model: relative differences of estimates, at the least.
STOPS_EARLY = 1e-5


@dataclass(frozen=True)
class Reference:
    """What R says: estimate and standard error by term (NaN where there is none), and numbers of the whole fit."""

    terms: dict[str, tuple[float, float]]
    numbers: dict[str, float]


@cache
def references() -> dict[str, Reference]:
    """All stored values by R's name of the model."""
    read: defaultdict[str, Reference] = defaultdict(lambda: Reference({}, {}))
    for path in (GOLDEN / "stored" / f"{name}.csv" for name in SCRIPTS):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        for row in csv.DictReader(lines):
            value, error = float(row["estimate"]), math.nan if row["std_error"] == "NA" else float(row["std_error"])
            reference = read[row["model"]]
            if row["term"] in ("deviance", "null deviance", "AIC", "dispersion"):
                reference.numbers[row["term"]] = value
            else:
                reference.terms[row["term"]] = value, error
    return dict(read)


def write_files(name: str, folder: Path) -> dict[str, Path]:
    """One file per site, with the columns that R makes in its formulas."""
    scale = {term: value for term, (value, _) in references()["scale"].terms.items()}
    rows: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    with (GOLDEN / "data" / f"{name}.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if name == "cohort":
                row["logfollowup"] = repr(math.log(float(row["followup"])))
                row["rare"] = str(int(row["death"] == "1" and int(row["cci"]) >= 5))
                row["died"] = row["death"]
                row |= {f"{column}_sd": repr(float(row[column]) / scale[column]) for column in ("cci", "visits")}
            rows[row["site"].lower()].append(row)
    for site, lines in rows.items():
        columns = [column for column in lines[0] if column in VARIABLES]
        text = [",".join(columns), *(",".join(row[column] for column in columns) for row in lines)]
        (folder / f"{site}.csv").write_text("\n".join(text) + "\n")
    return {site: folder / f"{site}.csv" for site in sorted(rows)}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """The sites' files of both data sets."""
    return {name: write_files(name, tmp_path_factory.mktemp(name)) for name in ("cohort", "steep")}


def fit(files: dict[str, dict[str, Path]], model: str, learner: dict[str, Any]) -> Result:
    """The product's fit of R's model, replayed."""
    formula, options = MODELS[model]
    steep = model.startswith("steep")
    data = files["steep" if steep else "cohort"]
    plain = {
        "name": "reference",
        "sites": list(data),
        "formula": formula,
        "learner": {**learner, **options},
        "rows": {"constant": "allow", "collinear": "allow"},
        "disclosure": {"cell": 0, "rows": 1},
        "variables": {name: declared for name, declared in VARIABLES.items() if (name in STEEP) == steep},
    }
    result = analyse(complete_study(Study.model_validate(plain)), data)
    assert result.replay is not None
    assert result.replay.grade == "identical"
    return result


def r_name(term: str) -> str:
    """A term as R writes it."""
    name = term.replace("site[a]", "siteA").replace("site[b]", "siteB").replace("site[c]", "siteC")
    name = name.replace("site[d]", "siteD").replace("[", "").replace("]", "")
    return {"cci^2": "I(cci^2)", "cci_sd": "cci", "visits_sd": "visits"}.get(name, name)


def digits_of(result: Result, model: str) -> float:
    """Digits in common with R: estimates by their standard errors, errors and whole-fit numbers relatively."""
    reference = references()[model]
    assert sorted(map(r_name, result.fit.terms)) == sorted(reference.terms)
    pairs = np.array([reference.terms[r_name(term)] for term in result.fit.terms])
    scale = np.where(np.isnan(pairs[:, 1]), np.abs(pairs[:, 0]), pairs[:, 1])
    off = [np.max(np.abs(result.params - pairs[:, 0]) / scale), np.nanmax([0.0, *np.abs(result.bse / pairs[:, 1] - 1)])]
    whole = {
        "deviance": result.fit.deviance,
        "null deviance": result.fit.null_deviance,
        "AIC": result.fit.aic,
        "dispersion": result.fit.dispersion,
    }
    for name, value in reference.numbers.items():
        got = whole[name]
        assert got is not None
        off.append(abs(got / value - 1.0))
    return -math.log10(max(*off, 1e-16))


def learners_of(model: str) -> list[dict[str, Any]]:
    """The learners that fit a model of R's."""
    if model.startswith(BY_TABLES):
        return [TABLES] if model.startswith("logit_site") else [TABLES, SECURE]
    if model.startswith("steep"):
        return [MASKED]  # of so few rows the gate keeps plain sums back
    if "offset" in model or model.startswith("ridge"):
        return [MASKED, PLAIN]
    return [MASKED, PLAIN, TABLES, SECURE, NEWTON]


# `make test` fits each model with one of its learners, and takes these in turn.
CASES = [
    pytest.param(
        model,
        learner,
        id=f"{model} {' '.join(str(v) for v in learner.values())}",
        marks=() if k % len(learners_of(model)) == j else pytest.mark.long,
    )
    for k, model in enumerate(MODELS)
    for j, learner in enumerate(learners_of(model))
]


@pytest.mark.parametrize(("model", "learner"), CASES)
def test_a_model_of_r_is_reproduced(files: dict[str, dict[str, Path]], model: str, learner: dict[str, Any]) -> None:
    assert digits_of(fit(files, model, learner), model) >= DIGITS


@pytest.mark.parametrize("model", [model for model in MODELS if model.startswith("steep")])
def test_many_rounds_of_plain_sums_over_few_rows_are_kept_back(files: dict[str, dict[str, Path]], model: str) -> None:
    with pytest.raises(ReleaseRefused, match="half as many equations") as caught:
        fit(files, model, PLAIN)
    assert caught.value.code == "CO-R301"


def test_every_stored_model_is_compared() -> None:
    assert set(MODELS) | {"scale", "steep_cloglog_default"} == set(references())


def test_a_steep_cloglog_model_is_right_where_r_stops_early_by_default() -> None:
    """R's default stop looks at the deviance, which is flat there; started again, R moves to the product's values."""
    early, rest = (references()[name].terms for name in ("steep_cloglog_default", "steep_cloglog"))
    assert all(abs(early[term][0] / rest[term][0] - 1.0) > STOPS_EARLY for term in rest)
