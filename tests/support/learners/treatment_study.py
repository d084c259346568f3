"""Studies of a treatment's effect over the made-up data sets of tests/golden/r, and what R says of the effects."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
from support.learners.r_stays import COHORT, GOLDEN, STAYS, fit_files, references, write_site_files

from coterie_learners.core.fit import Fit
from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, ArrayRows, Data

FRAIL, DIABETES = "frail + age + age^2 + ward", "diabetes + age + sex + htn"
# By the name of R's model: data, outcome, the learner's options.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "stay_ate": ("stays", "stay", {"stabilised": True}),
    "stay_att": ("stays", "stay", {"estimand": "ATT"}),
    "stay_overlap": ("stays", "stay", {"estimand": "overlap"}),
    "stay_truncated": ("stays", "stay", {"truncate": [0.2, 0.4]}),
    "readmit_ate": ("stays", "readmit", {"effect": "ratio"}),
    "readmit_att": ("stays", "readmit", {"effect": "odds_ratio", "estimand": "ATT"}),
    "infections_overlap": ("stays", "infections", {"effect": "ratio", "estimand": "overlap"}),
    "death_ate": ("cohort", "death", {"effect": "odds_ratio"}),
    "death_att": ("cohort", "death", {"estimand": "ATT"}),
    "los_ate": ("cohort", "los", {}),
}
DAYS = {"days": {"type": "count", "range": [1, 365], "unit": "days"}}
DAYS |= {"entered": {"type": "count", "range": [0, 365], "unit": "days"}}
_STAY_TIMES: dict[str, Any] = {"effect": "hazard_ratio", "time": "days"}
# The same of weighted Cox models.
HAZARDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "hazard_ate": ("stays", "readmit", _STAY_TIMES),
    "hazard_stabilised": ("stays", "readmit", {**_STAY_TIMES, "stabilised": True}),
    "hazard_att": ("stays", "readmit", {**_STAY_TIMES, "estimand": "ATT", "ties": "breslow"}),
    "hazard_overlap": ("stays", "readmit", {**_STAY_TIMES, "estimand": "overlap"}),
    "hazard_truncated": ("stays", "readmit", {**_STAY_TIMES, "truncate": [0.2, 0.4]}),
    "hazard_late": ("stays", "readmit", {**_STAY_TIMES, "entry": "entered"}),
    "hazard_late_breslow": (
        "stays",
        "readmit",
        {**_STAY_TIMES, "entry": "entered", "estimand": "ATT", "ties": "breslow"},
    ),
    "hazard_death": ("cohort", "death", {"effect": "hazard_ratio", "time": "followup"}),
}
_LOGS = {"ratio": "log ratio", "odds_ratio": "log odds ratio"}


def write_learner(data: str, options: dict[str, Any]) -> dict[str, Any]:
    """The learner section of a study over one of the data sets."""
    return {"name": "propensity", "treatment": "frail" if data == "stays" else "diabetes", **options}


def write_formula(data: str, outcome: str) -> str:
    """The outcome, the treatment, and the covariates of its score."""
    return f"{outcome} ~ {FRAIL if data == 'stays' else DIABETES}"


def fit_effect(model: str, count: int, folder: Path, **options: Any) -> Fit:
    """The product's fit of one of R's models on so many sites, replayed to the bit."""
    data, outcome, own = (MODELS | HAZARDS)[model]
    learner, variables = write_learner(data, {**own, **options}), {**STAYS, **DAYS} if data == "stays" else COHORT
    files, formula = write_site_files(data, count, folder), write_formula(data, outcome)
    return fit_files(files, data, formula, learner, variables=variables).fit


def treatment_study(sites: tuple[str, ...], data: str = "stays", outcome: str = "stay", **options: Any) -> Study:
    """A completed study of an effect; no floor."""
    variables = {**STAYS, **DAYS} if data == "stays" else COHORT
    plain = {"name": "effect", "sites": list(sites), "formula": write_formula(data, outcome), "variables": variables}
    plain |= {"learner": write_learner(data, options), "disclosure": {"cell": 0, "rows": 1}}
    return complete_study(Study.model_validate(plain))


def split_treatment_rows(study: Study, every: int = 1, **columns: Any) -> dict[str, Data]:
    """The stays in turn over a study's sites, each `every`th of them; `columns` in place of what was read."""
    with (GOLDEN / "data" / "stays.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::every]
    design = Design(study)
    declared = {**STAYS, **DAYS}
    codes = {name: np.array([_code(row[name], declared[name]) for row in rows]) for name in design.variables} | columns
    parts = {name: {k: v[at :: len(study.sites)] for k, v in codes.items()} for at, name in enumerate(study.sites)}
    if learner_of(study).reads == "codes":
        return {name: ArrayCodes(part) for name, part in parts.items()}
    return {name: ArrayRows.of(design.block(part)) for name, part in parts.items()}


def _code(word: str, variable: dict[str, Any]) -> float:
    return float(variable["levels"].index(word) if "levels" in variable else word)


def find_effect_differences(fit: Fit, model: str) -> tuple[float, float]:
    """How far estimates and all that is said of weights are from R's, and how far standard errors, relatively."""
    want = references("propensity")[model].terms
    causal = fit.details["causal"]
    got = {f"mean {k}": (mean["value"], mean["std_error"]) for k, mean in enumerate(causal["means"])}
    for effect in causal["effects"]:
        value = effect["value"] if effect["name"] == "difference" else math.log(effect["value"])
        got[_LOGS.get(effect["name"], "difference")] = value, effect["std_error"]
    got["known scores"] = 0.0, causal["effects"][0]["std_error_known_scores"]
    got |= {f"effective {k}": (size, math.nan) for k, size in enumerate(causal["weights"]["effective"])}
    for line in causal["balance"]:
        term = line["term"].replace("[", "").replace("]", "")
        got |= {f"{when} {term}": (line[when], math.nan) for when in ("before", "after")}
    off = [abs(value - want[term][0]) / max(abs(want[term][0]), 1.0) for term, (value, _) in got.items()]
    errors = [abs(error / want[term][1] - 1.0) for term, (_, error) in got.items() if not math.isnan(error)]
    return max(off), max(errors)
