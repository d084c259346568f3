"""The language of conditions and derived variables: types, dates, missing values, visits, errors with their place."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from coterie_learners.errors import StudyError
from coterie_learners.study.days import read_day, write_day
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.preparation.calendar_functions import count_months
from coterie_learners.study.preparation.plan import Preparation

BASE = """
name = "conditions"
sites = ["a", "b", "c"]
patient = "pid"
formula = "died ~ age"
learner = { name = "glore" }
[variables]
died = { type = "binary" }
age = { type = "number", range = [0, 110] }
visits = { type = "count", range = [0, 50] }
ward = { type = "category", levels = ["med", "sur", "icu"] }
born = { type = "date", range = [1900-01-01, 2010-12-31] }
seen = { type = "date", range = [2015-01-01, 2024-12-31] }
"""
NAN = float("nan")


def read(
    where: list[str] | None = None, derive: dict[str, str] | None = None, order: str = "", more: str = ""
) -> Study:
    text = f"{BASE}{more}\n[cohort]\nwhere = {where or []}\norder = {order!r}\n[derive]\n"
    return Study.from_toml(text + "\n".join(f"{name} = {value!r}" for name, value in (derive or {}).items()))


def plan(study: Study) -> Preparation:
    assert study.preparation is not None
    return study.preparation


ROWS: dict[str, NDArray[np.float64]] = {
    "died": np.array([1, 0, NAN, 0, 1]),
    "age": np.array([17, 40, 65, NAN, 90]),
    "visits": np.array([1, 2, 3, 4, 5.0]),
    "ward": np.array([0, 1, 2, NAN, 0]),
    "born": np.array(
        [read_day(d) or 0.0 for d in ("2003-05-01", "1980-02-29", "1955-01-01", "1990-01-01", "1930-06-30")]
    ),
    "seen": np.array(
        [read_day(d) or 0.0 for d in ("2020-06-30", "2020-02-28", "2020-01-01", "2021-12-31", "2021-06-29")]
    ),
}


def derive(text: str) -> list[float]:
    study = read(derive={"x": text})
    values = plan(study).select_rows(ROWS).derived["x"]
    return [None if np.isnan(v) else float(v) for v in values]  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("age >= 18", [0, 1, 1, None, 1]),
        ("age >= 18 and died == 0", [0, 1, None, None, 0]),
        ("age >= 18 or died == 0", [0, 1, 1, 1, 1]),
        ("not (age >= 18)", [1, 0, 0, None, 0]),
        ("age is missing", [0, 0, 0, 1, 0]),
        ("age is not missing and ward is not missing", [1, 1, 1, 0, 1]),
        ('ward == "icu"', [0, 0, 1, None, 0]),
        ('"icu" != ward', [1, 1, 0, None, 1]),
        ("ward in ('med', 'icu')", [1, 0, 1, None, 1]),
        ("visits not in (2, 4)", [1, 0, 1, 0, 1]),
        ("seen >= 2020-02-28", [1, 1, 0, 1, 1]),
        ("seen - born", [6270, 14609, 23741, 11687, 33237]),
        ("years(born, seen)", [17, 39, 65, 31, 90]),
        ("months(born, seen)", [205, 479, 780, 383, 1091]),
        ("days(seen, 2020-07-01)", [1, 124, 182, -548, -363]),
        ("year(seen)", [2020, 2020, 2020, 2021, 2021]),
        ("month(born + 31)", [6, 3, 2, 2, 7]),
        ("sqrt(visits) * -2 + visits^2", [-1, 4 - 2 * 2**0.5, 9 - 2 * 3**0.5, 12, 25 - 2 * 5**0.5]),
        ("cut(age, c(-Inf, 40, 65, Inf))", [0, 0, 1, None, 2]),
        ('recode(ward, "icu" = "intensive", else = "other")', [1, 1, 0, None, 1]),
        ("recode(visits, 1 = 'once', 2 = 'twice', else = 'often')", [0, 1, 2, 2, 2]),
        ("died", [1, 0, None, 0, 1]),
    ],
)
def test_values_are_those_of_sql_and_of_calendars(text: str, expected: list[float | None]) -> None:
    assert derive(text) == pytest.approx(expected, nan_ok=True) if None not in expected else derive(text) == expected


def test_a_condition_lets_in_whom_it_is_true_for_and_counts_the_unknown_apart() -> None:
    chosen = plan(read(["age >= 18", "died == 0"])).select_rows(ROWS)
    assert chosen.stay.tolist() == [False, True, False, False, False]
    assert [(c.false, c.unknown) for c in chosen.counts] == [(1, 1), (1, 1)]


def test_derived_variables_are_declared_by_what_they_may_be() -> None:
    study = read(derive={"span": "years(born, seen)", "old": "span > 65", "group": "cut(span, c(-Inf, 40, Inf))"})
    kinds = {name: study.variables[name].type for name in study.derive}
    assert kinds == {"span": "count", "old": "binary", "group": "category"}
    assert study.variables["span"].range == (4.0, 124.0)
    assert Study.from_json(study.document).hash == study.hash
    stated = read(
        derive={"span": "years(born, seen)"}, more='span = { type = "count", range = [18, 99], unit = "years" }'
    )
    assert stated.variables["span"].range == (18.0, 99.0)


def test_a_study_without_conditions_has_the_hash_that_it_always_had() -> None:
    plain = Study.from_toml(BASE)
    assert b"derive" not in plain.document
    assert b"where" not in Study.from_toml(BASE + '[cohort]\nname = "stroke"').document


@pytest.mark.parametrize(
    ("where", "at", "words"),
    [
        ("age >= 18 adn died == 1", 11, "'adn'"),
        ("age >= 18 and wrd == 'icu'", 15, "did you mean ward"),
        ("ward == 'ICU'", 9, "no level of ward"),
        ("18 <= age < 65", 1, "write a <= x and x < b"),
        ("age", 1, "a condition is wanted"),
        ("seen > 5", 8, "cannot be compared"),
        ("seen > 2021-02-30", 8, "no calendar"),
        ("age > 18 and", 13, "variable is missing"),
        ("ward + 1 > 2", 1, "is a category"),
        ("log(age) > 1", 1, "use log1p"),
        ("eval('1') == 1", 1, "is no function"),
        ("age > max(age)", 1, "mixes values of visits"),
        ("first(age) > 1", 1, "cohort.order"),
        ("recode(ward, 'med' = 'm') == 'm'", 1, "leaves 'sur' out"),
        ("1 > 0", 1, "names a variable"),
        ("age ; drop", 5, "not understood"),
        ("pid == 'p1'", 1, "pid is no variable"),
        ("(" * 60 + "age", 42, "too deeply"),
        ("not " * 60 + "(age > 1)", 165, "too deeply"),
    ],
)
def test_errors_point_to_the_character(where: str, at: int, words: str) -> None:
    with pytest.raises(StudyError, match=rf"at character {at}\b") as caught:
        read([where])
    assert caught.value.code == "CO-S214"
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"derive": {"a": "b + 1", "b": "a + 1"}}, "circle: a, b"),
        (
            {"where": ["count() > 1", "age > 1"], "derive": {"died1": "any(died)", "age1": "max(age)"}},
            "Write it before",
        ),
        ({"order": "ward", "where": ["age > 1"]}, "no declared date or number"),
        ({"derive": {"x": "age > 1"}, "more": 'x = { type = "number", range = [0, 1] }'}, "Leave the declaration out"),
    ],
)
def test_what_cannot_be_computed_is_refused_when_the_study_is_read(change: dict[str, object], words: str) -> None:
    with pytest.raises(StudyError, match=words) as caught:
        read(**change)  # type: ignore[arg-type]
    assert caught.value.code == "CO-S215"


def test_a_model_reads_no_dates_and_no_values_of_visits() -> None:
    study = read(["age > 1"]).model_copy(update={"formula": "died ~ seen"})
    with pytest.raises(StudyError, match="is a date") as caught:
        Design(study)
    assert caught.value.code == "CO-S205"
    with pytest.raises(StudyError, match="value of each visit"):
        Design(read(["count() > 1"]))


def test_an_expression_has_bounds_of_length_number_and_work() -> None:
    with pytest.raises(StudyError, match="2000"):
        read(["age > 1 " + " " * 2000])
    with pytest.raises(StudyError, match="at most 20"):
        read(["age > 1"] * 21)
    doubled = {f"v{k}": f"v{k + 1} + v{k + 1}" for k in range(60)} | {"v60": "age"}
    assert derive_last(doubled) == pytest.approx(40.0 * 2.0**60)


def derive_last(texts: dict[str, str]) -> float:
    """The first variable of a chain in which each is used twice: computed once each, not 2^60 times."""
    return float(plan(read(derive=texts)).select_rows(ROWS).derived["v0"][1])


PATIENT = np.array([0, 1, 0, 1, 2])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("count()", [2, 2, 1]),
        ("count(age > 20)", [1, 1, 1]),
        ("any(died == 1)", [1, 0, 1]),
        ("all(age > 20)", [0, 1, 1]),
        ("first(age)", [65, 40, 90]),
        ("last(age)", [17, 40, 90]),
        ("last(ward)", [0, 1, 0]),
        ("mean(visits)", [2, 3, 5]),
        ("min(age) + max(visits)", [20, 44, 95]),
        ("sum(visits)", [4, 6, 5]),
        ("years(first(born), max(seen))", [65, 41, 90]),
    ],
)
def test_visits_become_one_value_of_a_patient(text: str, expected: list[float]) -> None:
    """Rows 0 and 2 are of one patient, 1 and 3 of another; row 3 lacks age and ward; row 2 was seen before row 0."""
    chosen = plan(read(derive={"x": text}, order="seen")).select_patients(ROWS, PATIENT)
    assert chosen.derived["x"].tolist() == expected


def test_a_patient_is_the_same_however_the_file_orders_visits() -> None:
    study = plan(read(derive={"x": "mean(age)", "y": "first(visits)"}, order="seen"))
    order = np.array([2, 0, 3, 4, 1])
    here = study.select_patients(ROWS, PATIENT).derived
    there = study.select_patients({n: v[order] for n, v in ROWS.items()}, PATIENT[order]).derived
    assert {name: values.tobytes() for name, values in here.items()} == {n: v.tobytes() for n, v in there.items()}


def test_months_are_those_of_the_calendar() -> None:
    """Against Python's dates: the largest k so that k months later is no day beyond."""
    rng = np.random.default_rng(5)
    start, end = rng.integers(-20000, 20000, (2, 300)).astype(float)
    first = [datetime.date(1970, 1, 1) + datetime.timedelta(days=int(d)) for d in start]
    last = [datetime.date(1970, 1, 1) + datetime.timedelta(days=int(d)) for d in end]
    months = [(b.year - a.year) * 12 + b.month - a.month - (b.day < a.day) for a, b in zip(first, last, strict=True)]
    assert count_months(start, end).tolist() == months
    assert [read_day(write_day(day)) for day in start] == start.tolist()
    assert read_day("2021-02-29") is None


