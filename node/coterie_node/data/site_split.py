"""One CSV file of all sites, divided by the column that names each row's site."""

from __future__ import annotations

import csv
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from coterie_learners.errors import DataError
from coterie_learners.study.document import Study
from coterie_node.data.installed_source import RowsAddress

ALL = "all"


@contextmanager
def split_by_site(
    study: Study, addresses: Mapping[str, RowsAddress], by: str | None
) -> Iterator[Mapping[str, RowsAddress]]:
    """Addresses of each site's rows: as given, or parts of the one file `all`, which exist until the context ends."""
    if by is None:
        yield addresses
        return
    path = addresses.get(ALL)
    if len(addresses) != 1 or not isinstance(path, Path):
        raise DataError("CO-D125", f"--by {by} divides one file of all sites. Give it alone, as --data all=FILE.")
    with tempfile.TemporaryDirectory() as folder:
        yield _write_parts(study, path, by, Path(folder))


def _write_parts(study: Study, path: Path, by: str, folder: Path) -> Mapping[str, RowsAddress]:
    header, rows_by_site = _read_rows(study, path, by)
    parts: dict[str, RowsAddress] = {}
    for site, rows in rows_by_site.items():
        part = folder / f"{site}.csv"
        parts[site] = part
        with part.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    return parts


def _read_rows(study: Study, path: Path, by: str) -> tuple[list[str], Mapping[str, list[list[str]]]]:
    """The header without the column, and the rows of each site; DataError for a column or a site that is not there."""
    rows_by_site: defaultdict[str, list[list[str]]] = defaultdict(list)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if header.count(by) != 1:
                raise DataError(
                    "CO-D125", f"{path.name} has no single column {by!r}. Its columns: {', '.join(header)}."
                )
            at = header.index(by)
            for row in reader:
                if len(row) == len(header):
                    rows_by_site[row[at]].append([*row[:at], *row[at + 1 :]])
                elif row:
                    text = f"{path.name}, line {reader.line_num}: {len(row)} fields instead of {len(header)}"
                    raise DataError("CO-D125", f"{text}. Correct the line.")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError("CO-D125", f"{path} cannot be divided: {error}. Save it as CSV in UTF-8.") from None
    strange = sorted(set(rows_by_site) - set(study.sites))
    if strange:
        text = f"{path.name} names sites in {by!r} that the study does not have: {', '.join(map(repr, strange[:5]))}"
        raise DataError("CO-D125", f"{text}. The study's sites: {', '.join(study.sites)}.")
    return [*header[:at], *header[at + 1 :]], rows_by_site
