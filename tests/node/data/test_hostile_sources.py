"""Sources that would do harm, or are damaged: each is refused with a code, or bounded, and writes nothing."""

from __future__ import annotations

import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import openpyxl
import pandas as pd
import pyreadstat
import pytest

from coterie_learners.errors import DataError
from coterie_node.data.draft.site_look import look_at_file
from coterie_node.data.files.csv_file import Dialect
from coterie_node.data.findings import FileOrigin
from coterie_node.data.mapping.document import SqlQuery, read_mapping
from coterie_node.data.mapping.mapped_rows import open_mapped_table
from coterie_node.data.tables import excel_table, statistics_table
from coterie_node.data.tables.excel_table import read_workbook
from coterie_node.data.tables.sql_table import open_query
from coterie_node.data.tables.statistics_table import read_statistics_file

SHEET = "xl/worksheets/sheet1.xml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with duckdb.connect(str(tmp_path / "q.duckdb")) as base:
        base.execute("CREATE TABLE t AS SELECT k AS y FROM range(40) r(k)")
    with closing(sqlite3.connect(tmp_path / "q.sqlite")) as file, file:
        file.execute("CREATE TABLE t (y INTEGER)")
        file.executemany("INSERT INTO t VALUES (?)", [(k,) for k in range(40)])
    return tmp_path


def read_rows(folder: Path, database: str, text: str, seconds: int = 20) -> int:
    table = open_query(SqlQuery(database=database, query=text, seconds=seconds), folder, "north")
    return sum(len(next(iter(batch.values()))) for batch in table.batches(table.header))


@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_a_database_in_a_file_is_looked_for_beside_the_mapping(folder: Path, kind: str) -> None:
    assert read_rows(folder, f"{kind}:///q.{kind}", "SELECT y FROM t ORDER BY y") == 40
    assert read_rows(folder, f"{kind}:///{folder}/q.{kind}", "SELECT y FROM t ORDER BY y -- all of them") == 40
    for path in ("", ":memory:", "md:other"):
        with pytest.raises(DataError) as caught:
            read_rows(folder, f"{kind}:///{path}", "SELECT 1 AS a ORDER BY a")
        assert caught.value.code in ("CO-D174", "CO-D175")
    assert sorted(path.name for path in folder.iterdir()) == ["q.duckdb", "q.sqlite"]


@pytest.mark.parametrize(
    "address",
    [
        "duckdb:///q.duckdb?enable_external_access=true",
        "duckdb:///q.duckdb?access_mode=read_write",
        "sqlite:///q.sqlite?mode=rwc",
        "postgresql://reader@127.0.0.1:1/x?options=-cdefault_transaction_read_only%3Doff",
        "postgresql://reader@127.0.0.1:1/x?passfile=/srv/reader/.pgpass",
        "postgresql://reader@127.0.0.1:1/x?password=geheim",
        "mariadb://reader@127.0.0.1:1/x?local_infile=1",
        "mariadb://reader@127.0.0.1:1/x?read_default_file=/etc/mysql/my.cnf",
    ],
)
def test_an_address_has_no_option_that_opens_more_than_reading(folder: Path, address: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(folder, address, "SELECT content FROM read_text('/etc/hostname') ORDER BY 1")
    assert caught.value.code == "CO-D174"
    assert "geheim" not in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "SELECT lo_export(1, '/tmp/x') AS a ORDER BY 1",
        "SELECT load_file('/etc/passwd') AS a ORDER BY 1",
        "SELECT set_config('transaction_read_only', 'off', false) AS a ORDER BY 1",
        "SELECT y FROM t ORDER BY y FOR UPDATE",
        "SELECT y FROM t ORDER BY y LOCK IN SHARE MODE",
        "COPY t TO '/tmp/x'",
        "ATTACH '/tmp/x.db' AS b",
        "INSTALL httpfs",
        "SELECT y FROM t ORDER BY y; ATTACH '/tmp/x.db' AS b",
        "SELECT y FROM t -- ORDER BY y",
        "SELECT y, 'ORDER BY y' AS a FROM t /* ORDER BY y */",
    ],
)
def test_a_query_that_locks_reaches_out_or_has_no_order_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(folder, "duckdb:///q.duckdb", text)
    assert caught.value.code == "CO-D174"