def test_columns_split_over_sites_have_no_conditions() -> None:
    text = """
name = "split"
sites = ["a", "b"]
formula = "died ~ age"
identifier = ["pid"]
learner = { name = "vertigo" }
cohort = { where = "age > 1" }
columns = { a = ["died"], b = ["age"] }
[variables]
died = { type = "binary" }
age = { type = "number", range = [0, 110] }
"""
    with pytest.raises(StudyError, match="for rows split over sites") as caught:
        Study.from_toml(text)
    assert caught.value.code == "CO-S102"


def test_several_models_stand_on_one_cohort_that_is_complete_in_derived_variables() -> None:
    text = BASE.replace('formula = "died ~ age"\n', "") + '[cohort]\ncomplete = ["late"]\nwhere = "age > 20"\n'
    models = (
        '[derive]\nlate = "year(seen) > 2020"\nold = "age > 65"\n[[models]]\nname = "one"\nformula = "died ~ old"\n'
    )
    study = Study.from_toml(f'{text}{models}[[models]]\nname = "two"\nformula = "died ~ age"\n')
    design = Design(study)
    assert design.used == ("died", "old", "age", "late")
    assert tuple(design.behind) == ("seen",)
    assert design.file_columns == ("died", "age", "seen")
    assert [part.formula.outcome for part in design.models] == ["died", "died"]
