"""The rows of an SQL query as a table: read-only, in batches, and always in the order that the query declares."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coterie_node.data.arrow_values import Values
from coterie_node.data.findings import Origin, quote
from coterie_node.data.mapping.document import SqlQuery
from coterie_node.data.source import Batch, check_header
from coterie_node.data.tables.cells import make_column, write_cell
from coterie_node.data.tables.packages import import_extra
from coterie_node.data.tables.sql_connection import RowCount, connect, stream_result
from coterie_node.data.tables.sql_servers import SERVERS

SQL_BATCH = 1 << 14
MAX_ROWS = 100_000_000
_SELECT = re.compile(r"\s*(select|with)\b", re.IGNORECASE)
# SELECT ... INTO makes a table or a file, which a read-only session may allow; MariaDB carries out /*! comments.
_WRITES = re.compile(r"\binto\b|/\*M?!", re.IGNORECASE)
_ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)


@dataclass(frozen=True)
class QueryTable:
    """The rows of one query; every pass runs it again, and the digest is that of all that it gives."""

    origin: Origin
    query: SqlQuery
    folder: Path
    header: tuple[str, ...]
    server: str
    declared: tuple[tuple[str, str], ...] = ()

    @property
    def provenance(self) -> tuple[tuple[str, str], ...]:
        """The digest of the query's text, the server's version, and what the query was made of."""
        return ("query", self.query.digest), ("server", self.server), *self.declared

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """These columns, some thousand rows at a time."""
        places = [self.header.index(name) for name in columns]
        at = 0
        for rows in self._rows():
            yield {
                name: self._make(name, [row[k] for row in rows], at) for name, k in zip(columns, places, strict=True)
            }
            at += len(rows)

    def places(self, rows: Sequence[int]) -> list[str]:
        """Numbers of rows in the order of the query."""
        return [f"row {row + 1}" for row in rows]

    def stamp(self) -> str:
        """The digest: nothing cheaper is known of rows that are no file."""
        return self.digest().hex()

    def digest(self) -> bytes:
        """SHA-256 of the header and of all rows, in their order."""
        total, at = hashlib.sha256(json.dumps(self.header).encode()), 0
        for rows in self._rows():
            total.update(self._write(rows, at))
            at += len(rows)
        return total.digest()

    def _make(self, name: str, values: Sequence[object], at: int) -> Values:
        try:
            return make_column(values)
        except (ValueError, OverflowError) as error:
            rows = f"row {at + 1}" if len(values) == 1 else f"rows {at + 1} to {at + len(values)}"
            message = f"In the column {quote(name)}, in {rows}, {error}"
            raise self.origin.error("CO-D175", f"{message}. Convert it in the query.") from None

    def _write(self, rows: Sequence[Sequence[object]], at: int) -> bytes:
        """A batch in bytes; DataError names the column of a value that is none."""
        try:
            return json.dumps([tuple(row) for row in rows], default=write_cell).encode()
        except ValueError:
            for k, name in enumerate(self.header):
                self._make(name, [row[k] for row in rows], at)
            raise

    def _rows(self) -> Iterator[Sequence[Sequence[object]]]:
        """The rows as the server sends them, of which only a batch is in memory."""
        progress = RowCount()
        opened = connect(self.origin, self.query, self.folder, progress)
        with opened as connection, stream_result(connection, self.query.statement, SQL_BATCH) as result:
            self._check_header(tuple(result.keys()))
            for rows in result.partitions(SQL_BATCH):
                progress.rows += len(rows)
                if progress.rows > MAX_ROWS:
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
        server = f"{kind} {connection.exec_driver_sql(SERVERS[kind].version).scalar()}"
        with stream_result(connection, query.statement, SQL_BATCH) as result:
            header = tuple(result.keys())
    check_header(origin, header, ())
    return QueryTable(origin, query, folder, header, server)


def _check_query(origin: Origin, text: str) -> None:
    if not _SELECT.match(text) or ";" in text.rstrip().rstrip(";"):
        message = f"The query begins {quote(text.strip())}: it must be one SELECT (or WITH), without a semicolon inside"
        raise origin.error("CO-D174", f"{message}. Correct it.")
    if _WRITES.search(text):
        message = "The query has the word INTO, or a comment that the server carries out: it could write"
        raise origin.error("CO-D174", f"{message}. Leave it out, of texts and comments too.")
    if not _ORDER.search(text):
        raise origin.error(
            "CO-D174", "The query has no ORDER BY, and rows in another order are other rows. Order by a unique column."
        )
