"""Evaluations: published models on the stays of tests/golden/r, and a cohort drawn from a model, with held-out rows."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.learners.r_stays import GOLDEN, SPLITS, STAYS
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit
from coterie_learners.core.registry import complete_study, learner_of
from coterie_learners.evaluate.parts import draw_held_out, list_row_words
from coterie_learners.numeric.array import Array
from coterie_learners.study.document import IN_EVALUATION, Study
from coterie_learners.study.rows import ArrayCodes, Data

# The models of validate.R.
PATTERNS = {
    "(Intercept)": -0.9,
    "ward[surgical]": 0.35,
    "ward[intensive]": 0.8,
    "pain[mild]": -0.2,
    "pain[severe]": 0.55,
}
SCORES = {"(Intercept)": -3.1, "age": 0.032, "frail": 0.45, "ward[surgical]": 0.2, "ward[intensive]": 0.6}
FORMULAS = {"patterns": "readmit ~ ward + pain", "scores": "readmit ~ age + frail + ward"}
COEFFICIENTS = {"patterns": PATTERNS, "scores": SCORES}
VARIABLES: dict[str, dict[str, Any]] = {
    "ill": {"type": "binary"},
    "lab": {"type": "number", "range": [-9, 9]},
    "male": {"type": "binary"},
    "ward": {"type": "category", "levels": ["a", "b", "c"]},
}
COHORT_SITES = ("north", "south", "west")


def validation_study(model: str, count: int = 3, floor: int = 0, learner: Any = None, **rules: Any) -> Study:
    """A completed study that validates a model of validate.R; `rules` are those of the evaluation."""
    plain = {"name": "validation", "sites": list(SPLITS[count]), "formula": FORMULAS[model], "variables": STAYS}
    plain |= {"learner": {"name": "validate", "coefficients": COEFFICIENTS[model], **(learner or {})}}
    plain |= {"evaluate": {"grid": 1000, "scale": "probability", **rules}, "disclosure": {"cell": floor, "rows": 1}}
    return complete_study(Study.model_validate(plain))


def split_stays(study: Study) -> dict[str, Data]:
    """The stays of each site, as the study reads them."""
    with (GOLDEN / "data" / "stays.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    hospitals, columns = np.array([row["site"] for row in rows]), {}
    for name in ("readmit", "age", "frail", "ward", "pain"):
        levels = STAYS[name].get("levels")
        columns[name] = np.array([float(levels.index(row[name]) if levels else row[name]) for row in rows])
    masks = {site: np.isin(hospitals, list(SPLITS[len(study.sites)][site])) for site in study.sites}
    return {site: ArrayCodes({name: values[mask] for name, values in columns.items()}) for site, mask in masks.items()}


def held_out_study(floor: int = 5, learner: Any = None, formula: str = "ill ~ lab + male", **rules: Any) -> Study:
    """A completed study of the drawn cohort with a fifth of its rows held out."""
    plain = {"name": "held-out", "sites": list(COHORT_SITES), "formula": formula, "variables": VARIABLES}
    plain |= {"learner": {"name": "glore", **(learner or {})}, "evaluate": {"held_out": 0.2, **rules}}
    plain |= {"disclosure": {"cell": floor, "rows": 1}}
    return complete_study(Study.model_validate(plain))


def draw_site(seed: int, n: int = 900) -> ArrayCodes:
    """One site's patients."""
    rng = np.random.default_rng(seed)
    lab, male, ward = np.round(rng.normal(size=n), 3), rng.integers(0, 2, n), rng.integers(0, 3, n)
    chance = 1.0 / (1.0 + np.exp(-(-0.8 + 0.9 * lab + 0.5 * male + 0.2 * ward)))
    ill = (rng.random(n) < chance).astype(float)
    return ArrayCodes({"ill": ill, "lab": lab, "male": male.astype(float), "ward": ward.astype(float)})


def draw_sites(n: int = 900) -> dict[str, Data]:
    """The cohort of all sites."""
    return {name: draw_site(seed, n) for seed, name in enumerate(COHORT_SITES)}


def play_evaluation(study: Study, rows: Mapping[str, Data]) -> tuple[Fit, MemoryProtocol]:
    """The result that all sites end with, and what was posted."""
    protocol = MemoryProtocol(learner_of(study).script, study, rows)
    results = protocol.play()
    assert len({repr(fit.details) for fit in results.values()}) == 1
    fit = results[study.sites[0]]
    assert isinstance(fit, Fit)
    return fit, protocol


def find_group(fit: Fit, name: str = "all") -> dict[str, Any]:
    """The measures of a group of patients."""
    return next(group for group in fit.details["evaluation"]["groups"] if group["name"] == name)


@dataclass(frozen=True)
class PooledRows:
    """All rows of one side of the split: outcome, score, and the columns."""

    outcome: Array
    score: Array
    columns: dict[str, NDArray[Any]]


def pool_held_out(study: Study, rows: dict[str, Data], beta: Array) -> PooledRows:
    """The held-out rows of all sites, scored by a model of `ill ~ lab + male`."""
    parts = []
    for site in rows.values():
        assert isinstance(site, ArrayCodes)
        inside = draw_held_out(study, list_row_words(site))
        parts.append({name: values[inside] for name, values in site.everything.items()})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    eta = beta[0] + beta[1] * columns["lab"] + beta[2] * columns["male"]
    return PooledRows(columns["ill"], 1.0 / (1.0 + np.exp(-eta)), columns)


def other_rows_study(floor: int = 0, learner: Any = None, where: str = "age >= 60", **rules: Any) -> Study:
    """A completed study that fits the younger stays of validate.R and is evaluated on the older ones."""
    plain = {"name": "other-rows", "sites": list(SPLITS[3]), "formula": FORMULAS["patterns"], "variables": STAYS}
    plain |= {"learner": {"name": "glore", **(learner or {})}, "disclosure": {"cell": floor, "rows": 1}}
    plain |= {"evaluate": {"on": "other rows", "where": where, "grid": 1000, "scale": "probability", **rules}}
    return complete_study(Study.model_validate(plain))


def split_older_stays(study: Study, age: float = 60.0) -> dict[str, Data]:
    """The stays of each site with the mark of those that are evaluated, as a node makes it."""
    stays = split_stays(study)
    marked = {}
    for name, part in stays.items():
        assert isinstance(part, ArrayCodes)
        values = part.everything
        marked[name] = ArrayCodes({**values, IN_EVALUATION: (values["age"] >= age).astype(float)})
    return dict(marked)
