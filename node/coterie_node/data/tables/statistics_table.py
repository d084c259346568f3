"""Files of Stata, SAS and SPSS by pyreadstat: their values, not their labels; missing values of any kind are blank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coterie_node.data.findings import FileOrigin, printable
from coterie_node.data.source import FileRows, check_header, unreadable_error
from coterie_node.data.tables.cells import make_column
from coterie_node.data.tables.packages import import_extra
from coterie_node.data.tables.table import MemoryTable

MAX_STATISTICS_BYTES = 1 << 30
READERS: Mapping[str, str] = {
    ".dta": "read_dta",
    ".sav": "read_sav",
    ".zsav": "read_sav",
    ".por": "read_por",
    ".sas7bdat": "read_sas7bdat",
    ".xpt": "read_xport",
}


def read_statistics_file(origin: FileOrigin) -> MemoryTable:
    """The file's columns; DataError if it is not what its ending says, or is larger than 1 GiB."""
    library = import_extra("pyreadstat", "stats", f"The file {origin.name}")
    _check_size(origin)
    read = getattr(library, READERS[origin.path.suffix.lower()])
    try:
        values, _ = read(str(origin.path), output_format="dict")
    except OSError as error:
        raise unreadable_error(origin, error) from None
    except (library.ReadstatError, library.PyreadstatError, ValueError, UnicodeError) as error:
        cause = printable(str(error))[:120]
        raise origin.error("CO-D173", f"It cannot be read as {origin.path.suffix}: {cause}. Export it again.") from None
    return _make_table(origin, values)


def _check_size(origin: FileOrigin) -> None:
    try:
        size = origin.path.stat().st_size
    except OSError as error:
        raise unreadable_error(origin, error) from None
    if size > MAX_STATISTICS_BYTES:
        message = f"The file has {size >> 20} MiB; the limit is {MAX_STATISTICS_BYTES >> 20}"
        raise origin.error("CO-D173", f"{message}. Export the rows as CSV or Parquet.")


def _make_table(origin: FileOrigin, values: Mapping[str, Sequence[Any]]) -> MemoryTable:
    check_header(origin, tuple(values), ())
    try:
        columns = {name: make_column([_plain(value) for value in column]) for name, column in values.items()}
    except ValueError as error:
        raise origin.error("CO-D173", f"In the file, {error}. Export it again.") from None
    if not columns or not len(next(iter(columns.values()))):
        raise origin.error("CO-D103", "The file has no rows. Export it again.")
    return MemoryTable(FileRows(origin), columns, "row", 1)


def _plain(value: Any) -> object:
    """A value of Python instead of numpy's; blank text is missing, as these programs have it."""
    value = value.item() if hasattr(value, "item") else value
    return None if value == "" else value
