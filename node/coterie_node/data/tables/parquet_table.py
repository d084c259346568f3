"""A Parquet file as a table, whatever the types of its columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from coterie_node.data.arrow import pa
from coterie_node.data.files.parquet_file import BATCH_ROWS, open_parquet_reader, parquet_error
from coterie_node.data.findings import FileOrigin
from coterie_node.data.source import Batch, FileRows, check_header


@dataclass(frozen=True)
class ParquetTable(FileRows):
    """The columns of a Parquet file as they are stored; `kinds` names their types."""

    header: tuple[str, ...]
    kinds: Mapping[str, str]
    provenance: tuple[tuple[str, str], ...] = field(default=(), init=False)

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """These columns."""
        try:
            with open_parquet_reader(self.origin) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                    yield {name: batch.column(name) for name in columns}
        except (pa.ArrowException, OSError) as error:
            raise parquet_error(self.origin, error) from None

    def places(self, rows: Sequence[int]) -> list[str]:
        """Numbers of rows, the first being row 1."""
        return [f"row {row + 1}" for row in rows]


def open_parquet_table(origin: FileOrigin) -> ParquetTable:
    """The names of a file's columns; DataError if it is no Parquet file."""
    try:
        with open_parquet_reader(origin) as file:
            schema = file.schema_arrow
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise parquet_error(origin, error) from None
    check_header(origin, schema.names, ())
    return ParquetTable(origin, tuple(schema.names), {field.name: str(field.type) for field in schema})
