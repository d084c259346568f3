"""The databases that a query may run on: how each is opened to read alone, names its version, and is cut off."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie_node.data.arrow import pa
from coterie_node.data.mapping.document import SqlQuery
from coterie_node.data.tables.packages import import_extra

CONNECT_SECONDS = 10
# Bytes of a value or a row of SQLite, which makes a value without asking whether to go on.
SQLITE_VALUE = 1 << 24
DUCKDB_MEMORY, DUCKDB_THREADS = "256MiB", 2
# The states by which a server says that a statement ran into its time limit.
TIMED_OUT = frozenset({"57014", 1969, 3024})
# Databases in a file of this machine.
IN_FILES = frozenset({"sqlite", "duckdb"})
# Options of an address: where the server is, and TLS. Others would open more than a session that reads.
_TLS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "ssl_min_protocol_version", "channel_binding")
OPTIONS: Mapping[str, frozenset[str]] = {
    "postgresql": frozenset({"host", "hostaddr", "port", "gssencmode", "krbsrvname", "target_session_attrs", *_TLS}),
    "mariadb": frozenset({"unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "ssl_check_hostname", "ssl_verify_cert"}),
}


@dataclass(frozen=True)
class Server:
    """One kind of database.

    open: an engine of SQLAlchemy, from SQLAlchemy, address, query and a folder for what memory cannot hold. cut: end
    a connection from another thread. abandon: leave a result before its end. version: the statement that gives its
    version. obeys: whether it ends a statement itself after the query's seconds. stream: a query's rows as Arrow
    batches, from the driver's connection, the query and rows of a batch; None where the driver gives values of Python.
    list_columns: the names of its columns, without running it; None where it has to run.
    """

    open: Callable[[Any, Any, SqlQuery, Path], Any]
    cut: Callable[[Any], None]
    version: str
    obeys: bool = False
    abandon: Callable[[Any], None] | None = None
    stream: Callable[[Any, str, int], Generator[pa.RecordBatch, None, None]] | None = None
    list_columns: Callable[[Any, str], list[str]] | None = None


def _open_postgresql(sql: Any, url: Any, query: SqlQuery, _: Path) -> Any:
    options = f"-c default_transaction_read_only=on -c statement_timeout={query.seconds * 1000}"
    arguments = {"connect_timeout": CONNECT_SECONDS, "options": options, "application_name": "coterie"}
    return sql.create_engine(
        url.set(drivername="postgresql+psycopg"), poolclass=sql.pool.NullPool, connect_args=arguments
    )


def _open_mariadb(sql: Any, url: Any, query: SqlQuery, _: Path) -> Any:
    import_extra("pymysql", "sql", f"The database {url.database}")
    arguments = {
        "connect_timeout": CONNECT_SECONDS,
        "init_command": f"SET SESSION tx_read_only = 1, max_statement_time = {query.seconds}",
        "charset": "utf8mb4",
    }
    engine = sql.create_engine(
        url.set(drivername="mariadb+pymysql"), poolclass=sql.pool.NullPool, connect_args=arguments
    )
    sql.event.listen(engine, "do_connect", _greet_mariadb)
    return engine


def _greet_mariadb(dialect: Any, record: Any, words: Any, arguments: Any) -> Any:
    """A connection whose whole greeting has a deadline: that of PyMySQL ends when the socket is open."""
    if "unix_socket" in arguments:
        return None
    address = (arguments["host"], int(arguments.get("port") or 3306))
    try:
        opened = socket.create_connection(address, CONNECT_SECONDS)
    except OSError as error:
        raise dialect.dbapi.OperationalError(2003, f"no connection to {address[0]}: {error}") from None
    opened.settimeout(None)
    handle = opened.fileno()
    timer = threading.Timer(CONNECT_SECONDS, lambda: _shut_down(handle))
    timer.daemon = True
    timer.start()
    try:
        raw = dialect.dbapi.connect(*words, **arguments, defer_connect=True)
        raw.connect(opened)
        return raw
    except BaseException:
        opened.close()
        raise
    finally:
        timer.cancel()


def _open_sqlite(sql: Any, url: Any, query: SqlQuery, _: Path) -> Any:
    path = Path(url.database or "").absolute()

    def open_file() -> sqlite3.Connection:
        raw = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
        raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, SQLITE_VALUE)
        return raw

    return sql.create_engine("sqlite://", creator=open_file, poolclass=sql.pool.NullPool)


def _open_duckdb(sql: Any, url: Any, query: SqlQuery, spare: Path) -> Any:
    import_extra("duckdb_engine", "sql", f"The database {url.database}")
    config = {
        "enable_external_access": False,
        "memory_limit": DUCKDB_MEMORY,  # beyond it DuckDB sorts and joins in files
        "temp_directory": str(spare),
        "threads": DUCKDB_THREADS,  # each has buffers of its own
    }
    arguments = {"read_only": True, "config": config}
    # DuckDB refuses the rollback of a result that was not read to its end; closing ends both.
    return sql.create_engine(url, poolclass=sql.pool.NullPool, pool_reset_on_return=None, connect_args=arguments)


def _stream_duckdb(raw: Any, text: str, rows: int) -> Generator[pa.RecordBatch, None, None]:
    """Batches as DuckDB makes them: through its DB-API all rows would be in memory first."""
    library = import_extra("duckdb", "sql", "DuckDB")
    try:
        with raw.sql(text).to_arrow_reader(rows) as reader:
            yield from reader
    except (library.Error, pa.ArrowException) as error:
        raise RuntimeError(str(error)) from None


def _list_duckdb_columns(raw: Any, text: str) -> list[str]:
    library = import_extra("duckdb", "sql", "DuckDB")
    try:
        return list(raw.sql(text).columns)
    except library.Error as error:
        raise RuntimeError(str(error)) from None


def _cut_postgresql(raw: Any) -> None:
    """Shut the socket down, so that the thread that waits for it goes on."""
    _shut_down(raw.fileno())


def _cut_mariadb(raw: Any) -> None:
    """Shut the socket down: PyMySQL would read an unfinished result to its end."""
    _shut_down(raw._sock.fileno())


def _abandon_mariadb(raw: Any) -> None:
    """Close the connection with what it has not sent yet, which PyMySQL would read first."""
    raw._force_close()
    if raw._result is not None:
        raw._result.unbuffered_active = False


def _shut_down(handle: int) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(handle)) as ending:
        ending.shutdown(socket.SHUT_RDWR)


SERVERS: Mapping[str, Server] = {
    "postgresql": Server(_open_postgresql, _cut_postgresql, "SELECT current_setting('server_version')", obeys=True),
    "mariadb": Server(_open_mariadb, _cut_mariadb, "SELECT version()", obeys=True, abandon=_abandon_mariadb),
    "sqlite": Server(_open_sqlite, lambda raw: raw.interrupt(), "SELECT sqlite_version()"),
    "duckdb": Server(
        _open_duckdb,
        lambda raw: raw.interrupt(),
        "SELECT version()",
        stream=_stream_duckdb,
        list_columns=_list_duckdb_columns,
    ),
}
