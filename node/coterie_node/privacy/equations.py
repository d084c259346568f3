"""The same rows, other columns: plain sums of all rounds and all studies as equations on the rows behind them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie_node.privacy.objections import Grade, Objection
from coterie_node.privacy.spans import PRIMES, Whole, reduce_rows

# Rows for each column below which a person is asked.
ROWS_PER_COLUMN = 5
# Share of equations among unknowns from which a person is asked; at 1 the release is refused.
ASK_SHARE = 0.5
# More patterns of covariates than this are not searched one by one.
MOST_PATTERNS = 500


def judge_columns(rows: int, columns: int, plain: bool) -> Iterator[Objection]:
    """Objections to sums over `rows` patients with so many design columns in all studies on these rows."""
    if rows <= columns:
        sentence = (
            "there are no more rows than columns in all studies on these rows (rows and columns): the rows come back "
            "from their cross-products. Shorten the formula, or take part with more rows."
        )
        yield Objection(Grade.REFUSE, "rows and columns", sentence, subject=f"{columns} columns")
    elif plain and rows < ROWS_PER_COLUMN * columns:
        sentence = (
            f"there are fewer than {ROWS_PER_COLUMN} rows for each column of all studies on these rows (rows and "
            "columns). Shorten the formula, or let a person say yes with a reason (coterie release allow)."
        )
        yield Objection(Grade.ASK, "rows and columns", sentence, subject=f"{columns} columns")


@dataclass(frozen=True)
class Budget:
    """Equations that plain sums gave on the values of these rows, and how many unknown values there are."""

    equations: int
    unknowns: int

    @property
    def share(self) -> float:
        """Equations for each unknown; 0 where nothing is unknown but counts, which cells cover."""
        return self.equations / self.unknowns if self.unknowns else 0.0


def count_equations(columns: int, tables: int, rounds: int = 1) -> int:
    """Equations of rounds of plain sums with so many columns, of which `tables` have few values (no intercept).

    A round has p (p + 1) / 2 + p; those between tables alone are about counts of patterns, not about values.
    """
    apart = tables * (tables + 3) // 2
    return rounds * (columns * (columns + 1) // 2 + columns - apart) + 1


def count_unknowns(rows: int, measurements: int) -> int:
    """Unknown values: each row's measurements, and its outcome; none where every column is a table."""
    return rows * (measurements + 1) if measurements else 0


def judge_budget(budget: Budget) -> Iterator[Objection]:
    """Objections to one more plain sum on rows about which so many equations are known."""
    if budget.share >= 1.0:
        sentence = (
            "all plain sums over these rows together are as many equations as the rows have unknown values "
            "(equations). Use masked sums (three sites or more), fewer columns, or fewer studies on the same rows."
        )
        yield Objection(Grade.REFUSE, "equations", sentence, subject="equations")
    elif budget.share >= ASK_SHARE:
        sentence = (
            "all plain sums over these rows together are at least half as many equations as the rows have unknown "
            "values (equations). Use masked sums, or let a person say yes with a reason (coterie release allow)."
        )
        yield Objection(Grade.ASK, "equations", sentence, subject="equations")


def find_solved_unknowns(equations: Whole) -> NDArray[np.bool_]:
    """Which unknowns (m,) have one value in all solutions: those whose unit vector is in the rational span.

    Exact, modulo two primes.
    """
    out = np.ones(equations.shape[1], dtype=bool)
    for prime in PRIMES:
        form = reduce_rows(equations, prime)
        single = np.count_nonzero(form.rows, axis=1) == 1
        fixed = np.zeros_like(out)
        fixed[np.array(form.pivots, dtype=np.intp)[single]] = True
        out &= fixed
    return out


def judge_patterns(equations: Whole, counts: NDArray[np.int64], floor: int) -> Iterator[Objection]:
    """Objections to patterns of all covariates whose patients or events (2 m,) are solved and below the floor."""
    patterns = len(counts) // 2
    if patterns > MOST_PATTERNS:
        rank = reduce_rows(equations).rank
        if 2 * rank >= patterns:
            yield _refuse_patterns(floor, "so many equations on patterns of covariates are known")
        return
    solved = find_solved_unknowns(equations)
    small = solved & (counts > 0) & (counts < floor)
    without = counts[:patterns] - counts[patterns:]
    both = solved[:patterns] & solved[patterns:]
    if small.any() or np.any(both & (counts[:patterns] > 0) & (without < floor)):
        yield _refuse_patterns(floor, f"counts below {floor} patients can be solved from it, of single patterns")


def _refuse_patterns(floor: int, what: str) -> Objection:
    sentence = (
        f"{what} of all covariates (pattern). Merge rare levels, shorten the formula, use masked sums (three sites or "
        "more), or agree on another floor."
    )
    return Objection(Grade.REFUSE, "pattern", sentence, subject="pattern")
