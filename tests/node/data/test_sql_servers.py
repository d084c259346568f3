"""MariaDB as a source, and servers that hang, break, garble, never end or would write: bounded, with a code."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from support.lanes import later
from support.node.crooked_wire import Crookedness, bend_wire, speak
from support.node.mariadb import MariaDb
from support.node.postgres import Postgres
from support.node.queries import STUDY, check_same_as_csv, write_mapping
from support.node.servers import PASSWORD
from support.node.sql_fixtures import ask

from coterie_learners.errors import DataError
from coterie_node.data.load import load_site
from coterie_node.data.tables import sql_connection, sql_table
from coterie_node.data.tables.sql_table import open_query

# Many rows of one column, made by the server.
MANY = {
    "mariadb": "SELECT CAST(seq AS CHAR) AS k, REPEAT('x', 99) AS t FROM seq_1_to_60000 ORDER BY seq",
    "postgresql": "SELECT g::text AS k, repeat('x', 99) AS t FROM generate_series(1, 60000) AS g ORDER BY g",
}


pytestmark = pytest.mark.usefixtures("password")


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_connection, "GRACE_SECONDS", 0.2)


def test_a_query_on_mariadb_gives_what_the_csv_gives(tmp_path: Path, mariadb: MariaDb) -> None:
    path = write_mapping(tmp_path, mariadb.address, more='password_variable = "HOSPITAL_PASSWORD"\n')
    assert check_same_as_csv(path, tmp_path)["server"].startswith("mariadb 1")


def test_a_percent_sign_in_a_query_is_a_letter(tmp_path: Path, mariadb: MariaDb) -> None:
    text = "SELECT pid FROM patients WHERE geschlecht LIKE 'w%' ORDER BY pid"
    batches = list(open_query(ask(mariadb.address, text), tmp_path, "north").batches(["pid"]))
    assert [len(batch["pid"]) for batch in batches] == [200]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT pid FROM patients ORDER BY pid FOR UPDATE",
        "SELECT NEXTVAL(numbers) AS pid ORDER BY 1",
        "SELECT pid FROM patients ORDER BY pid INTO OUTFILE '{folder}/rows'",
        "SELECT pid FROM patients ORDER BY pid /*!50000 INTO OUTFILE '{folder}/rows' */",
        "WITH a AS (SELECT 1 AS pid) INSERT INTO log SELECT pid FROM a ORDER BY pid",
    ],
)
def test_a_query_that_would_write_on_mariadb_changes_nothing(tmp_path: Path, mariadb: MariaDb, text: str) -> None:
    with suppress(DataError):
        list(open_query(ask(mariadb.address, text.format(folder=tmp_path)), tmp_path, "north").batches(["pid"]))
    state = "SELECT count(*) AS n FROM log UNION ALL SELECT next_not_cached_value FROM numbers ORDER BY 1"
    table = open_query(ask(mariadb.address, state), tmp_path, "north")
    assert [batch["n"].to_pylist() for batch in table.batches(["n"])] == [[0.0, 1.0]]
    assert not os.listdir(tmp_path)


def test_mariadb_ends_a_statement_in_time(tmp_path: Path, mariadb: MariaDb) -> None:
    with pytest.raises(DataError, match="more than 1 s") as caught:
        open_query(ask(mariadb.address, "SELECT SLEEP(30) AS s ORDER BY 1", 1), tmp_path, "north").digest()
    assert caught.value.code == "CO-D176"


def test_rows_without_end_on_mariadb_are_bounded_and_the_rest_is_never_sent(
    tmp_path: Path, mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_table, "MAX_ROWS", 50_000)
    table = open_query(ask(mariadb.address, "SELECT seq FROM seq_1_to_1000000000 ORDER BY seq"), tmp_path, "north")
    with pytest.raises(DataError, match="more than 50000 rows") as caught:
        table.digest()
    assert caught.value.code == "CO-D176"


@pytest.mark.parametrize("server", ["mariadb", *later("postgresql")])
@pytest.mark.parametrize(
    "kind", ["hangs", pytest.param("drops", marks=pytest.mark.long), pytest.param("garbles", marks=pytest.mark.long)]
)
def test_a_server_that_fails_in_mid_query_is_left_with_its_name(
    tmp_path: Path, mariadb: MariaDb, postgres: Postgres, server: str, kind: Crookedness
) -> None:
    address = mariadb.address if server == "mariadb" else postgres.address
    port = int(address.rpartition(":")[2].partition("/")[0])
    with bend_wire(port, kind, 4_000_000) as bent:
        # Opening has time enough on a busy machine: what is tried is how reading ends, after two whole batches.
        table = open_query(ask(address.replace(f":{port}/", f":{bent}/"), MANY[server], 60), tmp_path, "north")
        seconds = {"hangs": 3, "garbles": 6, "drops": 60}[kind]
        table = replace(table, query=table.query.model_copy(update={"seconds": seconds}))
        with pytest.raises(DataError) as caught:
            table.digest()
    assert caught.value.code in ({"hangs": ["CO-D176"], "drops": ["CO-D175"]}.get(kind, ["CO-D175", "CO-D176"]))
    assert caught.value.message.startswith(f"Site north, query '{server}:")
    assert re.search(r"after (16384|32768) rows", caught.value.message)


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 400, b"\n\0\0\0\x0a"])
def test_a_server_that_is_no_mariadb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, greeting: bytes) -> None:
    monkeypatch.setattr("coterie_node.data.tables.sql_servers.CONNECT_SECONDS", 1)
    with speak(greeting) as port, pytest.raises(DataError) as caught:
        open_query(ask(f"mariadb://reader@127.0.0.1:{port}/hospital", "SELECT 1 AS a ORDER BY 1"), tmp_path, "north")
    assert caught.value.code == "CO-D175", caught.value.message
    assert PASSWORD not in caught.value.message


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("CAST('abc' AS BINARY)", "In the column 'verstorben', in rows 1 to 400, "),
        ("CAST('2020-01-01' AS DATE)", "'verstorben'|'death'"),
        ("'=HYPERLINK(1)'", "'death'"),
        ("NULL", "CO-D118|0 rows can be used"),
    ],
)
def test_values_that_are_none_of_the_study_are_named(
    tmp_path: Path, mariadb: MariaDb, expression: str, words: str
) -> None:
    query = f"SELECT pid, {expression} AS verstorben, alter_monate, geschlecht FROM patients ORDER BY pid"
    more = 'password_variable = "HOSPITAL_PASSWORD"\n'
    with pytest.raises(DataError, match=words):
        load_site(write_mapping(tmp_path, mariadb.address, query, more), STUDY, "north")


def test_names_of_columns_are_never_part_of_a_statement(tmp_path: Path, mariadb: MariaDb) -> None:
    path = write_mapping(tmp_path, mariadb.address, more='password_variable = "HOSPITAL_PASSWORD"\n')
    path.write_text(path.read_text().replace('from = "verstorben"', 'from = "pid; DROP TABLE log; -- "'))
    with pytest.raises(DataError, match="DROP TABLE") as caught:
        load_site(path, STUDY, "north")
    assert caught.value.code == "CO-D106"
