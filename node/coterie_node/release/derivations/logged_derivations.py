"""What studies derive under names of their own, as the log keeps it, and its values on the rows of a later study.

The log has no values. But it has what a study derives, in the words of the study. So the gate computes a former study's
numbers and levels again wherever the later study reads the columns behind them, and compares values, not names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Variable
from coterie_learners.study.preparation.plan import DerivedColumn, derive_texts
from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.prints import RawRows


def log_derivations(design: Design) -> dict[str, dict[str, Any]]:
    """What a study derives row by row, as the log keeps it: the text, and what the columns of the file are."""
    plan = design.study.preparation
    if plan is None or plan.by_patient:
        return {}
    texts, variables = design.study.derivations, design.study.variables
    raw = {name: variables[name].model_dump(mode="json") for name in plan.raw}
    return {
        name: {
            "text": texts[name],
            "from": {source: raw[source] for source in sorted(typed.sources) if source in raw},
            "also": sorted(source for source in typed.sources if source not in raw),
        }
        for name, typed in plan.row_derived.items()
    }


def derive_logged(head: ReleaseHead, rows: RawRows) -> dict[str, DerivedColumn]:
    """The variables that a former study derived, on these rows; without those of which a column is not here."""
    kept, values = head.derivations, dict[str, Array]()
    declared = {
        name: Variable.model_validate(plain)
        for entry in kept.values()
        for name, plain in entry["from"].items()
        if name in rows.values
    }
    known = {name for name, entry in kept.items() if entry["from"].keys() <= declared.keys()}
    while lacking := {name for name in known if not known.issuperset(kept[name]["also"])}:
        known -= lacking
    read = {name for derived in known for name in kept[derived]["from"]}
    for name in read:
        values[name] = _code_levels(rows, name, declared[name])
    if not read:
        return {}
    try:
        return derive_texts(
            {name: kept[name]["text"] for name in known}, {name: declared[name] for name in read}, values
        )
    except StudyError:
        return {}  # the words of another version, or of a study whose names are columns here


def _code_levels(rows: RawRows, name: str, declared: Variable) -> Array:
    """A column's values; of a category the numbers that the declaration gives its levels, not a number for others."""
    values = np.asarray(rows.values[name], dtype=np.float64)
    levels = rows.levels.get(name)
    if levels is None or not declared.levels:
        return values
    places = {level: float(k) for k, level in enumerate(declared.levels)}
    return np.array([places.get(level, np.nan) for level in levels])[values.astype(np.intp)]


def list_logged_sources(kept: Mapping[str, Mapping[str, Any]], name: str) -> tuple[str, ...]:
    """The columns of the file behind a variable that a study derived."""
    if name not in kept:
        return (name,)
    entry = kept[name]
    inner = (source for other in entry["also"] for source in list_logged_sources(kept, other))
    return tuple(sorted({*entry["from"], *inner}))
