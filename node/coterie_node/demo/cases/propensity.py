"""The effect of quitting smoking on weight in NHEFS, by propensity scores as in Hernan and Robins' chapter 12."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coterie_node.analysis.pooled import Reference
from coterie_node.demo.cases import nhefs
from coterie_node.demo.cases.case import Case

_SQUARED = ("age", "smokeintensity", "smokeyrs", "wt71")
_SCHOOLING = {1: "grade-8", 2: "some-high-school", 3: "high-school", 4: "some-college", 5: "college"}
_EXERCISE = {0: "much", 1: "moderate", 2: "little"}
_TERMS = ("sex", "race", "education", "exercise", "active", *_SQUARED, *(f"{name}^2" for name in _SQUARED))
_STUDY = """\
# The effect of quitting smoking on weight in NHEFS. All sites approve this file by its hash.
name = "nhefs-quitting"
title = "NHEFS: quitting smoking and weight gain"
sites = [{sites}]
formula = "wt82_71 ~ qsmk + {terms}"

[learner]
name = "propensity"
treatment = "qsmk"
estimand = "ATE"
effect = "difference"
stabilised = true

[rows]
missing = "drop"

[variables.wt82_71]
type = "number"
label = "weight gain from 1971 to 1982"
unit = "kg"
range = [-60, 80]

[variables.qsmk]
type = "binary"
label = "quit smoking between 1971 and 1982"

[variables.education]
type = "category"
levels = [{schooling}]

[variables.exercise]
type = "category"
levels = [{exercise}]

{variables}"""


def _study_text(sites: Sequence[str]) -> str:
    """The study file."""
    return _STUDY.format(
        sites=nhefs.quote_names(sites),
        terms=" + ".join(_TERMS),
        schooling=nhefs.quote_names(tuple(_SCHOOLING.values())),
        exercise=nhefs.quote_names(tuple(_EXERCISE.values())),
        variables=nhefs.VARIABLES,
    )


def _load_quitters() -> Any:
    """The cohort with the treatment, the outcome, and the levels of schooling and exercise in words."""
    frame = nhefs.load_cohort("wt82_71", "qsmk", "education", "exercise")
    for column, words in (("education", _SCHOOLING), ("exercise", _EXERCISE)):
        frame[column] = frame[column].astype(int).map(words)
    frame["qsmk"] = frame["qsmk"].astype(int)
    return frame


def _write_sites(folder: Path, sites: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site; returns their paths by site."""
    names = ["wt82_71", "qsmk", *(name for name in _TERMS if "^" not in name)]
    frame = _load_quitters()[names]
    shares = nhefs.split(len(frame), sites)
    return {name: nhefs.write_frame(frame.iloc[rows], folder / name / "data.csv") for name, rows in shares.items()}


def _fit_pooled() -> Reference:
    """statsmodels' logistic score and weighted regression on all rows, with the stacked sandwich of both."""
    from statsmodels.discrete.discrete_model import Logit
    from statsmodels.regression.linear_model import WLS

    frame = _load_quitters()
    frame = frame[frame["wt82_71"].notna()]
    x, a, y = _build_covariates(frame), frame["qsmk"].to_numpy(float), frame["wt82_71"].to_numpy(float)
    score = Logit(a, x).fit(disp=0, method="newton", tol=1e-14, maxiter=100).predict(x)
    weight = a / score + (1.0 - a) / (1.0 - score)
    z = np.column_stack([np.ones(len(a)), a])
    fit = WLS(y, z, weights=weight).fit()
    residual = y - fit.predict(z)
    # The rows' estimating functions, those of the outcome less what the score's explain of them.
    slope = (-a * (1.0 - score) / score + (1.0 - a) * score / (1.0 - score)) * residual
    bread = np.linalg.inv((x.T * (score * (1.0 - score))) @ x)
    rows = z * (weight * residual)[:, None] + (x * (a - score)[:, None]) @ bread @ ((x.T * slope) @ z)
    inverse = np.linalg.inv((z.T * weight) @ z)
    errors = np.sqrt(np.diag(inverse @ (rows.T @ rows) @ inverse))
    names = ("(Intercept)", "qsmk")
    return Reference(dict(zip(names, fit.params.tolist(), strict=True)), dict(zip(names, errors.tolist(), strict=True)))


def _build_covariates(frame: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Columns (n, p) of the score, numbers about their means in units of their spread."""
    levels = {
        "sex": nhefs.LEVEL_WORDS["sex"],
        "race": nhefs.LEVEL_WORDS["race"],
        "education": _SCHOOLING,
        "exercise": _EXERCISE,
        "active": nhefs.LEVEL_WORDS["active"],
    }
    columns = [np.ones(len(frame))]
    for name, words in levels.items():
        columns += [(frame[name] == word).to_numpy(float) for word in list(words.values())[1:]]
    for name in _SQUARED:
        values = frame[name].to_numpy(float)
        centred = (values - values.mean()) / values.std()
        columns += [centred, centred**2]
    return np.column_stack(columns)


_NOTE = (
    "NHEFS: the 63 of 1,629 people whose weight of 1982 is missing are left out; Hernan and Robins (What If, chapter "
    "12) have an effect of 3.4 kg."
)
CASE = Case(nhefs.name_sites, _study_text, _write_sites, _fit_pooled, (_NOTE,))
