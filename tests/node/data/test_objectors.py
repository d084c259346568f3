"""Patients who object are taken out of a site's file before anything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError, StudyError
from coterie_learners.study.document import Study
from coterie_node.data.load import load_site
from coterie_node.data.patients.site_rows import WithRaw

STUDY = """
name = "probe"
sites = ["a", "b"]
formula = "y ~ age"
PATIENT
[learner]
name = "glore"
[variables.y]
type = "binary"
[variables.age]
type = "number"
range = [0, 100]
"""


def study(patient: str = 'patient = "id"') -> Study:
    return complete_study(Study.from_toml(STUDY.replace("PATIENT", patient)))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    lines = [f"P{k},{rng.integers(0, 2)},{rng.uniform(20, 90):.1f}" for k in range(60)]
    (tmp_path / "data.csv").write_text("id,y,age\n" + "\n".join(lines) + "\n")
    (tmp_path / "optout.csv").write_text("id\nP7\nP59\nnobody\n")
    return tmp_path / "data.csv"


def test_their_rows_are_in_nothing(data: Path) -> None:
    loaded = load_site(data, study(), "a", data.with_name("optout.csv"))
    assert loaded is not None
    assert (loaded.n, loaded.read) == (58, 58)
    assert isinstance(loaded.rows, WithRaw)
    identifiers = loaded.rows.read_raw().identifiers
    assert identifiers is not None
    assert {("P7",), ("P59",)}.isdisjoint({tuple(row) for row in identifiers})


def test_a_fault_in_the_rest_is_named_by_its_place_in_the_file(data: Path) -> None:
    lines = data.read_text().splitlines()
    lines[31] = "P30,1,999"
    data.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="line 32"):
        load_site(data, study(), "a", data.with_name("optout.csv"))


def test_a_study_that_names_no_identifier_is_refused(data: Path) -> None:
    with pytest.raises(StudyError, match="names no column of identifiers") as refused:
        load_site(data, study(""), "a", data.with_name("optout.csv"))
    assert refused.value.code == "CO-S505"


def test_a_list_that_cannot_be_read_is_no_empty_list(data: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv"):
        load_site(data, study(), "a", data.with_name("gone.csv"))
