"""Columns split over sites: who holds what, each site's part of the design, and its rows with their identifiers."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from support.learners.clinic_study import CLINIC_VARIABLES

from coterie_learners.core.registry import check_choice, complete_study
from coterie_learners.errors import DataError, StudyError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import OwnColumns
from coterie_node.data.load import Loaded, load_site
from coterie_node.run.simulate import check_sites

HEAD = (
    """
name = "split"
sites = ["clinic", "helper", "registry"]
formula = "dead ~ age + sex + age:sex + dose"
identifier = ["code"]
learner = {name = "glore", version = "5"}
columns = COLUMNS
"""
    + CLINIC_VARIABLES
)
COLUMNS = '{clinic = ["age", "sex"], helper = [], registry = ["dead", "dose"]}'
CLINIC = "sex,code,age\nmale,p1,30\nfemale,p2,50\nfemale,p3,70\nmale,p4,\nmale,p5,90\nfemale,p6,20\n"


def study(columns: str = COLUMNS, **changed: str) -> Study:
    text = HEAD.replace("COLUMNS", columns)
    for old, new in changed.items():
        text = text.replace(old, new)
    return Study.from_toml(text + '[rows]\nmissing = "drop"\ncollinear = "allow"\n')


def load(folder: Path, content: str, site: str = "clinic") -> Loaded:
    path = folder / f"{site}.csv"
    path.write_text(content)
    loaded = load_site(path, study(), site)
    assert loaded is not None
    return loaded


def test_a_site_s_part_of_the_design_has_its_own_columns_and_no_intercept() -> None:
    full_design, clinic, registry, helper = (Design(study(), s) for s in (None, "clinic", "registry", "helper"))
    assert full_design.names == ("(Intercept)", "age", "sex[female]", "dose", "age:sex[female]")
    assert (clinic.names, clinic.variables) == (("age", "sex[female]", "age:sex[female]"), ("age", "sex"))
    assert (registry.names, registry.variables) == (("dose",), ("dead", "dose"))
    assert (helper.names, helper.variables) == ((), ())
    assert (clinic.outcome_here, registry.outcome_here) == (None, "dead")
    wide = {column.name: column for column in full_design.columns}
    assert all(wide[column.name] == column for column in (*clinic.columns, *registry.columns))


def test_own_columns_come_with_their_patients_and_lack_incomplete_rows(tmp_path: Path) -> None:
    loaded = load(tmp_path, CLINIC)
    rows = loaded.rows
    assert isinstance(rows, OwnColumns)
    assert rows.identifiers == (("p1",), ("p2",), ("p3",), ("p5",), ("p6",))
    assert (loaded.read, loaded.n, loaded.missing["age"], loaded.events) == (6, 5, 1, None)
    assert rows.y is None
    np.testing.assert_allclose(rows.x[:, 0], (np.array([30, 50, 70, 90, 20]) - 50) / 50)
    np.testing.assert_array_equal(rows.x[:, 1], [0, 1, 1, 0, 1])


def test_the_site_with_the_outcome_has_it_and_counts_events(tmp_path: Path) -> None:
    loaded = load(tmp_path, "code,dead,dose\n1,1,2\n2,0,3\n3,0,4\n4,1,5\n5,1,6\n", "registry")
    assert isinstance(loaded.rows, OwnColumns)
    assert loaded.rows.y is not None
    assert (loaded.rows.y.tolist(), loaded.events) == ([1, 0, 0, 1, 1], 3)


def test_parquet_identifiers_may_be_whole_numbers(tmp_path: Path) -> None:
    table = {"code": [7, 8, 9, 10, 11], "age": [1.0, 2, 3, 4, 5], "sex": ["male", "female"] * 2 + ["male"]}
    pq.write_table(pa.table(table), tmp_path / "clinic.parquet")
    loaded = load_site(tmp_path / "clinic.parquet", study(), "clinic")
    assert loaded is not None
    assert isinstance(loaded.rows, OwnColumns)
    assert loaded.rows.identifiers == (("7",), ("8",), ("9",), ("10",), ("11",))
    pq.write_table(pa.table({**table, "code": [0.5] * 5}), tmp_path / "clinic.parquet")
    with pytest.raises(DataError, match="stored as double") as refused:
        load_site(tmp_path / "clinic.parquet", study(), "clinic")
    assert refused.value.code == "CO-D111"


def test_a_blank_identifier_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'code' is blank in 1 of 6 rows: line 4") as refused:
        load(tmp_path, CLINIC.replace("p3", " "))
    assert refused.value.code == "CO-D132"


@pytest.mark.parametrize("word", ["NA", "null", "NaN"])
def test_a_missing_word_identifies_nobody(tmp_path: Path, word: str) -> None:
    with pytest.raises(DataError, match=f"'code' is blank in 1 of 6 rows: line 4 '{word}'") as refused:
        load(tmp_path, CLINIC.replace("p3", word))
    assert refused.value.code == "CO-D132"


def test_a_value_that_the_declared_kind_refuses_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "clinic.csv"
    path.write_text(CLINIC.replace(",p", ",").replace(",3,", ",12-4,"))
    with pytest.raises(DataError, match=r"declared as number, has no whole number .*in 1 of 6 rows: line 4") as refused:
        load_site(path, study(**{'["code"]': '{code = "number"}'}), "clinic")
    assert refused.value.code == "CO-D134"


def test_parquet_identifiers_may_be_dates(tmp_path: Path) -> None:
    days = [date(1950, 1, day) for day in range(1, 6)]
    table = {"code": days, "age": [1.0, 2, 3, 4, 5], "sex": ["male", "female"] * 2 + ["male"]}
    pq.write_table(pa.table(table), tmp_path / "clinic.parquet")
    loaded = load_site(tmp_path / "clinic.parquet", study(**{'["code"]': '{code = "date"}'}), "clinic")
    assert loaded is not None
    assert isinstance(loaded.rows, OwnColumns)
    assert loaded.rows.identifiers[0] == ("1950-01-01",)


def test_a_file_without_the_identifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'code'") as refused:
        load(tmp_path, CLINIC.replace("code", "patient"))
    assert refused.value.code == "CO-D106"


def test_a_helper_has_no_data_and_others_must() -> None:
    assert load_site(None, study(), "helper") is None
    with pytest.raises(StudyError, match="clinic has data"):
        load_site(None, study(), "clinic")
    check_sites(study(), ["clinic", "registry"])
    with pytest.raises(StudyError, match="given for helper"):
        check_sites(study(), ["clinic", "registry", "helper"])


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ('{clinic = ["age", "sex"], registry = ["dead", "dose"]}', "but the sites are"),
        ('{clinic = ["age", "sex"], helper = ["age"], registry = ["dead", "dose"]}', "more than one site"),
        ('{clinic = ["age", "sex", "ward"], helper = [], registry = ["dead", "dose"]}', "not declared"),
        ("{}", "go together"),
    ],
)
def test_columns_that_do_not_share_out_the_variables_are_refused(columns: str, word: str) -> None:
    with pytest.raises(StudyError, match=word):
        study(columns)


def test_an_identifier_is_no_variable() -> None:
    with pytest.raises(StudyError, match="identify patients"):
        study(**{'["code"]': '["age"]'})
    with pytest.raises(ValidationError):
        Study.model_validate({**study().model_dump(), "identifier": ()})


def test_a_term_over_two_sites_and_a_variable_of_nobody_are_refused() -> None:
    with pytest.raises(StudyError, match="age:dose multiplies variables of clinic and registry"):
        Design(study(**{"age:sex": "age:dose"}))
    with pytest.raises(StudyError, match="No site holds dose"):
        Design(study('{clinic = ["age", "sex"], helper = [], registry = ["dead"]}'))


def test_a_learner_for_rows_refuses_columns() -> None:
    with pytest.raises(StudyError, match="splits columns over its sites; glore takes rows") as refused:
        complete_study(study())
    assert refused.value.code == "CO-S405"
    with pytest.raises(StudyError):
        check_choice(complete_study(study()))


def test_only_a_study_with_columns_split_says_so_in_its_document() -> None:
    split = study()
    assert Study.from_json(split.document) == split
    plain = Study.from_toml(HEAD.replace("columns = COLUMNS", "").replace('identifier = ["code"]', ""))
    assert b'"columns"' in split.document
    assert b'"columns"' not in plain.document
    assert Study.from_json(plain.document) == plain
    spelled_out = plain.document.replace(b'"format"', b'"columns":{},"format"')
    with pytest.raises(StudyError, match="canonical"):
        Study.from_json(spelled_out)
