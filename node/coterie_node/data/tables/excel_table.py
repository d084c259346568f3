"""A sheet of an Excel workbook (.xlsx), read within bounds; formulas are refused, because their values may change."""

from __future__ import annotations

import itertools
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from coterie_learners.errors import DataError
from coterie_node.data.files.csv_file import Dialect
from coterie_node.data.findings import FileOrigin, join_values, printable
from coterie_node.data.source import FileRows, check_header, unreadable_error
from coterie_node.data.tables.cells import make_column, write_cell
from coterie_node.data.tables.packages import import_extra
from coterie_node.data.tables.table import MemoryTable

# A workbook is a zip archive: so many bytes, unpacked, are read at most.
MAX_UNPACKED = 1 << 30
# A sheet of Excel has so many rows at most.
MAX_SHEET_ROWS = 1 << 20
# How Excel packs the parts of a workbook.
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What the reader raises over a workbook that is damaged.
_DAMAGE = (
    *(KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError, EOFError, OverflowError, SyntaxError),
    *(zlib.error, zipfile.BadZipFile),
)


@dataclass(frozen=True)
class Sheet:
    """The cells of one sheet below its header, which ends in row `head`."""

    names: tuple[str, ...]
    rows: list[list[object]]
    head: int


def read_workbook(origin: FileOrigin, sheet: str, dialect: Dialect) -> MemoryTable:
    """The first sheet, or the one of that name; DataError for what is no workbook, or one that is beyond the bounds."""
    with _open_sheet(origin, sheet) as opened:
        content = _read_sheet(origin, opened, dialect)
    return _make_table(origin, content)


def read_first_rows(origin: FileOrigin, count: int) -> list[list[str]]:
    """The first rows of the first sheet as text; "" for an empty cell."""
    with _open_sheet(origin, "") as opened:
        rows = itertools.islice(_iterate(origin, opened), count)
        return [["" if value is None else str(value) for value in row] for row in rows]


@contextmanager
def _open_sheet(origin: FileOrigin, sheet: str) -> Iterator[Any]:
    excel = import_extra("openpyxl", "excel", f"The workbook {origin.name}")
    _check_archive(origin)
    try:
        book = excel.load_workbook(origin.path, read_only=True, data_only=False)
    except OSError as error:
        raise unreadable_error(origin, error) from None
    except _DAMAGE as error:
        raise _explain_damage(origin, error) from None
    try:
        if sheet and sheet not in book.sheetnames:
            sheets = join_values(book.sheetnames, 10)
            raise origin.error("CO-D172", f"There is no sheet {sheet!r}; it has {sheets}. Name one of them.")
        opened = book[sheet or book.sheetnames[0]]
        opened.reset_dimensions()  # some programs write a size of the sheet that is too small
        yield opened
    except _DAMAGE as error:
        raise _explain_damage(origin, error) from None
    finally:
        book.close()


def _explain_damage(origin: FileOrigin, error: Exception) -> DataError:
    cause = printable(str(error))[:120]
    return origin.error("CO-D172", f"It cannot be read as an Excel workbook: {cause}. Save it again.")


def _check_archive(origin: FileOrigin) -> None:
    try:
        with zipfile.ZipFile(origin.path) as archive:
            entries = archive.infolist()
    except OSError as error:
        raise unreadable_error(origin, error) from None
    except (zipfile.BadZipFile, NotImplementedError):
        raise origin.error("CO-D172", "It is no Excel workbook (.xlsx). Save it again, or as CSV in UTF-8.") from None
    if any(entry.compress_type not in _PACKED or entry.flag_bits & 1 for entry in entries):
        raise origin.error("CO-D172", "It is packed or encrypted otherwise than Excel packs. Save it again.")
    size = sum(entry.file_size for entry in entries)
    if size > MAX_UNPACKED:
        message = f"Unpacked it has {size >> 20} MiB; the limit is {MAX_UNPACKED >> 20}"
        raise origin.error("CO-D172", f"{message}. Export the rows as CSV or Parquet.")


def _read_sheet(origin: FileOrigin, sheet: Any, dialect: Dialect) -> Sheet:
    """The cells; blank rows are passed over."""
    names, rows, head = dialect.names, [], dialect.skip
    for number, cells in enumerate(_iterate(origin, sheet), 1):
        if number <= dialect.skip or all(value is None for value in cells):
            continue
        if not names:
            names, head = tuple(write_cell(value) or "" for value in cells), number
            continue
        rows.append(_fit(origin, cells, len(names), number))
    while names and not names[-1].strip() and all(row[len(names) - 1] is None for row in rows):
        names, rows = names[:-1], [row[:-1] for row in rows]
    return Sheet(names, rows, head)


def _iterate(origin: FileOrigin, sheet: Any) -> Iterator[list[object]]:
    for number, row in enumerate(sheet.iter_rows(), 1):
        if number > MAX_SHEET_ROWS:
            message = f"The sheet has a row beyond {MAX_SHEET_ROWS}, the last that Excel has"
            raise origin.error("CO-D172", f"{message}. Save it again.")
        for cell in row:
            if cell.data_type == "f":
                text = f"The cell {cell.coordinate} is a formula, whose value may change"
                raise origin.error("CO-D172", f"{text}. Copy the sheet and paste it as values.")
        yield [cell.value for cell in row]


def _fit(origin: FileOrigin, cells: Sequence[object], width: int, number: int) -> list[object]:
    beyond = [value for value in cells[width:] if value is not None]
    if beyond:
        raise origin.error("CO-D108", f"Row {number} has more cells than the header. Correct the sheet.")
    return [*cells[:width], *[None] * (width - len(cells))]


def _make_table(origin: FileOrigin, sheet: Sheet) -> MemoryTable:
    if not sheet.rows:
        raise origin.error("CO-D103", "The sheet has no rows. Name another sheet, or export the rows.")
    check_header(origin, sheet.names, ())
    try:
        columns = {name: make_column([row[j] for row in sheet.rows]) for j, name in enumerate(sheet.names)}
    except ValueError as error:
        raise origin.error("CO-D172", f"In a cell, {error}. Correct the sheet.") from None
    return MemoryTable(FileRows(origin), columns, "row", sheet.head + 1)
