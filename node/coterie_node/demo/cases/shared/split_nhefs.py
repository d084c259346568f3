"""Columns of NHEFS split over sites: demographics, habits and clinical measurements of the same people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from coterie_node.analysis.pooled import Reference
from coterie_node.demo.cases import nhefs
from coterie_node.demo.cases.case import Case
from coterie_node.errors import ConfigError

_SITES = ("demographics", "habits", "clinical")
# What each of them holds, in this order.
_COLUMNS_BY_SITE = (
    ("age", "sex", "race"),
    ("smokeintensity", "smokeyrs", "active"),
    ("death", "wt71", "sbp", "cholesterol", "diabetes"),
)
_TERMS = tuple(name for site_columns in _COLUMNS_BY_SITE for name in site_columns if name != nhefs.OUTCOME)

_STUDY = """\
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

_NOTE = "NHEFS: 93 people without a blood pressure or a cholesterol value are missing at the clinical site only."


def _site_names(count: int) -> tuple[str, ...]:
    """The three sites; ConfigError for another number."""
    if count != len(_SITES):
        raise ConfigError(
            "CO-F314", f"This demo splits columns over {len(_SITES)} sites, not over {count}. Leave out --sites."
        )
    return _SITES


def _study_text(learner: str) -> Callable[[Sequence[str]], str]:
    """The study file of a learner, for given sites."""

    def render(sites: Sequence[str]) -> str:
        columns = "\n".join(
            f"{site} = [{nhefs.quote_names(site_columns)}]"
            for site, site_columns in zip(sites, _COLUMNS_BY_SITE, strict=True)
        )
        site_list, terms = nhefs.quote_names(sites), " + ".join(_TERMS)
        return _STUDY.format(learner=learner, sites=site_list, terms=terms, columns=columns) + nhefs.VARIABLES

    return render


def _write_sites(folder: Path, sites: Sequence[str]) -> dict[str, Path]:
    """One CSV file per site, each in an order of its own; returns their paths by site."""
    frame = nhefs.load_cohort("seqn")
    rng = np.random.default_rng(nhefs.SPLIT_SEED)
    return {
        name: nhefs.write_frame(
            frame[["seqn", *site_columns]].iloc[rng.permutation(len(frame))], folder / name / "data.csv"
        )
        for name, site_columns in zip(sites, _COLUMNS_BY_SITE, strict=True)
    }


def _fit_pooled() -> Reference:
    """statsmodels' logit on all complete rows of the joined columns."""
    import statsmodels.api as sm

    frame = nhefs.load_cohort().dropna()
    terms, x = nhefs.build_design(frame, _TERMS)
    fit = sm.Logit(frame["death"].to_numpy(float), x).fit(disp=0, method="newton", tol=1e-14, maxiter=100)
    return Reference(
        dict(zip(terms, fit.params.tolist(), strict=True)), dict(zip(terms, fit.bse.tolist(), strict=True))
    )


def make_case(learner: str) -> Case:
    """The demo of a learner on split columns."""
    return Case(_site_names, _study_text(learner), _write_sites, _fit_pooled, (_NOTE,))
