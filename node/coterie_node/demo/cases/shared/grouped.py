"""NHEFS in categories: the cohort of the demos whose learners count patients by covariate pattern."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coterie_node.analysis.pooled import Reference
from coterie_node.demo.cases import nhefs

AGE_GROUPS = {"25-39": (0, 39), "40-54": (40, 54), "55-74": (55, 120)}
_LEVELS = {"agegroup": tuple(AGE_GROUPS), **{name: tuple(words.values()) for name, words in nhefs.LEVEL_WORDS.items()}}

_STUDY_HEAD = """\
# Death by 1992 in NHEFS, by categories. All sites approve this file by its hash.
name = "nhefs-{short}"
title = "NHEFS: death by 1992, by categories"
sites = [{sites}]
formula = "death ~ {terms}"

[learner]
name = "{learner}"
{options}
[rows]
# A small site may have nobody with a rare level; the pooled rows do.
constant = "allow"
collinear = "allow"

{extra_sections}[variables.death]
type = "binary"
label = "death by 1992"
"""


def load_grouped_cohort() -> Any:
    """The cohort with age in groups, without measurements."""
    frame = nhefs.load_cohort()
    frame["agegroup"] = ""
    for name, (low, high) in AGE_GROUPS.items():
        frame.loc[(frame["age"] >= low) & (frame["age"] <= high), "agegroup"] = name
    return frame[[nhefs.OUTCOME, *_LEVELS]]


def render_study(
    learner: str, terms: Sequence[str], sites: Sequence[str], options: str = "", extra_sections: str = ""
) -> str:
    """The study file of a learner with these covariates."""
    short = learner.replace("_", "-")
    head = _STUDY_HEAD.format(
        short=short,
        sites=nhefs.quote_names(sites),
        terms=" + ".join(terms),
        learner=learner,
        options=options,
        extra_sections=extra_sections,
    )
    return head + "".join(_declare_variable(name) for name in terms)


def write_row_split(folder: Path, sites: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site; returns their paths by site."""
    frame = load_grouped_cohort()
    shares = nhefs.split(len(frame), sites)
    return {name: nhefs.write_frame(frame.iloc[rows], folder / name / "data.csv") for name, rows in shares.items()}


def fit_pooled(terms: Sequence[str]) -> Reference:
    """statsmodels' GLM on all rows."""
    import statsmodels.api as sm

    frame = load_grouped_cohort()
    names, columns = ["(Intercept)"], [np.ones(len(frame))]
    for term in terms:
        for level in _LEVELS[term][1:]:
            names.append(f"{term}[{level}]")
            columns.append((frame[term] == level).to_numpy(float))
    fit = sm.GLM(frame["death"].to_numpy(float), np.column_stack(columns), family=sm.families.Binomial()).fit(
        tol=1e-14, maxiter=100
    )
    return Reference(
        dict(zip(names, fit.params.tolist(), strict=True)), dict(zip(names, fit.bse.tolist(), strict=True))
    )


def _declare_variable(name: str) -> str:
    levels = ", ".join(f'"{level}"' for level in _LEVELS[name])
    return f'\n[variables.{name}]\ntype = "category"\nlevels = [{levels}]\n'
