"""What rows are to the rest of the node, whatever they come from, and the checks that all sources share.

Rows are counted from 0 in their order; blank lines of a CSV are no rows. A source has an identity: a stamp, by which a
later pass knows cheaply that nothing changed, and a digest of all its content.
"""

from __future__ import annotations

import difflib
import hashlib
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from coterie_learners.errors import DataError
from coterie_learners.study.design import Design
from coterie_node.data.arrow import pa
from coterie_node.data.arrow_values import Values
from coterie_node.data.coding import is_storable
from coterie_node.data.findings import FileOrigin, Origin, join_values, quote

Batch = Mapping[str, Values]


class SourceIdentity(Protocol):
    """The origin of rows, and the marks by which they are recognised."""

    @property
    def origin(self) -> Origin:
        """Whose rows, and from where."""

    def stamp(self) -> str:
        """Text that changes when the rows may have changed; DataError if they cannot be read."""

    def digest(self) -> bytes:
        """SHA-256 of all the content (32 bytes); DataError if it cannot be read."""


class RowSource(SourceIdentity, Protocol):
    """Opened rows whose columns fit the study."""

    @property
    def rows(self) -> int | None:
        """Number of rows, if the file declares it."""

    def batches(self) -> Iterator[Batch]:
        """The study's columns, batch by batch, the same every time; DataError if they cannot be read to their end."""

    def places(self, rows: Sequence[int]) -> list[str]:
        """What to call these rows so that a person finds them."""


@dataclass(frozen=True)
class FileRows:
    """A file by its identity: its size and time, and the SHA-256 of its bytes."""

    origin: FileOrigin

    def stamp(self) -> str:
        """Size and time of the file; DataError if there is no file that can be read."""
        return stamp_file(self.origin)

    def digest(self) -> bytes:
        """SHA-256 of the file's bytes."""
        try:
            with self.origin.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise unreadable_error(self.origin, error) from None


def stamp_file(origin: FileOrigin) -> str:
    """Size and time of the file; DataError if there is no file that can be read."""
    try:
        status = origin.path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise origin.error("CO-D101", f"There is no file {origin.path}. Check the path.") from None
    except (OSError, ValueError) as error:
        raise unreadable_error(origin, error) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise origin.error("CO-D102", f"{origin.path} is {kind}. Name one CSV or Parquet file.")
    if status.st_size == 0:
        raise origin.error("CO-D103", "The file is empty. Export it again, with a header and rows.")
    return f"{status.st_size} bytes, {status.st_mtime_ns} ns"


def unreadable_error(origin: FileOrigin, error: Exception) -> DataError:
    """The DataError for an error of the operating system."""
    cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return origin.error("CO-D102", f"{origin.path} cannot be read: {cause}. Check that this account may read it.")


def check_unchanged(source: SourceIdentity, before: str) -> None:
    """DataError if the rows are no longer those that were checked."""
    if source.stamp() != before:
        raise explain_change(source.origin)


def explain_change(origin: Origin) -> DataError:
    """The DataError for rows that are not those that were checked."""
    return origin.error(
        "CO-D130",
        f"The {origin.kind} changed since it was checked. Keep it as it is while the study runs; restore it, then "
        "start again.",
    )


def check_kinds(origin: Origin, design: Design, kinds: Mapping[str, pa.DataType]) -> None:
    """DataError for a column that is stored as something that the study does not declare."""
    for name in design.file_columns:
        variable, kind = design.study.variables[name], kinds[name]
        if not is_storable(kind, variable):
            wanted = "text or whole numbers" if variable.type == "category" else "numbers"
            raise origin.error(
                "CO-D111",
                f"The column {quote(name)} is stored as {quote(kind)}, but the study declares a {variable.type}. "
                f"Store it as {wanted}.",
            )
    for name in design.identifier:
        kind = kinds[name]
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
        if not (text or pa.types.is_integer(kind) or pa.types.is_date(kind)):
            what = f"The identifying column {quote(name)} is stored as {quote(kind)}."
            raise origin.error("CO-D111", f"{what} Store it as text, whole numbers or dates.")


def check_header(origin: Origin, header: Sequence[str], wanted: Sequence[str]) -> None:
    """DataError unless the names of the columns are unique, not blank, and hold all wanted ones."""
    blank = [j + 1 for j, name in enumerate(header) if not name.strip()]
    if blank:
        raise origin.error(
            "CO-D105",
            f"The header has no name for column {join_values(blank, 5)}. Name it or leave it out "
            "(R's write.csv writes such a column of row names unless row.names = FALSE).",
        )
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        raise origin.error(
            "CO-D104", f"The header has {join_values(twice, 5)} more than once. Rename or leave out the rest."
        )
    missing = [name for name in wanted if name not in header]
    if missing:
        suggestions = "; ".join(f"{quote(name)} ({_near(name, header)})" for name in missing[:5])
        suffix = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise origin.error(
            "CO-D106",
            f"The study needs columns that the file does not have: {suggestions}{suffix}."
            " Rename the columns, or export them.",
        )


def _near(name: str, header: Sequence[str]) -> str:
    folded = {column.strip().casefold(): column for column in reversed(header)}
    near = [folded[n] for n in difflib.get_close_matches(name.casefold(), folded, 3)]
    return f"did you mean {join_values(near, 3)}?" if near else f"the file has {join_values(header, 10)}"
