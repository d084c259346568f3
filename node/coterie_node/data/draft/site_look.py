"""Look at all columns of a site's rows: which are variables, and which are constant, copies, or dates in order."""

from __future__ import annotations

import datetime
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from coterie_node.data.draft.column_words import ColumnWords
from coterie_node.data.draft.look import look_at_column
from coterie_node.data.draft.sniff import HEAD_ROWS, count_title_rows, sniff_form
from coterie_node.data.findings import FileOrigin
from coterie_node.data.mapping.convert import as_texts, decode
from coterie_node.data.mapping.dates import DateForm
from coterie_node.data.mapping.document import TableForm
from coterie_node.data.quality.profile import ColumnProfile, FileForm, SiteProfile, round_digits
from coterie_node.data.source import stamp_file
from coterie_node.data.tables.table import SiteTable, open_table

# Two dates are taken to be in an order that nearly all rows keep.
ORDERLY = 0.98

Texts = Sequence[str | None]


def look_at_file(path: Path, site: str, floor: int = 0) -> SiteProfile:
    """The profile of a file of rows; DataError if it cannot be read."""
    origin = FileOrigin.of(site, path)
    stamp_file(origin)
    form = sniff_file(origin)
    table = open_table(origin, form.dialect, form.sheet)
    return look_at_table(table, site, form, str(path), floor)


def sniff_file(origin: FileOrigin) -> TableForm:
    """The form of a file, with the rows before the header of a text file or a workbook."""
    if origin.path.suffix.lower() != ".xlsx":
        return sniff_form(origin.path)
    from coterie_node.data.tables.excel_table import read_first_rows

    return TableForm(skip=count_title_rows(read_first_rows(origin, HEAD_ROWS)))


def look_at_table(table: SiteTable, site: str, form: TableForm, file: str, floor: int) -> SiteProfile:
    """The profile of a table."""
    columns = read_texts(table)
    rows = len(next(iter(columns.values()), ()))
    looks = [look_at_column(ColumnWords.of(name, texts, form.decimal), floor) for name, texts in columns.items()]
    profile = SiteProfile(
        site=site,
        floor=floor,
        rows=int(round_digits(float(rows))) if floor else rows,
        file=Path(file).name if floor else file,
        written=FileForm.model_validate(form.model_dump(include=set(FileForm.model_fields))),
        columns=tuple(_note_copies(looks, columns)),
    )
    return profile.model_copy(update={"order": _find_order(profile.columns, columns)})


def read_texts(table: SiteTable) -> dict[str, Texts]:
    """All columns of a table as text, without blanks around it."""
    parts: dict[str, list[str | None]] = {name: [] for name in table.header}
    for batch in table.batches(table.header):
        for name, values in batch.items():
            parts[name] += [None if text is None else text.strip() for text in as_texts(decode(values))]
    return dict(parts)


def name_site(text: str) -> str:
    """A site's name from a file's or a level's: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:31] or "site"


def _note_copies(looks: Sequence[ColumnProfile], columns: Mapping[str, Texts]) -> list[ColumnProfile]:
    """Columns that hold what an earlier one holds, or whose variable an earlier one has, are left out with a word."""
    seen: dict[tuple[str | None, ...], str] = {}
    variables: dict[str, str] = {}
    out = []
    for look, texts in zip(looks, columns.values(), strict=True):
        content = tuple(texts)
        reason = ""
        if look.kind != "apart" and content in seen:
            reason = f"it holds the same as {seen[content]!r}"
        elif look.kind != "apart" and look.variable in variables:
            reason = f"{variables[look.variable]!r} seems to hold {look.variable} as well; name one of them"
        seen.setdefault(content, look.name)
        if not reason and look.kind != "apart":
            variables[look.variable] = look.name
        out.append(look.model_copy(update={"kind": "apart", "apart": reason}) if reason else look)
    return out


def _find_order(looks: Sequence[ColumnProfile], columns: Mapping[str, Texts]) -> tuple[tuple[str, str], ...]:
    """Pairs of date columns whose first date is hardly ever later than the second."""
    both_of = zip(looks, columns.values(), strict=True)
    dates = {look.name: _read_days(look.form, texts) for look, texts in both_of if look.kind == "date"}
    pairs = []
    for first, second in itertools.permutations(dates, 2):
        both = [(a, b) for a, b in zip(dates[first], dates[second], strict=True) if a is not None and b is not None]
        orderly = sum(a <= b for a, b in both)
        later = sum(a < b for a, b in both)
        if both and orderly >= ORDERLY * len(both) and later:
            pairs.append((first, second))
    return tuple(pairs)


def _read_days(form: str, texts: Texts) -> list[datetime.date | None]:
    read = DateForm(form).read
    return [None if text is None else read(text) for text in texts]
