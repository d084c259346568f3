"""Functions in formulas: R's numbers from declared constants, sound ranges, and refusals that name the way out."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie_learners.errors import StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.formula import parse_formula

STORED = Path(__file__).parents[2] / "golden" / "r" / "stored" / "formula.csv"
AT = np.array([-3, -1.5, -0.2, 0, 0.7, 1, 2.25, 3.1, 4, 6])
VARIABLES: dict[str, dict[str, Any]] = {
    "y": {"type": "number", "range": [-100, 100]},
    "x": {"type": "number", "range": [-3, 6]},
    "z": {"type": "number", "range": [1, 5]},
    "k": {"type": "count", "range": [0, 4]},
    "u": {"type": "binary"},
    "g": {"type": "category", "levels": ["a", "b", "c"]},
}
COEFS = "coefs = list(alpha = c(1.5, 1.25, 1.75), norm2 = c(1, 10, 22.5, 31.25, 40))"


def design(formula: str, **learner: Any) -> Design:
    plain = {
        "name": "s",
        "sites": ["north"],
        "formula": formula,
        "variables": VARIABLES,
        "learner": {"name": "glore", **learner},
    }
    return Design(Study.model_validate(plain))


def columns_at(formula: str, x: Array = AT) -> Array:
    """The columns (m, k) without the intercept, at values of x."""
    codes = {"y": np.zeros(len(x)), "x": x, "z": np.full(len(x), 2.0)}
    codes |= {"k": np.zeros(len(x)), "u": np.zeros(len(x)), "g": np.zeros(len(x))}
    return np.asarray(design(formula).raw(codes, len(x))[:, 1:])


def read_stored(model: str) -> Array:
    """R's columns (m, k)."""
    columns: defaultdict[int, list[float]] = defaultdict(list)
    for row in csv.DictReader(line for line in STORED.read_text().splitlines() if not line.startswith("#")):
        if row["model"] == model:
            columns[int(row["term"].partition("@")[0])].append(float(row["estimate"]))
    return np.column_stack([columns[k] for k in sorted(columns)])


COLUMNS = {
    "ns": "ns(x, knots = c(0, 1), Boundary.knots = c(-2, 4))",
    "ns_one_knot": "ns(x, knots = 0.5)",
    "ns_five_knots": "ns(x, knots = c(-1, 0, 1, 2, 3))",
    "bs": "bs(x, knots = c(0, 1))",
    "bs_linear": "bs(x, knots = c(0, 1), degree = 1)",
    "bs_quadratic": "bs(x, knots = 0.7, degree = 2, Boundary.knots = c(-4, 7))",
    "poly": f"poly(x, 3, {COEFS})",
    "rcs": "rcs(x, c(-2, 0, 1, 3))",
    "rcs_three": "rcs(x, knots = c(-1, 0.5, 4))",
    "log1p": "log1p(x + 3.5 - 0.5)",
    "log2": "log2(x + 4)",
    "log10": "log10(x + 4)",
    "exp": "exp(-x / 2)",
    "sqrt": "sqrt(x + 3)",
    "arithmetic": "I((x + 4)^3 / (2 * x + 9) - x * 1.5)",
}


@pytest.mark.parametrize("model", [name for name in COLUMNS if name != "log1p"])
def test_columns_are_those_of_r(model: str) -> None:
    np.testing.assert_allclose(columns_at(f"y ~ {COLUMNS[model]}"), read_stored(model), rtol=1e-12, atol=1e-13)


def test_a_logarithm_beyond_its_range_is_refused_and_inside_is_r_s() -> None:
    with pytest.raises(StudyError, match="does not exist for all declared values"):
        design("y ~ log1p(x)")
    np.testing.assert_allclose(columns_at("y ~ log1p(x + 3)"), read_stored("log1p"), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("model", "formula"),
    [
        ("cut", "cut(x, c(-Inf, -0.2, 1, 3.1, Inf))"),
        ("cut_left", "cut(x, breaks = c(-3, 0, 1, 6), right = FALSE, include.lowest = TRUE)"),
    ],
)
def test_intervals_are_those_of_r_s_cut(model: str, formula: str) -> None:
    built = design(f"y ~ {formula}")
    (name,) = built.derived
    codes = built.derive({"x": AT})[name]
    np.testing.assert_array_equal(codes + 1, read_stored(model)[:, 0])
    assert built.columns[1].factors[0].level == 1


@pytest.mark.parametrize(
    ("model", "formula"),
    [
        ("labels", "cut(x, c(-Inf, -0.2, 1, 3.1, Inf))"),
        ("labels_left", "cut(x, c(-3, 0, 1, 6), right = FALSE, include.lowest = TRUE)"),
        ("labels_close", "cut(x, c(-10, 1.23456, 1.23457, 60000), include.lowest = TRUE)"),
    ],
)
def test_levels_of_cut_have_r_s_names(model: str, formula: str) -> None:
    built = design(f"y ~ {formula}")
    (name,) = built.derived
    rows = csv.DictReader(line for line in STORED.read_text().splitlines() if not line.startswith("#"))
    expected = [row["term"].replace(";", ",") for row in rows if row["model"] == model]
    assert list(built.declared[name].levels) == expected


