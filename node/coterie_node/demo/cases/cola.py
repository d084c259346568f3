"""One round of tables: COLA-GLM counts NHEFS by age group, sex, race, diabetes and activity."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from coterie_node.demo.cases import nhefs
from coterie_node.demo.cases.case import Case
from coterie_node.demo.cases.shared import grouped

_TERMS = ("agegroup", "sex", "race", "diabetes", "active")
ALL_CELLS = """\
[disclosure]
# These patients' records are public. With a floor, patterns below it would be left out, and the fit would say so.
cell = 0

"""
_NOTE = "NHEFS: 1,629 people in 108 possible patterns; patterns of one person are shared, because the data are public."


def _study_text(sites: Sequence[str]) -> str:
    """The study file."""
    return grouped.render_study("cola", _TERMS, sites, "cells = true\n", ALL_CELLS)


CASE = Case(nhefs.name_sites, _study_text, grouped.write_row_split, partial(grouped.fit_pooled, _TERMS), (_NOTE,))
