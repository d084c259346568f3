"""Workbooks and files of Stata, SAS and SPSS: the rows of the CSV that says the same, within bounds."""

from __future__ import annotations

import datetime
import zipfile
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyreadstat
import pytest
from support.node import queries

from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError
from coterie_learners.study.document import Study
from coterie_node.data.commitment import make_snapshot
from coterie_node.data.load import load_site
from coterie_node.data.tables import excel_table
from coterie_node.data.tables.packages import import_extra
from coterie_node.errors import ConfigError

STUDY = complete_study(
    Study.from_toml(
        """
name = "tables"
sites = ["north"]
formula = "death ~ age + sex"
rows = { missing = "drop", minimum = 1, constant = "allow", collinear = "allow" }
learner = { name = "glore" }
[variables.death]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
[variables.sex]
type = "category"
levels = ["1", "2"]
"""
    )
)
N = 40
TABLE = pd.DataFrame(
    {
        "verst": [float(k % 3 == 0) for k in range(N)],
        "alter": [None if k == 5 else 30.5 + k for k in range(N)],
        "gender": [1.0 + k % 2 for k in range(N)],
        "note": ["" if k % 2 else "ä" for k in range(N)],
    }
)
MAPPING = '[columns]\ndeath = {from = "verst"}\nage = {from = "alter"}\nsex = {from = "gender"}\n'


def write_excel(path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append([])
    sheet.append(list(TABLE.columns))
    for row in TABLE.itertuples(index=False):
        sheet.append([None if pd.isna(value) else value for value in row])
    book.create_sheet("other").append(["a"])
    book.save(path)


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pandas(TABLE, preserve_index=False), path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.xlsx": write_excel,
    "a.parquet": write_parquet,
    "a.dta": lambda path: pyreadstat.write_dta(TABLE, str(path)),
    "a.sav": lambda path: pyreadstat.write_sav(TABLE, str(path)),
    "a.xpt": lambda path: pyreadstat.write_xport(TABLE, str(path)),
    "a.csv": lambda path: TABLE.astype({"verst": int, "gender": int}).to_csv(path, index=False),
}


def write_mapping(folder: Path, file: str, more: str = "") -> Path:
    path = folder / "mapping.toml"
    path.write_text(f'file = "{file}"\n{more}{MAPPING}')
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_of_any_kind_gives_the_rows_of_the_same_csv(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    plain = TABLE.astype({"verst": int, "gender": int}).rename(
        columns={"verst": "death", "alter": "age", "gender": "sex"}
    )
    plain.to_csv(tmp_path / "plain.csv", index=False)
    loaded = load_site(write_mapping(tmp_path, name), STUDY, "north")
    expected = load_site(tmp_path / "plain.csv", STUDY, "north")
    assert loaded is not None
    assert expected is not None
    assert (loaded.read, loaded.n, loaded.missing) == (N, N - 1, {"death": 0, "age": 1, "sex": 0})
    assert make_snapshot(loaded, b"s" * 32).root == make_snapshot(expected, b"s" * 32).root


def test_a_named_sheet_is_read_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    write_excel(tmp_path / "a.xlsx")
    assert load_site(write_mapping(tmp_path, "a.xlsx", '[table]\nsheet = "Sheet"\n'), STUDY, "north") is not None
    with pytest.raises(DataError, match="'Sheet', 'other'"):
        load_site(write_mapping(tmp_path, "a.xlsx", '[table]\nsheet = "third"\n'), STUDY, "north")


def test_a_formula_is_refused_by_its_cell(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["verst", "alter", "gender"])
    sheet.append([1, "=YEAR(TODAY())-1950", 1])
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match="B2 is a formula") as caught:
        load_site(write_mapping(tmp_path, "a.xlsx"), STUDY, "north")
    assert caught.value.code == "CO-D172"


def test_a_workbook_that_unpacks_beyond_the_bound_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excel_table, "MAX_UNPACKED", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b" " * (2 << 20))
    with pytest.raises(DataError, match="limit is 1"):
        load_site(write_mapping(tmp_path, "a.xlsx"), STUDY, "north")


@pytest.mark.parametrize(
    ("name", "code"), [("a.xlsx", "CO-D172"), ("a.dta", "CO-D173"), ("a.sav", "CO-D173"), ("a.sas7bdat", "CO-D173")]
)
@pytest.mark.parametrize("content", [b"\0" * 100, b"PK\x03\x04" + b"x" * 200, b"death,age\n1,2\n"])
def test_a_file_that_is_not_what_its_ending_says_is_refused(
    tmp_path: Path, name: str, code: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_site(write_mapping(tmp_path, name), STUDY, "north")
    assert caught.value.code == code


def test_a_zip_that_is_no_workbook_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("hello.txt", b"hello")
    with pytest.raises(DataError) as caught:
        load_site(write_mapping(tmp_path, "a.xlsx"), STUDY, "north")
    assert caught.value.code == "CO-D172"


def test_dates_of_a_workbook_count_days(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["verst", "alter", "gender"])
    for k in range(10):
        sheet.append([k % 2, datetime.datetime(2020, 1, 1 + k), 1 + k % 2])
    book.save(tmp_path / "a.xlsx")
    path = write_mapping(tmp_path, "a.xlsx")
    path.write_text(path.read_text().replace('"alter"', '"alter", date = "YYYY-MM-DD", since = "2019-12-31"'))
    loaded = load_site(path, STUDY, "north")
    assert loaded is not None
    assert loaded.n == 10


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    with pytest.raises(ConfigError, match=r"coterie\[excel\]") as caught:
        import_extra("no_such_package_here", "excel", "The workbook a.xlsx")
    assert caught.value.code == "CO-F231"


@pytest.mark.parametrize("name", ["rows.xlsx", "rows.dta"])
def test_a_workbook_and_a_file_of_stata_put_the_bytes_of_the_csv_on_the_ledger(tmp_path: Path, name: str) -> None:
    names = ["pid", "verstorben", "alter_monate", "geschlecht", "aufnahme"]
    frame = pd.DataFrame(queries.draw_rows(), columns=names).drop(columns="aufnahme")
    if name.endswith(".xlsx"):
        frame.to_excel(tmp_path / name, index=False)
    else:
        pyreadstat.write_dta(frame, str(tmp_path / name))
    path = tmp_path / "north.mapping.toml"
    path.write_text(f'file = "{name}"\n{queries.COLUMNS}')
    assert set(queries.check_same_as_csv(path, tmp_path)) == {"mapping"}