TERMS: list[tuple[str, list[str]]] = [
    ("(x + z + u)^2", ["x", "z", "u", "x:z", "x:u", "z:u"]),
    ("(x + z + u)^2 - x:z", ["x", "z", "u", "x:u", "z:u"]),
    ("(x + z + u)^3", ["x", "z", "u", "x:z", "x:u", "z:u", "x:z:u"]),
    ("(x + z):u", ["x:u", "z:u"]),
    ("x*z - x", ["z", "x:z"]),
    ("x/u", ["x", "x:u"]),
    ("(x + z)/u", ["x", "z", "x:z:u"]),
    (". - g", ["x", "z", "k", "u"]),
    (".", ["x", "z", "k", "u", "g[b]", "g[c]"]),
    (". - g + offset(x)", ["z", "k", "u"]),
    ("I(x / 10)", ["I(x/10)"]),
    ("log( z )+x", ["log(z)", "x"]),
    ("poly(x, 3, raw = TRUE)", ["x", "x^2", "x^3"]),
    ("I(x > 2)*u", ["I(x > 2)[TRUE]", "u", "I(x > 2)[TRUE]:u"]),
    ("relevel(g, ref = 'b')", ['relevel(g, ref = "b")[a]', 'relevel(g, ref = "b")[c]']),
    (
        "u*ns(x, knots = 1)",
        ["u", *(f"ns(x, knots = 1){k}" for k in (1, 2)), *(f"u:ns(x, knots = 1){k}" for k in (1, 2))],
    ),
    ("g:log(z)", ["g[a]:log(z)", "g[b]:log(z)", "g[c]:log(z)"]),
]


@pytest.mark.parametrize(("terms", "names"), TERMS, ids=[terms for terms, _ in TERMS])
def test_terms_are_those_that_r_makes(terms: str, names: list[str]) -> None:
    assert list(design(f"y ~ {terms}").names) == ["(Intercept)", *names]


def test_without_an_intercept_the_first_category_has_all_levels_though_it_is_derived() -> None:
    names = design("y ~ 0 + cut(x, c(-Inf, 0, 1, Inf)) + u").names
    levels = ("(-Inf,0]", "(0,1]", "(1, Inf]")
    assert names == (*(f"cut(x, c(-Inf, 0, 1, Inf))[{level}]" for level in levels), "u")


def test_what_is_read_from_the_file_is_what_is_behind_the_functions() -> None:
    built = design("y ~ log(z) + I(x * k) + cut(x, c(-Inf, 0, 2, Inf))")
    assert built.inputs == ("y", "z", "x", "k")
    assert built.read == built.inputs
    assert built.variables == ("y", "log(z)", "I(x*k)", "cut(x, c(-Inf, 0, 2, Inf))")


def test_a_missing_value_stays_missing_in_all_that_is_derived_of_it() -> None:
    built = design(f"y ~ log(z) + I(x > 1) + cut(x, c(-Inf, 0, 2, Inf)) + ns(x, knots = 0) + poly(x, 3, {COEFS})")
    values = built.derive({"x": np.array([np.nan, 1.0]), "z": np.array([np.nan, 2.0])})
    for name in built.derived:
        assert np.isnan(values[name][0]), name
        assert np.isfinite(values[name][1]), name


FORMS = [
    *(text for name, text in COLUMNS.items() if name != "log1p"),
    "log(z)",
    "I(x^2 - x)",
    "I(z / (x + 4))",
    "abs(x)",
    "I(-x * z)",
    "I(x^3)",
    "sqrt(z) ",
    "log(z + exp(x / 3))",
]


@pytest.mark.parametrize("text", FORMS)
def test_no_value_of_the_declared_ranges_leaves_the_derived_range(text: str) -> None:
    built = design(f"y ~ {text}")
    rng = np.random.default_rng(4)
    x = np.concatenate([[-3, 6], rng.uniform(-3, 6, 4000)])
    z = np.concatenate([[1, 5], rng.uniform(1, 5, 4000)])
    codes = built.derive({"x": x, "z": z})
    for name, part in built.derived.items():
        low, high = part.variable.bounds
        assert low <= np.min(codes[name]), name
        assert np.max(codes[name]) <= high, name


