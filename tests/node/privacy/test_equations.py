"""Rows against columns, equations against unknowns, and patterns of covariates over several studies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from coterie_node.privacy.equations import (
    Budget,
    count_equations,
    count_unknowns,
    find_solved_unknowns,
    judge_budget,
    judge_columns,
    judge_patterns,
)
from coterie_node.privacy.objections import Grade
from coterie_node.privacy.spans import Whole


def pattern_equations(designs: Sequence[Whole]) -> Whole:
    """The equations (k, 2 m) on patients and events by pattern, of the first rounds of several studies.

    Each design (m, p) has the m patterns that occur, in whole numbers, of one study's columns.
    """
    parts = []
    for x in designs:
        upper = np.triu_indices(x.shape[1])
        products = (x[:, upper[0]] * x[:, upper[1]]).T
        parts.append(np.hstack([products, np.zeros_like(products)]))
        parts.append(np.hstack([np.zeros_like(x.T), x.T]))
    return np.unique(np.vstack(parts), axis=0)


def test_no_more_rows_than_columns_are_refused_and_fewer_than_five_for_each_asked_about() -> None:
    assert [o.grade for o in judge_columns(9, 10, plain=True)] == [Grade.REFUSE]
    assert [o.grade for o in judge_columns(10, 10, plain=False)] == [Grade.REFUSE]
    assert [o.grade for o in judge_columns(49, 10, plain=True)] == [Grade.ASK]
    assert list(judge_columns(50, 10, plain=True)) == []
    assert list(judge_columns(49, 10, plain=False)) == []


@pytest.mark.parametrize(
    ("rows", "columns", "measurements", "rounds", "share", "grades"),
    [
        (9, 10, 9, 2, 1.46, [Grade.REFUSE]),
        (30, 6, 5, 6, 0.91, [Grade.ASK]),
        (300, 51, 50, 7, 0.63, [Grade.ASK]),
        (1000, 51, 50, 7, 0.19, []),
    ],
)
def test_equations_of_all_rounds_are_held_against_unknown_values(
    rows: int, columns: int, measurements: int, rounds: int, share: float, grades: list[Grade]
) -> None:
    """The shares of the design's table."""
    budget = Budget(count_equations(columns, 0, rounds), count_unknowns(rows, measurements))
    assert budget.share == pytest.approx(share, abs=0.006)
    assert [o.grade for o in judge_budget(budget)] == grades


def test_tables_alone_have_no_unknown_values() -> None:
    assert Budget(1000, count_unknowns(20, 0)).share == 0.0


def test_a_pattern_is_solved_exactly_when_its_unit_vector_is_in_the_rational_span() -> None:
    x = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]])
    solved = find_solved_unknowns(pattern_equations([x]))
    # Four patterns, of which X'X has all four counts, and X'y three sums of four events.
    assert solved.tolist() == [True] * 4 + [False] * 4
    more = np.column_stack([x, x[:, 1] * x[:, 2]])
    assert find_solved_unknowns(pattern_equations([x, more])).all()


def test_a_second_study_on_the_same_rows_that_solves_a_small_pattern_is_refused() -> None:
    x = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]])
    counts = np.array([90, 80, 70, 60, 20, 20, 20, 2])
    assert list(judge_patterns(pattern_equations([x]), counts, 5)) == []
    product = np.column_stack([x[:, 0], x[:, 1] * x[:, 2]])
    (objection,) = judge_patterns(pattern_equations([x, product]), counts, 5)
    assert objection.kind == "pattern"
