"""A site's rows in a CSV file: UTF-8, with or without a byte order mark, a header, commas, quotes as in RFC 4180.

All fields are read as text, so that messages can show what stands in the file. Blank lines are passed over.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Literal

import pyarrow as pa
import pyarrow.csv as arrow_csv

from coterie_learners.errors import DataError
from coterie_node.findings import SHOWN, Finding, Origin, quote
from coterie_node.source import Batch, check_header, unreadable

HEAD = 1 << 20
BLOCK = 8 << 20

Skip = Callable[[arrow_csv.InvalidRow], Literal["skip"]]


@dataclass(frozen=True)
class CsvFile:
    """A CSV file whose header, ending in line `head`, fits the study."""

    origin: Origin
    header: tuple[str, ...]
    head: int
    variables: tuple[str, ...]
    rows: int | None = field(default=None, init=False)

    def batches(self) -> Iterator[Batch]:
        """The study's columns as text; at the end, DataError for rows with too few or too many fields."""
        ragged = Finding()

        def skip(row: arrow_csv.InvalidRow) -> Literal["skip"]:
            ragged.total += 1
            if len(ragged.first) < SHOWN:
                ragged.first.append(((row.number or 0) - self.head - 1, row.actual_columns))
            return "skip"

        total = 0
        try:
            with self.origin.path.open("rb") as file:
                for batch in self._reader(file, skip):
                    total += batch.num_rows
                    yield dict(zip(self.variables, batch.columns, strict=True))
        except pa.ArrowInvalid as error:
            raise self._malformed(error) from None
        except OSError as error:
            raise unreadable(self.origin, error) from None
        # A quotation mark that is not closed swallows rows without a trace, or leaves ragged ones: look for it first.
        self._check_quotes(total + ragged.total)
        if ragged.total:
            raise self._ragged(ragged, total + ragged.total)

    def places(self, rows: Sequence[int], total: int) -> list[str]:
        """Line numbers, the header being line 1; numbers of rows where quoted fields span lines."""
        wanted, lines, count = set(rows), {}, 0
        for number, _ in self._lines():
            if count in wanted:
                lines[count] = number
            count += 1
        return [f"line {lines[row]}" if count == total else f"data row {row + 1}" for row in rows]

    def _reader(self, file: BinaryIO, skip: Skip) -> arrow_csv.CSVStreamingReader:
        # Columns go by number, so that no name of the file reaches the parser. One thread, so that bad rows have
        # numbers; it is no slower.
        numbers = [str(self.header.index(name)) for name in self.variables]
        return arrow_csv.open_csv(
            file,
            read_options=arrow_csv.ReadOptions(
                use_threads=False,
                block_size=BLOCK,
                skip_rows=self.head,
                column_names=[str(j) for j in range(len(self.header))],
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=numbers,
                column_types={number: pa.string() for number in numbers},
                strings_can_be_null=False,
            ),
        )

    def _lines(self) -> Iterator[tuple[int, str]]:
        """Lines below the header that are not blank, with their numbers; bytes as Latin-1, which takes any."""
        with self.origin.path.open(encoding="latin-1") as file:
            yield from ((n, line) for n, line in enumerate(file, 1) if n > self.head and line != "\n")

    def _check_quotes(self, total: int) -> None:
        """Read once more, strictly, if records span lines or a quotation mark is without a mate."""
        count = marks = 0
        for _, line in self._lines():
            count += 1
            marks += line.count('"')
        if count == total and marks % 2 == 0:
            return
        before = 0
        with self.origin.path.open(encoding="latin-1", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                for _ in reader:
                    before = reader.line_num
            except csv.Error as error:
                raise self._unquoted(before + 1, error) from None

    def _unquoted(self, line: int, error: csv.Error) -> DataError:
        return self.origin.error(
            "CO-D110",
            f"The quotation marks do not match in the record that begins in line {line} ({error}). "
            'Close the quotation mark; inside a quoted field, write it twice ("").',
        )

    def _ragged(self, ragged: Finding, total: int) -> DataError:
        names = self.places([row for row, _ in ragged.first], total)
        shown = ", ".join(f"{name} has {fields}" for name, (_, fields) in zip(names, ragged.first, strict=True))
        more = f" and {ragged.total - len(ragged.first)} more" if ragged.total > len(ragged.first) else ""
        return self.origin.error(
            "CO-D108",
            f"The header has {len(self.header)} fields, other than {ragged.total} of {total} rows: {shown}{more}. "
            "A comma inside text needs quotation marks around the field; decimals are written with a dot.",
        )

    def _malformed(self, error: pa.ArrowInvalid) -> DataError:
        with self.origin.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode()
                except UnicodeDecodeError as wrong:
                    return not_utf8(self.origin, f"line {number} has the byte 0x{line[wrong.start]:02x}")
        return self.origin.error("CO-D110", f"The file cannot be read as CSV: {quote(error)}. Export it again.")


def open_csv(origin: Origin, variables: tuple[str, ...]) -> CsvFile:
    """Read and check the header; DataError says what is wrong with it."""
    try:
        with origin.path.open("rb") as file:
            raw = file.read(HEAD)
    except OSError as error:
        raise unreadable(origin, error) from None
    if b"\0" in raw:
        raise not_utf8(origin, "it has zero bytes, as UTF-16 and spreadsheets do")
    stream = io.StringIO(raw.decode("utf-8-sig", errors="surrogateescape"), newline="")
    header, head = _header(origin, stream)
    _check_delimiter(origin, header)
    if not stream.read().strip("\r\n"):
        # Only a quotation mark that is not closed, or a file of another kind, has a header of 1 MiB.
        text = "There is a header and no rows. Export the rows as well."
        raise origin.error("CO-D103", text) if len(raw) < HEAD else origin.error("CO-D110", _ENDLESS)
    check_header(origin, header, variables)
    return CsvFile(origin, tuple(header), head, variables)


def not_utf8(origin: Origin, why: str) -> DataError:
    """The DataError for text in another encoding."""
    return origin.error("CO-D109", f"The file is not UTF-8 text: {why}. Save it as CSV in UTF-8.")


_ENDLESS = "The header does not end within 1 MiB. Close its quotation marks, or export the file again as CSV."


def _header(origin: Origin, stream: io.StringIO) -> tuple[list[str], int]:
    """The names in the first line that is not blank, and the number of the line that they end in."""
    reader = csv.reader(stream)
    try:
        header = next((record for record in reader if record), [])
    except csv.Error as error:
        raise origin.error("CO-D110", f"The header cannot be read as CSV: {error}. Export it again.") from None
    if not header:
        raise origin.error("CO-D103", "The file has blank lines only. Export it again, with a header and rows.")
    if any("\udc80" <= c <= "\udcff" for name in header for c in name):
        raise not_utf8(origin, "its header has bytes of another encoding")
    return header, reader.line_num


def _check_delimiter(origin: Origin, header: Sequence[str]) -> None:
    names = {";": "semicolons", "\t": "tabs", "|": "bars"}
    used = [c for c in names if len(header) == 1 and c in header[0]]
    if used:
        raise origin.error(
            "CO-D107",
            f"The header {quote(header[0])} is one column: fields are separated by {names[used[0]]}. "
            "Export with commas, and decimals with a dot.",
        )