@pytest.mark.parametrize(
    ("terms", "code", "words"),
    [
        ("log(x)", "CO-S213", "narrower range"),
        ("log(k)", "CO-S213", "use log1p"),
        ("sqrt(x)", "CO-S213", "does not exist"),
        ("I(1 / x)", "CO-S213", "may be 0"),
        ("exp(I(x * 1000))", "CO-S213", "divide by a constant"),
        ("I(x^0.5)", "CO-S201", "whole number"),
        ("I(x^200)", "CO-S213", "exponent from 1 to 99"),
        ("I(x:z)", "CO-S213", "write `*`"),
        ("I(g + 1)", "CO-S205", "category"),
        ("I(2)", "CO-S213", "the same for all"),
        ("log(x, 2)", "CO-S213", "one argument"),
        ("log(z)^2", "CO-S201", "I(log(z)^2)"),
        ("ns(x, 3)", "CO-S213", "from the data (df)"),
        ("ns(x, df = 3)", "CO-S213", "knots = c(...)"),
        ("bs(x, knots = c(0, 1), Boundary.knots = c(-1, 2))", "CO-S213", "use ns"),
        ("bs(x, knots = 9)", "CO-S213", "do not lie between"),
        ("ns(x, knots = c(1, 0))", "CO-S213", "rising order"),
        ("rcs(x, 4)", "CO-S213", "declare them"),
        ("rcs(x, c(0, 1))", "CO-S213", "3 to 50 knots"),
        ("poly(x, 2)", "CO-S213", "raw = TRUE"),
        ("poly(x, 2, coefs = list(alpha = c(1), norm2 = c(1, 2, 3)))", "CO-S213", "alpha"),
        ("cut(x, 3)", "CO-S213", "three or more breaks"),
        ("cut(x, c(0, 1, Inf))", "CO-S213", "begin with -Inf"),
        ("cut(x, c(-Inf, 1, 2))", "CO-S213", "end with Inf"),
        ("cut(x, c(-Inf, 1, Inf), labels = c('a', 'a'))", "CO-S213", "different texts"),
        ("cut(x, c(-Inf, 1, Inf), right = 1)", "CO-S213", "TRUE or FALSE"),
        ("cut(x, c(-Inf, mean(x), Inf))", "CO-S213", "mean(x) is not one"),
        ("relevel(g, ref = 'q')", "CO-S213", "it has a, b, c"),
        ("relevel(g, 'b', 'c')", "CO-S213", "too many"),
        ("scale(x)", "CO-S201", "I((x - 50) / 10)"),
        ("factor(k)", "CO-S201", "declare the variable as a category"),
        ("s(x)", "CO-S201", "ns(x, knots"),
        ("ifelse(x > 1, 1, 0)", "CO-S201", "I(x > 65)"),
        ("x + x > 2", "CO-S201", "write I("),
        ("log(q)", "CO-S202", "[variables.q]"),
        ("I(y * 2)", "CO-S204", "outcome"),
        ("log(z) + offset(z)", "CO-S204", "offset"),
        ("x - z", "CO-S201", "an earlier term: 'z' is not one"),
        ("u:offset(x)", "CO-S201", "no part of a product"),
        ("offset(log(z))", "CO-S201", "offset(variable)"),
        ("(x", "CO-S201", "')' is missing"),
        ("x)", "CO-S201", "')' is not understood"),
        ("ns(x, knots = c(0, 1)", "CO-S201", "')' is missing"),
        ("x %in% z", "CO-S201", "not understood"),
        ("(1 | g)", "CO-S201", "not understood"),
        ("x[1]", "CO-S201", "not understood"),
        ("'x'", "CO-S201", "is no term"),
        ("(((((" * 20 + "x" + ")))))" * 20, "CO-S201", "too deeply"),
        ("log(" * 60 + "z" + ")" * 60, "CO-S201", "too deeply"),
        ("(x + z + u + k)^99:(x + z + u + k + g)^99", "", ""),
    ],
)
def test_what_is_not_supported_says_so_with_the_alternative(terms: str, code: str, words: str) -> None:
    if not code:
        assert design(f"y ~ {terms}").formula.terms
        return
    with pytest.raises(StudyError) as caught:
        design(f"y ~ {terms}")
    assert caught.value.code == code, caught.value.message
    assert words in caught.value.message


def test_a_power_of_a_long_sum_is_counted_before_it_is_expanded() -> None:
    with pytest.raises(StudyError, match="more than 2000 terms"):
        parse_formula(f"y ~ ({' + '.join(f'v{k}' for k in range(100))})^4")


@given(st.text(alphabet="xzgu1.()+-*/:^,='\" logInscut", max_size=40))
@settings(deadline=None, max_examples=300)
def test_no_text_crashes_a_design(text: str) -> None:
    try:
        built = design("y ~ " + text)
        names = built.names
    except StudyError:
        return
    assert len(names) == len(built.columns)


def test_the_weights_and_times_of_a_learner_are_no_part_of_the_point() -> None:
    assert "z" not in design("y ~ .", weights="z").names
