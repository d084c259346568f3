"""Values, not declarations: what a plain sum over a set of patients shows, judged by the values themselves.

A column with few distinct values is a table, whatever its type. Every level, every pair of levels, and events by level
are counts of patients that X'X and X'y show. For other columns a sum can be nearly one patient's value: the p% rule of
statistical offices (Hundepool et al., "Statistical Disclosure Control", Wiley 2012, section 4.2.1) over values and over
squares about the median, since X'X gives squares about any centre.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.prints import MOST_LEVELS, FewValues, find_few_distinct

# A value that at least this fraction of the rows has makes a table of two levels: this value, or another one.
FREQUENT = 0.2
# The p of the p% rule.
DOMINANCE = 0.1
# Steps of a column's range within which values count as one level: noise hides no level.
_STEPS = 1000
# Values in more than this share of the steps fill their range.
_FILLED = 0.5
# The number of rows that are looked at first, if there are at least so many.
_SAMPLED = 4096
_MANY_ROWS = 8 * _SAMPLED
# If at least this fraction of the rows repeat others exactly, they count as several rows of a patient.
REPEATED = 0.05
# If two rows agree in all other columns with at least such a chance, nothing follows when they do.
_ALIKE = 0.5
# The number of measurements that are looked at first for rows that repeat others.
_FIRST_MEASURED = (2, 4)
# Rows are spread over at least so many times as many marks.
_SPARSE = 16
# The most cells of patterns that are counted at once.
_BLOCK_CELLS = 64
# Values that are looked at in one go, so that they stay in the processor's cache.
_RUN = 1 << 14
# A fraction of a sum of squares: a spread below it may be rounding.
_ROUNDED = 1e-6
# An odd number that spreads the bits of values over 4,096 buckets (Fibonacci hashing).
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_BUCKET_SHIFT = np.uint64(52)


@dataclass(frozen=True)
class LevelTable:
    """A column as levels: `codes` (n,) from 0 to size - 1, level 0 being zero or the reference where there is one."""

    name: str
    codes: NDArray[np.integer[Any]] = field(repr=False)
    size: int

    def counts(self) -> NDArray[np.intp]:
        """Patients by level (size,)."""
        if self.size <= MOST_LEVELS:
            return np.array([np.count_nonzero(self.codes == level) for level in range(self.size)], np.intp)
        return np.bincount(self.codes, minlength=self.size)


@dataclass(frozen=True)
class Sample:
    """What is judged: a set of patients' values (n,) by column, the outcome's name, and products in the formula.

    `products`: the names of each product of columns, such as ("age", "sex") for age:sex. `sensitive`: covariates a
    level of which must not be shared by everybody in another level. Values are numbers, level numbers or prints; of
    prints, `zeros` is the print of zero by column, and no distances are looked at. `categories`: columns that are
    tables however many values they have.
    """

    values: Mapping[str, NDArray[Any]]
    outcome: str
    products: Sequence[tuple[str, ...]] = ()
    sensitive: Sequence[str] = ()
    zeros: Mapping[str, int] | None = None
    categories: Collection[str] = ()

    @property
    def n(self) -> int:
        """Number of patients."""
        return len(next(iter(self.values.values())))

    def zero(self, name: str) -> float:
        """What zero, or the reference level, is written as."""
        return 0.0 if self.zeros is None else float(self.zeros.get(name, 0))


class ColumnValues:
    """One column's values (n,) without the missing ones (NaN), and what they show; each is found once, when asked for.

    `zero`: what zero, or the reference level, is written as. `category`: it is a table however many values it has.
    `find_few` finds its distinct values if they are few, for a caller that knows them already.
    """

    def __init__(
        self,
        name: str,
        values: NDArray[Any],
        zero: float = 0.0,
        category: bool = False,
        find_few: Callable[[], FewValues | None] | None = None,
    ) -> None:
        self.name = name
        self._raw = values
        self._zero = zero
        self._category = category
        self._find_few_here = find_few or partial(find_few_distinct, values)

    @cached_property
    def values(self) -> NDArray[Any]:
        """The values that are not missing."""
        return self._raw[~np.isnan(self._raw)] if np.isnan(self._raw_ends[0]) else self._raw

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The least value, and the largest."""
        return _find_ends(self.values) if np.isnan(self._raw_ends[0]) else self._raw_ends

    @cached_property
    def _raw_ends(self) -> tuple[float, float]:
        return _find_ends(self._raw)

    @cached_property
    def table(self) -> LevelTable | None:
        """The column as a table if it is a category, if its values are few, or one of them is frequent; else None."""
        levels = np.unique(self.values, return_inverse=True) if self._category else self._find_few()
        if levels is not None:
            distinct, at = levels
            order = np.argsort(distinct != self._zero, kind="stable")
            if np.array_equal(order, np.arange(len(order))) and at.dtype == _code_type(len(distinct)):
                return LevelTable(self.name, at, len(distinct))
            place = np.empty(len(distinct), _code_type(len(distinct)))
            place[order] = np.arange(len(distinct))
            return LevelTable(self.name, place[at], len(distinct))
        frequent = self._find_frequent()
        return (
            None if frequent is None else LevelTable(self.name, np.asarray(self.values != frequent, dtype=np.uint8), 2)
        )

    @cached_property
    def clusters(self) -> tuple[LevelTable, ...]:
        """A measurement as tables: its places, if its values lie at few; is it at one where a share FREQUENT lies.

        Values that fill most of their range lie at no places: what is apart there is the end of a distribution.
        """
        if self._is_spread:
            return ()
        counts = self._step_counts
        # A place may lie on the border of two steps.
        occupied = counts > 0
        starts = occupied & ~np.concatenate([[False], occupied[:-1]])
        out: list[LevelTable] = []
        if 1 < np.count_nonzero(starts) <= MOST_LEVELS and np.count_nonzero(occupied) <= _FILLED * _STEPS:
            codes = (np.cumsum(starts) - 1)[self._steps()].astype(np.uint8)
            out.append(LevelTable(self.name, codes, int(np.count_nonzero(starts))))
        if counts.max() >= FREQUENT * len(self.values):
            apart = np.abs(self._steps() - np.intp(counts.argmax())) > 1
            out.append(LevelTable(self.name, apart.astype(np.uint8), 2))
        return tuple(out)

    @cached_property
    def _is_spread(self) -> bool:
        """Whether a sample of many rows shows that the values fill most of their range, and that no step is frequent.

        More rows fill no fewer steps. A step with a share FREQUENT has less than half of that in the sample with a
        chance below exp(-2 n (FREQUENT / 2)^2), n being _SAMPLED (Hoeffding, J Am Stat Assoc 1963;58:13): 10^-35.
        """
        if len(self.values) < _MANY_ROWS:
            return False
        counts = np.bincount(self._steps(_draw_rows(len(self.values))), minlength=_STEPS + 1)
        return bool(counts.max() < FREQUENT / 2 * _SAMPLED and np.count_nonzero(counts) > _FILLED * _STEPS)

    @cached_property
    def _step_counts(self) -> NDArray[np.intp]:
        """Patients by step of the range (_STEPS + 1,)."""
        counts = np.zeros(_STEPS + 1, np.intp)
        steps = np.empty(min(_RUN, len(self.values)), np.intp)
        for at in range(0, len(self.values), _RUN):
            counts += np.bincount(self._steps(slice(at, at + _RUN), steps), minlength=_STEPS + 1)
        return counts

    def _steps(
        self, rows: slice | NDArray[np.intp] = slice(None), out: NDArray[np.intp] | None = None
    ) -> NDArray[np.intp]:
        """The step of the range in which each value lies; in `out`, if it is given."""
        low, width = self.ends[0], self.ends[1] - self.ends[0]
        scale = _STEPS / width if width else np.inf
        steps = np.subtract(self.values[rows], low, dtype=np.float64)
        out = np.empty(len(steps), np.intp) if out is None else out[: len(steps)]
        np.multiply(steps, scale if np.isfinite(scale) else 0.0, out=out, casting="unsafe")
        return out

    @property
    def is_measured(self) -> bool:
        """Whether the values are many, so that a sum of them can be nearly one patient's, however frequent one is."""
        return self.table is None or (not self._category and self._find_few() is None)

    @cached_property
    def has_dominant_patient(self) -> bool:
        """Whether a sum of the values, or of their squares about the median, is nearly one patient's."""
        values = np.asarray(self.values, dtype=np.float64)
        return bool(len(values)) and has_dominant_patient(values, DOMINANCE, self.ends)

    def _find_few(self) -> FewValues | None:
        """The distinct values, if they are few, and each row's place; a missing one is no value, and equals none."""
        levels = self._find_few_here()
        return find_few_distinct(self.values) if levels is None and self.values is not self._raw else levels

    def _find_frequent(self) -> Any:
        """A value that at least a share FREQUENT of the rows has, or None; all rows with one value are in one step."""
        if self._is_spread or self._step_counts.max() < FREQUENT * len(self.values):
            return None
        return _frequent_value(self.values)


