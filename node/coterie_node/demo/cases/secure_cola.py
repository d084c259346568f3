"""Only the sum: secure-COLA-GLM on NHEFS by age group, sex and activity, with the floors that hold by default."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from coterie_node.demo.cases import nhefs
from coterie_node.demo.cases.case import Case
from coterie_node.demo.cases.shared import grouped
from coterie_node.errors import ConfigError

_TERMS = ("agegroup", "sex", "active")
_NOTE = "NHEFS: 1,629 people in 18 patterns; no site's table existed in the clear outside it, only their sum."


def _site_names(count: int) -> tuple[str, ...]:
    """Names for the demo's sites; ConfigError for fewer than three."""
    if count < 3:
        raise ConfigError(
            "CO-F314", f"secure_cola needs three sites or more, not {count}. Run the demo with --sites 3."
        )
    return nhefs.name_sites(count)


def _study_text(sites: Sequence[str]) -> str:
    """The study file."""
    return grouped.render_study("secure_cola", _TERMS, sites)


CASE = Case(_site_names, _study_text, grouped.write_row_split, partial(grouped.fit_pooled, _TERMS), (_NOTE,))
