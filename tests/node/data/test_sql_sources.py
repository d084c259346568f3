"""Rows of SQL queries: those of the CSV with the same rows, read-only, in time, and no secret in what is said."""

from __future__ import annotations

import datetime
import math
import os
import socket
import sqlite3
import tempfile
import threading
from contextlib import closing
from decimal import Decimal
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from support.node.postgres import Postgres
from support.node.queries import (
    QUERY,
    STUDY,
    TABLE,
    check_same_as_csv,
    draw_rows,
    write_csv,
    write_mapping,
    write_values,
)
from support.node.servers import PASSWORD
from support.node.sql_fixtures import ask

from coterie_learners.errors import DataError
from coterie_node.data import load
from coterie_node.data.arrow_values import Values
from coterie_node.data.commitment import make_snapshot
from coterie_node.data.files.row_spool import RowSpool
from coterie_node.data.findings import Origin
from coterie_node.data.load import MemoryRows, load_site
from coterie_node.data.mapping.document import SqlQuery
from coterie_node.data.mapping.mapped_rows import MappedRows
from coterie_node.data.streaming import StreamedRows
from coterie_node.data.tables import cells, sql_table
from coterie_node.data.tables.cells import make_column
from coterie_node.data.tables.row_digest import ColumnDigest
from coterie_node.data.tables.sql_table import QueryTable, open_query


def make_database(kind: str, folder: Path) -> str:
    """The address of a database of a file with the patients in it."""
    if kind == "sqlite":
        with closing(sqlite3.connect(folder / "hospital.db")) as file, file:
            file.execute(TABLE.format(flag="INTEGER"))
            file.execute(write_values(draw_rows(), ("0", "1")))
        return f"sqlite:///{folder}/hospital.db"
    with duckdb.connect(str(folder / "hospital.duckdb")) as base:
        base.execute(TABLE.format(flag="BOOLEAN"))
        base.execute(write_values(draw_rows(), ("false", "true")))
    return f"duckdb:///{folder}/hospital.duckdb"


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_query_on_a_file_gives_what_the_csv_gives(tmp_path: Path, kind: str) -> None:
    path = write_mapping(tmp_path, make_database(kind, tmp_path))
    said = check_same_as_csv(path, tmp_path)
    assert said["query"] == SqlQuery(database="sqlite://", query=QUERY).digest
    assert said["server"].startswith(kind)
    assert set(said) == {"mapping", "query", "server"}


def test_a_query_on_postgresql_gives_what_the_csv_gives(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSPITAL_PASSWORD", PASSWORD)
    path = write_mapping(tmp_path, postgres.address, more='password_variable = "HOSPITAL_PASSWORD"\n')
    assert check_same_as_csv(path, tmp_path)["server"].startswith("postgresql 1")


def test_the_password_comes_from_a_file_that_others_cannot_read(tmp_path: Path, postgres: Postgres) -> None:
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD + "\n")
    query = SqlQuery(database=postgres.address, query=QUERY, password_file="secret")
    os.chmod(secret, 0o640)
    with pytest.raises(DataError, match="chmod 600"):
        open_query(query, tmp_path, "north")
    os.chmod(secret, 0o600)
    assert open_query(query, tmp_path, "north").header[0] == "pid"
    secret.write_text("wrong")
    with pytest.raises(DataError) as caught:
        open_query(query, tmp_path, "north")
    assert caught.value.code == "CO-D175"
    assert "wrong" not in caught.value.message


@pytest.fixture
def query_of(postgres: Postgres, password: None) -> Any:
    return partial(ask, postgres.address)


