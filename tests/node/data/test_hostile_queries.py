"""Queries that would write, wait, lock or flood on servers that run: each is refused or bounded, nothing changes."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.lanes import later
from support.node.mariadb import MariaDb
from support.node.postgres import Postgres
from support.node.queries import STUDY, write_mapping
from support.node.sql_fixtures import STATE, ask

from coterie_learners.errors import DataError
from coterie_node.data.findings import Origin
from coterie_node.data.load import load_site
from coterie_node.data.tables import sql_connection, sql_table
from coterie_node.data.tables.query_text import check_query
from coterie_node.data.tables.sql_table import open_query

pytestmark = pytest.mark.usefixtures("password")

NEXT = {"mariadb": "next_not_cached_value", "postgresql": "last_value"}
WRITING = {
    "postgresql": [
        "SELECT \"lo_export\"(1, '{folder}/rows') AS n ORDER BY 1",
        "SELECT lo_export/**/(1, '{folder}/rows') AS n ORDER BY 1",
        "SELECT U&\"lo\\005fexport\"(1, '{folder}/rows') AS n ORDER BY 1",
        "SELECT lo_from_bytea(0, 'x') AS n ORDER BY 1",
        "SELECT pg_catalog.\"nextval\"('numbers') AS n ORDER BY 1",
        "SELECT setval('numbers', 9) AS n ORDER BY 1",
        "SELECT pg_stat_reset()::text AS n ORDER BY 1",
        "SELECT pg_logical_emit_message(false, 'a', 'b')::text AS n ORDER BY 1",
        "SELECT pg_create_restore_point('a')::text AS n ORDER BY 1",
        "SELECT pg_try_advisory_lock(1) AS n ORDER BY 1",
        "SELECT x AS n FROM log ORDER BY x FOR/**/UPDATE",
        "SELECT 1 AS n ORDER BY 1; COPY log TO '{folder}/rows'",
        "COPY (SELECT 1 AS n ORDER BY 1) TO PROGRAM 'touch {folder}/rows'",
        "SELECT 1 AS n INTO TEMP kept ORDER BY 1",
        "SELECT query_to_xml('DELETE FROM patients', true, true, '')::text AS n ORDER BY 1",
        "SELECT query_to_xml_and_xmlschema('SELECT 1', true, true, '')::text AS n ORDER BY 1",
        "DO $$ BEGIN INSERT INTO log VALUES (1); END $$ -- ORDER BY 1",
    ],
    "mariadb": [
        "SELECT NEXT VALUE FOR numbers AS n ORDER BY 1",
        "SELECT NEXT/**/VALUE/**/FOR numbers AS n ORDER BY 1",
        "SELECT `NEXTVAL`(numbers) AS n ORDER BY 1",
        "SELECT SETVAL(numbers, 9) AS n ORDER BY 1",
        "SELECT LOAD_FILE/**/('/etc/passwd') AS n ORDER BY 1",
        "SELECT 1 AS n ORDER BY 1 INTO/**/OUTFILE '{folder}/rows'",
        "SELECT 1 AS n ORDER BY 1 INTO DUMPFILE '{folder}/rows'",
        "SELECT 1 AS n ORDER BY 1 INTO @kept",
        "SELECT 1 AS n /*M!100100 INTO OUTFILE '{folder}/rows' */ ORDER BY 1",
        "SELECT 1 AS n ORDER BY 1; INSERT INTO log VALUES (1)",
        "SELECT GET_LOCK('a', 1) AS n ORDER BY 1",
        "SELECT RELEASE_ALL_LOCKS() AS n ORDER BY 1",
        "SELECT x AS n FROM log ORDER BY x FOR/**/UPDATE",
        "SELECT x AS n FROM log ORDER BY x LOCK/**/IN/**/SHARE/**/MODE",
        "SELECT sys_exec('touch {folder}/rows') AS n ORDER BY 1",
        "DELETE FROM patients RETURNING pid ORDER BY 1",
    ],
}


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_connection, "GRACE_SECONDS", 0.2)


@pytest.fixture(params=later("mariadb", "postgresql"))  # servers start
def address(request: pytest.FixtureRequest) -> str:
    """Of each server in turn."""
    server: MariaDb | Postgres = request.getfixturevalue({"postgresql": "postgres"}.get(request.param, request.param))
    return server.address


def kind_of(address: str) -> str:
    return address.partition(":")[0]


def read_column(address: str, text: str, folder: Path, name: str = "n", seconds: int = 20) -> list[object]:
    table = open_query(ask(address, text, seconds), folder, "north")
    return [value for batch in table.batches([name]) for value in batch[name].to_pylist()]


@pytest.mark.parametrize("kind", WRITING)
def test_a_text_that_would_write_or_lock_is_refused(kind: str) -> None:
    for text in WRITING[kind]:
        with pytest.raises(DataError) as caught:
            check_query(Origin("north", kind, "query"), text)
        assert caught.value.code == "CO-D174", text
    for text in ("SELECT lo_value, next_value, position FROM t ORDER BY 1", "SELECT a -- dog, cat\nFROM t ORDER BY a"):
        check_query(Origin("north", kind, "query"), text)


def test_what_would_write_or_lock_changes_nothing_on_a_server(tmp_path: Path, address: str) -> None:
    state = STATE.format(next=NEXT[kind_of(address)])
    patients = "SELECT count(*) AS n FROM patients ORDER BY 1"
    before = read_column(address, state, tmp_path), read_column(address, patients, tmp_path)
    for text in WRITING[kind_of(address)]:
        with pytest.raises(DataError) as caught:
            read_column(address, text.format(folder=tmp_path), tmp_path)
        assert caught.value.code == "CO-D174", (text, caught.value.message)
    if kind_of(address) == "postgresql":  # nothing in this text is unusual: the session refuses it
        with pytest.raises(DataError, match=r"data-modifying|read-only transaction"):
            read_column(address, "WITH a AS (DELETE FROM log RETURNING x) SELECT x AS n FROM a ORDER BY 1", tmp_path)
    assert (read_column(address, state, tmp_path), read_column(address, patients, tmp_path)) == before
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("hidden", ["write_log()", "pg_sleep(0)::text || write_log()"])
@pytest.mark.long  # a server starts
def test_a_function_of_the_hospital_that_writes_is_stopped_by_the_session(
    tmp_path: Path, postgres: Postgres, hidden: str
) -> None:
    body = "BEGIN INSERT INTO log VALUES (1); RETURN 1; END"
    postgres.run(f"CREATE OR REPLACE FUNCTION write_log() RETURNS int LANGUAGE plpgsql AS $$ {body} $$")
    with pytest.raises(DataError, match="read-only transaction") as caught:
        read_column(postgres.address, f"SELECT {hidden} AS n ORDER BY 1", tmp_path)
    assert caught.value.code == "CO-D175"
    assert read_column(postgres.address, "SELECT count(*) AS n FROM log ORDER BY 1", tmp_path) == [0.0]


SLOW = {
    "postgresql": [
        "SELECT g AS n, pg_sleep(0.01)::text AS s FROM generate_series(1, 1000000) AS g ORDER BY 1",
        "SELECT count(*) AS n FROM generate_series(1, 100000) a, generate_series(1, 1000000) b ORDER BY 1",
        "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n FROM a) SELECT n FROM a ORDER BY 1",
    ],
    "mariadb": [
        "SELECT seq AS n, SLEEP(0.01) AS s FROM seq_1_to_1000000 ORDER BY seq",
        "SELECT BENCHMARK(1000000000000, SHA2('a', 512)) AS n ORDER BY 1",
        "SELECT COUNT(*) AS n FROM seq_1_to_1000000 a, seq_1_to_1000000 b ORDER BY 1",
    ],
}


def count_to(address: str, last: int) -> str:
    """A table of the numbers from 1 on, in the server's words."""
    return f"seq_1_to_{last}" if kind_of(address) == "mariadb" else f"generate_series(1, {last}) AS seq"


