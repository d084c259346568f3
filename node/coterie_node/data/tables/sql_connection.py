"""A connection that only reads, for one query, and that ends after so many seconds whatever the server does."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coterie_node.data.findings import Origin
from coterie_node.data.mapping.document import SqlQuery
from coterie_node.data.tables.packages import import_extra

CONNECT_SECONDS = 10
GRACE_SECONDS = 5.0
MAX_SECRET = 1 << 12
# PostgreSQL's state of a statement that ran into its time limit.
_CANCELED = "57014"
# SQLite asks after so many of its instructions whether to go on.
_INSTRUCTIONS = 10_000


def read_password(origin: Origin, query: SqlQuery, folder: Path) -> str | None:
    """The password from a file that only its owner may read, or from the environment; None where none is named."""
    if query.password_variable:
        if query.password_variable not in os.environ:
            message = f"The environment has no {query.password_variable}, where the password should be"
            raise origin.error("CO-D174", f"{message}. Set it for the node's account.")
        return os.environ[query.password_variable]
    if not query.password_file:
        return None
    path = folder / query.password_file
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise origin.error("CO-D174", f"{path} can be read by others. Run `chmod 600` on it.")
            return file.read(MAX_SECRET).decode().strip()
    except (OSError, UnicodeDecodeError):
        raise origin.error("CO-D174", f"The file of the password {path} cannot be read. Correct the path.") from None


@contextmanager
def connect(origin: Origin, query: SqlQuery, folder: Path) -> Iterator[Any]:
    """A read-only connection of SQLAlchemy, closed at the end or cut after the query's seconds."""
    sql = import_extra("sqlalchemy", "sql", f"The query on {origin.name}")
    url = sql.make_url(query.database)
    if url.password is not None:
        raise origin.error("CO-D174", "The address has a password. Name `password_file` or `password_variable`.")
    kind = url.get_backend_name()
    if kind not in _OPENERS:
        raise origin.error("CO-D174", f"{kind} is none of {', '.join(_OPENERS)}. Export the rows, or use one of them.")
    password = read_password(origin, query, folder)
    engine = _OPENERS[kind](sql, url.set(password=password) if password else url, query)
    cut = threading.Event()
    try:
        with engine.connect() as connection, _watch(connection, kind, query.seconds, cut):
            yield connection
    except sql.exc.SQLAlchemyError as error:
        if cut.is_set() or getattr(getattr(error, "orig", None), "sqlstate", "") == _CANCELED:
            message = f"The query took more than {query.seconds} s and was cut off"
            raise origin.error("CO-D176", f"{message}. Ask for fewer rows or columns, or raise `seconds`.") from None
        cause = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        raise origin.error(
            "CO-D175", f"The database answers: {cause[0][:200]}. Correct the query or the access."
        ) from None
    finally:
        engine.dispose()


@contextmanager
def _watch(connection: Any, kind: str, seconds: int, cut: threading.Event) -> Iterator[None]:
    """Cut the connection after so many seconds: a server that hangs, or sends without end, holds nobody up."""
    raw = connection.connection.driver_connection
    end = time.monotonic() + seconds

    def stop() -> None:
        cut.set()
        with suppress(OSError, AttributeError, RuntimeError):
            _CUTTERS[kind](raw)

    def is_late() -> int:
        if time.monotonic() < end:
            return 0
        cut.set()
        return 1

    if kind == "sqlite":
        raw.set_progress_handler(is_late, _INSTRUCTIONS)
    # A PostgreSQL that works ends the statement itself.
    timer = threading.Timer(seconds + (GRACE_SECONDS if kind == "postgresql" else 0.0), stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _open_postgresql(sql: Any, url: Any, query: SqlQuery) -> Any:
    options = f"-c default_transaction_read_only=on -c statement_timeout={query.seconds * 1000}"
    arguments = {"connect_timeout": CONNECT_SECONDS, "options": options, "application_name": "coterie"}
    return sql.create_engine(
        url.set(drivername="postgresql+psycopg"), poolclass=sql.pool.NullPool, connect_args=arguments
    )


def _open_sqlite(sql: Any, url: Any, query: SqlQuery) -> Any:
    path = Path(url.database or "").absolute()

    def open_file() -> sqlite3.Connection:
        return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)

    return sql.create_engine("sqlite://", creator=open_file, poolclass=sql.pool.NullPool)


def _open_duckdb(sql: Any, url: Any, query: SqlQuery) -> Any:
    import_extra("duckdb_engine", "sql", f"The database {url.database}")
    arguments = {"read_only": True, "config": {"enable_external_access": False}}
    return sql.create_engine(url, poolclass=sql.pool.NullPool, connect_args=arguments)


def _cut_socket(raw: Any) -> None:
    """Shut a connection's socket down, so that the thread that waits for it goes on."""
    with socket.socket(fileno=os.dup(raw.fileno())) as ending:
        ending.shutdown(socket.SHUT_RDWR)


_OPENERS: dict[str, Callable[[Any, Any, SqlQuery], Any]] = {
    "postgresql": _open_postgresql,
    "sqlite": _open_sqlite,
    "duckdb": _open_duckdb,
}
_CUTTERS: dict[str, Callable[[Any], None]] = {
    "postgresql": _cut_socket,
    "sqlite": lambda raw: raw.interrupt(),
    "duckdb": lambda raw: raw.interrupt(),
}
