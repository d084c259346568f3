"""A site's rows in a CSV file: UTF-8, with or without a byte order mark, a header, commas, quotes as in RFC 4180.

All fields are read as text, so that messages can show what stands in the file. Blank lines are passed over. A mapping
may declare another separator or encoding, lines before the header, or the names of a file without a header.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from coterie_learners.errors import DataError
from coterie_node.data.arrow import arrow_csv, pa
from coterie_node.data.findings import EXAMPLES, ColumnFault, FileOrigin, printable, quote
from coterie_node.data.source import Batch, FileRows, check_header, unreadable_error

MAX_HEADER_BYTES = 1 << 20
# A file in another encoding than UTF-8 stays in memory while it is read.
MAX_RECODED = 1 << 29
BLOCK = 8 << 20
# Latin-1 takes any bytes, so that a message can still name the line of text in another encoding.
BYTES = "latin-1"
NEWLINE, RETURN, QUOTE = b'\n\r"'


@dataclass(frozen=True)
class Dialect:
    """How a file of text is written: `skip` lines come before the header, which `names` replace where it has none."""

    separator: str = ","
    encoding: str = "utf-8"
    skip: int = 0
    names: tuple[str, ...] = ()


COMMA_SEPARATED = Dialect()


@dataclass(frozen=True)
class CsvFile(FileRows):
    """A CSV file whose header, ending in line `head`, fits the study."""

    header: tuple[str, ...]
    head: int
    variables: tuple[str, ...]
    rows: int | None = field(default=None, init=False)
    dialect: Dialect = COMMA_SEPARATED

    def batches(self) -> Iterator[Batch]:
        """The study's columns as text; DataError for rows with too few or too many fields."""
        total = 0
        try:
            with open_utf8(self.origin, self.dialect) as file:
                for batch in self._reader(file):
                    total += batch.num_rows
                    yield dict(zip(self.variables, batch.columns, strict=True))
        except pa.ArrowInvalid as error:
            raise self._find_malformed_row(error) from None
        except OSError as error:
            raise unreadable_error(self.origin, error) from None
        # A quotation mark that is not closed swallows rows without a trace.
        count, marks = self._lines()
        if count != total or marks % 2:
            self._check_records()

    def places(self, rows: Sequence[int]) -> list[str]:
        """Numbers of the lines that the rows begin in, the header being line 1."""
        wanted = set(rows)
        upto = enumerate(itertools.islice(self._records(), max(wanted) + 1))
        lines = {row: line for row, (line, _) in upto if row in wanted}
        return [f"line {lines[row]}" if row in lines else f"data row {row + 1}" for row in rows]

    def _reader(self, file: BinaryIO) -> arrow_csv.CSVStreamingReader:
        # Columns go by number, so that no name of the file reaches the parser.
        numbers = [str(self.header.index(name)) for name in self.variables]
        return arrow_csv.open_csv(
            file,
            read_options=arrow_csv.ReadOptions(
                block_size=BLOCK,
                skip_rows=self.head,
                column_names=[str(j) for j in range(len(self.header))],
            ),
            parse_options=arrow_csv.ParseOptions(delimiter=self.dialect.separator, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=numbers,
                column_types={number: pa.string() for number in numbers},
                strings_can_be_null=False,
            ),
        )

    def _lines(self) -> tuple[int, int]:
        """How many lines below the header are not blank, and how many quotation marks they have."""
        with self._open_text(None) as file:
            head = list(itertools.islice(file, self.head))
        count, marks = -sum(line != "\n" for line in head), -sum(line.count('"') for line in head)
        before = True
        with open_utf8(self.origin, self.dialect) as file:
            while (chunk := np.frombuffer(file.read(BLOCK), np.uint8)).size:
                # A line that is not blank begins where another letter follows the end of a line.
                ends = (chunk == NEWLINE) | (chunk == RETURN)
                count += int(np.count_nonzero(ends[:-1] & ~ends[1:])) + bool(before and not ends[0])
                marks += int(np.count_nonzero(chunk == QUOTE))
                before = bool(ends[-1])
        return count, marks

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """The records below the header as Python reads them, and the lines that they begin in."""
        with self._open_text("") as file:
            reader = csv.reader(file, strict=True, delimiter=self.dialect.separator)
            begin = 1
            try:
                for record in reader:
                    if record and begin > self.head:
                        yield begin, record
                    begin = reader.line_num + 1
            except csv.Error as error:
                raise self.origin.error(
                    "CO-D110",
                    f"The record that begins in line {begin} cannot be read as CSV: {error}. "
                    'Close its quotation marks; inside a quoted field, write them twice ("").',
                ) from None

    def _open_text(self, newline: str | None) -> io.TextIOWrapper:
        """The file as text of which each byte is a letter."""
        return io.TextIOWrapper(open_utf8(self.origin, self.dialect), encoding=BYTES, newline=newline)

    def _check_records(self) -> None:
        """Read the file once more, strictly: DataError for quotation marks or numbers of fields that do not fit."""
        total, ragged = 0, ColumnFault()
        for line, record in self._records():
            total += 1
            if len(record) == len(self.header):
                continue
            ragged.total += 1
            if len(ragged.first) < EXAMPLES:
                ragged.first.append((line, len(record)))
        if not ragged.total:
            return
        examples = ", ".join(f"line {line} has {fields}" for line, fields in ragged.first)
        suffix = f" and {ragged.total - EXAMPLES} more" if ragged.total > EXAMPLES else ""
        raise self.origin.error(
            "CO-D108",
            f"The header has {len(self.header)} fields, other than {ragged.total} of {total} rows: {examples}{suffix}. "
            f"{self._explain_fields()}",
        )

    def _explain_fields(self) -> str:
        if self.dialect.separator == ",":
            return "A comma inside text needs quotation marks around the field; decimals are written with a dot."
        return f"A {quote(self.dialect.separator)} inside text needs quotation marks around the field."

    def _find_malformed_row(self, error: pa.ArrowInvalid) -> DataError:
        """What is wrong with a file that Arrow cannot read; its own message quotes a whole row."""
        try:
            self._check_records()
        except DataError as data_error:
            return data_error
        with open_utf8(self.origin, self.dialect) as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode()
                except UnicodeDecodeError as wrong:
                    return utf8_error(self.origin, f"line {number} has the byte 0x{line[wrong.start]:02x}")
        return self.origin.error("CO-D110", f"The file cannot be read as CSV: {quote(error)}. Export it again.")


