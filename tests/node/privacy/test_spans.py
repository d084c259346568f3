"""Small sums follow from a history of releases exactly when brute force over small whole combinations finds one."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie_node.privacy.atoms import split_patients
from coterie_node.privacy.own_rows import History, RowSet, judge_rows
from coterie_node.privacy.patients import ColumnVersions
from coterie_node.privacy.spans import PRIMES, find_added_by_last, reduce_rows, solve_combination

FLOOR = 3
COLUMN = ColumnVersions(np.ones(64, np.uint32))
COEFFICIENTS = np.array(list(itertools.product(range(-2, 3), repeat=6)))


def sizes(history: np.ndarray) -> np.ndarray:
    """How many patients each combination with coefficients in [-2, 2] touches."""
    shares = np.unique(COEFFICIENTS[:, : len(history)], axis=0)
    return np.asarray(np.count_nonzero(shares @ history, axis=1))


def brute_force(history: np.ndarray) -> bool:
    touched = sizes(history)
    return bool(np.any((touched > 0) & (touched < FLOOR)))


def refused(history: np.ndarray) -> bool:
    """Whether any release of the history is refused, each judged after those before it."""
    for k in range(1, len(history)):
        past = [RowSet(f"study-{j}", history[j].astype(bool), {"age": 0}) for j in range(k)]
        new = RowSet("new", history[k].astype(bool), {"age": 0})
        if any(o.kind != "many small groups" for o in judge_rows(new, History(past, {"age": COLUMN}), FLOOR)):
            return True
    return False


@st.composite
def histories(draw: st.DrawFn) -> np.ndarray:
    """Six releases over 12 to 39 patients, each of whole blocks of patients with a few single ones in or out."""
    n = draw(st.integers(12, 39))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    blocks = rng.integers(0, draw(st.integers(2, 5)), n)
    rows = []
    for _ in range(6):
        row = np.isin(blocks, np.flatnonzero(rng.random(5) < 0.6))
        flips = rng.integers(0, n, rng.integers(0, 3))
        row[flips] = ~row[flips]
        if np.count_nonzero(row) >= FLOOR:
            rows.append(row)
    return np.array(rows or [np.ones(n, bool)], dtype=np.int64)


# The first release less the second and the last touches two patients: no sum of two rows of the reduced form shows it.
HIDDEN = """
1111101111111
1010011010110
0101101100001
1101100010110
0101100001001
"""


def test_a_combination_that_no_sum_of_two_reduced_rows_shows_is_refused() -> None:
    history = np.array([[int(digit) for digit in line] for line in HIDDEN.split()])
    assert brute_force(history)
    assert refused(history)


@settings(max_examples=150, deadline=None)
@given(histories())
def test_a_history_is_refused_exactly_if_a_small_combination_exists(history: np.ndarray) -> None:
    expected = brute_force(history)
    if expected:
        assert refused(history)
    elif refused(history):
        # A rational combination with larger coefficients is as exact as one with small ones: show it.
        assert smaller_combination_exists(history)


def smaller_combination_exists(history: np.ndarray) -> bool:
    atoms = split_patients(list(history.astype(bool)))
    for k in range(2, len(history) + 1):
        small = find_added_by_last(atoms.matrix[:k], atoms.groups, FLOOR).smallest
        if small is None or small.patients >= FLOOR:
            continue
        shares = solve_combination(atoms.matrix[:k], small.row)
        if shares is not None and 0 < np.count_nonzero(np.array(shares) @ history[:k]) < FLOOR:
            return True
    return False


@given(st.lists(st.lists(st.integers(-3, 3), min_size=5, max_size=5), min_size=1, max_size=6))
def test_the_rank_modulo_a_prime_is_the_rank(rows: list[list[int]]) -> None:
    matrix = np.array(rows)
    assert reduce_rows(matrix).rank == np.linalg.matrix_rank(matrix)
    form = reduce_rows(matrix[:-1]).extend(matrix[-1])
    assert form.rank == reduce_rows(matrix).rank
    assert np.array_equal(form.rows, reduce_rows(matrix).rows)


def test_a_combination_is_solved_with_its_whole_coefficients() -> None:
    matrix = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 1]])
    row = (matrix[0] * 2 - matrix[1] * 2 - matrix[2] * 3) % PRIMES[0]
    assert solve_combination(matrix, row) in ((2, -2, -3), (-2, 2, 3))
    assert solve_combination(matrix, np.array([1, 0, 0, 0, 0])) is None
