"""Columns over the patients of a new study that several former ones show together: of all, less of the men, of women.

Former studies of other patients tell nothing of these by themselves. But where a combination of their patients leaves
nobody outside of the new study, the sums of a column that all of them have are sums over these patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.prints import RawRows
from coterie_node.release.derivations.known_columns import SummedColumn
from coterie_node.release.derivations.summed_columns import list_derivable_columns

# More studies with one column are not combined.
_MOST_STUDIES = 40
_NOTHING = 1e-9


def combine_row_sets(
    log: PrivacyLog, candidate: Candidate, former: Sequence[ReleaseHead], rows: RawRows
) -> list[SummedColumn]:
    """The columns (n,) of former studies, over those of these rows that combinations of their patients leave."""
    heads = [head for head in former if head.identified and candidate.head.identified]
    if len(heads) < 2:
        return []
    places = len(candidate.patients.prints)
    members = [log.bits(head, places) for head in heads]
    shown: dict[tuple[str, ...], list[tuple[int, SummedColumn]]] = {}
    for k, head in enumerate(heads):
        for column in list_derivable_columns(head, rows):
            shown.setdefault(define_column(head, column.name), []).append((k, column))
    out: list[SummedColumn] = []
    for found in (found for found in shown.values() if 1 < len(found) <= _MOST_STUDIES):
        for weights in _leave_nobody_else([members[k] for k, _ in found], candidate):
            out += _weigh_levels(found[0][1], weights)
    return out


def define_column(head: ReleaseHead, name: str) -> tuple[str, ...]:
    """What a study's column is, in the words that it has in any study: its text, and those of what that reads."""
    if name not in head.derivations:
        return (name,)
    entry = head.derivations[name]
    return (f"= {entry['text']}", *(word for other in entry["also"] for word in (other, *define_column(head, other))))


def _leave_nobody_else(members: Sequence[NDArray[np.bool_]], candidate: Candidate) -> Iterator[Array]:
    """How often each row (n,) is in combinations of sets of patients that leave nobody but these rows."""
    bits = np.column_stack(members)
    outside = np.unique(bits[~candidate.bits], axis=0).astype(np.float64)
    if not outside.any():
        return  # parts of these rows, which are compared one by one
    _, sizes, directions = np.linalg.svd(outside, full_matrices=True)
    rank = int(np.count_nonzero(sizes > _NOTHING * sizes[0]))
    for direction in directions[rank:]:
        weights = bits[candidate.at] @ direction
        if np.abs(weights).max(initial=0.0) > _NOTHING:
            yield np.where(np.abs(weights) > _NOTHING, weights, 0.0)


def _weigh_levels(column: SummedColumn, weights: Array) -> Iterator[SummedColumn]:
    name = f"{column.name} of several studies"
    for part in column.code().T:
        yield SummedColumn(name, part * weights, False, True, column.is_raw, is_judged=False)
