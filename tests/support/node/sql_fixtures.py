"""Fixtures of the tests that need a database server: `mariadb` and `postgres`, with patients, and their password."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.node.mariadb import MariaDb, find_mariadb, start_mariadb
from support.node.postgres import Postgres, find_programs, start_postgres
from support.node.queries import TABLE, draw_rows, write_values
from support.node.servers import PASSWORD

from coterie_node.data.mapping.document import SqlQuery

# What a query must leave as it is.
STATE = "SELECT count(*) AS n FROM log UNION ALL SELECT {next} FROM numbers ORDER BY 1"


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDb]:
    """A MariaDB server with patients, a log and a sequence."""
    program = find_mariadb()
    if program is None:
        pytest.skip("cannot run here: Debian's mariadb-server is not installed")
    with start_mariadb(program) as server:
        server.run("USE hospital; " + _write_patients())
        server.run("CREATE TABLE hospital.log (x INT); CREATE SEQUENCE hospital.numbers")
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server with the same."""
    programs = find_programs()
    if programs is None:
        pytest.skip("cannot run here: Debian's postgresql is not installed")
    with start_postgres(programs) as server:
        server.run(_write_patients() + "; CREATE TABLE log (x INT); CREATE SEQUENCE numbers")
        yield server


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers' password in the environment."""
    monkeypatch.setenv("HOSPITAL_PASSWORD", PASSWORD)


def ask(address: str, text: str, seconds: int = 20) -> SqlQuery:
    """A query whose password is in the environment."""
    return SqlQuery(database=address, query=text, password_variable="HOSPITAL_PASSWORD", seconds=seconds)


def _write_patients() -> str:
    return TABLE.format(flag="BOOLEAN") + ";" + write_values(draw_rows(), ("false", "true"))
