"""Columns of NHEFS split over two owners: Secure Lasso fits systolic blood pressure on a table that nobody has.

A clinic measured blood pressure, weight and cholesterol; a registry holds who the people are and how they smoke. Each
knows only some of the people (chosen at random), and some of them in common; a helper has no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coterie_node.analysis.pooled import Reference
from coterie_node.demo.cases import nhefs
from coterie_node.demo.cases.case import Case
from coterie_node.errors import ConfigError

_SITES = ("clinic", "registry", "helper")
# What each of them holds, in this order.
_COLUMNS: tuple[tuple[str, ...], ...] = (
    ("sbp", "wt71", "cholesterol", "diabetes"),
    ("age", "sex", "race", "smokeintensity", "smokeyrs", "active"),
    (),
)
_COVARIATES = tuple(name for names in _COLUMNS for name in names if name != "sbp")
_ALPHA = 0.5
# The share of people that each owner knows.
_KNOWN_SHARE = 0.85

_STUDY = """\
# Systolic blood pressure in NHEFS, on columns that two owners hold of partly the same people.
name = "nhefs-pressure"
title = "NHEFS: systolic blood pressure, columns split"
sites = [{sites}]
formula = "sbp ~ {terms}"
identifier = ["person", "born"]

[columns]
{columns}

[learner]
name = "secure_lasso"
alpha = {alpha}
penalise = "units"
absolute_error = true

[rows]
missing = "drop"

"""


def _site_names(count: int) -> tuple[str, ...]:
    """The two owners and the helper; ConfigError for another number of sites."""
    if count != len(_SITES):
        raise ConfigError(
            "CO-F314", f"The demo of secure_lasso has {len(_SITES)} sites: {', '.join(_SITES)}. Leave out --sites."
        )
    return _SITES


def _study_text(sites: Sequence[str]) -> str:
    """The study file."""
    site_columns = zip(sites, _COLUMNS, strict=True)
    columns = "\n".join(f"{name} = [{nhefs.quote_names(names)}]" for name, names in site_columns)
    terms = " + ".join(_COVARIATES)
    return _STUDY.format(sites=nhefs.quote_names(sites), terms=terms, columns=columns, alpha=_ALPHA) + nhefs.VARIABLES


def _load_identified_cohort() -> Any:
    """The cohort with pseudonymous identifiers: a number, and the year of birth."""
    frame = nhefs.load_cohort()
    frame["person"] = [f"NH-{k:05d}" for k in range(1, len(frame) + 1)]
    frame["born"] = (1971 - frame["age"]).astype(int).astype(str)
    return frame


def _choose_known_people(rows: int) -> list[np.ndarray[Any, np.dtype[np.bool_]]]:
    """Which people each owner knows."""
    rng = np.random.default_rng(nhefs.SPLIT_SEED)
    return [rng.random(rows) < _KNOWN_SHARE for site_columns in _COLUMNS if site_columns]


def _write_sites(folder: Path, sites: Sequence[str]) -> dict[str, Path]:
    """One CSV file per owner, in an order of its own; the helper has none."""
    frame = _load_identified_cohort()
    paths = {}
    for seed, (name, site_columns, rows) in enumerate(
        zip(sites, _COLUMNS, _choose_known_people(len(frame)), strict=False)
    ):
        own = frame.loc[rows, ["person", "born", *site_columns]]
        paths[name] = nhefs.write_frame(own.sample(frac=1, random_state=seed), folder / name / "data.csv")
    return paths


def _fit_pooled() -> Reference:
    """scikit-learn's Lasso on the rows that the join finds: pooled for the demo only."""
    from sklearn.linear_model import Lasso

    frame = _load_identified_cohort()
    both = np.logical_and.reduce(_choose_known_people(len(frame)))
    joint = frame[both].dropna()
    terms, x = nhefs.build_design(joint, _COVARIATES)
    fit = Lasso(alpha=_ALPHA, tol=1e-12, max_iter=1_000_000).fit(x[:, 1:], joint["sbp"].to_numpy(float))
    return Reference(dict(zip(terms, [float(fit.intercept_), *fit.coef_.tolist()], strict=True)))


_NOTE = "NHEFS: people that both owners know, with all values; the helper saw neither names nor values."

CASE = Case(_site_names, _study_text, _write_sites, _fit_pooled, (_NOTE,), len(_SITES))
