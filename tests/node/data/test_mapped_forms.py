"""The same rows in every encoding, order of dates and way of writing that a mapping may declare."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from coterie_learners.core.registry import complete_study
from coterie_learners.study.days import read_day
from coterie_learners.study.document import Study
from coterie_node.data.load import load_site
from coterie_node.data.mapping.document import Encoding
from coterie_node.data.patients.site_rows import WithRaw
from coterie_node.data.quality.check import check_data

STUDY = """
name = "forms"
sites = ["a", "b", "c"]
formula = "died ~ age + ward"
learner = { name = "glore" }
rows = { constant = "allow", collinear = "allow", missing = "drop" }
[cohort]
where = "seen >= 2021-03-01"
[variables]
died = { type = "binary" }
age = { type = "number", range = [0, 120] }
ward = { type = "category", levels = ["Ärzte", "Büro"] }
seen = { type = "date", range = [2000-01-01, 2030-12-31] }
"""
MAPPING = """
file = "rows.csv"
[table]
separator = ";"
decimal = ","
thousands = "."
encoding = "{encoding}"
header = ["Größe", "gestorben", "Station", "gesehen"]
[columns.age]
from = "Größe"
[columns.died]
from = "gestorben"
yes = ["ja", "J"]
no = ["nein", "N"]
[columns.ward]
from = "Station"
levels = {{ "Ä" = "Ärzte", "Büro" = "Büro" }}
[columns.seen]
from = "gesehen"
date = "{form}"
missing = ["unbekannt"]
"""
DAYS = ["2021-03-01", "2022-11-30", "2024-02-29", "2021-12-31", "2023-01-09", "2021-02-28", ""]
FORMS = ["DD.MM.YYYY", "MM/DD/YYYY", "YYYY-MM-DD", "YYYYMMDD", "DD-MM-YYYY", "YYYY/MM/DD"]


def write(folder: Path, encoding: str, form: str) -> Path:
    """A file without a header: decimal commas, yes and no in German, words with letters beyond ASCII."""
    lines = []
    for k, day in enumerate(DAYS):
        year, month, date = day.split("-") if day else ("", "", "")
        written = form.replace("YYYY", year).replace("MM", month).replace("DD", date) if day else "unbekannt"
        lines.append(f"{40 + k},5;{'JA' if k % 2 else 'nein'};{'Ä' if k % 3 else 'Büro'};{written}")
    (folder / "rows.csv").write_text("\r\n".join(lines) + "\r\n", encoding=encoding)
    path = folder / "mapping.toml"
    path.write_text(MAPPING.format(encoding=encoding, form=form), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("encoding", "form"), [*((e, FORMS[0]) for e in get_args(Encoding)), *(("utf-8", f) for f in FORMS)]
)
def test_the_rows_are_the_same_however_the_file_is_written(tmp_path: Path, encoding: str, form: str) -> None:
    path, study = write(tmp_path, encoding, form), complete_study(Study.from_toml(STUDY))
    loaded = load_site(path, study, "a")
    assert loaded is not None
    assert isinstance(loaded.rows, WithRaw)
    raw = loaded.rows.read_raw().values
    assert raw["age"].tolist() == [40.5, 41.5, 42.5, 43.5, 44.5]
    assert raw["died"].tolist() == [0, 1, 0, 1, 0]
    assert raw["ward"].tolist() == [1, 0, 0, 1, 0]
    assert raw["seen"].tolist() == [read_day(day) for day in DAYS[:5]]
    assert loaded.flow is not None
    (step,) = loaded.flow.steps
    assert (step.left_out, step.unknown) == (2, 1)
    assert check_data(path, study, "a").flow == loaded.flow