def judge_values(sample: Sample, floor: int, columns: Mapping[str, ColumnValues] | None = None) -> list[Objection]:
    """Objections to plain sums over these patients; `columns`: what is known of the columns already."""
    if not sample.n:
        return []
    columns = list_columns(sample) if columns is None else columns
    tables = {name: columns[name].table for name in sample.values}
    covariates = [table for name, table in tables.items() if table is not None and name != sample.outcome]
    plain = [name for name in tables if columns[name].is_measured and sample.zeros is None]
    dominance_objections = [o for name in plain for o in judge_column(columns[name])]
    spread = set(plain) - {objection.subject for objection in dominance_objections}
    measured = [name for name in plain if name in spread - {sample.outcome} and tables[name] is None]
    clusters = [c for name in measured for c in columns[name].clusters]
    groups = covariates + clusters + _products(sample, covariates)
    if floor < 2:
        return dominance_objections
    outcomes = _outcome_tables(sample, columns, spread)
    cross = cross_tables([*groups, *outcomes])
    out = list(_small_levels(groups, cross, floor))
    out += [o for k in range(len(outcomes)) for o in _outcome_cells(groups, outcomes, k, cross, floor)]
    return [*out, *_full_covariates(covariates, sample.sensitive), *dominance_objections]


def judge_levels(sample: Sample, floor: int) -> list[Objection]:
    """Objections to sums of a pool in which these are one site's patients: by single levels, and full cells.

    Pairs of levels are counted in a pool that is large enough, as its sums tell all of them.
    """
    if not sample.n or floor < 2:
        return []
    columns = list_columns(sample)
    tables = [table for name in sample.values if name != sample.outcome and (table := columns[name].table) is not None]
    measured = [columns[name] for name in sample.values if columns[name].is_measured and sample.zeros is None]
    clusters = [cluster for column in measured if column.table is None for cluster in column.clusters]
    groups = [*tables, *clusters, *_products(sample, tables)]
    outcome = outcome_table(sample)
    levels = [*groups, outcome] if outcome is not None else groups
    out = [_refuse_small(f"of {t.name}", floor, t.counts()) for t in levels if _is_small(t.counts(), floor)]
    if outcome is not None:
        full = (table.name for table in groups if _is_full(_cross(table, outcome)))
        out += [_refuse_full(name, outcome.name) for name in full]
        out += [_refuse_full("the study", outcome.name)] if _is_full(outcome.counts()[None, :]) else []
    return out + [objection for column in measured for objection in judge_column(column)]


