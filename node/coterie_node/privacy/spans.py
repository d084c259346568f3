"""Exact linear algebra over what was released: which sums over few patients follow, as exact rational combinations.

All is done modulo a 31-bit prime: a combination that exists in rational numbers exists modulo the prime. The other
way round it may not, so its finder checks it with a second prime.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]
_Mask = NDArray[np.bool_]

PRIMES = (2147483647, 2147483629)
# Ratios of two rows that are tried, the most frequent first.
_RATIOS = 64
_PASSES = 4
# Orders of the columns under which reduced rows are looked at.
_ORDERS = 32
# Elements of all these forms together, times the rows of one.
_BUDGET = 1 << 24
# Former small sets that a new one is added to.
_PARTNERS = 24


@dataclass(frozen=True)
class Echelon:
    """The reduced row echelon form modulo `prime`: rows (r, k) and the column of each row's pivot (r,)."""

    rows: Whole
    pivots: tuple[int, ...]
    prime: int

    @property
    def rank(self) -> int:
        """Number of independent rows."""
        return len(self.pivots)

    def residual(self, row: Whole) -> Whole:
        """What is left of a row (k,) modulo these; zero if it is a combination of them."""
        out = row.astype(np.int64) % self.prime
        for own, pivot in zip(self.rows, self.pivots, strict=True):
            if out[pivot]:
                out = (out - out[pivot] * own) % self.prime
        return out

    def extend(self, row: Whole) -> Echelon:
        """This form with one more row; itself if the row is a combination of its rows."""
        rest = self.residual(row)
        at = np.flatnonzero(rest)
        if not len(at):
            return self
        pivot = int(at[0])
        rest = rest * pow(int(rest[pivot]), -1, self.prime) % self.prime
        rows = (self.rows - self.rows[:, pivot][:, None] * rest) % self.prime
        return _order(np.vstack([rows, rest]), (*self.pivots, pivot), self.prime)

    def tail(self, start: int) -> Whole:
        """The rows (r, k) whose pivot is at or after column `start`: they are zero before it."""
        return self.rows[[k for k, pivot in enumerate(self.pivots) if pivot >= start]]


def _order(rows: Whole, pivots: tuple[int, ...], prime: int) -> Echelon:
    order = sorted(range(len(pivots)), key=pivots.__getitem__)
    return Echelon(rows[order], tuple(pivots[k] for k in order), prime)


def reduce_rows(matrix: NDArray[Any], prime: int = PRIMES[0]) -> Echelon:
    """The reduced row echelon form of whole numbers (r, k); pivots are the leftmost columns that can be."""
    rows = np.array(matrix, dtype=np.int64) % prime
    pivots: list[int] = []
    for column in range(rows.shape[1]):
        at = np.flatnonzero(rows[len(pivots) :, column])
        if not len(at):
            continue
        _eliminate(rows, len(pivots), len(pivots) + int(at[0]), column, prime)
        pivots.append(column)
        if len(pivots) == len(rows):
            break
    return Echelon(rows[: len(pivots)], tuple(pivots), prime)


def _eliminate(rows: Whole, to: int, pivot: int, column: int, prime: int) -> None:
    rows[[to, pivot]] = rows[[pivot, to]]
    rows[to] = rows[to] * pow(int(rows[to, column]), -1, prime) % prime
    others = np.flatnonzero(rows[:, column])
    others = others[others != to]
    rows[others] = (rows[others] - rows[others, column][:, None] * rows[to]) % prime


@dataclass(frozen=True)
class Groups:
    """Columns of a matrix by group of patients: `of` (k,) is each column's group, `weights` (g,) the patients in it."""

    of: Whole
    weights: Whole

    def count_touched(self, row: Whole) -> int:
        """How many patients have a nonzero entry in a row (k,)."""
        return int(self.weights[np.unique(self.of[row != 0])].sum())

    def order(self) -> Whole:
        """The columns, those of large groups first."""
        return np.argsort(-self.weights[self.of], kind="stable")


@dataclass(frozen=True)
class SmallSet:
    """A combination of releases that touches few patients: its entries (k,), and how many patients."""

    row: Whole
    patients: int


@dataclass(frozen=True)
class Addition:
    """What one more release adds to what is known: nothing, or a smallest new known set of small groups.

    `dimension` counts the independent known sets that touch small groups only. `changes`: whether anything new is
    known at all; `rest` is the last row (k,) with all others taken off, its first entry being 1.
    """

    changes: bool
    smallest: SmallSet | None
    dimension: int
    rest: Whole | None = None


