"""Hazard ratios of death in NHEFS by what the survey measured: a Cox model with a baseline hazard for each site."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coterie_node.analysis.pooled import Reference
from coterie_node.demo.cases import nhefs
from coterie_node.demo.cases.case import Case
from coterie_node.errors import ConfigError

_COVARIATES = ("age", "sex", "smokeyrs", "sbp", "active")
_STUDY = """\
# Hazard ratios of death in NHEFS from January 1983. All sites approve this file by its hash.
name = "nhefs-hazards"
title = "NHEFS: hazard ratios of death"
sites = [{sites}]
formula = "death ~ {terms}"

[learner]
name = "cox"
time = "months"
event = "death"
ties = "breslow"

[rows]
missing = "drop"

"""


def _site_names(count: int) -> tuple[str, ...]:
    """Names for the demo's sites; ConfigError for another number than three."""
    if count != 3:
        message = f"The demo of cox compares with a fit whose strata are three sites, not {count}"
        raise ConfigError("CO-F314", f"{message}. Run the demo with --sites 3.")
    return nhefs.name_sites(count)


def _study_text(sites: Sequence[str]) -> str:
    """The study file."""
    head = _STUDY.format(sites=nhefs.quote_names(sites), terms=" + ".join(_COVARIATES))
    return head + nhefs.MONTHS + nhefs.VARIABLES


def _write_sites(folder: Path, sites: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site; returns their paths by site."""
    return nhefs.write_months(folder, sites, ("months", "death", *_COVARIATES))


def _fit_pooled() -> Reference:
    """statsmodels' PHReg on all complete rows, with the demo's three sites as strata."""
    from statsmodels.duration.hazard_regression import PHReg

    frame = nhefs.load_months()
    place = np.zeros(len(frame), dtype=int)
    for k, rows in enumerate(nhefs.split(len(frame), nhefs.name_sites(3)).values()):
        place[rows] = k
    full = frame[list(_COVARIATES)].notna().all(axis=1).to_numpy()
    frame, place = frame[full], place[full]
    terms, x = nhefs.build_design(frame, _COVARIATES)
    fit = PHReg(frame["months"].to_numpy(float), x[:, 1:], status=frame["death"].to_numpy(int), strata=place).fit()
    pairs = zip(terms[1:], fit.params.tolist(), fit.bse.tolist(), strict=True)
    names, estimates, errors = zip(*pairs, strict=True)
    return Reference(dict(zip(names, estimates, strict=True)), dict(zip(names, errors, strict=True)))


_NOTE = "NHEFS: of 1,629 people, those without a blood pressure are left out; the pooled fit has three sites as strata."
CASE = Case(_site_names, _study_text, _write_sites, _fit_pooled, (_NOTE,))
