"""What a file of rows is to the rest of the node, and the checks that CSV and Parquet share.

Rows are counted from 0 in the order of the file; blank lines of a CSV are no rows.
"""

from __future__ import annotations

import difflib
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from coterie_learners.errors import DataError
from coterie_node.data.coding import Values
from coterie_node.data.findings import Origin, join_values, quote

Batch = Mapping[str, Values]


@dataclass(frozen=True)
class FileStamp:
    """Size and time of a file, by which a later pass knows it again."""

    size: int
    mtime_ns: int


class RowSource(Protocol):
    """An opened file whose header fits the study."""

    @property
    def origin(self) -> Origin:
        """Whose file it is."""

    @property
    def rows(self) -> int | None:
        """Number of rows, if the file declares it."""

    def batches(self) -> Iterator[Batch]:
        """The study's columns, batch by batch, the same every time; DataError if the file cannot be read to its end."""

    def places(self, rows: Sequence[int]) -> list[str]:
        """What to call these rows so that a person finds them."""


def stamp_file(origin: Origin) -> FileStamp:
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
    return FileStamp(status.st_size, status.st_mtime_ns)


def unreadable_error(origin: Origin, error: Exception) -> DataError:
    """The DataError for an error of the operating system."""
    cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return origin.error("CO-D102", f"{origin.path} cannot be read: {cause}. Check that this account may read it.")


def check_unchanged(origin: Origin, before: FileStamp) -> None:
    """DataError if the file is no longer the one that was checked."""
    if stamp_file(origin) != before:
        raise file_changed_error(origin)


def file_changed_error(origin: Origin) -> DataError:
    """The DataError for a file that is not the one that was checked."""
    return origin.error(
        "CO-D130",
        "The file changed since it was checked. Keep it as it is while the study runs; restore it, then start again.",
    )


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