@pytest.mark.parametrize(
    "text",
    [
        "WITH a AS (INSERT INTO log VALUES (1) RETURNING x) SELECT x FROM a ORDER BY x",
        "SELECT set_config('transaction_read_only', 'off', false) AS a ORDER BY 1; INSERT INTO log VALUES (2)",
        "SELECT nextval('numbers') AS a ORDER BY 1",
    ],
)
def test_a_query_that_would_write_changes_nothing(tmp_path: Path, query_of: Any, postgres: Postgres, text: str) -> None:
    with pytest.raises(DataError) as caught:
        list(open_query(query_of(text), tmp_path, "north").batches(["a"]))
    assert caught.value.code in ("CO-D174", "CO-D175")
    counts = open_query(query_of("SELECT count(*) AS n FROM log ORDER BY 1"), tmp_path, "north")
    assert [batch["n"].to_pylist() for batch in counts.batches(["n"])] == [[0.0]]


def test_a_query_that_takes_too_long_is_cut_off(tmp_path: Path, query_of: Any) -> None:
    with pytest.raises(DataError) as caught:
        open_query(query_of("SELECT pg_sleep(30)::text AS s ORDER BY 1", seconds=1), tmp_path, "north").digest()
    assert caught.value.code == "CO-D176", caught.value.message


def test_rows_without_end_are_bounded_by_number_and_by_time(
    tmp_path: Path, query_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_table, "MAX_ROWS", 50_000)
    table = open_query(query_of("SELECT k FROM generate_series(1, 1000000) AS k ORDER BY k"), tmp_path, "north")
    with pytest.raises(DataError, match="more than 50000 rows") as caught:
        table.digest()
    assert caught.value.code == "CO-D176"


def test_a_server_that_says_nothing_is_left_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie_node.data.tables.sql_servers.CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        accepted: list[socket.socket] = []
        threading.Thread(target=lambda: accepted.append(silent.accept()[0]), daemon=True).start()
        address = f"postgresql://a@127.0.0.1:{silent.getsockname()[1]}/b"
        with pytest.raises(DataError) as caught:
            open_query(SqlQuery(database=address, query="SELECT 1 AS a ORDER BY 1", seconds=5), tmp_path, "north")
        for connection in accepted:
            connection.close()
    assert caught.value.code == "CO-D175"


@pytest.mark.parametrize(
    ("address", "query", "code", "words"),
    [
        ("sqlite:///{db}", "DELETE FROM patients", "CO-D174", "one SELECT"),
        ("sqlite:///{db}", "SELECT 1; DROP TABLE patients -- ORDER BY", "CO-D174", "semicolon"),
        ("sqlite:///{db}", "SELECT * FROM patients", "CO-D174", "ORDER BY"),
        ("sqlite:///{db}", "SELECT * FROM nobody ORDER BY 1", "CO-D175", "no such table: nobody"),
        ("sqlite:///{db}", "SELECT pid, pid FROM patients ORDER BY 1", "CO-D104", "more than once"),
        (
            "sqlite:///{db}",
            "SELECT zeroblob(3) AS verstorben, 1 AS alter_monate, 'm' AS geschlecht ORDER BY 1",
            "CO-D175",
            "bytes",
        ),
        ("sqlite:////nowhere/x.db", QUERY, "CO-D175", "unable to open"),
        ("postgresql://u:secret@127.0.0.1/x", QUERY, "CO-D174", "has a password"),
        ("mysql://u@127.0.0.1/x", QUERY, "CO-D174", "mysql is not one of"),
        ("nonsense:x", QUERY, "CO-D174", "no address"),
    ],
)
def test_what_is_wrong_with_a_query_is_said_without_its_secrets(
    tmp_path: Path, address: str, query: str, code: str, words: str
) -> None:
    make_database("sqlite", tmp_path)
    path = write_mapping(tmp_path, address.format(db=tmp_path / "hospital.db"), query)
    with pytest.raises(DataError) as caught:
        load_site(path, STUDY, "north")
    assert caught.value.code == code, caught.value.message
    assert words in caught.value.message
    assert "secret" not in caught.value.message