def open_utf8(origin: FileOrigin, dialect: Dialect = COMMA_SEPARATED) -> BinaryIO:
    """The file as UTF-8 bytes, recoded in memory where it is in another encoding; DataError if that cannot be."""
    file = origin.path.open("rb")
    if dialect.encoding == "utf-8":
        return file
    with file:
        raw = file.read(MAX_RECODED + 1)
    if len(raw) > MAX_RECODED:
        most = f"more than the {MAX_RECODED >> 20} MiB that are recoded from {dialect.encoding}"
        raise origin.error("CO-D109", f"The file has {most}. Save it as CSV in UTF-8.")
    if dialect.encoding == "utf-16" and not raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise origin.error("CO-D109", "The file is not utf-16 text: it lacks the mark of it. Name its encoding.")
    try:
        return io.BytesIO(raw.decode(dialect.encoding).encode())
    except UnicodeError as error:
        cause = printable(str(error))[:120]
        raise origin.error("CO-D109", f"The file is not {dialect.encoding} text: {cause}. Name its encoding.") from None


def open_csv(origin: FileOrigin, variables: tuple[str, ...], dialect: Dialect = COMMA_SEPARATED) -> CsvFile:
    """Read and check the header; DataError says what is wrong with it."""
    try:
        with open_utf8(origin, dialect) as file:
            raw = file.read(MAX_HEADER_BYTES)
    except OSError as error:
        raise unreadable_error(origin, error) from None
    _check_spreadsheet(origin, raw)
    if b"\0" in raw:
        raise utf8_error(origin, "it has zero bytes, as UTF-16 and spreadsheets do")
    # Python's own limit, 128 KiB, is less than a long note; Arrow's is a block.
    csv.field_size_limit(BLOCK)
    stream = io.StringIO(raw.decode("utf-8-sig", errors="surrogateescape"), newline="")
    header, head = _header(origin, stream, dialect)
    _check_delimiter(origin, header, dialect)
    if not stream.read().strip("\r\n"):
        text = "There is a header and no rows. Export the rows as well."
        raise origin.error("CO-D103", text) if len(raw) < MAX_HEADER_BYTES else origin.error("CO-D110", _ENDLESS)
    check_header(origin, header, variables)
    return CsvFile(origin, tuple(header), head, variables, dialect=dialect)


# How files begin that are no text.
_SIGNATURES = {b"PK\x03\x04": "an Excel workbook (.xlsx) or a zip archive", b"\x1f\x8b": "compressed by gzip"}


def _check_spreadsheet(origin: FileOrigin, raw: bytes) -> None:
    """DataError for a workbook or an archive whose name ends as a text file's does."""
    for signature, kind in _SIGNATURES.items():
        if raw.startswith(signature):
            raise origin.error("CO-D109", f"The file is not text: it is {kind}. Save it as CSV in UTF-8.")


def utf8_error(origin: FileOrigin, cause: str) -> DataError:
    """The DataError for text in another encoding."""
    return origin.error("CO-D109", f"The file is not UTF-8 text: {cause}. Save it as CSV in UTF-8.")


_ENDLESS = "The header does not end within 1 MiB. Export the file again as CSV, one row a line."


def _header(origin: FileOrigin, stream: io.StringIO, dialect: Dialect) -> tuple[list[str], int]:
    """The names in the first line that is not blank, and the number of the line that they end in."""
    for _ in range(dialect.skip):
        stream.readline()
    if dialect.names:
        return list(dialect.names), dialect.skip
    reader = csv.reader(stream, strict=True, delimiter=dialect.separator)
    try:
        header = next((record for record in reader if record), [])
    except csv.Error as error:
        raise origin.error(
            "CO-D110", f"The header cannot be read as CSV: {error}. Close its quotation marks."
        ) from None
    if not header:
        raise origin.error("CO-D103", "The file has blank lines only. Export it again, with a header and rows.")
    if any("\udc80" <= c <= "\udcff" for name in header for c in name):
        raise utf8_error(origin, "its header has bytes of another encoding")
    return header, dialect.skip + reader.line_num


def _check_delimiter(origin: FileOrigin, header: Sequence[str], dialect: Dialect) -> None:
    if header[0].lower().startswith("sep="):
        raise origin.error(
            "CO-D107",
            f"The first line {quote(','.join(header))} names the separator for a spreadsheet; it is not a header. "
            "Delete this line, and separate fields by commas (a mapping takes skip = 1 and the separator).",
        )
    names = {";": "semicolons", "\t": "tabs", "|": "bars"}
    used = [c for c in names if len(header) == 1 and c in header[0] and not dialect.names]
    if used:
        raise origin.error(
            "CO-D107",
            f"The header {quote(header[0])} is one column: fields are separated by {names[used[0]]}. "
            "Export with commas, and decimals with a dot, or declare the separator in a mapping.",
        )