def list_columns(sample: Sample) -> dict[str, ColumnValues]:
    """Each column with what its values show."""
    return {
        name: ColumnValues(name, values, sample.zero(name), name in sample.categories)
        for name, values in sample.values.items()
    }


def table_of(name: str, values: NDArray[Any], zero: float = 0.0, category: bool = False) -> LevelTable | None:
    """The column as a table, or None (`Column.table`)."""
    return ColumnValues(name, values, zero, category).table


def _find_ends(values: NDArray[Any]) -> tuple[float, float]:
    """The least value and the largest, not a number if one is missing; zeros of no values."""
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)


def judge_local_weights(column: ColumnValues, floor: int) -> Iterator[Objection]:
    """Questions about a weight or an offset if few patients here have a value that most others do not have.

    The opening counts no levels of it. If all others weigh the same, the sums less those without weights are these
    patients' own.
    """
    if column.table is not None and _is_small(column.table.counts(), floor):
        sentence = (
            f"few patients of this site have another {column.name} than the others (small level), and perhaps few of "
            "the pool: less the sums without it, those with it would be theirs. Correct it, leave it out, or let a "
            "person say yes with a reason (coterie release allow)."
        )
        yield Objection(Grade.ASK, "small level", sentence, subject=column.name)


def judge_local_clusters(column: ColumnValues, floor: int) -> Iterator[Objection]:
    """Questions about a measurement if few patients here have one of the few values that noise hides."""
    for table in column.clusters:
        if _is_small(table.counts(), floor):
            sentence = (
                f"few patients of this site have one of the few values of {column.name} that noise hides (small "
                "level), and perhaps few of the pool. Declare it as a category, or let a person say yes with a reason "
                "(coterie release allow)."
            )
            yield Objection(Grade.ASK, "small level", sentence, subject=column.name)


