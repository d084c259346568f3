"""Values, not declarations: what a plain sum over a set of patients shows, judged by the values themselves.

A column with few distinct values is a table, whatever its type. Every level, every pair of levels, and events by level
are counts of patients that X'X and X'y show. For other columns a sum can be nearly one patient's value: the p% rule of
statistical offices (Hundepool et al., "Statistical Disclosure Control", Wiley 2012, section 4.2.1) over values and over
squares about the median, since X'X gives squares about any centre.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.objections import Grade, Objection

# A column with so few distinct values is a table.
MOST_LEVELS = 12
# One value in this share of the rows makes a table of two: is it, or is it not.
FREQUENT = 0.2
# The p of the p% rule.
DOMINANCE = 0.1
_PAIR_CELLS = 1 << 24


@dataclass(frozen=True)
class LevelTable:
    """A column as levels: `codes` (n,) from 0 to size - 1, level 0 being zero or the reference where there is one."""

    name: str
    codes: NDArray[np.intp] = field(repr=False)
    size: int

    def counts(self, where: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
        """Patients by level (size,), of all or of those in `where` (n,)."""
        codes = self.codes if where is None else self.codes[where]
        return np.bincount(codes, minlength=self.size)


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

    def keep(self, least: int) -> Sample:
        """The patients whose pattern of covariates has at least so many patients."""
        names = [name for name in self.values if name != self.outcome]
        if least < 2 or not names:
            return self
        patterns = np.column_stack([self.values[name] for name in names])
        _, inverse, counts = np.unique(patterns, axis=0, return_inverse=True, return_counts=True)
        mask = counts[inverse.ravel()] >= least
        return replace(self, values={name: values[mask] for name, values in self.values.items()})

    def zero(self, name: str) -> float:
        """What zero, or the reference level, is written as."""
        return 0.0 if self.zeros is None else float(self.zeros.get(name, 0))


def judge_values(sample: Sample, floor: int, dominance: float = DOMINANCE) -> list[Objection]:
    """Objections to plain sums over these patients."""
    if not sample.n:
        return []
    tables = {
        name: table_of(name, values, sample.zero(name), name in sample.categories)
        for name, values in sample.values.items()
    }
    covariates = [table for name, table in tables.items() if table is not None and name != sample.outcome]
    groups = covariates + _products(sample, covariates)
    outcome = outcome_table(sample)
    out = list(_small_levels(groups, floor))
    out += [] if outcome is None else list(_outcome_cells(groups, outcome, floor))
    out += list(_full_covariates(covariates, sample.sensitive)) if floor > 1 else []
    if sample.zeros is None:
        plain = [name for name, table in tables.items() if table is None]
        out += [o for name in plain for o in judge_dominance(name, sample.values[name], dominance)]
    return out


def table_of(name: str, values: NDArray[Any], zero: float = 0.0, category: bool = False) -> LevelTable | None:
    """The column as a table if it is a category, if its values are few, or one of them is frequent; else None."""
    distinct = np.unique(values) if category else _find_few_distinct(values)
    if distinct is not None:
        order = np.argsort(distinct != zero, kind="stable")
        place = np.empty(len(distinct), np.intp)
        place[order] = np.arange(len(distinct))
        return LevelTable(name, place[np.searchsorted(distinct, values)], len(distinct))
    frequent = _frequent_value(values)
    return None if frequent is None else LevelTable(name, np.asarray(values != frequent, dtype=np.intp), 2)


def _find_few_distinct(values: NDArray[Any]) -> NDArray[Any] | None:
    """The distinct values, sorted, if they are at most MOST_LEVELS."""
    distinct = np.unique(values[:: max(1, len(values) // 512)])
    while len(distinct) <= MOST_LEVELS:
        at = np.minimum(np.searchsorted(distinct, values), len(distinct) - 1)
        others = values[distinct[at] != values]
        if not len(others):
            return distinct
        distinct = np.union1d(distinct, np.unique(others[: MOST_LEVELS * 4]))
    return None


def _frequent_value(values: NDArray[Any]) -> Any:
    """A value that at least a share FREQUENT of the rows has, or None; it fills one of the evenly spaced ranks."""
    n = len(values)
    ranks = np.unique(np.linspace(0, n - 1, int(1 / FREQUENT) + 2).astype(np.intp))
    candidates = np.unique(np.partition(values, ranks)[ranks])
    counts = [int(np.count_nonzero(values == candidate)) for candidate in candidates]
    best = int(np.argmax(counts))
    return candidates[best] if counts[best] >= FREQUENT * n else None


def outcome_table(sample: Sample) -> LevelTable | None:
    """The outcome as events: its values if they are few whole numbers, else zero or not; None for a measurement."""
    if sample.outcome not in sample.values:
        return None
    values, zero = sample.values[sample.outcome], sample.zero(sample.outcome)
    whole = sample.zeros is not None or bool(np.all(np.mod(values, 1) == 0))
    table = table_of(sample.outcome, values, zero, sample.outcome in sample.categories)
    if whole and table is not None and table.size == 1 and values[0] != zero:
        return LevelTable(sample.outcome, np.ones(sample.n, np.intp), 2)
    if whole and table is not None and _find_few_distinct(values) is not None:
        return table
    if whole and (values == zero).any():
        return LevelTable(sample.outcome, np.asarray(values != zero, dtype=np.intp), 2)
    return table


def _products(sample: Sample, tables: Sequence[LevelTable]) -> list[LevelTable]:
    """Products of tables in the formula as tables of their own."""
    by_name = {table.name: table for table in tables}
    out = []
    for names in sample.products:
        parts = [by_name[name] for name in dict.fromkeys(names) if name in by_name]
        if len(parts) > 1:
            codes, size = parts[0].codes, parts[0].size
            for part in parts[1:]:
                codes, size = codes * part.size + part.codes, size * part.size
            distinct, inverse = np.unique(codes, return_inverse=True)
            out.append(LevelTable(":".join(part.name for part in parts), inverse.astype(np.intp), len(distinct)))
    return out


def _is_small(counts: NDArray[np.intp], floor: int) -> bool:
    return bool(np.any((counts > 0) & (counts < floor)))


def _small_levels(tables: Sequence[LevelTable], floor: int) -> Iterator[Objection]:
    for table in tables:
        if _is_small(table.counts(), floor):
            yield _refuse_small(f"of {table.name}", floor, table.counts())
    for a, b in itertools.combinations(tables, 2):
        if a.size * b.size > _PAIR_CELLS:
            continue
        counts = np.bincount(a.codes * b.size + b.codes)
        if _is_small(counts, floor):
            yield _refuse_small(f"of {a.name} by {b.name}", floor, counts)


def _outcome_cells(tables: Sequence[LevelTable], outcome: LevelTable, floor: int) -> Iterator[Objection]:
    totals = outcome.counts()
    if _is_small(totals, floor):
        yield _refuse_small(f"of {outcome.name}", floor, totals)
    for table in tables:
        cells = np.bincount(table.codes * outcome.size + outcome.codes, minlength=table.size * outcome.size)
        cells = cells.reshape(table.size, outcome.size)
        if _is_small(cells, floor):
            yield _refuse_small(f"of {table.name} by {outcome.name}", floor, cells)
        if floor > 1 and _is_full(cells):
            yield _refuse_full(table.name, outcome.name)
    if floor > 1 and _is_full(totals[None, :]):
        yield _refuse_full("the study", outcome.name)


def _is_full(cells: NDArray[np.intp]) -> bool:
    """Whether everybody in a level has the outcome (any but the reference), so that who is in it is known to have it.

    Nobody having it is no such cell: a rare outcome is no secret of those who lack it.
    """
    people, without = cells.sum(axis=1), cells[:, 0] == 0
    alike = (cells.max(axis=1, initial=0) == people) | (cells.shape[1] == 2)
    return bool(np.any((people > 0) & without & alike))


def _full_covariates(tables: Sequence[LevelTable], sensitive: Sequence[str]) -> Iterator[Objection]:
    for hidden in (table for table in tables if table.name in sensitive):
        for table in tables:
            cells = np.bincount(table.codes * hidden.size + hidden.codes, minlength=table.size * hidden.size)
            if table.name != hidden.name and _is_full(cells.reshape(table.size, hidden.size)):
                yield _refuse_full(table.name, hidden.name)


def _refuse_small(what: str, floor: int, counts: NDArray[np.intp]) -> Objection:
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


def judge_dominance(name: str, values: NDArray[Any], p: float = DOMINANCE) -> Iterator[Objection]:
    """Objections to sums of a measurement that are nearly one patient's: by the p% rule."""
    numbers = np.asarray(values, dtype=np.float64)
    parts = (np.abs(numbers), (numbers - np.median(numbers)) ** 2)
    if any(is_dominated(part, p) for part in parts):
        sentence = (
            f"one patient makes up nearly all of a sum of {name} (dominance): the others are less than {p:.0%} of it. "
            "Take the logarithm, or a narrower range, or use masked sums (three sites or more)."
        )
        yield Objection(Grade.REFUSE, "dominance", sentence, subject=name)


def is_dominated(parts: NDArray[np.float64], p: float = DOMINANCE) -> bool:
    """Whether the second largest contributor could tell the largest to within p: total - largest - second < p largest.

    A sum of zeros shows nobody.
    """
    if len(parts) < 2:
        return bool(np.any(parts > 0))
    second, largest = np.partition(parts, len(parts) - 2)[-2:]
    return bool(largest > 0 and parts.sum() - largest - second < p * largest)
