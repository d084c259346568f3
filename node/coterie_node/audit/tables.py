"""Rows of the history as text, JSON, CSV and Parquet, written as they come: memory does not grow with their number."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from coterie_node.audit.history import ENTRY_COLUMNS, HistoryEntry
from coterie_node.data.arrow import pa, pq
from coterie_node.data.findings import printable

_NUMBER_COLUMNS = frozenset({"block", "study", "round", "position", "attempt", "size"})
_HEADER = ("block", "time", "study", "site", "what", "step", "round", "bytes", "cid / details", "verdict")
_BATCH = 10_000
LONGEST_CELL = 80

Lines = Callable[[], Iterable[HistoryEntry]]


def write_text(lines: Lines, out: IO[str]) -> None:
    """An aligned table; `lines` is read twice, once for the widths."""
    widths = [len(name) for name in _HEADER]
    for line in lines():
        widths = [max(width, len(cell)) for width, cell in zip(widths, _format_cells(line), strict=True)]
    for row in _with_header(lines()):
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.write("  ".join(padded).rstrip() + "\n")


def write_json(lines: Iterable[HistoryEntry], out: IO[str]) -> None:
    """A JSON array, one entry a line."""
    start = "[\n"
    for line in lines:
        out.write(start + json.dumps(line.as_dict()))
        start = ",\n"
    out.write("[]\n" if start == "[\n" else "\n]\n")


def write_csv(lines: Iterable[HistoryEntry], out: IO[str]) -> None:
    """CSV without a cell that a spreadsheet takes for a formula."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(ENTRY_COLUMNS)
    for line in lines:
        writer.writerow(["" if v is None else escape_cell(v) for v in line.as_dict().values()])


def write_parquet(lines: Iterable[HistoryEntry], path: Path) -> None:
    """A Parquet file with the same columns."""
    schema = pa.schema([(name, pa.int64() if name in _NUMBER_COLUMNS else pa.string()) for name in ENTRY_COLUMNS])
    rows = iter(lines)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := [line.as_dict() for line in islice(rows, _BATCH)]:
            writer.write_table(pa.Table.from_pylist(batch, schema))


def escape_cell(value: Any) -> str:
    """A value as a cell that no spreadsheet computes and no terminal obeys."""
    text = printable(str(value))
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text


def _with_header(lines: Iterable[HistoryEntry]) -> Iterator[tuple[str, ...]]:
    yield _HEADER
    yield from map(_format_cells, lines)


def _format_cells(line: HistoryEntry) -> tuple[str, ...]:
    step = "" if line.position is None else f"{line.position}.{line.attempt} {line.kind}".rstrip()
    return (
        str(line.block),
        line.time,
        str(line.study or ""),
        printable(line.site),
        line.what,
        printable(step),
        "" if line.round is None else str(line.round),
        "" if line.size is None else str(line.size),
        printable(line.cid or line.details)[:LONGEST_CELL],
        line.verdict.partition(" ")[0] if line.verdict else "",
    )
