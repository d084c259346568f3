"""A connection that only reads, for one query, and that ends after so many seconds whatever the server does."""

from __future__ import annotations

import os
import stat
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie_learners.errors import LearnerError, pluralise
from coterie_node.data.findings import Origin, quote
from coterie_node.data.mapping.document import SqlQuery
from coterie_node.data.tables.packages import import_extra
from coterie_node.data.tables.sql_servers import IN_FILES, OPTIONS, SERVERS, TIMED_OUT

GRACE_SECONDS = 5.0
MAX_SECRET = 1 << 12
# What drivers raise over bytes that are no answer of their server.
_NO_ANSWER = (ValueError, LookupError, TypeError, AttributeError, AssertionError, OSError, RuntimeError, struct.error)
# SQLite asks after so many of its instructions whether to go on.
_INSTRUCTIONS = 10_000


@dataclass
class RowCount:
    """How many rows of a query have come, for messages."""

    rows: int = 0

    def __str__(self) -> str:
        return f" after {pluralise(self.rows, 'row')}" if self.rows else ""


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
def connect(origin: Origin, query: SqlQuery, folder: Path, progress: RowCount | None = None) -> Iterator[Any]:
    """A read-only connection of SQLAlchemy, closed at the end or cut after the query's seconds."""
    progress = progress or RowCount()
    sql = import_extra("sqlalchemy", "sql", f"The query on {origin.name}")
    url = sql.make_url(query.database)
    kind = url.get_backend_name()
    _check_address(origin, url, kind)
    if kind in IN_FILES:  # beside the mapping, as every file that it names
        url = url.set(database=str(folder.absolute() / Path(url.database or "")))
    password = read_password(origin, query, folder)
    cut, end = threading.Event(), time.monotonic() + query.seconds
    with _make_folder(origin) as spare:
        engine = SERVERS[kind].open(sql, url.set(password=password) if password else url, query, Path(spare))
        try:
            with _watch(sql, engine, kind, query.seconds, cut), engine.connect() as connection:
                yield connection
            if time.monotonic() > end:  # MariaDB ends some functions in time, and gives what they had as their value
                raise _explain(origin, query, TimeoutError(), True, progress)
        except LearnerError:
            raise
        except (sql.exc.SQLAlchemyError, *_NO_ANSWER) as error:
            raise _explain(origin, query, error, cut.is_set(), progress) from None
        finally:
            engine.dispose()


def _check_address(origin: Origin, url: Any, kind: str) -> None:
    """DataError (CO-D174) for a password in the address, another kind of database, or an option that is not for it."""
    if url.password is not None or "password" in url.query:
        raise origin.error("CO-D174", "The address has a password. Name `password_file` or `password_variable`.")
    if kind not in SERVERS:
        message = f"{kind} is not one of {', '.join(SERVERS)}"
        raise origin.error("CO-D174", f"{message}. Export the rows, or use one of them.")
    if not url.database and kind in IN_FILES:
        raise origin.error("CO-D174", f"The address names no file. Write {kind}:////whole/path.")
    allowed = OPTIONS.get(kind, frozenset())
    if other := sorted(set(url.query) - allowed):
        what = f"it may have {', '.join(sorted(allowed))}" if allowed else "it may have none"
        raise origin.error("CO-D174", f"The address has the option {quote(other[0])}; {what}. Leave it out.")


def _make_folder(origin: Origin) -> tempfile.TemporaryDirectory[str]:
    """A folder of this account alone for what a database of a file cannot sort in memory; it ends with the query."""
    try:
        return tempfile.TemporaryDirectory(prefix="coterie-query-")
    except OSError as error:
        message = f"There is no folder for temporary files: {error.strerror or error}"
        raise origin.error("CO-D177", f"{message}. Set TMPDIR to a folder with room for them.") from None


def _explain(origin: Origin, query: SqlQuery, error: Exception, late: bool, progress: RowCount) -> LearnerError:
    """The DataError for what a server or its driver says."""
    cause = getattr(error, "orig", None) or error
    states = {getattr(cause, "sqlstate", None), *(cause.args[:1] if cause.args else ())}
    if late or any(state in TIMED_OUT for state in states if isinstance(state, str | int)):
        message = f"The query took more than {query.seconds} s and was cut off{progress}"
        return origin.error("CO-D176", f"{message}. Ask for fewer rows or columns, or raise `seconds`.")
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return origin.error(
        "CO-D175", f"The database answers{progress}: {lines[0][:200]}. Correct the query or the access."
    )


@contextmanager
def stream_result(connection: Any, text: str, rows: int) -> Iterator[Any]:
    """The result of a query, which the server keeps and sends in parts; what is not read of it is never sent."""
    options = {"stream_results": True, "max_row_buffer": rows, "no_parameters": True}
    abandon = SERVERS[connection.engine.url.get_backend_name()].abandon
    raw = connection.connection.driver_connection
    with closing(connection.execution_options(**options).exec_driver_sql(text)) as result:
        try:
            yield result
        finally:
            if abandon is not None and not connection.invalidated:
                abandon(raw)
                connection.invalidate()


@contextmanager
def _watch(sql: Any, engine: Any, kind: str, seconds: int, cut: threading.Event) -> Iterator[None]:
    """Cut the connection after so many seconds: a server that hangs, or sends without end, holds nobody up."""
    opened: list[Any] = []
    end = time.monotonic() + seconds

    def stop() -> None:
        cut.set()
        for raw in opened:
            with suppress(OSError, AttributeError, RuntimeError):
                SERVERS[kind].cut(raw)

    def is_late() -> int:
        if time.monotonic() < end:
            return 0
        cut.set()
        return 1

    def note(raw: Any, _: Any) -> None:
        opened.append(raw)
        if kind == "sqlite":
            raw.set_progress_handler(is_late, _INSTRUCTIONS)

    leave = SERVERS[kind].abandon

    def abandon(context: Any = None) -> None:
        for raw in opened:
            if leave is not None:
                leave(raw)
        if context is None:
            return
        if leave is not None:
            context.is_disconnect = True
        elif context.execution_context is not None:  # SQLAlchemy leaves the cursor of a lost connection open
            with suppress(sql.exc.SQLAlchemyError, context.dialect.dbapi.Error):
                context.execution_context.cursor.close()

    sql.event.listen(engine.pool, "connect", note, insert=True)
    sql.event.listen(engine, "handle_error", abandon)
    timer = threading.Timer(seconds + (GRACE_SECONDS if SERVERS[kind].obeys else 0.0), stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        abandon()
