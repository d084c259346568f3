"""Few patients between a level of one study and all patients of another, whose condition takes a part of the rows.

Those over 41 among all patients less a study of those over 40 alone are sums over those of 41. So whether a patient is
in the smaller of two studies is a column of the larger one, and is judged as a derived column is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.objections import Objection
from coterie_node.privacy.patients import PatientMask
from coterie_node.privacy.values import LevelTable
from coterie_node.release.derivations.known_derivations import (
    DerivedTables,
    Sizes,
    judge_derivations,
    parse_levels,
    read_model_columns,
)


def judge_parts(
    log: PrivacyLog, candidate: Candidate, former: Sequence[ReleaseHead], new: DerivedTables, sizes: Sizes
) -> Iterator[Objection]:
    """Objections where one of two studies takes a level of the other, except few patients."""
    places = len(candidate.patients.prints)
    for head in (head for head in former if head.identified and candidate.head.identified):
        bits = log.bits(head, places)
        name = f"the patients of {head.study!r}"
        if bits.any() and not (bits & ~candidate.bits).any():
            yield from _judge_part(name, bits[candidate.at], new, sizes)
        elif not (candidate.bits & ~bits).any():
            inside = candidate.bits[np.flatnonzero(bits)]
            tables = [parse_levels(column, prints) for column, prints in read_model_columns(log, head, ())]
            whole = {table.name: table for table in tables if table is not None and len(table.codes) == len(inside)}
            yield from _judge_part(f"of {name} those of the new study", inside, whole, sizes)


def _judge_part(name: str, inside: PatientMask, tables: DerivedTables, sizes: Sizes) -> Iterator[Objection]:
    part = LevelTable(name, inside.astype(np.intp), 2)
    if 0 < np.count_nonzero(inside) < len(inside):
        yield from judge_derivations(tables, {name: part}, {name}, sizes)
