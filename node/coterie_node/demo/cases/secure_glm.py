"""Rows of NHEFS at two hospitals and a helper: Secure GLM fits death by 1992, and only the result is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from coterie_node.demo.cases import glore, nhefs
from coterie_node.demo.cases.case import Case
from coterie_node.errors import ConfigError

_SITES = ("north", "south", "university")

_STUDY = """\
# Death by 1992 in NHEFS at two hospitals, whose sums nothing could mask; a university computes with them.
name = "nhefs-two-hospitals"
title = "NHEFS: death by 1992, two hospitals and a helper"
sites = [{sites}]
helpers = ["{helper}"]
formula = "death ~ {terms}"

[learner]
name = "secure_glm"

[rows]
missing = "drop"

"""


def _site_names(count: int) -> tuple[str, ...]:
    """The two hospitals and the helper; ConfigError for another number of sites."""
    if count != len(_SITES):
        raise ConfigError(
            "CO-F314", f"The demo of secure_glm has {len(_SITES)} sites: {', '.join(_SITES)}. Leave out --sites."
        )
    return _SITES


def _study_text(sites: Sequence[str]) -> str:
    """The study file."""
    terms = " + ".join(glore.COVARIATES)
    return _STUDY.format(sites=nhefs.quote_names(sites), helper=sites[-1], terms=terms) + nhefs.VARIABLES


def _write_sites(folder: Path, sites: Sequence[str]) -> Mapping[str, Path]:
    """One CSV file for each hospital; the helper has none."""
    return glore.CASE.write_sites(folder, sites[:-1])


_NOTE = (
    "NHEFS: of 1,629 people, those without a blood pressure or a cholesterol value are left out at both hospitals; the "
    "university saw shares only."
)

CASE = Case(_site_names, _study_text, _write_sites, glore.CASE.pooled, (_NOTE,), len(_SITES))
