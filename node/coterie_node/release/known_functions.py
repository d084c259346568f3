"""Few patients behind functions of one column: sums that hinges, splines and powers of several formulas leave.

Sums of several functions of a column are sums of each combination of them. Close knots, in one study or in several over
the same patients, have a combination that is 0 for all but the patients between them: the sums are these patients' own.
The patients of a combination lie side by side in the order of the column. So for each run of fewer patients than the
floor we ask whether a combination is nearly 0 outside: whether the rows of an orthonormal basis there have a singular
value near 1 (leverages; Belsley, Kuh and Welsch, Regression Diagnostics, 1980, section 2.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_learners.study.derived import Derived
from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.release.known_cuts import derive_again

# What a combination may leave outside of a run, as a share of its squares.
_OUTSIDE = 1e-3
# A direction of the functions below this share of the largest one is rounding.
_ROUNDED = 1e-12
# More columns of functions than these are not looked through.
_MOST_COLUMNS = 200


@dataclass(frozen=True)
class ColumnFunctions:
    """One function of one column: the study that sums it, and its values (n, k)."""

    study: str
    column: str
    name: str
    values: Array


def judge_functions(
    head: ReleaseHead, former: Sequence[ReleaseHead], values: Mapping[str, NDArray[Any]], floor: int
) -> Iterator[Objection]:
    """Objections where functions of a column, with those of former releases of these rows, leave few patients."""
    own = list(_list_shapes(head, values))
    shapes = [*own, *(shape for other in former for shape in _list_shapes(other, values))] if own else []
    for column in dict.fromkeys(shape.column for shape in own):
        same = list({shape.name: shape for shape in reversed(shapes) if shape.column == column}.values())
        if floor > 1 and (len(same) > 1 or head.kind == "plain") and _leave_few(same, values[column], head, floor):
            yield _refuse(column, [shape.study for shape in shapes if shape.column == column], head)


def _list_shapes(head: ReleaseHead, values: Mapping[str, NDArray[Any]]) -> Iterator[ColumnFunctions]:
    for (_, parts), name in zip(derive_again(head.functions), head.functions, strict=True):
        sources = parts[0].sources
        if len(sources) == 1 and sources[0] in values:
            yield ColumnFunctions(
                head.study, sources[0], name, np.column_stack([_evaluate(part, values) for part in parts])
            )


def _evaluate(part: Derived, values: Mapping[str, NDArray[Any]]) -> Array:
    """A function's values (n, k): of a category, whether a row has each level."""
    column = np.nan_to_num(part.transform(values))
    levels = np.arange(len(part.variable.levels))
    return column[:, None] == levels if len(levels) else column[:, None]


def _leave_few(shapes: Sequence[ColumnFunctions], values: NDArray[Any], head: ReleaseHead, floor: int) -> bool:
    """Whether all functions together leave few patients; under masks, such as no function leaves by itself.

    What one function leaves of a pool is counted there, if it is a level.
    """
    x = np.nan_to_num(np.asarray(values, dtype=np.float64))
    order = np.argsort(x, kind="stable")
    joint = _orthonormalise([x, *(shape.values for shape in shapes)], order)
    runs = _find_runs(joint, floor - 1)
    if not len(runs) or head.kind == "plain":
        return bool(len(runs))
    single = [_orthonormalise([x, shape.values], order) for shape in shapes]
    return any(all(not _fits(own[run : run + floor - 1]) for own in single) for run in runs.tolist())


def _orthonormalise(columns: Sequence[Array], order: NDArray[np.intp]) -> Array:
    """An orthonormal basis (n, r) of these columns and the constant, by rows in an order."""
    whole = np.column_stack([np.ones(len(order)), *columns]).astype(np.float64)[order, :_MOST_COLUMNS]
    whole /= np.maximum(np.abs(whole).max(axis=0), np.finfo(float).tiny)
    u, s, _ = np.linalg.svd(whole, full_matrices=False)
    return np.asarray(u[:, s > _ROUNDED * s[0]])


def _find_runs(basis: Array, size: int) -> NDArray[np.intp]:
    """The starts of runs of `size` rows outside of which a combination is nearly 0; none if there are few rows."""
    if len(basis) <= 2 * size:
        return np.empty(0, np.intp)
    leverages = np.concatenate([[0.0], np.cumsum(np.einsum("ij,ij->i", basis, basis))])
    likely = np.flatnonzero(leverages[size:] - leverages[:-size] >= 1.0 - _OUTSIDE)
    return np.array([run for run in likely.tolist() if _fits(basis[run : run + size])], np.intp)


def _fits(rows: Array) -> bool:
    return bool(np.linalg.svd(rows, compute_uv=False)[0] ** 2 >= 1.0 - _OUTSIDE)


def _refuse(column: str, studies: Sequence[str], head: ReleaseHead) -> Objection:
    others = [name for name in dict.fromkeys(studies) if name != head.study] or [head.study]
    shown = " and ".join(map(repr, others[:2]))
    sentence = (
        f"functions of {column} in it and in the study {shown} have a combination that is 0 for all but few patients "
        "of this site (close functions): together they show these patients' own sums. Use the knots of the earlier "
        "study, or knots that are further apart, or let a person say yes with a reason (coterie release allow)."
    )
    grade = Grade.ASK if head.kind == "masked" else Grade.REFUSE
    return Objection(grade, "close functions", sentence, others[0], subject=f"{column} of {shown}")