@lru_cache(maxsize=4)
def _draw_rows(n: int) -> NDArray[np.intp]:
    """Rows (_SAMPLED,) out of n, drawn at random with repeats, in order; the same in each call."""
    return np.sort(np.random.Generator(np.random.Philox(n)).integers(0, n, _SAMPLED))


def _code_type(size: int) -> type[np.uint8 | np.int32]:
    return np.uint8 if size <= np.iinfo(np.uint8).max else np.int32


def _frequent_value(values: NDArray[Any]) -> Any:
    """A value that at least a share FREQUENT of the rows has, or None.

    All rows with one value fall into one of many buckets, and a frequent value fills one of the evenly spaced ranks of
    a bucket's values.
    """
    words = (np.asarray(values, dtype=np.float64) + 0.0).view(np.uint64) * _SPREAD >> _BUCKET_SHIFT
    buckets = words.astype(np.uint16)
    full = np.flatnonzero(np.bincount(buckets) >= FREQUENT * len(values))
    best, most = None, 0
    for bucket in full:
        inside = np.sort(values[buckets == bucket])
        ranks = np.unique(np.linspace(0, len(inside) - 1, int(1 / FREQUENT) + 2).astype(np.intp))
        for candidate in np.unique(inside[ranks]):
            count = int(np.count_nonzero(inside == candidate))
            best, most = (candidate, count) if count > most else (best, most)
    return best if most >= FREQUENT * len(values) else None


def outcome_table(sample: Sample) -> LevelTable | None:
    """The outcome as events: its values if they are few whole numbers, else zero or not; None for a measurement."""
    if sample.outcome not in sample.values:
        return None
    values, zero = sample.values[sample.outcome], sample.zero(sample.outcome)
    whole = sample.zeros is not None or bool(np.all(np.mod(values, 1) == 0))
    table = table_of(sample.outcome, values, zero, sample.outcome in sample.categories)
    if whole and table is not None and table.size == 1 and values[0] != zero:
        return LevelTable(sample.outcome, np.ones(sample.n, np.intp), 2)
    if whole and table is not None and (table.size > 2 or find_few_distinct(values) is not None):
        return table
    if whole and (values == zero).any():
        return LevelTable(sample.outcome, np.asarray(values != zero, dtype=np.intp), 2)
    return table


def _outcome_tables(sample: Sample, columns: Mapping[str, ColumnValues], spread: Collection[str]) -> list[LevelTable]:
    """The outcome as events; of one of the measurements `spread` the places at which its values lie, if they are few.

    Noise may hide such places. For a measurement whose sum is nearly one patient's, they would say the same again.
    """
    table = outcome_table(sample)
    if table is not None or sample.outcome not in spread:
        return [] if table is None else [table]
    return list(columns[sample.outcome].clusters)


def _products(sample: Sample, tables: Sequence[LevelTable]) -> list[LevelTable]:
    """Products of tables in the formula as tables of their own."""
    by_name = {table.name: table for table in tables}
    out = []
    for names in sample.products:
        parts = [by_name[name] for name in dict.fromkeys(names) if name in by_name]
        if len(parts) > 1:
            codes, size = parts[0].codes.astype(np.intp), parts[0].size
            for part in parts[1:]:
                codes, size = codes * part.size + part.codes, size * part.size
            distinct, inverse = np.unique(codes, return_inverse=True)
            out.append(LevelTable(":".join(part.name for part in parts), inverse.astype(np.intp), len(distinct)))
    return out


