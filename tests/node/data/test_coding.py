"""Coding of columns: what counts as a value, as missing, as wrong."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie_learners.study.document import Variable
from coterie_node.data.arrow_values import Values
from coterie_node.data.coding import MISSING, NUMBER, advice, code, faults, is_storable, value_at

WIDE = Variable(type="number", range=(-1e308, 1e308))
AGE = Variable(type="number", range=(0, 120), unit="years")
VISITS = Variable(type="count", range=(0, 50))
DEAD = Variable(type="binary")
SEX = Variable(type="category", levels=("male", "female"))
GRADE = Variable(type="category", levels=("1", "2", "NA"))


def wrong(column: Values, variable: Variable) -> dict[str, list[int]]:
    codes_of_faults = faults(code(column, variable), variable)
    return {fault: np.flatnonzero(mask).tolist() for fault, mask in codes_of_faults if mask.any()}


@settings(deadline=None)
@given(st.lists(st.floats(-1e308, 1e308), min_size=1))
def test_numbers_come_back_to_the_bit(values: list[float]) -> None:
    coded = code(pa.array([repr(v) for v in values]), WIDE)
    assert coded.values.tobytes() == np.array(values).tobytes()
    assert not coded.missing.any()


@settings(deadline=None)
@given(st.from_regex(NUMBER.replace("$", r"\Z"), fullmatch=True))
def test_every_text_of_the_grammar_is_the_number_that_python_reads(text: str) -> None:
    # The text beside it forces the slow path, in which bad texts are sorted out by the grammar.
    for column in (pa.array([text]), pa.array([text, "x"])):
        assert code(column, WIDE).values[0] == float(text)


@settings(deadline=None)
@given(st.text())
def test_no_text_is_taken_for_a_number_that_python_does_not_read(text: str) -> None:
    coded = code(pa.array([text]), WIDE)
    if np.isfinite(coded.values[0]):
        assert coded.values[0] == float(text)
    else:
        assert coded.missing[0] == (text in MISSING)


@pytest.mark.parametrize(
    "text", ["1,5", "abc", " 5", "5 ", "1_0", "0x10", "inf", "-Infinity", "NAN", "1e999", "١", "--1"]
)
def test_text_that_is_no_finite_number_is_a_fault(text: str) -> None:
    assert wrong(pa.array(["1", text, "", "2"]), AGE) == {"CO-D112": [1]}


def test_missing_words_are_missing_in_every_type() -> None:
    for variable in (AGE, VISITS, DEAD, SEX):
        for column in (pa.array(MISSING), pa.array([None] * len(MISSING), pa.string())):
            assert code(column, variable).missing.all()
            assert wrong(column, variable) == {}


def test_a_declared_level_wins_over_a_missing_word() -> None:
    coded = code(pa.array(["NA", "NaN", "1"]), GRADE)
    assert coded.missing.tolist() == [False, True, False]
    np.testing.assert_array_equal(coded.values, [2, np.nan, 0])


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["never", "", None, "NA", "now", "ever"]),
        pa.array(["never", "", None, "NA", "now", "ever"]).dictionary_encode(),
    ],
)
def test_a_missing_value_has_the_level_that_the_study_declares_for_it(column: Values) -> None:
    smoking = Variable(type="category", levels=("never", "now", "unknown"), missing="unknown")
    coded = code(column, smoking)
    assert coded.values[:5].tolist() == [0.0, 2.0, 2.0, 2.0, 1.0]
    assert not coded.missing.any()
    assert wrong(column, smoking) == {"CO-D116": [5]}
    with pytest.raises(ValueError, match="one of the levels"):
        Variable(type="category", levels=("never", "now"), missing="unknown")


def test_range_includes_its_ends() -> None:
    assert wrong(pa.array(["0", "120", "-0.001", "120.1"]), AGE) == {"CO-D113": [2, 3]}


def test_counts_are_whole() -> None:
    assert wrong(pa.array(["3", "3.0", "3e0", "2.5", "51.5"]), VISITS) == {"CO-D114": [3], "CO-D113": [4]}


def test_binary_is_0_or_1_and_nothing_like_it() -> None:
    assert wrong(pa.array(["0", "1", "0.0", "1.0", "yes", "TRUE", "2", "0.5", "inf"]), DEAD) == {
        "CO-D115": [4, 5, 6, 7, 8]
    }
    assert code(pa.array([True, False]), DEAD).values.tolist() == [1, 0]


def test_levels_are_exact() -> None:
    assert wrong(pa.array(["male", "female", "Male", " male", "male\n", "?"]), SEX) == {"CO-D116": [2, 3, 4, 5]}


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array(["2", "1", None]), [1, 0, np.nan]),
        (pa.array(["2", "1", None], pa.large_string()), [1, 0, np.nan]),
        (pa.array(["2", "1", None], pa.string_view()), [1, 0, np.nan]),
        (pa.array([2, 1, None], pa.int8()), [1, 0, np.nan]),
        (pa.array(["2", "1", None, "2"]).dictionary_encode(), [1, 0, np.nan, 1]),
        (pa.array([2, 1, None], pa.uint64()).dictionary_encode(), [1, 0, np.nan]),
        (pa.array(["2", ""]).dictionary_encode(), [1, np.nan]),
        (pa.array([None, None]), [np.nan, np.nan]),
        (pa.array([], pa.string()).dictionary_encode(), []),
    ],
)
def test_a_category_may_be_stored_in_many_ways(column: Values, values: list[float]) -> None:
    assert is_storable(column.type, GRADE)
    coded = code(column, GRADE)
    np.testing.assert_array_equal(coded.values, values)
    np.testing.assert_array_equal(coded.missing, np.isnan(values))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.5, None, float("nan")]),
        pa.array([1.5, None, float("nan")], pa.float16()),
        pa.array([Decimal("1.5"), None, None]),
        pa.array([1.5, None, float("nan")]).dictionary_encode(),
    ],
)
def test_a_number_may_be_stored_in_many_ways(column: Values) -> None:
    assert is_storable(column.type, AGE)
    coded = code(column, AGE)
    np.testing.assert_array_equal(coded.values, [1.5, np.nan, np.nan])
    assert coded.missing.tolist() == [False, True, True]


def test_stored_infinity_is_no_number() -> None:
    assert wrong(pa.array([1.0, float("inf")]), AGE) == {"CO-D112": [1]}


@pytest.mark.parametrize(
    ("kind", "variable"),
    [
        (pa.string(), AGE),
        (pa.bool_(), AGE),
        (pa.date32(), AGE),
        (pa.string(), DEAD),
        (pa.float64(), SEX),
        (pa.binary(), SEX),
        (pa.list_(pa.int8()), VISITS),
        (pa.dictionary(pa.int8(), pa.string()), VISITS),
    ],
)
def test_other_types_do_not_fit(kind: pa.DataType, variable: Variable) -> None:
    assert not is_storable(kind, variable)


@pytest.mark.parametrize(
    ("fault", "variable", "value", "words"),
    [
        ("CO-D112", AGE, "1,5", "with a dot"),
        ("CO-D112", AGE, " 5", "Remove the blanks"),
        ("CO-D112", AGE, "unknown", "'NA'"),
        ("CO-D113", AGE, 130.0, "0 to 120 years"),
        ("CO-D114", VISITS, "2.5", "declare the variable as a number"),
        ("CO-D115", DEAD, "yes", "as 0 and 1"),
        ("CO-D115", DEAD, "1 ", "Remove the blanks"),
        ("CO-D116", SEX, "male ", "Remove the blanks"),
        ("CO-D116", SEX, "Female", "Did you mean 'female'?"),
        ("CO-D116", SEX, "x", "the levels 'male', 'female'"),
        ("CO-D117", SEX, None, 'rows.missing = "drop"'),
    ],
)
def test_advice_fits_the_value(fault: str, variable: Variable, value: object, words: str) -> None:
    assert words in advice(fault, variable, value)


def test_stored_text_that_is_not_utf8_is_shown_as_bytes() -> None:
    raw = pa.array([b"caf\xe9"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 1, raw.buffers())
    assert wrong(text, SEX) == {"CO-D116": [0]}
    assert value_at(text, 0) == b"caf\xe9"
