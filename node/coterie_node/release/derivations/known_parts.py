"""Few patients between a level of one study and all patients of another, whose condition takes a part of the rows.

Those over 41 among all patients less a study of those over 40 alone are sums over those of 41. So whether a patient is
in the smaller of two studies is a column of the larger one, and is judged as a derived column is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from coterie_node.privacy.entries import ReleaseHead
from coterie_node.privacy.log import Candidate, PrivacyLog
from coterie_node.privacy.objections import Objection
from coterie_node.privacy.patients import PatientMask
from coterie_node.privacy.prints import RawRows, print_numbers
from coterie_node.privacy.values import LevelTable
from coterie_node.release.derivations.known_columns import SummedColumn, judge_combinations
from coterie_node.release.derivations.known_derivations import (
    DerivedTables,
    Sizes,
    judge_derivations,
    parse_levels,
    read_model_columns,
)
from coterie_node.release.derivations.summed_columns import choose_columns, list_derivable_columns


def judge_parts(
    log: PrivacyLog, candidate: Candidate, former: Sequence[ReleaseHead], new: DerivedTables, sizes: Sizes
) -> Iterator[Objection]:
    """Objections where one of two studies takes a level of the other, except few patients."""
    for head, inside in find_parts(log, candidate, former):
        yield from _judge_part(f"the patients of {head.study!r}", inside, new, sizes)
    places = len(candidate.patients.prints)
    for head in (head for head in former if head.identified and candidate.head.identified):
        bits = log.bits(head, places)
        if (bits & ~candidate.bits).any() and not (candidate.bits & ~bits).any():
            inside = candidate.bits[np.flatnonzero(bits)]
            tables = [parse_levels(column, prints) for column, prints in read_model_columns(log, head, ())]
            whole = {table.name: table for table in tables if table is not None and len(table.codes) == len(inside)}
            yield from _judge_part(f"of the patients of {head.study!r} those of the new study", inside, whole, sizes)


def find_parts(
    log: PrivacyLog, candidate: Candidate, former: Sequence[ReleaseHead]
) -> Iterator[tuple[ReleaseHead, PatientMask]]:
    """Former studies whose patients are some of these, and which rows (n,) are theirs."""
    places = len(candidate.patients.prints)
    for head in (head for head in former if head.identified and candidate.head.identified):
        bits = log.bits(head, places)
        if bits.any() and not (bits & ~candidate.bits).any():
            yield head, bits[candidate.at]


def list_wider_columns(
    log: PrivacyLog, candidate: Candidate, former: Sequence[ReleaseHead], rows: RawRows
) -> list[SummedColumn]:
    """Columns of former studies of these patients and others, as far as the others add nothing to their sums.

    These are numbers that are 0 for all others, and levels that no other has.
    """
    out, places = list[SummedColumn](), len(candidate.patients.prints)
    for head in (head for head in former if head.identified and candidate.head.identified):
        bits = log.bits(head, places)
        if (candidate.bits & ~bits).any() or not (bits & ~candidate.bits).any():
            continue
        inside = candidate.bits[np.flatnonzero(bits)]
        prints = {name: column for name, column in read_model_columns(log, head, ()) if len(column) == len(inside)}
        known = [column for column in list_derivable_columns(head, rows) if column.name in prints]
        rank = np.argsort(np.argsort(candidate.at, kind="stable"), kind="stable")
        for column in (column for column in known if not column.is_raw):
            others, own = prints[column.name][~inside], prints[column.name][inside][rank]
            if column.is_table:
                mine = ~np.isin(own, others)
                levels = np.where(mine, 1.0 + np.nan_to_num(np.asarray(column.values, np.float64)), 0.0)
                out += [replace(column, values=levels)] if mine.any() else []
            elif not (others != print_numbers(np.zeros(1), column.name, log.key)[0]).any():
                out.append(column)
    return out


def _judge_part(name: str, inside: PatientMask, tables: DerivedTables, sizes: Sizes) -> Iterator[Objection]:
    part = LevelTable(name, inside.astype(np.intp), 2)
    if 0 < np.count_nonzero(inside) < len(inside):
        yield from judge_derivations(tables, {name: part}, {name}, sizes)
        columns = [SummedColumn(table.name, table.codes, True, is_raw=False) for table in tables.values()]
        yield from judge_combinations([*columns, SummedColumn(name, part.codes, True, True, False)], sizes)


def judge_columns_of_parts(
    columns: Sequence[SummedColumn],
    parts: Sequence[tuple[ReleaseHead, PatientMask]],
    combined: Sequence[SummedColumn],
    rows: RawRows,
    sizes: Sizes,
) -> Iterator[Objection]:
    """Objections to columns that, with those of studies of parts of these rows, leave few patients.

    What a part and the whole both have is judged as the sums over the patients in only one of the two, and so are
    columns of the file in what several studies together leave of these rows (`combined`).
    """
    cut, inside_parts = list[SummedColumn](), list[SummedColumn]()
    for head, inside in parts:
        inside_parts.append(SummedColumn(f"the patients of {head.study!r}", inside.astype(np.float64), True, True))
        cut += [column.cut(inside) for column in list_derivable_columns(head, rows)]
    both = {column.name for column in columns} & {column.name for column in cut}
    judged = [*inside_parts, *(column for column in (*columns, *cut) if column.name in both)]
    judged += [column for column in (*columns, *combined) if column.is_raw] if combined else []
    yield from judge_combinations(choose_columns([*columns, *inside_parts, *cut, *combined]), sizes, judged)
