"""The rows of an SQL query as a table: read-only, in batches, and always in the order that the query declares.

A query is one statement, so that its result is of one moment. A pass to its end gives the digest too. Each
later pass must give the same digest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coterie_node.data.arrow import pa, pc
from coterie_node.data.arrow_values import Values
from coterie_node.data.findings import Origin, quote
from coterie_node.data.mapping.document import SqlQuery
from coterie_node.data.source import Batch, check_header, explain_change
from coterie_node.data.tables.cells import MAX_CELL, make_column, make_plain, write_cell
from coterie_node.data.tables.packages import import_extra
from coterie_node.data.tables.query_text import check_query
from coterie_node.data.tables.row_digest import ColumnDigest, RowDigest
from coterie_node.data.tables.sql_connection import RowCount, connect, stream_result
from coterie_node.data.tables.sql_servers import SERVERS

SQL_BATCH = 1 << 14
# A server is asked for so many rows at once at most, so that long values are refused before many of them are here.
MOST_FETCHED = 1 << 11
# Letters of the texts of one batch.
MAX_LETTERS = 1 << 28
MAX_ROWS = 100_000_000
# The type of DuckDB's sums of whole numbers, as Arrow has it.
WIDE_INTEGER = pa.decimal128(38, 0)


@dataclass(frozen=True)
class QueryTable:
    """The rows of one query; every pass runs it again, and DataError (CO-D130) if it gives other rows than before."""

    origin: Origin
    query: SqlQuery
    folder: Path
    header: tuple[str, ...]
    server: str
    declared: tuple[tuple[str, str], ...] = ()
    _passes: list[bytes] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def provenance(self) -> tuple[tuple[str, str], ...]:
        """The digest of the query's text, the server's version, and what the query was made of."""
        return ("query", self.query.digest), ("server", self.server), *self.declared

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """These columns, some thousand rows at a time."""
        progress = RowCount()
        opened = connect(self.origin, self.query, self.folder, progress)
        with opened as connection:
            stream = SERVERS[connection.engine.url.get_backend_name()].stream
            if stream is None:
                digest = yield from self._read_values(connection, columns, progress)
            else:
                raw = connection.connection.driver_connection
                with closing(stream(raw, self.query.statement, SQL_BATCH)) as batches:
                    digest = yield from self._read_arrow(batches, columns, progress)
        self._note_pass(digest)

    def places(self, rows: Sequence[int]) -> list[str]:
        """Numbers of rows in the order of the query."""
        return [f"row {row + 1}" for row in rows]

    def stamp(self) -> str:
        """Always the same: a pass sees by itself whether its rows are those of the pass before."""
        return f"query {self.query.digest}"

    def digest(self) -> bytes:
        """SHA-256 of header and rows in their order, as the latest pass had them; if there was none, one is made."""
        if not self._passes:
            for _ in self.batches(()):
                pass
        return self._passes[-1]

    def _read_values(
        self, connection: Any, columns: Sequence[str], progress: RowCount
    ) -> Generator[Batch, None, bytes]:
        """The rows as values of Python; returns their digest."""
        places, total = [self.header.index(name) for name in columns], RowDigest(self.header)
        with stream_result(connection, self.query.statement, SQL_BATCH) as result:
            self._check_header(tuple(result.keys()))
            for rows in self._fetch(result, progress):
                at = progress.rows
                self._count(progress, len(rows))
                total.add(self._write(rows, at))
                pairs = zip(columns, places, strict=True)
                yield {name: self._make(name, [row[k] for row in rows], at) for name, k in pairs}
        return total.finish()

    def _fetch(self, result: Any, progress: RowCount) -> Iterator[list[Sequence[object]]]:
        """Batches of rows; DataError (CO-D175) for texts that are too long for a cell, or together for memory."""
        size, more = 1, True
        while more:
            batch: list[Sequence[object]] = []
            letters = 0
            while len(batch) < SQL_BATCH and (rows := result.fetchmany(min(size, SQL_BATCH - len(batch)))):
                letters += self._count_letters(rows, progress.rows + len(batch))
                batch += rows
                size = min(4 * size, MOST_FETCHED)
                if letters > MAX_LETTERS:
                    place = f"rows {progress.rows + 1} to {progress.rows + len(batch)}"
                    message = f"The texts in {place} have {letters} characters; the limit is {MAX_LETTERS}"
                    raise self.origin.error("CO-D175", f"{message}. Ask for fewer columns.")
            more = len(batch) == SQL_BATCH
            if batch:
                yield batch

    def _count_letters(self, rows: Sequence[Sequence[object]], at: int) -> int:
        """Letters and bytes of all texts; DataError names the column of one that is too long."""
        sizes = [len(value) for row in rows for value in row if isinstance(value, str | bytes)]
        if max(sizes, default=0) > MAX_CELL:
            for k, name in enumerate(self.header):
                self._make(name, [row[k] for row in rows], at)
        return sum(sizes)

    def _read_arrow(
        self, batches: Iterator[pa.RecordBatch], columns: Sequence[str], progress: RowCount
    ) -> Generator[Batch, None, bytes]:
        """The rows as columns of Arrow; returns their digest."""
        total = ColumnDigest(self.header)
        for batch in batches:
            self._check_header(tuple(batch.schema.names))
            at = progress.rows
            self._count(progress, batch.num_rows)
            whole = {name: self._plain(name, batch.column(name), at) for name in self.header}
            total.add(whole)
            yield {name: whole[name] for name in columns}
        return total.finish()

    def _count(self, progress: RowCount, rows: int) -> None:
        progress.rows += rows
        if progress.rows > MAX_ROWS:
            message = f"The query gives more than {MAX_ROWS} rows"
            raise self.origin.error("CO-D176", f"{message}. Ask for those that the study needs.")

    def _note_pass(self, digest: bytes) -> None:
        if self._passes and digest != self._passes[-1]:
            raise explain_change(self.origin)
        self._passes[:] = [digest]

    def _plain(self, name: str, column: Values, at: int) -> Values:
        if column.type == WIDE_INTEGER:
            column = pc.cast(column, pa.float64())
        plain = make_plain(column)
        return self._make(name, column.to_pylist(), at) if plain is None else plain

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
    check_query(origin, query.query)
    with connect(origin, query, folder) as connection:
        server = f"{kind} {connection.exec_driver_sql(SERVERS[kind].version).scalar()}"
        header = _read_header(connection, SERVERS[kind].list_columns, query)
    check_header(origin, header, ())
    return QueryTable(origin, query, folder, header, server)


def _read_header(
    connection: Any, list_columns: Callable[[Any, str], list[str]] | None, query: SqlQuery
) -> tuple[str, ...]:
    if list_columns is not None:
        return tuple(list_columns(connection.connection.driver_connection, query.statement))
    with stream_result(connection, query.statement, SQL_BATCH) as result:
        return tuple(result.keys())
