"""Only the sum: secure-COLA-GLM on NHEFS by age group, sex and activity, with the floors that hold by default."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from coterie_node.cases import grouped, nhefs
from coterie_node.cases.case import Case
from coterie_node.errors import ConfigError

TERMS = ("agegroup", "sex", "active")
NOTE = "NHEFS: 1,629 people in 18 patterns; no site's table existed in the clear outside it, only their sum."


def site_names(count: int) -> tuple[str, ...]:
    """Names for the demo's sites; ConfigError for fewer than three."""
    if count < 3:
        raise ConfigError("CO-F305", f"secure_cola needs three sites or more, not {count}.")
    return nhefs.site_names(count)


def study_text(sites: Sequence[str]) -> str:
    """The study file."""
    return grouped.study_text("secure_cola", TERMS, sites)


CASE = Case(site_names, study_text, grouped.write_sites, partial(grouped.pooled, TERMS), (NOTE,))