def test_a_change_between_two_readings_is_seen(tmp_path: Path) -> None:
    path = write_mapping(tmp_path, make_database("sqlite", tmp_path))
    loaded = load_site(path, STUDY, "north")
    assert loaded is not None
    assert isinstance(loaded.source, MappedRows)
    assert loaded.source.digest() == loaded.source.digest()
    list(loaded.source.batches())
    with closing(sqlite3.connect(tmp_path / "hospital.db")) as file, file:
        file.execute("UPDATE patients SET alter_monate = 700 WHERE pid = 3")
    with pytest.raises(DataError, match="changed since it was checked") as caught:
        list(loaded.source.batches())
    assert caught.value.code == "CO-D130"
    again = load_site(path, STUDY, "north")
    assert again is not None
    assert again.source.digest() != loaded.source.digest()


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_query_runs_once_for_a_load_and_its_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    passes: list[bytes] = []
    note = QueryTable._note_pass

    def note_too(table: QueryTable, digest: bytes) -> None:
        passes.append(digest)
        note(table, digest)

    monkeypatch.setattr(QueryTable, "_note_pass", note_too)
    loaded = load_site(write_mapping(tmp_path, make_database(kind, tmp_path)), STUDY, "north")
    assert loaded is not None
    make_snapshot(loaded, b"s" * 32)
    assert len(passes) == 1


def test_the_digest_of_columns_does_not_depend_on_where_batches_end() -> None:
    columns: dict[str, Values] = {
        "a": pa.array([1.5, None, 0.0, -2.0, None]),
        "b": pa.array(["x", None, "", "yä", "z"]),
    }
    totals = []
    for cuts in ([0, 5], [0, 1, 3, 5], [0, 2, 2, 5]):
        total = ColumnDigest(["a", "b"])
        for start, end in pairwise(cuts):
            total.add({name: values[start:end] for name, values in columns.items()})
        totals.append(total.finish())
    other = ColumnDigest(["a", "b"])
    other.add(columns | {"b": pa.array(["x", "", "", "yä", "z"])})
    assert totals[0] == totals[1] == totals[2] != other.finish()


def test_types_that_change_between_batches_and_nothing_but_null_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_table, "SQL_BATCH", 10)
    with closing(sqlite3.connect(tmp_path / "hospital.db")) as file, file:
        file.execute("CREATE TABLE patients (pid, verstorben, alter_monate, geschlecht, aufnahme)")
        rows = [(k, k % 2 if k < 20 else str(k % 2), None if k < 10 else 600 + k, "mw"[k % 2], None) for k in range(40)]
        file.executemany("INSERT INTO patients VALUES (?, ?, ?, ?, ?)", rows)
    loaded = load_site(write_mapping(tmp_path, f"sqlite:///{tmp_path}/hospital.db"), STUDY, "north")
    assert loaded is not None
    assert (loaded.read, loaded.n, loaded.events) == (40, 30, 15)


@pytest.mark.parametrize("kind", ["sqlite", "mapped csv"])
def test_rows_beyond_memory_are_put_aside_in_batches_and_their_source_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(load, "IN_MEMORY", 100 * 8 * 3)
    monkeypatch.setattr(sql_table, "SQL_BATCH", 64)
    path = write_mapping(tmp_path, make_database("sqlite", tmp_path))
    if kind == "mapped csv":
        path = tmp_path / "mapped.toml"
        path.write_text(f'file = "{write_csv(tmp_path).name}"\n')
    check_same_as_csv(path, tmp_path)
    loaded = load_site(path, STUDY, "north")
    assert loaded is not None
    assert isinstance(loaded.rows, StreamedRows)
    monkeypatch.setattr(QueryTable, "batches", lambda *_: pytest.fail("the query ran again"))
    plain = load_site(write_csv(tmp_path), STUDY, "north")
    assert isinstance(plain, MemoryRows)
    for left, right in zip(loaded.rows.blocks(), plain.blocks(), strict=True):
        assert left.x.tobytes() == right.x.tobytes()
        assert left.y.tobytes() == right.y.tobytes()
    assert loaded.rows.take(np.arange(5, 90)).n == 85


