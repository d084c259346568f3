"""Columns of NHEFS split over sites: demographics, habits and clinical measurements of the same people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from coterie_node.cases import nhefs
from coterie_node.cases.case import Case
from coterie_node.errors import ConfigError
from coterie_node.reference import Reference

SITES = ("demographics", "habits", "clinical")
# What each of them holds, in this order.
HELD = (
    ("age", "sex", "race"),
    ("smokeintensity", "smokeyrs", "active"),
    ("death", "wt71", "sbp", "cholesterol", "diabetes"),
)
TERMS = tuple(name for held in HELD for name in held if name != nhefs.OUTCOME)

STUDY = """\
# Death by 1992 in NHEFS; each site knows other things of the same people. All sites approve this file by its hash.
name = "nhefs-{learner}"
title = "NHEFS: death by 1992, columns at three sites"
sites = [{sites}]
formula = "death ~ {terms}"
identifier = ["seqn"]

[columns]
{columns}

[learner]
name = "{learner}"

[rows]
missing = "drop"

[disclosure]
# The factors that the sites send give sex, race and other binary columns back to their readers.
rebuild = "allow"

"""

NOTE = "NHEFS: 93 people without a blood pressure or a cholesterol value are missing at the clinical site only."


def site_names(count: int) -> tuple[str, ...]:
    """The three sites; ConfigError for another number."""
    if count != len(SITES):
        raise ConfigError("CO-F305", f"This demo splits columns over {len(SITES)} sites, not over {count}.")
    return SITES


def study_text(learner: str) -> Callable[[Sequence[str]], str]:
    """The study file of a learner, for given sites."""

    def text(sites: Sequence[str]) -> str:
        columns = "\n".join(f"{site} = [{nhefs.listed(held)}]" for site, held in zip(sites, HELD, strict=True))
        listed, terms = nhefs.listed(sites), " + ".join(TERMS)
        return STUDY.format(learner=learner, sites=listed, terms=terms, columns=columns) + nhefs.VARIABLES

    return text


def write_sites(folder: Path, sites: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site, each in an order of its own; returns their paths by site."""
    frame = nhefs.cohort("seqn")
    rng = np.random.default_rng(nhefs.SEED)
    return {
        name: nhefs.write(frame[["seqn", *held]].iloc[rng.permutation(len(frame))], folder / name / "data.csv")
        for name, held in zip(sites, HELD, strict=True)
    }


def pooled() -> Reference:
    """statsmodels' logit on all complete rows of the joined columns."""
    import statsmodels.api as sm

    frame = nhefs.cohort().dropna()
    terms, x = nhefs.design(frame, TERMS)
    fit = sm.Logit(frame["death"].to_numpy(float), x).fit(disp=0, method="newton", tol=1e-14, maxiter=100)
    return Reference(
        dict(zip(terms, fit.params.tolist(), strict=True)), dict(zip(terms, fit.bse.tolist(), strict=True))
    )


def case_for(learner: str) -> Case:
    """The demo of a learner on split columns."""
    return Case(site_names, study_text(learner), write_sites, pooled, (NOTE,))