@pytest.mark.parametrize("number", [0, *later(1, 2)])
def test_a_query_that_waits_or_works_without_end_is_cut_off(tmp_path: Path, address: str, number: int) -> None:
    with pytest.raises(DataError, match="more than 1 s and was cut off") as caught:
        read_column(address, SLOW[kind_of(address)][number], tmp_path, seconds=1)
    assert caught.value.code == "CO-D176"


def test_long_texts_are_refused_before_many_are_in_memory(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_table, "MOST_FETCHED", 64)
    rows = count_to(address, 400)
    with pytest.raises(DataError, match=r"column 't', in row 1, a value has 1000000 characters; the limit") as caught:
        read_column(address, f"SELECT seq AS n, repeat('x', 1000000) AS t FROM {rows} ORDER BY 1", tmp_path)
    assert caught.value.code == "CO-D175"
    text = f"SELECT seq AS n, CASE WHEN seq > 300 THEN repeat('x', 1000000) ELSE '' END AS t FROM {rows} ORDER BY 1"
    with pytest.raises(DataError, match=r"column 't', in rows 278 to 341, a value has"):
        read_column(address, text, tmp_path)


def test_texts_that_are_too_many_letters_together_are_refused(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_table, "MAX_LETTERS", 100_000)
    text = f"SELECT seq AS n, repeat('x', 1000) AS t FROM {count_to(address, 5000)} ORDER BY 1"
    with pytest.raises(DataError, match=r"texts in rows 1 to \d+ have \d+ characters; the limit is 100000") as caught:
        read_column(address, text, tmp_path)
    assert caught.value.code == "CO-D175"


