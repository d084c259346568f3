"""Files of Stata, SAS and SPSS by pyreadstat: their values, not their labels; missing values of any kind are blank."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coterie_learners.errors import DataError
from coterie_node.data.findings import FileOrigin, printable
from coterie_node.data.source import FileRows, check_header, unreadable_error
from coterie_node.data.tables.cells import make_column
from coterie_node.data.tables.packages import import_extra
from coterie_node.data.tables.table import MemoryTable

# The most bytes of the file, and of its rows when they are unpacked.
MAX_STATISTICS_BYTES = 1 << 30
# Values that are read at most: they are objects of Python before they are columns.
MAX_CELLS = 1 << 26
# A file of these kinds has a byte or more for each value, or its rows are not all there.
_BYTE_A_CELL = (".dta", ".sav")
# A file of SAS for exchange consists of records of so many bytes.
_XPT_RECORD = 80
# How pyreadstat names the second of two columns of one name.
_TWICE = re.compile(r"(.+)_duplicated\d+")
# What the reader raises over a damaged file beside its own errors.
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError)
READERS: Mapping[str, str] = {
    ".dta": "read_dta",
    ".sav": "read_sav",
    ".zsav": "read_sav",
    ".por": "read_por",
    ".sas7bdat": "read_sas7bdat",
    ".xpt": "read_xport",
}


def read_statistics_file(origin: FileOrigin) -> MemoryTable:
    """The file's columns; DataError if it is not what its ending says, or is beyond the bounds."""
    library = import_extra("pyreadstat", "stats", f"The file {origin.name}")
    size = _check_size(origin)
    read = getattr(library, READERS[origin.path.suffix.lower()])
    _, head = _read(origin, library, read, metadataonly=True)
    most = _find_most_rows(origin, head, size)
    values, _ = _read(origin, library, read, row_limit=most + 1)
    if len(next(iter(values.values()), ())) > most:
        raise _refuse_size(origin, f"more than {most} rows", head)
    return _make_table(origin, values)


def _read(origin: FileOrigin, library: Any, read: Callable[..., Any], **options: Any) -> Any:
    """What pyreadstat makes of the file: columns and a description."""
    try:
        return read(str(origin.path), output_format="dict", **options)
    except OSError as error:
        raise unreadable_error(origin, error) from None
    except (library.ReadstatError, library.PyreadstatError, *_DAMAGE) as error:
        cause = printable(str(error))[:120] or type(error).__name__
        raise origin.error("CO-D173", f"It cannot be read as {origin.path.suffix}: {cause}. Export it again.") from None


def _check_size(origin: FileOrigin) -> int:
    """The file's bytes; DataError (CO-D173) for too many, or an end within a record."""
    try:
        size = origin.path.stat().st_size
    except OSError as error:
        raise unreadable_error(origin, error) from None
    if size > MAX_STATISTICS_BYTES:
        message = f"The file has {size >> 20} MiB; the limit is {MAX_STATISTICS_BYTES >> 20}"
        raise origin.error("CO-D173", f"{message}. Export the rows as CSV or Parquet.")
    if origin.path.suffix.lower() == ".xpt" and size % _XPT_RECORD:
        message = (
            f"It cannot be read as .xpt: its {size} bytes are no whole records of {_XPT_RECORD}, so its end is cut off"
        )
        raise origin.error("CO-D173", f"{message}. Export it again.")
    return size


def _find_most_rows(origin: FileOrigin, head: Any, size: int) -> int:
    """How many rows are read at most; DataError (CO-D173) if the file declares more, or more than it can have."""
    width: int = sum(head.variable_storage_width.values())
    columns: int = max(head.number_columns, 1)
    declared: int = head.number_rows or 0
    if origin.path.suffix.lower() in _BYTE_A_CELL and declared * columns > size:
        message = f"It declares {declared} rows of {columns} columns and has {size} bytes"
        raise origin.error("CO-D173", f"{message}. Export it again.")
    most = min(MAX_CELLS // columns, MAX_STATISTICS_BYTES // max(width, 1))
    if declared > most:
        raise _refuse_size(origin, f"{declared} rows", head)
    return most


def _refuse_size(origin: FileOrigin, rows: str, head: Any) -> DataError:
    bounds = f"the limit is {MAX_CELLS} values and {MAX_STATISTICS_BYTES >> 20} MiB unpacked"
    message = f"The file has {rows} of {head.number_columns} columns; {bounds}"
    return origin.error("CO-D173", f"{message}. Export the rows as CSV or Parquet.")


def _make_table(origin: FileOrigin, values: Mapping[str, Sequence[Any]]) -> MemoryTable:
    check_header(origin, [_find_name(name, values) for name in values], ())
    try:
        columns = {name: make_column([_plain(value) for value in column]) for name, column in values.items()}
    except ValueError as error:
        raise origin.error("CO-D173", f"In the file, {error}. Export it again.") from None
    if not columns or not len(next(iter(columns.values()))):
        raise origin.error("CO-D103", "The file has no rows. Export it again.")
    return MemoryTable(FileRows(origin), columns, "row", 1)


def _find_name(name: str, values: Mapping[str, Sequence[Any]]) -> str:
    """The name of a column in the file, which has it twice where the reader gave the second one another."""
    twice = _TWICE.fullmatch(name)
    return twice[1] if twice and twice[1] in values else name


def _plain(value: Any) -> object:
    """A value of Python instead of numpy's; blank text is missing, as these programs have it."""
    value = value.item() if hasattr(value, "item") else value
    return None if value == "" else value
