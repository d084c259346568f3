"""Sources of other packages: rows by an address such as `sqlite:/data/stroke.db?SELECT ...`, not from a file.

An entry point in the group `coterie.sources` has the scheme of its addresses as its name, and as its value a function
from an address to a `Source`. The node does all else: it checks names, types and values, and takes as the identity of
the rows the digest of what the source gives.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, TypeAlias

from coterie_learners.study.design import Design
from coterie_node.data.arrow import pa
from coterie_node.data.arrow_values import Values
from coterie_node.data.findings import Origin, printable, quote
from coterie_node.data.source import Batch, check_header, check_kinds

SOURCE_GROUP = "coterie.sources"


class Source(Protocol):
    """Rows of one site that come from somewhere else than a CSV or Parquet file.

    It gives the same rows in the same order each time, as long as nobody changes them. DataError if it cannot.
    """

    @property
    def name(self) -> str:
        """What messages and results call it; it holds no password and no value of a patient."""

    def columns(self) -> Sequence[str]:
        """Names of the columns that there are."""

    def batches(self, columns: Sequence[str]) -> Iterator[Mapping[str, Sequence[object]]]:
        """These columns, a batch of rows after the other: numbers, texts or dates, None where a value is missing."""


@dataclass(frozen=True)
class SourceAddress:
    """An address of another package's source. It may hold a secret, so that only `name`, its scheme, is shown."""

    name: str
    text: str


RowsAddress: TypeAlias = Path | SourceAddress


def parse_rows_address(text: str, folder: Path | None = None) -> RowsAddress:
    """The place of rows: an address whose scheme is installed, or a file, in `folder` unless its path is absolute."""
    scheme, colon, _ = text.partition(":")
    if colon and entry_points(group=SOURCE_GROUP, name=scheme):
        return SourceAddress(scheme, text)
    path = Path(text).expanduser()
    return path if folder is None else folder / path


def open_installed(address: SourceAddress, design: Design, site: str) -> InstalledRows:
    """The rows at an address, with the study's columns; DataError if there is no source, or a column is missing."""
    (entry, *_) = entry_points(group=SOURCE_GROUP, name=address.name)
    source: Source = entry.load()(address.text)
    origin = Origin(site, source.name)
    wanted = (*design.file_columns, *design.identifier)
    check_header(origin, source.columns(), wanted)
    return InstalledRows(origin, source, design, wanted)


@dataclass(frozen=True)
class InstalledRows:
    """Rows of another package's source, whose columns fit the study by name; their types are checked as they come."""

    origin: Origin
    source: Source
    design: Design
    wanted: tuple[str, ...]

    @property
    def rows(self) -> int | None:
        """None: they are read once and kept in memory."""
        return None

    def batches(self) -> Iterator[Batch]:
        """The study's columns as Arrow has them; DataError for values of mixed or other types."""
        for raw in self.source.batches(self.wanted):
            batch = {name: self._to_arrow(name, raw[name]) for name in self.wanted}
            check_kinds(self.origin, self.design, {name: values.type for name, values in batch.items()})
            yield batch

    def places(self, rows: Sequence[int]) -> list[str]:
        """Numbers of rows, the first being row 1."""
        return [f"row {row + 1}" for row in rows]

    def stamp(self) -> str:
        """The digest: nothing cheaper is known of rows that are no file."""
        return self.digest().hex()

    def digest(self) -> bytes:
        """SHA-256 of the study's columns, row by row, however they are cut into batches."""
        total = hashlib.sha256(json.dumps(self.wanted).encode())
        for batch in self.source.batches(self.wanted):
            for row in zip(*(batch[name] for name in self.wanted), strict=True):
                total.update(json.dumps(row, default=str).encode() + b"\n")
        return total.digest()

    def _to_arrow(self, name: str, values: Sequence[object]) -> Values:
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError) as error:
            cause = printable(str(error).splitlines()[0])[:120]
            message = f"The column {quote(name)} has values of more than one type: {cause}"
            raise self.origin.error(
                "CO-D111", f"{message}. Let the source convert them to numbers or to text."
            ) from None