def test_memory_holds_one_batch_of_rows_that_are_put_aside() -> None:
    spool = RowSpool(Origin("north", "rows"))
    for k in range(20):
        spool.add({"a": np.full(1000, k, np.uint8), "b": np.arange(1000.0)})
    left, right = spool.batches(), spool.batches()
    assert [int(batch["a"][0]) for batch in left] == list(range(20))
    assert all(batch["b"].tobytes() == np.arange(1000.0).tobytes() for batch in right)
    spool.close()


def test_rows_without_room_are_refused_by_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="TMPDIR") as caught:
        RowSpool(Origin("north", "rows"))
    assert caught.value.code == "CO-D177"


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, None],
        [1, 2.5, math.nan, None],
        [2**53 + 1, 0],
        [2**53 + 1, 0.5],
        [2**70, 1],
        [True, False, None],
        [True, 1],
        [1, "a", None],
        ["a", "", None],
        [None, None],
        [Decimal("1.50"), None],
        [datetime.date(2020, 1, 2), None],
        [1.0, datetime.datetime(2020, 1, 2, 3)],
    ],
)
def test_plain_columns_are_those_that_values_give_one_by_one(
    monkeypatch: pytest.MonkeyPatch, values: list[object]
) -> None:
    column = make_column(values)
    monkeypatch.setattr(cells, "_make_plain", lambda _: None)
    slow = make_column(values)
    assert column.type == slow.type
    assert column.to_pylist() == slow.to_pylist()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT [1, 2] AS a ORDER BY 1", "CO-D175"),
        ("SELECT {'b': 1} AS a ORDER BY 1", "CO-D175"),
        ("SELECT repeat('x', 100000) AS a ORDER BY 1", "CO-D175"),
        ("SELECT error('boom') AS a ORDER BY 1", "CO-D175"),
        ("SELECT CAST('x' || k AS INTEGER) AS a FROM range(3) AS r(k) ORDER BY 1", "CO-D175"),
        ("SELECT * FROM read_csv('/etc/passwd') ORDER BY 1", "CO-D175"),
        ("SELECT * FROM glob('/etc/*') ORDER BY 1", "CO-D175"),
        ("WITH a AS (SELECT 1 AS b) INSERT INTO patients SELECT 1, true, 1, 'm', NULL FROM a ORDER BY 1", "CO-D174"),
        ("SELECT getenv('HOME') AS a ORDER BY 1", "CO-D175"),
        ("SELECT 1 AS a ORDER BY 1; ATTACH '/tmp/x.db' AS x", "CO-D174"),
        ("SELECT sum(a.k * b.k) AS s FROM range(100000) a(k), range(100000000) b(k) ORDER BY 1", "CO-D176"),
    ],
)
def test_what_a_duckdb_query_may_not_do_or_give_has_a_code(tmp_path: Path, query: str, code: str) -> None:
    address = make_database("duckdb", tmp_path)
    source = SqlQuery(database=address, query=query, seconds=1)
    with pytest.raises(DataError) as caught:
        open_query(source, tmp_path, "north").digest()
    assert caught.value.code == code, caught.value.message


def test_a_duckdb_column_of_any_type_is_that_of_its_values(tmp_path: Path) -> None:
    address = make_database("duckdb", tmp_path)
    text = (
        "SELECT k AS a, k / 4 AS b, k::HUGEINT AS c, (k / 8)::DECIMAL(9, 3) AS d, DATE '2020-02-03' + k::INTEGER AS e, "
        "k % 2 = 0 AS f, TIMESTAMP '2020-02-03 04:05:06' AS g, CASE WHEN k > 3 THEN 'x' END AS h, NULL AS i, "
        "'a'::ENUM ('a', 'b') AS j, 'nan'::DOUBLE AS l FROM range(6) AS r(k) ORDER BY k"
    )
    table = open_query(SqlQuery(database=address, query=text), tmp_path, "north")
    (batch,) = table.batches(table.header)
    with duckdb.connect(address.removeprefix("duckdb:///"), read_only=True) as base:
        rows = base.execute(text).fetchall()
    for k, name in enumerate(table.header):
        assert batch[name].to_pylist() == make_column([row[k] for row in rows]).to_pylist(), name
