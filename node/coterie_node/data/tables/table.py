"""What a table is to a mapping, and the tables that Arrow reads: text files and Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from coterie_node.data.arrow_values import Values
from coterie_node.data.files.csv_file import CsvFile, Dialect, open_csv
from coterie_node.data.findings import FileOrigin, Origin, quote
from coterie_node.data.source import Batch, FileRows, SourceIdentity


class SiteTable(SourceIdentity, Protocol):
    """All rows under the names that the hospital gave its columns; the same rows in the same order each time."""

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the columns."""

    @property
    def provenance(self) -> tuple[tuple[str, str], ...]:
        """What else a snapshot says of where the rows come from, as (name, value)."""

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """These columns, batch by batch; DataError if they cannot be read to their end."""

    def places(self, rows: Sequence[int]) -> list[str]:
        """What to call these rows so that a person finds them."""


@dataclass(frozen=True)
class TextTable(FileRows):
    """A file of text: every field as text."""

    file: CsvFile
    provenance: tuple[tuple[str, str], ...] = field(default=(), init=False)

    @property
    def header(self) -> tuple[str, ...]:
        """Names in the header, or those that the mapping declares."""
        return self.file.header

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """These columns as text."""
        return replace(self.file, variables=tuple(columns)).batches()

    def places(self, rows: Sequence[int]) -> list[str]:
        """Numbers of lines."""
        return self.file.places(rows)


@dataclass(frozen=True)
class MemoryTable:
    """Columns that stay in memory, each of one type; `what` names a row in messages."""

    identity: SourceIdentity
    columns: dict[str, Values]
    what: str = "row"
    first: int = 1
    provenance: tuple[tuple[str, str], ...] = ()

    @property
    def origin(self) -> Origin:
        """Whose rows, and from where."""
        return self.identity.origin

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.columns)

    def stamp(self) -> str:
        """The stamp of what was read."""
        return self.identity.stamp()

    def digest(self) -> bytes:
        """The digest of what was read."""
        return self.identity.digest()

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """All rows as one batch."""
        yield {name: self.columns[name] for name in columns}

    def places(self, rows: Sequence[int]) -> list[str]:
        """Numbers of rows as the program that wrote the file counts them."""
        return [f"{self.what} {row + self.first}" for row in rows]


def open_text(origin: FileOrigin, dialect: Dialect) -> TextTable:
    """A file of text; DataError says what is wrong with its header."""
    return TextTable(origin, open_csv(origin, (), dialect))


def open_table(origin: FileOrigin, dialect: Dialect, sheet: str = "") -> SiteTable:
    """The table in a file, read as its ending says; DataError for another ending, or a file that is none."""
    suffix = origin.path.suffix.lower()
    if suffix in (".csv", ".txt", ".tsv"):
        return open_text(origin, dialect)
    if suffix == ".parquet":
        from coterie_node.data.tables.parquet_table import open_parquet_table

        return open_parquet_table(origin)
    if suffix == ".xlsx":
        from coterie_node.data.tables.excel_table import read_workbook

        return read_workbook(origin, sheet, dialect)
    if suffix in (".dta", ".sav", ".zsav", ".por", ".sas7bdat", ".xpt"):
        from coterie_node.data.tables.statistics_table import read_statistics_file

        return read_statistics_file(origin)
    kinds = ".csv, .txt, .tsv, .parquet, .xlsx, .dta, .sav, .zsav, .por, .sas7bdat or .xpt"
    raise origin.error("CO-D119", f"The ending {quote(suffix)} is not one of {kinds}. Export the rows as one of them.")
