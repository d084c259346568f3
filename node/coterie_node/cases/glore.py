"""Rows of NHEFS split over sites: GLORE fits death by 1992 on what the survey measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coterie_node.cases import nhefs
from coterie_node.cases.case import Case
from coterie_node.reference import Reference

NAMES = ("age", "sex", "race", "smokeintensity", "smokeyrs", "wt71", "sbp", "cholesterol", "diabetes", "active")

STUDY = """\
# Death by 1992 in NHEFS, by what the survey measured. All sites approve this file by its hash.
name = "nhefs-mortality"
title = "NHEFS: death by 1992"
sites = [{sites}]
formula = "death ~ {terms}"

[learner]
name = "glore"

[rows]
missing = "drop"
# A small site may have nobody with a rare level; the pooled rows do.
constant = "{constant}"

"""

UNMASKED = """\
[disclosure]
# With fewer than three sites no sum can be masked; these patients' records are public.
cell = 0

"""

NOTE = "NHEFS: of 1,629 people, those without a blood pressure or a cholesterol value are left out at every site."


def study_text(sites: Sequence[str]) -> str:
    """The study file."""
    constant = "refuse" if len(sites) <= 5 else "allow"
    head = STUDY.format(sites=nhefs.listed(sites), terms=" + ".join(NAMES), constant=constant)
    return head + (UNMASKED if len(sites) < 3 else "") + nhefs.VARIABLES


def write_sites(folder: Path, sites: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site; returns their paths by site."""
    frame = nhefs.cohort()
    shares = nhefs.split(len(frame), sites)
    return {name: nhefs.write(frame.iloc[rows], folder / name / "data.csv") for name, rows in shares.items()}


def pooled() -> Reference:
    """statsmodels' GLM on all complete rows."""
    import statsmodels.api as sm

    frame = nhefs.cohort().dropna()
    terms, x = nhefs.design(frame, NAMES)
    fit = sm.GLM(frame["death"].to_numpy(float), x, family=sm.families.Binomial()).fit(tol=1e-14, maxiter=100)
    return Reference(
        dict(zip(terms, fit.params.tolist(), strict=True)), dict(zip(terms, fit.bse.tolist(), strict=True))
    )


CASE = Case(nhefs.site_names, study_text, write_sites, pooled, (NOTE,))
