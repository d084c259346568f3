"""The rows of an SQL query as a table: read-only, in batches, and always in the order that the query declares."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie_node.data.findings import Origin, quote
from coterie_node.data.mapping.document import SqlQuery
from coterie_node.data.source import Batch, check_header
from coterie_node.data.tables.cells import make_column, write_cell
from coterie_node.data.tables.packages import import_extra
from coterie_node.data.tables.sql_connection import connect

SQL_BATCH = 1 << 14
MAX_ROWS = 100_000_000
_POSTGRESQL_VERSION = "SELECT current_setting('server_version')"
_SELECT = re.compile(r"\s*(select|with)\b", re.IGNORECASE)
_ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)


@dataclass(frozen=True)
class QueryTable:
    """The rows of one query; every pass runs it again, and the digest is that of all that it gives."""

    origin: Origin
    query: SqlQuery
    folder: Path
    header: tuple[str, ...]
    server: str

    @property
    def provenance(self) -> tuple[tuple[str, str], ...]:
        """The digest of the query's text, and the server's version."""
        return ("query", self.query.digest), ("server", self.server)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """These columns, some thousand rows at a time."""
        places = [self.header.index(name) for name in columns]
        for rows in self._rows():
            try:
                yield {name: make_column([row[k] for row in rows]) for name, k in zip(columns, places, strict=True)}
            except ValueError as error:
                raise self.origin.error("CO-D175", f"In the query's rows, {error}. Convert it in the query.") from None

    def places(self, rows: Sequence[int]) -> list[str]:
        """Numbers of rows in the order of the query."""
        return [f"row {row + 1}" for row in rows]

    def stamp(self) -> str:
        """The digest: nothing cheaper is known of rows that are no file."""
        return self.digest().hex()

    def digest(self) -> bytes:
        """SHA-256 of the header and of all rows, in their order."""
        total = hashlib.sha256(json.dumps(self.header).encode())
        for rows in self._rows():
            for row in rows:
                try:
                    total.update(json.dumps([write_cell(value) for value in row]).encode() + b"\n")
                except ValueError as error:
                    raise self.origin.error(
                        "CO-D175", f"In the query's rows, {error}. Convert it in the query."
                    ) from None
        return total.digest()

    def _rows(self) -> Iterator[Sequence[Sequence[object]]]:
        """The rows as the server sends them, of which only a batch is in memory."""
        count = 0
        opened = connect(self.origin, self.query, self.folder)
        with opened as connection, closing(_execute(connection, self.query.query)) as result:
            self._check_header(tuple(result.keys()))
            for rows in result.partitions(SQL_BATCH):
                count += len(rows)
                if count > MAX_ROWS:
                    message = f"The query gives more than {MAX_ROWS} rows"
                    raise self.origin.error("CO-D176", f"{message}. Ask for those that the study needs.")
                yield rows

    def _check_header(self, header: tuple[str, ...]) -> None:
        if header != self.header:
            raise self.origin.error("CO-D130", "The query's columns changed while it was read. Start again.")


def open_query(query: SqlQuery, folder: Path, site: str) -> QueryTable:
    """The query's columns; DataError if it does not only read, has no order, or the database refuses it."""
    sql = import_extra("sqlalchemy", "sql", "A query")
    try:
        url = sql.make_url(query.database)
    except sql.exc.ArgumentError:
        url = None
    kind = "database" if url is None else url.get_backend_name()
    name = kind if url is None else f"{kind}:{Path(url.database or '').name}"
    origin = Origin(site, name, "query")
    if url is None:
        raise origin.error("CO-D174", "`database` is no address such as postgresql://user@host/name. Correct it.")
    _check_query(origin, query.query)
    with connect(origin, query, folder) as connection:
        result = _execute(connection, query.query)
        header = tuple(result.keys())
        server = f"{kind} {_find_version(connection, kind)}"
        result.close()
    check_header(origin, header, ())
    return QueryTable(origin, query, folder, header, server)


def _check_query(origin: Origin, text: str) -> None:
    if not _SELECT.match(text) or ";" in text.rstrip().rstrip(";"):
        message = f"The query begins {quote(text.strip())}: it must be one SELECT (or WITH), without a semicolon inside"
        raise origin.error("CO-D174", f"{message}. Correct it.")
    if not _ORDER.search(text):
        raise origin.error(
            "CO-D174", "The query has no ORDER BY, and rows in another order are other rows. Order by a unique column."
        )


def _execute(connection: Any, text: str) -> Any:
    """The result of the query, which the server keeps and sends in parts."""
    streaming = connection.execution_options(stream_results=True, max_row_buffer=SQL_BATCH)
    return streaming.exec_driver_sql(text.rstrip().rstrip(";"))


def _find_version(connection: Any, kind: str) -> str:
    statement = {"sqlite": "SELECT sqlite_version()", "duckdb": "SELECT version()"}.get(kind, _POSTGRESQL_VERSION)
    return str(connection.exec_driver_sql(statement).scalar())