@pytest.mark.parametrize("nothing", ["NULL", "''"])
def test_no_value_anywhere_is_said_with_the_count(tmp_path: Path, address: str, nothing: str) -> None:
    columns = ", ".join(f"{nothing} AS {name}" for name in ("verstorben", "alter_monate", "geschlecht"))
    more = 'password_variable = "HOSPITAL_PASSWORD"\n'
    with pytest.raises(DataError, match=r"0 rows can be used, 400 having been dropped") as caught:
        load_site(
            write_mapping(tmp_path, address, f"SELECT {columns} FROM patients ORDER BY pid", more), STUDY, "north"
        )
    assert caught.value.code == "CO-D118"


@pytest.mark.parametrize("alias", ["n", "N"])
def test_one_alias_of_two_columns_is_refused(tmp_path: Path, address: str, alias: str) -> None:
    text = f"SELECT pid AS n, alter_monate AS {alias} FROM patients ORDER BY pid"
    if alias == "N" and kind_of(address) == "mariadb":  # it keeps the case of letters, and two names are two names
        assert len(read_column(address, text, tmp_path)) == 400
        return
    with pytest.raises(DataError, match="'n' more than once") as caught:
        read_column(address, text, tmp_path)
    assert caught.value.code == "CO-D104"


@pytest.mark.parametrize(
    "name", ["a`; DROP TABLE log -- ", 'a"; DROP TABLE log; --', "a' OR '1'='1", "${jndi}", "a\\u0000b", "%s", "{0}"]
)
def test_a_name_of_a_column_is_looked_for_and_never_part_of_a_statement(
    tmp_path: Path, address: str, name: str
) -> None:
    path = write_mapping(tmp_path, address, more='password_variable = "HOSPITAL_PASSWORD"\n')
    quoted = name.replace('"', '\\"')
    path.write_text(path.read_text().replace('from = "verstorben"', f'from = "{quoted}"'))
    with pytest.raises(DataError) as caught:
        load_site(path, STUDY, "north")
    assert caught.value.code in ("CO-D106", "CO-D170")
    assert read_column(address, "SELECT count(*) AS n FROM log ORDER BY 1", tmp_path) == [0.0]


@pytest.mark.parametrize("database", ["x';--", "../../etc", "postgres%00x", "x dbname=template1", "x?options=-c%20a=b"])
def test_a_name_of_a_database_reaches_no_other_one(tmp_path: Path, address: str, database: str) -> None:
    written = database.replace(" ", "%20")
    with pytest.raises(DataError) as caught:
        open_query(ask(f"{address.rpartition('/')[0]}/{written}", "SELECT 1 AS n ORDER BY 1"), tmp_path, "north")
    assert caught.value.code in ("CO-D174", "CO-D175")


@pytest.mark.parametrize(
    ("late", "words"),
    [
        ("'abc'", r"'death' is neither .* row 20001 'abc'"),
        ("x'00ff'", r"column 'verstorben', in rows 1\d{4} to \d+, a value is of type bytes"),
        ("7", r"'death' is neither .* row 20001 '7'"),
        ("9e999", r"'death'"),
        ("NULL", ""),
    ],
)
def test_a_type_that_changes_between_batches_is_named_with_its_row(tmp_path: Path, late: str, words: str) -> None:
    with closing(sqlite3.connect(tmp_path / "q.sqlite")) as file, file:
        file.execute("CREATE TABLE patients (pid, verstorben, alter_monate, geschlecht)")
        many = "WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k WHERE n < 40000)"
        value = f"CASE WHEN n > 20000 THEN {late} ELSE n % 2 END"
        file.execute(f"INSERT INTO patients {many} SELECT n, {value}, 400 + n % 500, substr('mw', 1 + n % 2, 1) FROM k")
    query = "SELECT pid, verstorben, alter_monate, geschlecht FROM patients ORDER BY pid"
    path = write_mapping(tmp_path, f"sqlite:///{tmp_path}/q.sqlite", query)
    if not words:
        loaded = load_site(path, STUDY, "north")
        assert loaded is not None
        assert (loaded.read, loaded.n) == (40000, 20000)
        return
    with pytest.raises(DataError, match=words):
        load_site(path, STUDY, "north")