@pytest.mark.parametrize(
    "text",
    [
        "SELECT content FROM read_text('/etc/hostname') ORDER BY 1",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv') ORDER BY 1",
        "WITH a AS (DELETE FROM t RETURNING y) SELECT y FROM a ORDER BY y",
        "SELECT [1, 2] AS a ORDER BY 1",
        "SELECT repeat('a', 1000000) AS a ORDER BY 1",
    ],
)
def test_what_duckdb_refuses_is_said_once_and_without_a_trace(
    folder: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(folder, "duckdb:///q.duckdb", text)
    assert caught.value.code == "CO-D175"
    assert not caplog.records
    assert read_rows(folder, "duckdb:///q.duckdb", "SELECT y FROM t ORDER BY y") == 40


@pytest.mark.parametrize("text", ["randomblob(1000000000)", "hex(zeroblob(900000000))"])
def test_a_value_of_sqlite_is_bounded_before_it_is_made(folder: Path, text: str) -> None:
    with pytest.raises(DataError, match="too big") as caught:
        read_rows(folder, "sqlite:///q.sqlite", f"SELECT {text} AS a ORDER BY 1")
    assert caught.value.code == "CO-D175"


def write_workbook(folder: Path, change: Callable[[bytes], bytes]) -> FileOrigin:
    """A workbook of 40 rows whose sheet's bytes were changed."""
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in (["y", "x", "g"], *([k % 2, k, "ab"[k % 2]] for k in range(40))):
        book.active.append(row)
    book.save(folder / "plain.xlsx")
    path = folder / "changed.xlsx"
    with zipfile.ZipFile(folder / "plain.xlsx") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for entry in plain.infolist():
            content = plain.read(entry)
            out.writestr(entry.filename, change(content) if entry.filename == SHEET else content)
    return FileOrigin.of("north", path)


@pytest.mark.parametrize("size", [b'ref="A1"', b'ref="A1:B9"'])
def test_a_sheet_whose_declared_size_is_too_small_loses_no_row(tmp_path: Path, size: bytes) -> None:
    origin = write_workbook(tmp_path, lambda sheet: sheet.replace(b'ref="A1:C41"', size))
    table = read_workbook(origin, "", Dialect())
    assert [len(column) for column in table.columns.values()] == [40, 40, 40]


def test_a_sheet_with_a_row_beyond_the_last_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excel_table, "MAX_SHEET_ROWS", 5000)
    origin = write_workbook(tmp_path, lambda sheet: sheet.replace(b'<row r="41"', b'<row r="999999999999"'))
    with pytest.raises(DataError, match="beyond 5000") as caught:
        read_workbook(origin, "", Dialect())
    assert caught.value.code == "CO-D172"


ENTITIES = b"".join(b'<!ENTITY %c "%s">' % (98 + k, b"&%c;" % (97 + k) * 10) for k in range(9))


@pytest.mark.parametrize(
    "head",
    [
        b'<!DOCTYPE l [<!ENTITY j SYSTEM "file:///etc/passwd">]>',
        b'<!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">' + ENTITIES + b"]>",
    ],
)
def test_entities_of_a_sheet_are_neither_read_nor_multiplied(tmp_path: Path, head: bytes) -> None:
    origin = write_workbook(tmp_path, lambda sheet: head + sheet.replace(b"<v>5</v>", b"<v>&j;</v>"))
    with pytest.raises(DataError) as caught:
        read_workbook(origin, "", Dialect())
    assert caught.value.code == "CO-D172"


def test_a_workbook_with_damaged_bytes_is_refused(tmp_path: Path) -> None:
    origin = write_workbook(tmp_path, bytes)
    content = origin.path.read_bytes()
    codes = set()
    for at in range(40, len(content) - 40, 97):
        origin.path.write_bytes(content[:at] + bytes([content[at] ^ 255, content[at + 1] ^ 255]) + content[at + 2 :])
        try:
            read_workbook(origin, "", Dialect())
        except DataError as error:
            codes.add(error.code)
    assert "CO-D172" in codes
    assert codes <= {"CO-D103", "CO-D105", "CO-D172"}