def find_added_by_last(matrix: NDArray[Any], groups: Groups, floor: int, prime: int = PRIMES[0]) -> Addition:
    """What the last row of whole numbers (r, k) adds to the rows before it.

    The columns of large groups come first, so that the rows with a pivot after them are exactly the combinations that
    touch no patient of a large group. The smallest of them is looked for by sums of two with every ratio.
    """
    order = groups.order()
    ordered = Groups(groups.of[order], groups.weights)
    start = int(np.count_nonzero(ordered.weights[ordered.of] >= floor))
    before = reduce_rows(np.asarray(matrix)[:-1][:, order], prime)
    after = before.extend(np.asarray(matrix, dtype=np.int64)[-1][order])
    small, known = after.tail(start), before.tail(start)
    if after.rank == before.rank:
        return Addition(False, None, len(small))
    rest = _back(_leading_one(before.residual(np.asarray(matrix, dtype=np.int64)[-1][order]), prime), order)
    if len(small) == len(known):
        return Addition(True, None, len(small), rest)
    new = _smallest(_outside(known, small, prime), known[:_PARTNERS], ordered, prime)
    return Addition(True, SmallSet(_back(new, order), ordered.count_touched(new)), len(small), rest)


def _back(row: Whole, order: Whole) -> Whole:
    out = np.zeros_like(row)
    out[order] = row
    return out


def _leading_one(row: Whole, prime: int) -> Whole:
    first = int(row[np.flatnonzero(row)[0]])
    return np.asarray(row * pow(first, -1, prime) % prime, dtype=np.int64)


def _outside(known: Whole, small: Whole, prime: int) -> Whole:
    """The rows of `small` that are no combinations of `known`; all of these differ by combinations of `known`."""
    base = reduce_rows(known, prime) if len(known) else Echelon(known, (), prime)
    return small[[bool(base.residual(row).any()) for row in small]]


def _smallest(new: Whole, known: Whole, groups: Groups, prime: int) -> Whole:
    """The row with fewest patients that `new` and `known` give, as far as a search finds it.

    The search is for a word of least weight in a code, for which no fast exact way is known. It looks at the rows of
    the reduced form under several orders of the columns (Prange, IRE Trans Inf Theory 1962;8:5-9), then adds two.
    """
    base = reduce_rows(known, prime) if len(known) else Echelon(known, (), prime)
    best: Whole = min([*new, *_reorder(np.vstack([known, new]), base)], key=groups.count_touched)
    partners = [*known, *new]
    for _ in range(_PASSES):
        candidates = [row for partner in partners for row in _sums(best, partner, prime)]
        fresh = [row for row in candidates if base.residual(row).any()]
        smaller = min(fresh, key=groups.count_touched, default=best)
        if groups.count_touched(smaller) >= groups.count_touched(best):
            break
        best = smaller
    return best


def _reorder(rows: Whole, base: Echelon) -> Iterator[Whole]:
    """The rows of the reduced form under orders of the columns drawn once and for all; those outside `base`."""
    rng = np.random.default_rng(0)
    for _ in range(min(_ORDERS, 1 + _BUDGET // (rows.size * len(rows)))):
        order = rng.permutation(rows.shape[1])
        for row in reduce_rows(rows[:, order], base.prime).rows:
            out = _back(row, order)
            if base.residual(out).any():
                yield out


def _sums(row: Whole, partner: Whole, prime: int) -> Iterator[Whole]:
    """The row plus multiples of its partner that cancel at least one entry, those that cancel most first."""
    both = np.flatnonzero((row != 0) & (partner != 0))
    ratios = [int(row[k]) * pow(int(partner[k]), -1, prime) % prime for k in both.tolist()[: 8 * _RATIOS]]
    values, times = np.unique(np.array(ratios, dtype=np.int64), return_counts=True)
    for ratio in values[np.argsort(-times, kind="stable")][:_RATIOS].tolist():
        out = (row - ratio * partner) % prime
        if out.any():
            yield out


def solve_combination(matrix: NDArray[Any], row: Whole, prime: int = PRIMES[0]) -> tuple[int, ...] | None:
    """Whole coefficients (r,), without a common divisor, with which the rows (r, k) give a multiple of `row` (k,).

    None if there are none with numerators and denominators below 2^15.
    """
    count = len(matrix)
    system = np.hstack([np.asarray(matrix, dtype=np.int64).T, row[:, None]])
    form = reduce_rows(np.unique(system % prime, axis=0), prime)
    if count in form.pivots:
        return None
    shares = [Fraction(0)] * count
    for own, pivot in zip(form.rows, form.pivots, strict=True):
        share = _as_fraction(int(own[count]), prime)
        if share is None:
            return None
        shares[pivot] = share
    return _primitive(shares)


def _as_fraction(residue: int, prime: int) -> Fraction | None:
    """The fraction with small numerator and denominator that is this residue (Wang's rational reconstruction)."""
    bound = 1 << 15
    before, after, factor, other = prime, residue, 0, 1
    while after >= bound:
        quotient = before // after
        before, after, factor, other = after, before - quotient * after, other, factor - quotient * other
    return Fraction(after, other) if 0 < abs(other) < bound else None


def _primitive(shares: Sequence[Fraction]) -> tuple[int, ...]:
    common = math.lcm(*(share.denominator for share in shares))
    whole = [int(share * common) for share in shares]
    divisor = math.gcd(*whole) or 1
    return tuple(value // divisor for value in whole)
