"""Rows of an SQL query, as an example of a source: `sqlite:/data/stroke.db?SELECT death, age FROM stroke ORDER BY id`.

The path is a whole one, because the node's daemon reads it from another folder. The query needs an order: the same rows
in another order are other rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from coterie.sdk import DataError

BATCH_ROWS = 10_000


@dataclass(frozen=True)
class SqliteQuery:
    """The rows of one query on one SQLite database, which is opened read-only."""

    database: Path
    query: str

    @property
    def name(self) -> str:
        """The database's name; the query may hold values, so that it is not shown."""
        return f"sqlite:{self.database.name}"

    def columns(self) -> Sequence[str]:
        """Names of the query's columns."""
        with closing(self._connect()) as connection:
            return [column[0] for column in self._select(connection).description]

    def batches(self, columns: Sequence[str]) -> Iterator[Mapping[str, Sequence[object]]]:
        """The query's rows as they are now."""
        with closing(self._connect()) as connection:
            cursor = self._select(connection)
            names = [column[0] for column in cursor.description]
            while rows := cursor.fetchmany(BATCH_ROWS):
                by_name = dict(zip(names, zip(*rows, strict=True), strict=True))
                yield {name: by_name[name] for name in columns}

    def _connect(self) -> sqlite3.Connection:
        try:
            return sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)
        except sqlite3.Error as error:
            raise DataError("CO-D102", f"{self.name} cannot be opened: {error}. Check the path.") from None

    def _select(self, connection: sqlite3.Connection) -> sqlite3.Cursor:
        try:
            cursor = connection.execute(self.query)
        except sqlite3.Error as error:
            raise DataError("CO-D110", f"{self.name} does not run the query: {error}. Correct it.") from None
        if cursor.description is None:
            raise DataError("CO-D110", f"{self.name}: the query gives no rows. Begin it with SELECT.")
        return cursor


def open_sqlite(address: str) -> SqliteQuery:
    """The query at `sqlite:/PATH?QUERY`; DataError for an address that is none."""
    path, mark, query = address.partition(":")[2].partition("?")
    if not Path(path).is_absolute() or not mark or not query.strip():
        raise DataError("CO-D119", "An address of this source reads sqlite:/WHOLE/PATH.db?SELECT ... Correct it.")
    return SqliteQuery(Path(path), query)
