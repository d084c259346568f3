"""Formulas and the columns that they make, against columns written out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.learners import cohorts
from support.learners.cohorts import Array, Codes

from coterie_learners.errors import StudyError
from coterie_learners.study.design import INTERCEPT, Design
from coterie_learners.study.document import Study
from coterie_learners.study.formula import parse_formula

VARIABLES: dict[str, dict[str, Any]] = {
    "y": {"type": "number", "range": [-100, 100]},
    "a": {"type": "number", "range": [10, 30]},
    "b": {"type": "number", "range": [-2, 6]},
    "k": {"type": "count", "range": [0, 4]},
    "u": {"type": "binary"},
    "c": {"type": "category", "levels": ["x", "y z", "w"]},
    "d": {"type": "category", "levels": ["no", "yes"]},
}
N = 60


def design(formula: str, variables: dict[str, Any] | None = None) -> Design:
    plain = {
        "name": "s",
        "sites": ["north"],
        "formula": formula,
        "variables": {**VARIABLES, **(variables or {})},
        "learner": {"name": "glore"},
    }
    return Design(Study.model_validate(plain))


def codes() -> Codes:
    rng = np.random.default_rng(7)
    return {
        "y": rng.uniform(-100, 100, N),
        "a": rng.uniform(10, 30, N),
        "b": rng.uniform(-2, 6, N),
        "k": rng.integers(0, 5, N).astype(float),
        "u": rng.integers(0, 2, N).astype(float),
        "c": rng.integers(0, 3, N).astype(float),
        "d": rng.integers(0, 2, N).astype(float),
    }


def columns_outside(of: Design, rows: Codes) -> Array:
    """The design in the variables' own units: X_inside = X_outside T, so X_outside = X_inside T^-1."""
    inside = of.matrix(rows, len(rows["y"]))
    np.testing.assert_allclose(of.block(rows).x, inside @ np.linalg.inv(of.back), rtol=1e-12, atol=1e-9)
    return np.asarray(inside @ np.linalg.inv(of.back))


R = codes()
ONE, A, B, K, U = np.ones(N), R["a"], R["b"], R["k"], R["u"]
C0, C1, C2 = ((R["c"] == k) * 1.0 for k in range(3))
D0, D1 = ((R["d"] == k) * 1.0 for k in range(2))
LEVELS = ("c[x]", "c[y z]", "c[w]")
CELLS = tuple(f"{c}:d[{d}]" for c in LEVELS for d in ("no", "yes"))
I = INTERCEPT  # noqa: E741
DEEP = ("c[y z]:d[yes]:u", "c[w]:d[yes]:u")

EXPECTED: list[tuple[str, list[str], list[Array]]] = [
    ("y ~ a", [I, "a"], [ONE, A]),
    ("y ~ 1", [I], [ONE]),
    ("y~a+b", [I, "a", "b"], [ONE, A, B]),
    ("y ~ b + a + 1", [I, "b", "a"], [ONE, B, A]),
    ("y ~ a - 1", ["a"], [A]),
    ("y ~ 0 + a", ["a"], [A]),
    ("y ~ a -  1 + k", ["a", "k"], [A, K]),
    ("y ~ u + c", [I, "u", "c[y z]", "c[w]"], [ONE, U, C1, C2]),
    ("y ~ a + a", [I, "a"], [ONE, A]),
    ("y ~ a:b", [I, "a:b"], [ONE, A * B]),
    ("y ~ a*b", [I, "a", "b", "a:b"], [ONE, A, B, A * B]),
    ("y ~ a*b + b:a + b*a", [I, "a", "b", "a:b"], [ONE, A, B, A * B]),
    ("y ~ a*a", [I, "a"], [ONE, A]),
    ("y ~ a:a", [I, "a"], [ONE, A]),
    ("y ~ a + b^2", [I, "a", "b^2"], [ONE, A, B**2]),
    ("y ~ b^9", [I, "b^9"], [ONE, B**9]),
    ("y ~ a:b + u", [I, "u", "a:b"], [ONE, U, A * B]),
    ("y ~ b^2:u", [I, "b^2:u"], [ONE, B**2 * U]),
    # As in R, whose coefficient of the last cell is NA: the cells add up to the intercept.
    ("y ~ c:d", [I, *CELLS[:-1]], [ONE, C0 * D0, C0 * D1, C1 * D0, C1 * D1, C2 * D0]),
    ("y ~ c:d - 1", list(CELLS), [C0 * D0, C0 * D1, C1 * D0, C1 * D1, C2 * D0, C2 * D1]),
    ("y ~ c + d:c", [I, "c[y z]", "c[w]", *(f"d[yes]:{n}" for n in LEVELS)], [ONE, C1, C2, C0 * D1, C1 * D1, C2 * D1]),
    ("y ~ a:d", [I, "a:d[no]", "a:d[yes]"], [ONE, A * D0, A * D1]),
    ("y ~ a + a:d", [I, "a", "a:d[yes]"], [ONE, A, A * D1]),
    ("y ~ 0 + d + c", ["d[no]", "d[yes]", "c[y z]", "c[w]"], [D0, D1, C1, C2]),
    ("y ~ 0 + a + d", ["a", "d[no]", "d[yes]"], [A, D0, D1]),
    (
        "y ~ c*d*u",
        [I, "c[y z]", "c[w]", "d[yes]", "u", "c[y z]:d[yes]", "c[w]:d[yes]", "c[y z]:u", "c[w]:u", "d[yes]:u", *DEEP],
        [ONE, C1, C2, D1, U, C1 * D1, C2 * D1, C1 * U, C2 * U, D1 * U, C1 * D1 * U, C2 * D1 * U],
    ),
    (
        "y ~ c:d:a",
        [I, *(f"{cell}:a" for cell in CELLS)],
        [ONE, *(v * A for v in (C0 * D0, C0 * D1, C1 * D0, C1 * D1, C2 * D0, C2 * D1))],
    ),
    ("y ~ a + offset(b)", [I, "a"], [ONE, A]),
    ("y ~ offset(b)", [I], [ONE]),
]


