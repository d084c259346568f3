"""A site's rows in one Parquet file, read in small batches of the study's columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from coterie_learners.errors import DataError
from coterie_learners.study.design import Design
from coterie_node.data.arrow import pa, pq
from coterie_node.data.findings import FileOrigin, printable
from coterie_node.data.source import Batch, FileRows, check_header, check_kinds, unreadable_error

BATCH_ROWS = 1 << 16
BUFFER = 1 << 20


@dataclass(frozen=True)
class ParquetFile(FileRows):
    """A Parquet file whose columns fit the study by name and type."""

    variables: tuple[str, ...]
    rows: int | None

    def batches(self) -> Iterator[Batch]:
        """The study's columns as they are stored."""
        try:
            with open_parquet_reader(self.origin) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=list(self.variables)):
                    yield {name: batch.column(name) for name in self.variables}
        except (pa.ArrowException, OSError) as error:
            raise parquet_error(self.origin, error) from None

    def places(self, rows: Sequence[int]) -> list[str]:
        """Numbers of rows, the first being row 1."""
        return [f"row {row + 1}" for row in rows]


def open_parquet(origin: FileOrigin, design: Design) -> ParquetFile:
    """Read and check names and types of the columns; DataError says which do not fit."""
    try:
        with open_parquet_reader(origin) as file:
            schema, rows = file.schema_arrow, int(file.metadata.num_rows)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise parquet_error(origin, error) from None
    check_header(origin, schema.names, (*design.file_columns, *design.identifier))
    check_kinds(origin, design, {field.name: field.type for field in schema})
    if rows == 0:
        raise origin.error("CO-D103", "There are columns and no rows. Export the rows as well.")
    return ParquetFile(origin, (*design.file_columns, *design.identifier), rows)


@contextmanager
def open_parquet_reader(origin: FileOrigin) -> Iterator[pq.ParquetFile]:
    """Arrow's reader of the file, closed at the end."""
    # A buffered stream, so that memory holds pages and not whole row groups.
    with origin.path.open("rb") as raw, pq.ParquetFile(raw, pre_buffer=False, buffer_size=BUFFER) as file:
        yield file


def parquet_error(origin: FileOrigin, error: Exception) -> DataError:
    """The DataError for a file that Arrow cannot read."""
    if isinstance(error, PermissionError):
        return unreadable_error(origin, error)
    cause = printable(str(error).splitlines()[0] if str(error) else "")[:200]
    return origin.error("CO-D110", f"It cannot be read as Parquet: {cause} Write it again, as one Parquet file.")