@dataclass(frozen=True)
class _Block:
    """Some tables counted at once: each patient's pattern (n,) of `cells`, and who of the levels has a pattern."""

    tables: tuple[int, ...]
    codes: NDArray[np.integer[Any]]
    cells: int
    levels: NDArray[np.float64]

    @classmethod
    def join(cls, at: Sequence[int], tables: Sequence[LevelTable]) -> _Block:
        """The block of these tables; `levels` (all levels, cells) is 1 where a pattern has a level."""
        cells = math.prod(tables[k].size for k in at)
        word = np.dtype(np.uint16 if cells <= _BLOCK_CELLS else np.intp)
        codes: NDArray[np.integer[Any]] = np.zeros(len(tables[at[0]].codes), word)
        for k in at:
            codes = codes * word.type(tables[k].size) + tables[k].codes.astype(word, copy=False)
        pattern, rows, stride = np.arange(cells), [], cells
        for k in at:
            stride //= tables[k].size
            rows.append(np.arange(tables[k].size)[:, None] == pattern // stride % tables[k].size)
        return cls(tuple(at), codes, cells, np.vstack(rows).astype(np.float64))


def cross_tables(tables: Sequence[LevelTable]) -> dict[tuple[int, int], NDArray[np.float64]]:
    """The two-way table (size, size) of every two tables, by their places; a large one without its empty rows."""
    blocks = [_Block.join(at, tables) for at in _group_small(tables)]
    out: dict[tuple[int, int], NDArray[np.float64]] = {}
    for k, first in enumerate(blocks):
        for second in blocks[k:]:
            out |= _count_blocks(first, second, tables)
    return out


def _group_small(tables: Sequence[LevelTable]) -> list[list[int]]:
    """The places of tables in groups whose patterns are at most _BLOCK_CELLS; a larger table is alone."""
    groups: list[list[int]] = []
    cells = 0
    for k, table in enumerate(tables):
        if groups and cells * table.size <= _BLOCK_CELLS:
            groups[-1].append(k)
            cells *= table.size
        else:
            groups.append([k])
            cells = table.size
    return groups


def _count_blocks(
    first: _Block, second: _Block, tables: Sequence[LevelTable]
) -> Iterator[tuple[tuple[int, int], NDArray[np.float64]]]:
    """The two-way tables of one table of each block; within a block if both are the same."""
    if first.cells * second.cells > _BLOCK_CELLS**2:
        if first is not second:
            a, b = first.tables[0], second.tables[0]
            for a, b in itertools.product(first.tables, second.tables):
                yield (a, b), _count_large(tables[a], tables[b])
        return
    if first is second:
        joint = np.diag(np.bincount(first.codes, minlength=first.cells).astype(np.float64))
    else:
        cells = first.cells * second.cells
        codes = first.codes * second.codes.dtype.type(second.cells) + second.codes
        joint = np.bincount(codes, minlength=cells).astype(np.float64)
        joint = joint.reshape(first.cells, second.cells)
    counts = first.levels @ joint @ second.levels.T
    for (i, a), (j, b) in itertools.product(_starts(first, tables), _starts(second, tables)):
        if a < b:
            yield (a, b), counts[i : i + tables[a].size, j : j + tables[b].size]


def _starts(block: _Block, tables: Sequence[LevelTable]) -> Iterator[tuple[int, int]]:
    """The place of each table's first level among the levels of a block, and the table's own place."""
    start = 0
    for k in block.tables:
        yield start, k
        start += tables[k].size


def _count_large(a: LevelTable, b: LevelTable) -> NDArray[np.float64]:
    """The two-way table of two tables, by the pairs that occur: rows of `a` that occur, with a column for each pair.

    Rows have their counts in one place each, so that sums over rows and single cells are those of the table.
    """
    pairs, counts = np.unique(a.codes.astype(np.intp) * b.size + b.codes, return_counts=True)
    if a.size * b.size <= 1 << 20:
        out = np.zeros(a.size * b.size)
        out[pairs] = counts
        return out.reshape(a.size, b.size)
    return np.asarray(counts[:, None], dtype=np.float64)


def _is_small(counts: NDArray[Any], floor: int) -> bool:
    return bool(np.any((counts > 0) & (counts < floor)))


# The two-way table of every two tables, by their places.
Cross = Mapping[tuple[int, int], NDArray[np.float64]]


def _small_levels(tables: Sequence[LevelTable], cross: Cross, floor: int) -> Iterator[Objection]:
    for table in tables:
        if _is_small(table.counts(), floor):
            yield _refuse_small(f"of {table.name}", floor, table.counts())
    for (a, b), counts in sorted(cross.items(), key=lambda item: item[0]):
        if b < len(tables) and _is_small(counts, floor):
            yield _refuse_small(f"of {tables[a].name} by {tables[b].name}", floor, counts)


def _outcome_cells(
    tables: Sequence[LevelTable], outcomes: Sequence[LevelTable], which: int, cross: Cross, floor: int
) -> Iterator[Objection]:
    """Objections to events by level; in `cross` the outcomes come after the tables."""
    outcome = outcomes[which]
    totals = outcome.counts()
    if _is_small(totals, floor):
        yield _refuse_small(f"of {outcome.name}", floor, totals)
    for k, table in enumerate(tables):
        counts = cross[k, len(tables) + which]
        cells = counts if counts.shape == (table.size, outcome.size) else _cross(table, outcome)
        if _is_small(cells, floor):
            yield _refuse_small(f"of {table.name} by {outcome.name}", floor, cells)
        if _is_full(cells):
            yield _refuse_full(table.name, outcome.name)
    if _is_full(totals[None, :]):
        yield _refuse_full("the study", outcome.name)


def _cross(table: LevelTable, outcome: LevelTable) -> NDArray[np.intp]:
    """Patients by level and outcome (size, size)."""
    codes = table.codes.astype(np.intp) * outcome.size + outcome.codes
    return np.bincount(codes, minlength=table.size * outcome.size).reshape(table.size, outcome.size)


def _is_full(cells: NDArray[Any]) -> bool:
    """Whether everybody in a level has the outcome (any but the reference), so that who is in it is known to have it.

    Nobody having it is no such cell: a rare outcome is no secret of those who lack it.
    """
    people, without = cells.sum(axis=1), cells[:, 0] == 0
    alike = (cells.max(axis=1, initial=0) == people) | (cells.shape[1] == 2)
    return bool(np.any((people > 0) & without & alike))


def _full_covariates(tables: Sequence[LevelTable], sensitive: Sequence[str]) -> Iterator[Objection]:
    for hidden in (table for table in tables if table.name in sensitive):
        for table in tables:
            if table.name != hidden.name and _is_full(_cross(table, hidden)):
                yield _refuse_full(table.name, hidden.name)


def _refuse_small(what: str, floor: int, counts: NDArray[Any]) -> Objection:
    sentence = (
        f"counts below {floor} patients can be solved from it, {what} (small level). Merge rare levels, use masked "
        "sums (three sites or more), or agree on another floor."
    )
    return Objection(Grade.REFUSE, "small level", sentence, secret={what: int(counts[counts > 0].min())}, subject=what)


def _refuse_full(level: str, outcome: str) -> Objection:
    sentence = (
        f"everybody in a level of {level} has the same {outcome} (full cell), so that it is known of each of them. "
        "Merge the level, use masked sums (three sites or more), or leave the column out."
    )
    return Objection(Grade.REFUSE, "full cell", sentence, subject=f"{level} by {outcome}")


def judge_dominance(name: str, values: NDArray[Any]) -> Iterator[Objection]:
    """Objections to sums of a measurement that are nearly one patient's: by the p% rule."""
    return judge_column(ColumnValues(name, values))


def judge_column(column: ColumnValues) -> Iterator[Objection]:
    """The same of a column."""
    if column.has_dominant_patient:
        sentence = (
            f"one patient makes up nearly all of a sum of {column.name} (dominance): the others are less than "
            f"{DOMINANCE:.0%} of it. Take the logarithm, or a narrower range, or use masked sums (three sites or more)."
        )
        yield Objection(Grade.REFUSE, "dominance", sentence, subject=column.name)


def has_dominant_patient(
    numbers: NDArray[np.float64], p: float = DOMINANCE, ends: tuple[float, float] | None = None
) -> bool:
    """Whether one patient makes up nearly all of the sum of values, or of their squares about the median.

    The sum of values is at least the sum of squares by the largest value. Squares about any centre are at least those
    about the mean, and none is above the range's. If this already shows that the others are enough, nothing more is
    computed. `ends`: the least and the largest, where they are known.
    """
    low, high = ends or (float(numbers.min()), float(numbers.max()))
    width, largest = high - low, max(abs(low), abs(high))
    squares = float(np.einsum("i,i->", numbers, numbers))  # no product of BLAS: it wakes other threads
    spread = squares - float(numbers.sum()) ** 2 / len(numbers)
    many = squares > (2.5 + p) * largest * largest
    if many and spread > max((2.5 + p) * width * width, _ROUNDED * squares):
        return False
    if not many and is_dominated(np.abs(numbers), p):
        return True
    about = numbers - (low + high) / 2
    spread = float((about * about).sum() - about.sum() ** 2 / len(about))
    if spread > (2.5 + p) * width * width:
        return False
    return is_dominated((numbers - np.median(numbers)) ** 2, p)


def judge_offset(
    name: str, values: NDArray[Any], binary: bool, floor: int, p: float = DOMINANCE
) -> Iterator[Objection]:
    """Objections to an offset under which fewer than `floor` patients have nearly all weight of the first sums.

    Those weigh a patient by exp(offset), and with a binary outcome by the variance of the logistic function there.
    """
    offset = np.asarray(values, dtype=np.float64)
    weights = (
        np.exp(-np.abs(offset)) / (1.0 + np.exp(-np.abs(offset))) ** 2 if binary else np.exp(offset - offset.max())
    )
    ordered = np.sort(weights)[::-1]
    few = max(floor - 1, 2)
    if floor > 1 and float(ordered[few:].sum()) < p * float(ordered[0]):
        sentence = (
            f"under the offset {name} fewer than {floor} patients have nearly all weight in the sums (dominance). "
            "Correct the offset, or leave such rows out."
        )
        yield Objection(Grade.REFUSE, "dominance", sentence, subject=name)


def is_dominated(parts: NDArray[np.float64], p: float = DOMINANCE) -> bool:
    """Whether the second largest contributor could tell the largest to within p: total - largest - second < p largest.

    A sum of zeros shows nobody.
    """
    if len(parts) < 2:
        return bool(np.any(parts > 0))
    total, largest = float(parts.sum()), float(parts.max())
    if total >= (2 + p) * largest:
        return False
    second = np.partition(parts, len(parts) - 2)[-2]
    return bool(largest > 0 and total - largest - second < p * largest)


def judge_repeats(sample: Sample, columns: Mapping[str, ColumnValues]) -> Iterator[Objection]:
    """Objections to rows without identifiers of which more repeat others than their columns explain.

    If rows agree in the measurement with most values, few of them agree in all other columns as well, unless they are
    of the same patients. If the other columns could hardly differ, nothing follows.
    """
    measured = [name for name in sample.values if columns[name].table is None]
    if not measured:
        return
    # Rows that differ in some columns differ: mostly a few of them show it.
    if any(_bound_repeats(sample, measured[:k]) < REPEATED * sample.n for k in _FIRST_MEASURED):
        return
    rows = np.unique(_mix_rows(sample, tuple(sample.values)), return_counts=True)[1]
    if sample.n - len(rows) < REPEATED * sample.n:
        return
    words = {name: _order_codes(values) for name, values in sample.values.items()}
    finest = max(measured, key=lambda name: int(words[name].max()))
    chance = float(np.prod([_share_equal(codes) for name, codes in words.items() if name != finest]))
    alike, pairs = _count_pairs(rows), _count_pairs(np.bincount(words[finest]))
    if chance <= _ALIKE and alike > (1 + chance) / 2 * pairs:
        sentence = (
            "many rows repeat others exactly, in more columns than chance explains (repeated rows): floors count "
            "patients, and these look like several rows of a patient. Name the column that identifies patients "
            '(patient = "..."), and keep one row for each.'
        )
        yield Objection(Grade.REFUSE, "repeated rows", sentence)


def _bound_repeats(sample: Sample, names: Sequence[str]) -> int:
    """At most so many rows repeat another one in these columns: the rows less the marks that any of them hits."""
    bits = (_SPARSE * sample.n).bit_length()
    words = _mix_rows(sample, names)
    words ^= words >> np.uint64(29)
    words *= _SPREAD
    words >>= np.uint64(64 - bits)
    marks = np.zeros(1 << bits, bool)
    marks[words.view(np.int64)] = True
    return sample.n - int(np.count_nonzero(marks))


def _mix_rows(sample: Sample, names: Sequence[str]) -> NDArray[np.uint64]:
    """One word (n,) for each row's values of these columns."""
    out = np.zeros(sample.n, np.uint64)
    for name in names:
        words = (np.asarray(sample.values[name], dtype=np.float64) + 0.0).view(np.uint64)
        out = (out ^ (out >> np.uint64(29))) * _SPREAD + (words ^ (words >> np.uint64(32)))
    return out


def _order_codes(values: NDArray[Any]) -> NDArray[np.int32]:
    return np.unique(values, return_inverse=True)[1].astype(np.int32)


def _share_equal(codes: NDArray[np.int32]) -> float:
    """The chance that two rows drawn at random have the same value."""
    shares = np.bincount(codes) / len(codes)
    return float(shares @ shares)


def _count_pairs(counts: NDArray[Any]) -> float:
    whole = counts.astype(np.float64)
    return float((whole * (whole - 1.0)).sum() / 2.0)