@pytest.mark.parametrize(("formula", "names", "columns"), EXPECTED, ids=[e[0] for e in EXPECTED])
def test_a_formula_makes_the_columns_that_one_writes_by_hand(
    formula: str, names: list[str], columns: list[Array]
) -> None:
    built = design(formula)
    assert list(built.names) == names
    np.testing.assert_allclose(columns_outside(built, R), np.column_stack(columns), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(("formula", "names", "columns"), EXPECTED, ids=[e[0] for e in EXPECTED])
def test_inside_every_value_lies_between_minus_one_and_one(
    formula: str, names: list[str], columns: list[Array]
) -> None:
    x = design(formula).matrix(R, N)
    assert x.shape == (N, len(names))
    assert np.abs(x).max() <= 1.0 + 1e-15


def test_a_column_reaches_minus_one_and_one_at_the_ends_of_its_range() -> None:
    variables = {"m": {"type": "number", "range": [-3, -2]}, "s": {"type": "number", "range": [-3, 2]}}
    built = design("y ~ a + m + m^2 + s^2 + s^3 + k", variables)
    ends = {"a": [10, 30, 20, 10], "m": [-3, -2, -3, -2], "s": [-3, 0, 2, 2], "k": [0, 4, 0, 0], "y": [0, 0, 0, 0]}
    x = built.matrix({name: np.array(values, float) for name, values in ends.items()}, 4)
    assert dict(zip(built.names, x.T.tolist(), strict=True)) == {
        I: [1, 1, 1, 1],
        "a": [-1, 1, 0, -1],
        "m": [-1, 1, -1, 1],
        "m^2": [1, -1, 1, -1],
        "s^2": [1, -1, pytest.approx(-1 / 9), pytest.approx(-1 / 9)],
        "s^3": [-1, pytest.approx(19 / 35), 1, 1],
        "k": [-1, 1, -1, -1],
    }


def test_binary_columns_and_levels_stay_zero_and_one() -> None:
    x = design("y ~ u + c + c:d").block(R).x
    assert set(np.unique(x)) == {0.0, 1.0}


@pytest.mark.parametrize("formula", ["y ~ a + b + c*a + b^2", "y ~ 0 + a + b + c*a + b^2"])
def test_estimates_scaled_back_equal_those_of_the_unscaled_fit(formula: str) -> None:
    built = design(formula)
    scaled, y = built.matrix(R, N), built.block(R).y
    inside: Array = np.linalg.inv(scaled.T @ scaled).astype(np.float64)
    estimates, covariance = built.outside(inside @ scaled.T @ y, inside)
    x = columns_outside(built, R)
    np.testing.assert_allclose(estimates, np.linalg.lstsq(x, y, rcond=None)[0], rtol=1e-9)
    np.testing.assert_allclose(covariance, np.linalg.inv(x.T @ x), rtol=1e-7)
    np.testing.assert_allclose(covariance, covariance.T, rtol=1e-12)


def test_the_offset_is_handed_out_as_it_is_and_makes_no_column() -> None:
    built = design("y ~ a + offset(b)")
    offset = built.block(R).offset
    assert offset is not None
    np.testing.assert_array_equal(offset, B)
    assert design("y ~ a").block(R).offset is None


def test_the_variables_needed_are_outcome_terms_and_offset_once_each() -> None:
    assert design("y ~ c*a + a^2 + offset(b)").variables == ("y", "c", "a", "b")


def test_a_block_without_rows_has_its_columns() -> None:
    x = design("y ~ c*a").block({name: values[:0] for name, values in R.items()}).x
    assert x.shape == (0, 6)


@pytest.mark.parametrize(
    ("formula", "code", "word"),
    [
        ("y", "CO-S201", "outcome ~"),
        ("", "CO-S201", "outcome ~"),
        ("~ a", "CO-S201", "outcome ~"),
        ("y^2 ~ a", "CO-S201", "outcome ~"),
        ("log(y) ~ a", "CO-S201", "outcome ~"),
        ("y ~", "CO-S201", "`+` between terms"),
        ("y ~ a - b", "CO-S201", "`+` between terms"),
        ("y ~ - a", "CO-S201", "`+` between terms"),
        ("y ~ --1", "CO-S201", "`+` between terms"),
        ("y ~ 0", "CO-S201", "no terms"),
        ("y ~ offset(a) - 1", "CO-S201", "no terms"),
        ("y ~ a b", "CO-S201", "'b'"),
        ("y ~ a^0", "CO-S201", "'a^0'"),
        ("y ~ a^100", "CO-S201", "'a^100'"),
        ("y ~ a^-1", "CO-S201", "'a^'"),
        ("y ~ a:", "CO-S201", "ends where a variable is missing"),
        ("y ~ a ** 2", "CO-S201", "before '*'"),
        ("y ~ a ~ b", "CO-S201", "'~'"),
        ("y ~ 2", "CO-S201", "'2'"),
        ("y ~ __import__('os')", "CO-S201", "__import__"),
        ("y ~ offset(a) + offset(b)", "CO-S201", "'offset(b)'"),
        ("y ~ q", "CO-S202", "[variables.q]"),
        ("q ~ a", "CO-S202", "[variables.q]"),
        ("y ~ a + offset(q)", "CO-S202", "[variables.q]"),
        ("y ~ y", "CO-S204", "outcome"),
        ("y ~ a + offset(a)", "CO-S204", "offset"),
        ("y ~ u^2", "CO-S205", "u^2"),
        ("y ~ a:c^3", "CO-S205", "c^3"),
        ("y ~ a + offset(k)", "CO-S206", "'k'"),
    ],
)
def test_a_formula_that_is_not_understood_is_refused_with_the_part(formula: str, code: str, word: str) -> None:
    with pytest.raises(StudyError) as caught:
        design(formula)
    assert caught.value.code == code
    assert word in caught.value.message


def test_a_formula_of_too_many_columns_is_refused() -> None:
    many = {name: {"type": "category", "levels": [str(k) for k in range(50)]} for name in "cd"}
    with pytest.raises(StudyError, match="2500 columns; the limit is 2000"):
        _ = design("y ~ c*d", many).columns


@pytest.mark.parametrize(
    ("formula", "bounds"),
    [("y ~ a^9", [0, 1e200]), ("y ~ a:b", [0, 1e308]), ("y ~ a^2", [0, 1e-200]), ("y ~ a", [-1.7e308, 1.7e308])],
)
def test_ranges_beyond_arithmetic_are_refused(formula: str, bounds: list[float]) -> None:
    variables = {name: {"type": "number", "range": bounds} for name in "ab"}
    if formula == "y ~ a":
        assert design(formula, variables).columns[1].scale == 1.7e308
        return
    with pytest.raises(StudyError) as caught:
        _ = design(formula, variables).columns
    assert caught.value.code == "CO-S207"
    assert "another unit" in caught.value.message


@given(st.text(alphabet="yab12:*^+-~()o offset.", max_size=30))
@settings(deadline=None)
def test_no_text_crashes_the_parser(text: str) -> None:
    try:
        formula = parse_formula("y ~ " + text)
    except StudyError:
        return
    assert formula.terms or formula.intercept
    assert len(formula.terms) == len({frozenset(term) for term in formula.terms})


def test_every_site_makes_the_same_columns_whatever_its_rows() -> None:
    study = cohorts.study("died ~ stage*age + crp^2")
    codes = cohorts.draw(50)
    lacking = {name: np.where(name == "stage", 0.0, column) for name, column in codes.items()}
    assert Design(study).block(lacking).x.shape == Design(study).block(codes).x.shape
