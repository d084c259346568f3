"""Rows of NHEFS split over sites: GLORE fits death by 1992 on what the survey measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coterie_node.analysis.pooled import Reference
from coterie_node.demo.cases import nhefs
from coterie_node.demo.cases.case import Case

COVARIATES = ("age", "sex", "race", "smokeintensity", "smokeyrs", "wt71", "sbp", "cholesterol", "diabetes", "active")

_STUDY = """\
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

_UNMASKED = """\
[disclosure]
# With fewer than three sites no sum can be masked; these patients' records are public.
cell = 0

"""

_NOTE = "NHEFS: of 1,629 people, those without a blood pressure or a cholesterol value are left out at every site."


def _study_text(sites: Sequence[str]) -> str:
    """The study file."""
    constant = "refuse" if len(sites) <= 5 else "allow"
    head = _STUDY.format(sites=nhefs.quote_names(sites), terms=" + ".join(COVARIATES), constant=constant)
    return head + (_UNMASKED if len(sites) < 3 else "") + nhefs.VARIABLES


def _write_sites(folder: Path, sites: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site; returns their paths by site."""
    frame = nhefs.load_cohort()
    shares = nhefs.split(len(frame), sites)
    return {name: nhefs.write_frame(frame.iloc[rows], folder / name / "data.csv") for name, rows in shares.items()}


def _fit_pooled() -> Reference:
    """statsmodels' GLM on all complete rows."""
    import statsmodels.api as sm

    frame = nhefs.load_cohort().dropna()
    terms, x = nhefs.build_design(frame, COVARIATES)
    fit = sm.GLM(frame["death"].to_numpy(float), x, family=sm.families.Binomial()).fit(tol=1e-14, maxiter=100)
    return Reference(
        dict(zip(terms, fit.params.tolist(), strict=True)), dict(zip(terms, fit.bse.tolist(), strict=True))
    )


CASE = Case(nhefs.name_sites, _study_text, _write_sites, _fit_pooled, (_NOTE,))
