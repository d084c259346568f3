"""Few patients behind a combination of columns: of a study, and of former ones over the same patients.

Sums of several columns are sums of each combination of them: of numbers and levels, raw or derived, of powers and
products. A combination that is 0 for all but few patients shows these patients' own sums, whatever the columns look
like one by one: `2*log(age) + (number == 18)` beside `log(age)`, a level beside one that has another patient in place
of one, two completions of a column that few lacked, a high power. Such patients have nearly all of a direction of the
columns' space: their block of the hat matrix has an eigenvalue near 1 (Belsley, Kuh and Welsch, Regression
Diagnostics, 1980, section 2.1; `known_functions` asks the same of functions of one column).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.values import DOMINANCE
from coterie_node.release.derivations.known_derivations import Sizes

# What a combination may leave outside of few patients, as a share of its squares; of few rows for many columns it is
# rounding, since there a combination is often nearly so by chance.
_OUTSIDE, _ROUNDED = 1e-2, 1e-9
_ROWS_PER_COLUMN, _LEAST_ROWS = 10, 2
# A direction with less than this share of the largest one's squares is left for the next pass, and one that is shorter
# than this, of columns of length 1, is rounding.
_SMALL, _NOTHING = 1e-8, 1e-12
_TINY = float(np.finfo(float).tiny)
# More columns, or numbers in them, are not looked through, those of the file last; of the rows those that stand out.
_MOST_COLUMNS, _MOST_CELLS = 200, 20_000_000
_MOST_ROWS = 40
# Of each column so many rows are compared first.
_SAMPLED = 256
# Columns of more levels than these are no table.
_MOST_LEVELS = 50
_Rows = NDArray[np.intp]


@dataclass(frozen=True)
class SummedColumn:
    """A column of which sums leave: its values (n,), of a table the level of each row; and whose it is.

    `is_judged`: whether what it shows by itself is judged elsewhere. `is_raw`: whether it is a column of the file.
    `number`: of a product of one number and levels, that number. `function`: of one of several columns that a function
    makes, the function.
    """

    name: str
    values: NDArray[Any] = field(repr=False)
    is_table: bool = False
    is_former: bool = False
    is_raw: bool = True
    is_judged: bool = True
    number: str = ""
    function: str = ""

    def cut(self, inside: NDArray[np.bool_]) -> SummedColumn:
        """The column as sums over a part of the rows have it: 0 elsewhere, of a table a level of its own."""
        column = np.asarray(self.values, dtype=np.float64)
        if self.is_table:
            return replace(self, values=np.where(inside, 1.0 + column, 0.0))
        return replace(self, values=np.where(inside, column, 0.0))

    def code(self) -> Array:
        """The column (n, 1), or one of 0 and 1 for each of its levels (n, k)."""
        column = np.nan_to_num(np.asarray(self.values, dtype=np.float64), posinf=0.0, neginf=0.0)
        if not self.is_table:
            return column[:, None]
        levels = np.unique(column)
        return np.array([column == level for level in levels], np.float64).reshape(-1, len(column)).T


def judge_combinations(
    columns: Sequence[SummedColumn], sizes: Sizes, judged: Sequence[SummedColumn] = ()
) -> Iterator[Objection]:
    """Objections to columns of which a combination is 0 for all patients but few; one for what is found first.

    `judged`: columns that are judged together elsewhere.

    Not asked is what single columns show, what the columns of the file that are tables do, what former studies' tables
    do, and of a product what its levels do: the values and the pool's counts of levels are judged for that. Under masks
    what products of one number with levels show is not asked either: where a hospital has few patients of a level, the
    pool has more of them.
    """
    distinct = _drop_repeats(columns)
    if sizes.floor < 2 or not any(not column.is_former for column in distinct) or len(distinct) < 2:
        return
    whole = _span(distinct)
    if len(whole) < _LEAST_ROWS * whole.shape[1]:
        return  # few rows have much of many directions by themselves: they are compared with the columns elsewhere
    limit = 1.0 - (_OUTSIDE if len(whole) >= _ROWS_PER_COLUMN * whole.shape[1] else _ROUNDED)
    found = [rows for rows, outside in _find_sets(whole, sizes.floor - 1, limit) if outside]
    excused = [_span(part) for part in (*_list_excused(distinct, sizes.plain), judged) if part] if found else []
    if any(all(_largest_share(part[rows])[0] < limit for part in excused) for rows in found):
        yield _object(distinct, sizes)


def _drop_repeats(columns: Sequence[SummedColumn]) -> list[SummedColumn]:
    """One of the columns that are the same, of the file or of the new study if one is; at most so many as are read."""
    alike: dict[tuple[bool, bytes], list[SummedColumn]] = {}
    for column in sorted(columns, key=lambda c: (not c.is_raw, c.is_former)):
        some = np.asarray(column.values[:: max(len(column.values) // _SAMPLED, 1)], np.float64).tobytes()
        found = alike.setdefault((column.is_table, some), [])
        if not any(_are_same(column, other) for other in found):
            found.append(column)
    distinct = [column for found in alike.values() for column in found]
    most = min(_MOST_COLUMNS, _MOST_CELLS // max(len(columns[0].values), 1)) if columns else 0
    out, width = [], 0
    for column in sorted(distinct, key=lambda c: (c.is_raw, c.is_former)):
        size = len(np.unique(column.values)) if column.is_table else 1
        if size <= _MOST_LEVELS and width + size <= most:
            out.append(column)
            width += size
    return out


def _are_same(a: SummedColumn, b: SummedColumn) -> bool:
    return np.array_equal(np.asarray(a.values, np.float64), np.asarray(b.values, np.float64), equal_nan=True)


def _list_excused(columns: Sequence[SummedColumn], plain: bool) -> Iterator[list[SummedColumn]]:
    tables = [column for column in columns if column.is_table and column.is_judged]
    raw = [column for column in tables if column.is_raw]
    yield [column for column in tables if column.is_former]
    yield from ([*raw, *group] for group in _list_levels([c for c in tables if not c.is_raw and not c.is_former]))
    yield from ([column] for column in columns if column.is_judged and not column.is_table)
    for function in {column.function for column in columns if column.function}:
        yield [column for column in columns if column.function == function]
    for number in {column.number for column in columns if column.number and not plain}:
        yield [*raw, *(column for column in columns if number in (column.name, column.number))]


def _list_levels(made: Sequence[SummedColumn]) -> Iterator[list[SummedColumn]]:
    """What is judged at a time of levels that a study makes: each by itself, and those of a product by its cells."""
    products = [column for column in made if ":" in column.name]
    yield products
    yield from ([*products, column] for column in made)
    for product in products:
        factors = {part.partition("[")[0] for part in product.name.split(":")}
        yield [*products, *(column for column in made if column.name in factors)]


def _span(columns: Sequence[SummedColumn]) -> Array:
    """An orthonormal basis (n, r) of the constant and these columns.

    By the eigenvectors of the columns' products, in passes: what is small beside the others is left for the next pass,
    scaled up, so that a difference of two columns is found however small it is.
    """
    rest = _scale(_stack(columns), _TINY)
    basis = rest[:0]
    while len(rest):
        squares, directions = np.linalg.eigh(rest @ rest.T)
        large = squares > _SMALL * squares[-1]
        basis = np.vstack([basis, (directions[:, large] / np.sqrt(squares[large])).T @ rest])
        rest = directions[:, ~large].T @ rest
        for _ in range(2):
            rest -= (rest @ basis.T) @ basis
        rest = _scale(rest, _NOTHING)
    return basis.T


def _stack(columns: Sequence[SummedColumn]) -> Array:
    """The constant and the columns about their means, as rows (k, n): each lies together in memory."""
    parts = [part for column in columns for part in column.code().T]
    out = np.ones((1 + len(parts), len(columns[0].values)))
    for row, part in zip(out[1:], parts, strict=True):
        np.divide(part, max(float(part.max()), -float(part.min()), _TINY), out=row)
        row -= row.mean()
    return out


def _scale(columns: Array, nothing: float) -> Array:
    """Columns as rows (k, n) of length 1, without those that are hardly longer than `nothing`."""
    lengths = np.sqrt(np.einsum("ij,ij->i", columns, columns))
    if (lengths > nothing).all():
        columns /= lengths[:, None]
        return columns
    return np.asarray(columns[lengths > nothing] / lengths[lengths > nothing, None])


def _find_sets(basis: Array, most: int, limit: float) -> Iterator[tuple[_Rows, bool]]:
    """Sets of at most `most` rows that have nearly all of a direction, and whether its rest is next to nothing."""
    leverages = np.einsum("ij,ij->i", basis, basis)
    likely = np.flatnonzero(leverages >= limit / most)
    for seed in likely[np.argsort(-leverages[likely], kind="stable")][:_MOST_ROWS].tolist():
        rows = [seed]
        while True:
            share, direction = _largest_share(basis[rows])
            weights = np.abs(basis @ direction)
            if share >= limit:
                inside = weights[rows]
                yield np.array(rows, np.intp), bool(weights.sum() - inside.sum() < DOMINANCE * inside.max())
                break
            if len(rows) >= min(most, len(basis) - 1):
                break
            weights[rows] = -1.0
            rows.append(int(weights.argmax()))


def _largest_share(rows: Array) -> tuple[float, Array]:
    """The largest share of a direction's squares that these rows of a basis have, and the direction (r,)."""
    _, s, v = np.linalg.svd(rows, full_matrices=False)
    return float(s[0] ** 2), np.asarray(v[0])


def join_names(columns: Sequence[SummedColumn]) -> str:
    """The names of columns that a sentence has room for."""
    names = list(dict.fromkeys(column.name for column in columns))
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _object(columns: Sequence[SummedColumn], sizes: Sizes) -> Objection:
    new = [column for column in columns if not column.is_former]
    former = [column for column in columns if column.is_former]
    beside = f" with {join_names(former)} of former studies" if former else ""
    where = "" if sizes.plain else " of this site, and perhaps of the pool"
    sentence = (
        f"the columns {join_names(new)}{beside} have a combination that is 0 for all but fewer than {sizes.floor} "
        f"patients{where} (close columns): together they show these patients' own sums. Derive columns as before, "
        "leave one of them out, or let a person say yes with a reason (coterie release allow)."
    )
    grade = Grade.REFUSE if sizes.plain else Grade.ASK
    return Objection(grade, "close columns", sentence, subject=f"{join_names(new)}{beside}")