def test_names_that_look_alike_or_break_lines_stay_apart_in_a_draft(tmp_path: Path) -> None:
    path = tmp_path / "twins.csv"
    lines = "".join(f"{k % 2},{k},{k % 3},{k % 5},{k % 7}\n" for k in range(40))
    path.write_text('y,\u00e9,e\u0301,"a\nb;--",\u202eg\n' + lines, encoding="utf-8")
    looks = look_at_file(path, "north").columns
    assert [look.kind == "apart" for look in looks] == [False, False, True, True, True]
    assert "seems to hold e as well" in looks[2].apart


def test_a_mapping_whose_file_is_a_source_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "north.mapping.toml").write_text('file = "north.source.toml"\n')
    mapping = read_mapping(tmp_path / "north.mapping.toml", "north")
    with pytest.raises(DataError, match=r"holds no rows\. Write its lines here") as caught:
        open_mapped_table(mapping, tmp_path / "north.mapping.toml", "north")
    assert caught.value.code == "CO-D170"


SMALL = pd.DataFrame({"aa": [float(k) for k in range(60)], "bb": [0.5 * k for k in range(60)]})
STATISTICS: dict[str, Callable[..., None]] = {
    ".dta": pyreadstat.write_dta,
    ".sav": pyreadstat.write_sav,
    ".xpt": pyreadstat.write_xport,
}


def write_statistics(folder: Path, suffix: str, change: Callable[[bytes], bytes] = bytes) -> FileOrigin:
    path = folder / f"rows{suffix}"
    STATISTICS[suffix](SMALL, str(path))
    path.write_bytes(change(path.read_bytes()))
    return FileOrigin.of("north", path)


@pytest.mark.parametrize("suffix", [".dta", ".xpt"])
@pytest.mark.filterwarnings("ignore:column 'aa' is duplicated")
def test_a_column_that_a_file_has_twice_is_refused(tmp_path: Path, suffix: str) -> None:
    twice = write_statistics(tmp_path, suffix, lambda content: content.replace(b"bb", b"aa").replace(b"BB", b"AA"))
    with pytest.raises(DataError, match="'aa' more than once") as caught:
        read_statistics_file(twice)
    assert caught.value.code == "CO-D104"


@pytest.mark.parametrize("rows", [1 << 27, 1_000_000])
def test_rows_that_a_file_declares_and_cannot_have_are_refused_unmade(tmp_path: Path, rows: int) -> None:
    def declare(content: bytes) -> bytes:
        return content[:80] + rows.to_bytes(4, "little") + content[84:]

    with pytest.raises(DataError, match=rf"declares {rows} rows of 2 columns and has \d+ bytes") as caught:
        read_statistics_file(write_statistics(tmp_path, ".sav", declare))
    assert caught.value.code == "CO-D173"


@pytest.mark.parametrize("suffix", STATISTICS)
@pytest.mark.parametrize("limit", ["MAX_CELLS", "MAX_STATISTICS_BYTES"])
def test_a_file_of_statistics_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, limit: str
) -> None:
    origin = write_statistics(tmp_path, suffix)
    assert len(read_statistics_file(origin).columns["aa"]) == 60
    monkeypatch.setattr(statistics_table, limit, 100)
    with pytest.raises(DataError, match="the limit is") as caught:
        read_statistics_file(origin)
    assert caught.value.code == "CO-D173"


def test_an_exchange_file_that_ends_within_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no whole records of 80") as caught:
        read_statistics_file(write_statistics(tmp_path, ".xpt", lambda content: content[:-7]))
    assert caught.value.code == "CO-D173"


@pytest.mark.parametrize("suffix", STATISTICS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_of_statistics_with_damaged_bytes_is_read_or_refused(tmp_path: Path, suffix: str) -> None:
    origin = write_statistics(tmp_path, suffix)
    content = origin.path.read_bytes()
    codes = set()
    for at in range(0, min(len(content), 4000), 7):
        origin.path.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
        try:
            read_statistics_file(origin)
        except DataError as error:
            codes.add(error.code)
    assert "CO-D173" in codes
    assert codes <= {"CO-D103", "CO-D104", "CO-D105", "CO-D173"}
