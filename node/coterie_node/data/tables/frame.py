"""A table of Python in place of a file: of pandas, polars, Arrow or a DuckDB relation, by Arrow's C stream."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

from coterie_learners.study.design import Design
from coterie_node.data.arrow import pa, pc
from coterie_node.data.arrow_values import Values
from coterie_node.data.findings import Origin, printable
from coterie_node.data.installed_source import RowsAddress
from coterie_node.data.source import Batch, check_header, check_kinds

# Rows that are checked in one go.
_ROWS = 1 << 16


@runtime_checkable
class ArrowStream(Protocol):
    """Whatever hands out its rows as Arrow batches: DataFrames of pandas and polars, tables, relations of DuckDB."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """A capsule with the stream."""


@dataclass(frozen=True)
class FrameAddress:
    """A table of Python as the place of a site's rows."""

    frame: ArrowStream


# The origin of rows on this machine: a file, an address, or a table of Python.
RowsPlace: TypeAlias = RowsAddress | FrameAddress


@dataclass(frozen=True)
class FrameTable:
    """The study's columns of a table of Python, in memory."""

    origin: Origin
    table: pa.Table
    wanted: tuple[str, ...]

    @property
    def rows(self) -> int | None:
        """Number of rows."""
        return int(self.table.num_rows)

    def batches(self) -> Iterator[Batch]:
        """The columns, with text of one kind."""
        for batch in self.table.to_batches(max_chunksize=_ROWS):
            yield {name: _plain_text(batch.column(name)) for name in self.wanted}

    def places(self, rows: Sequence[int]) -> list[str]:
        """Numbers of rows, the first being row 1."""
        return [f"row {row + 1}" for row in rows]

    def stamp(self) -> str:
        """Always the same: nobody else can change the table."""
        return f"{self.table.num_rows} rows in memory"

    def digest(self) -> bytes:
        """SHA-256 of the columns' names and values, row by row."""
        total = hashlib.sha256(json.dumps(self.wanted).encode())
        for batch in self.batches():
            for row in zip(*(batch[name].to_pylist() for name in self.wanted), strict=True):
                total.update(json.dumps(row, default=str).encode() + b"\n")
        return total.digest()


def open_frame(address: FrameAddress, design: Design, site: str) -> FrameTable:
    """The study's columns of a table; DataError if it has values of mixed types, or a column is missing."""
    origin = Origin(site, f"a {type(address.frame).__name__} of Python", "table")
    try:
        table = pa.table(cast(Any, address.frame))
    except (pa.ArrowException, TypeError, ValueError) as error:
        cause = printable(str(error).splitlines()[0])[:120]
        text = f"A column has values of more than one type, or of one that Arrow has not: {cause}"
        raise origin.error("CO-D111", f"{text}. Convert it to numbers, text or dates.") from None
    wanted = (*design.file_columns, *design.identifier)
    check_header(origin, table.column_names, wanted)
    table = table.select(list(wanted))
    check_kinds(origin, design, {field.name: _plain_kind(field.type) for field in table.schema})
    if not table.num_rows:
        raise origin.error("CO-D103", "There are columns and no rows. Give the rows as well.")
    return FrameTable(origin, table, wanted)


def _plain_kind(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_string_view(kind) else kind


def _plain_text(column: Values) -> Values:
    return cast(Values, pc.cast(column, pa.string())) if pa.types.is_string_view(column.type) else column
