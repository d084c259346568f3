"""One file of several sites, divided into a file for each by the column that names each row's site."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

from coterie_learners.errors import pluralise
from coterie_learners.study.document import MAX_SITES
from coterie_node.data.draft.site_look import name_site, sniff_file
from coterie_node.data.findings import FileOrigin, join_values, quote
from coterie_node.data.mapping.convert import as_texts, decode
from coterie_node.data.source import check_header, stamp_file
from coterie_node.data.tables.table import SiteTable, open_table
from coterie_node.errors import ConfigError


def split_file(path: Path, by: str, folder: Path) -> list[Path]:
    """Write one CSV for each site into a folder: every value as it is, the column of sites left out.

    DataError (CO-D125) for a column that is not there, is blank somewhere, or names one site or very many; ConfigError
    (CO-F232) rather than overwrite a file.
    """
    origin = FileOrigin.of("all", path)
    stamp_file(origin)
    form = sniff_file(origin)
    table = open_table(origin, form.dialect, form.sheet)
    check_header(origin, table.header, [by])
    lines = _read_lines(table, by)
    blank = len(lines.pop("", []))
    if blank:
        raise origin.error(
            "CO-D125", f"The column {quote(by)} is blank in {pluralise(blank, 'row')}. Give every row its site."
        )
    if not 2 <= len(lines) <= MAX_SITES:
        raise origin.error(
            "CO-D125", f"The column {quote(by)} names {pluralise(len(lines), 'site')}. Name the column of sites."
        )
    names = {site: name_site(site) for site in lines}
    if len(set(names.values())) < len(names):
        text = f"The column {quote(by)} has {join_values(sorted(names), 8)}, two of which give the same name of a site"
        raise origin.error("CO-D125", f"{text}. Spell each site in one way.")
    header = [name for name in table.header if name != by]
    return list(_write_parts({names[site]: rows for site, rows in lines.items()}, header, form.separator, folder))


def _read_lines(table: SiteTable, by: str) -> dict[str, list[list[str]]]:
    """The rows of each site as text, without the column of sites."""
    out: dict[str, list[list[str]]] = {}
    for batch in table.batches(table.header):
        sites = as_texts(decode(batch[by]))
        columns = [as_texts(decode(batch[name])) for name in table.header if name != by]
        for site, row in zip(sites, zip(*columns, strict=True), strict=True):
            out.setdefault((site or "").strip(), []).append([value or "" for value in row])
    return out


def _write_parts(
    parts: Mapping[str, list[list[str]]], header: list[str], separator: str, folder: Path
) -> Iterator[Path]:
    for site, rows in parts.items():
        path = folder / f"{site}.csv"
        try:
            with path.open("x", encoding="utf-8", newline="") as file:
                csv.writer(file, delimiter=separator).writerows([header, *rows])
        except OSError as error:
            raise ConfigError("CO-F232", f"{path} cannot be written: {error.strerror}. Name another folder.") from None
        yield path
