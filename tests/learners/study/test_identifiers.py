"""Identifiers by kind: which spellings are one patient, which never are, what is refused, and what is counted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.learners import vertical

from coterie_learners.errors import DataError, StudyError
from coterie_learners.study import identifiers
from coterie_learners.study.document import IdentifierKind, LinkageRules, Study
from coterie_learners.study.identifiers import (
    Spellings,
    Unreadable,
    compare_spellings,
    derive_strict_form,
    digest_forms,
    encode_parts,
    hash_spellings,
    identify,
    normalise,
)
from coterie_learners.study.rows import OwnColumns

ONE_PATIENT: list[tuple[IdentifierKind, str, str]] = [
    ("number", "107", "107.0"),
    ("number", "000077", " 77 "),
    ("number", "１２", "12"),
    ("number", "١٢", "+12"),
    ("code", "107", "107.0"),
    ("code", "000077", "77"),
    ("code", "P-0017", "p17"),
    ("code", "A 1", "a1"),
    ("text", "  Ab \u00a0 1", "aB 1"),
    ("text", "A\u03087", "\u00c47"),
    ("text", "p\u200b1", "p1"),
    ("name", "Müller", "MULLER"),
    ("name", "O'Brien", "obrien"),
    ("name", " Straße ", "strasse"),
    ("name", "ﬁ", "FI"),
    ("name", "Ωμέγα", "ωμεγα"),
    ("name", "é", "e\u0301"),
    ("date", "1950-03-01", "1950-3-1"),
    ("date", "19500301", "1950/03/01"),
    ("date", "1950-03-01 00:00:00", "1950.3.1"),
    ("date-dmy", "1.3.1950", "1950-03-01"),
    ("date-mdy", "3/1/1950", "1950-03-01"),
    ("check-digit", "12-4", "12"),
    ("check-digit", "0012/K", "12\u20134"),
    ("check-digit", "12.345.678-5", "12345678"),
]
NEVER_ONE: list[tuple[IdentifierKind, str, str]] = [
    ("number", "107.0", "1070"),
    ("code", "107.0", "1070"),
    ("code", "12-4", "124"),
    ("code", "12 4", "124"),
    ("code", "1,070", "1070"),
    ("code", "107.05", "107.5"),
    ("code", "x.07.3", "x703"),
    ("code", "-1", "1"),
    ("code", "100", "10"),
    ("code", "a0", "a"),
    ("check-digit", "12-4", "124"),
    ("text", "0077", "77"),
    ("text", "12-4", "124"),
    ("text", "Müller", "Muller"),
    ("text", "ab", "a b"),
    ("name", "Иванов", "Петров"),
    ("name", "12-4", "124"),
    ("name", "1²", "12"),
    ("code", "1²", "12"),
    ("text", "①②", "12"),
    ("date-dmy", "1/2/1950", "2/1/1950"),
]


@pytest.mark.parametrize(("kind", "one", "other"), ONE_PATIENT)
def test_spellings_of_one_patient_have_one_normal_form(kind: IdentifierKind, one: str, other: str) -> None:
    assert normalise(kind, one) == normalise(kind, other) is not None


@pytest.mark.parametrize(("kind", "one", "other"), NEVER_ONE)
def test_different_patients_keep_different_normal_forms(kind: IdentifierKind, one: str, other: str) -> None:
    assert normalise(kind, one) != normalise(kind, other)


@pytest.mark.parametrize("kind", ["code", "number", "text", "date", "check-digit", "name"])
@pytest.mark.parametrize("word", ["", "  ", "NA", "NaN", "null", "NULL", "\u200b", "\u00a0", "N/A", "<NA>"])
def test_missing_words_identify_nobody(kind: IdentifierKind, word: str) -> None:
    assert normalise(kind, word) is None


def test_null_and_na_are_family_names() -> None:
    assert (normalise("name", "Null"), normalise("name", "Na")) == ("null", "na")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("number", "12-4"),
        ("number", "1,070"),
        ("number", "1e3"),
        ("number", "-1"),
        ("number", "107.5"),
        ("number", "9007199254740993.0"),
        ("date", "1/2/1950"),
        ("date", "1.2.50"),
        ("date", "1950-02-29"),
        ("date-dmy", "2/31/1950"),
        ("date-dmy", "31121950"),
        ("check-digit", "AB-1"),
        ("check-digit", "12-45"),
        ("check-digit", "1.234"),
    ],
)
def test_a_value_that_its_kind_does_not_allow_is_refused(kind: IdentifierKind, value: str) -> None:
    with pytest.raises(Unreadable):
        normalise(kind, value)


def test_a_slashed_date_is_refused_with_the_kinds_that_declare_its_order() -> None:
    with pytest.raises(Unreadable, match='declare "date-dmy" or "date-mdy"'):
        normalise("date", "1/2/1950")


@given(st.text(max_size=12))
def test_a_normal_form_of_text_and_names_is_its_own_normal_form(text: str) -> None:
    for kind in ("text", "name"):
        form = normalise(kind, text)
        assert form is None or normalise(kind, form) in (form, None)


@given(st.integers(0, 1 << 52), st.integers(0, 4))
def test_zeros_before_and_a_point_and_zero_after_leave_a_number_what_it_is(number: int, zeros: int) -> None:
    for kind in ("number", "code"):
        assert normalise(kind, "0" * zeros + f"{number}.0") == normalise(kind, str(number)) == str(number)


@given(
    st.sampled_from(["code", "number", "text", "name", "check-digit"]),
    st.text("0123456789", min_size=1, max_size=6),
    st.text("-/.,:;_ '\u2013\u00b7\u2009\u066b²½", min_size=1, max_size=2),
    st.text("0123456789", min_size=1, max_size=6),
)
def test_no_kind_brings_digits_together_that_a_separator_keeps_apart(
    kind: IdentifierKind, one: str, between: str, other: str
) -> None:
    try:
        apart = normalise(kind, one + between + other)
    except Unreadable:
        return
    assert apart != normalise(kind, one + other) or int(one + other) == 0


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_different_parts_have_different_bytes(one: list[str], other: list[str]) -> None:
    assert (encode_parts(one) == encode_parts(other)) == (one == other)


def test_installations_that_normalise_alike_have_one_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = digest_forms()
    monkeypatch.setitem(identifiers.FORMS, "text", lambda text: text[:1])
    assert digest_forms() != mine


# A site's patients


def study(kind: IdentifierKind = "code", **rules: object) -> Study:
    """A study on split columns whose identifying column is of a kind."""
    plain = vertical.study().model_dump()
    return Study.model_validate({**plain, "identifier": {"code": kind}, "linkage": rules})


def columns(*codes: str) -> OwnColumns:
    return OwnColumns(tuple((code,) for code in codes), ("x",), np.zeros((len(codes), 1)))


def test_rows_without_an_identifier_are_refused_or_left_out_and_counted() -> None:
    with pytest.raises(DataError, match="the identifier is missing in 1 of 3 rows") as caught:
        identify(study(), "north", columns("p1", "NA", "p3"))
    assert caught.value.code == "CO-D132"
    patients = identify(study(unidentified="drop"), "north", columns("p1", "NA", "p3"))
    assert (patients.rows.tolist(), patients.unidentified) == ([0, 2], 1)


def test_doubled_rows_are_refused_or_all_left_out_and_counted() -> None:
    with pytest.raises(DataError, match="4 rows carry 3 different identifiers") as caught:
        identify(study(), "north", columns("p1", "P1", "p2", "p3"))
    assert caught.value.code == "CO-D133"
    assert "P1" not in caught.value.message
    patients = identify(study(doubled="drop"), "north", columns("p1", "P1", "p2", "p3"))
    assert (patients.rows.tolist(), patients.doubled) == ([2, 3], 2)


def test_a_wrong_value_is_refused_without_being_shown() -> None:
    with pytest.raises(DataError, match="'code' is no whole number") as caught:
        identify(study("number"), "north", columns("17", "12-4"))
    assert caught.value.code == "CO-D134"
    assert "12-4" not in caught.value.message


def test_a_file_with_check_digits_in_some_rows_is_refused() -> None:
    with pytest.raises(DataError, match="check digit off in 1 of 3 values of 'code'") as caught:
        identify(study("check-digit"), "north", columns("12-4", "124", "NA", "18"))
    assert caught.value.code == "CO-D135"


# Spellings


def spelled(of: Study, *sites: tuple[str, ...]) -> tuple[int, int]:
    """How many patients are spelled differently, and doubtfully, at sites that hold the same ones in one order."""
    salts = [bytes([k]) * 16 for k in range(len(sites[0]))]
    found = [hash_spellings(of, [(code,) for code in site], salts) for site in sites]
    counts = compare_spellings(of, len(salts), list(itertools.combinations(found, 2)))
    return counts.different, counts.doubtful


def test_zeros_of_a_number_and_formats_of_a_date_are_counted_and_not_doubted() -> None:
    assert spelled(study("number"), ("007", "8"), ("7.0", "8")) == (1, 0)
    assert spelled(study("date-dmy"), ("1.3.1950",), ("1950-03-01",)) == (1, 0)
    assert spelled(study("code"), ("007",), ("7",)) == (1, 0)


def test_other_case_accents_and_another_check_digit_are_doubted() -> None:
    assert spelled(study("text"), ("ab", "cd"), ("Ab", "cd"), ("ab", "cd")) == (1, 1)
    assert spelled(study("name"), ("Müller",), ("Muller",)) == (1, 1)
    assert spelled(study("check-digit"), ("12-4", "13-2"), ("12", "13"), ("12-4", "13-3")) == (2, 1)


def test_more_doubtful_spellings_than_the_study_allows_stop_it() -> None:
    codes = tuple(f"p{k}" for k in range(100))
    wrong = (*(code.upper() for code in codes[:6]), *codes[6:])
    for of, most in ((study("text"), 0.05), (study("text", spellings=0.06), 0.06)):
        salts = [code.encode() for code in codes]
        sites = [hash_spellings(of, [(code,) for code in site], salts) for site in (codes, wrong)]
        counts = compare_spellings(of, 100, [(sites[0], sites[1])])
        assert (of.most_spellings, counts.columns) == (most, {"code": 6})
        if most == 0.06:
            counts.check(of.most_spellings)
            continue
        with pytest.raises(StudyError, match="6 of 100 matches rest on identifiers that the sites spell") as caught:
            counts.check(of.most_spellings)
        assert caught.value.code == "CO-N251"


def test_without_matches_nothing_is_spelled_differently() -> None:
    nobody = Spellings(np.zeros((0, 1, 8), np.uint8), np.zeros((0, 1, 8), np.uint8))
    assert compare_spellings(study(), 0, [(nobody, nobody)]).words == ""


def test_a_list_of_names_counts_spellings_and_has_no_bound_of_its_own() -> None:
    assert vertical.study().most_spellings == 1.0
    assert vertical.study().model_copy(update={"linkage": LinkageRules(spellings=0.1)}).most_spellings == 0.1


def test_only_what_a_kind_says_is_left_out_of_its_strict_form() -> None:
    assert derive_strict_form("number", "007") == derive_strict_form("number", "7.0")
    assert derive_strict_form("text", "Ab") != derive_strict_form("text", "ab")
    assert derive_strict_form("check-digit", "12") == ""


def test_kinds_are_part_of_the_study_s_identity_and_keep_their_order_through_json() -> None:
    plain = vertical.study().model_dump()
    typed = Study.model_validate({**plain, "identifier": {"surname": "name", "born": "date"}})
    assert typed.hash != vertical.study().hash
    assert tuple(Study.from_json(typed.document).identifying) == tuple(typed.identifying) == ("born", "surname")
