"""How a file of text is written: encoding, separator and decimal sign, found from its first part."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from coterie_node.data.mapping.document import TableForm

SAMPLE = 1 << 18
# A header stands in one of the first rows.
HEAD_ROWS = 20
TEXT_SUFFIXES = (".csv", ".txt", ".tsv")
_COMMA_NUMBER = re.compile(r"[+-]?[0-9]+,[0-9]+")
_POINT_NUMBER = re.compile(r"[+-]?[0-9]+\.[0-9]+")


def sniff_form(path: Path) -> TableForm:
    """The form of a file; of another file than text the plain one. OSError if it cannot be read."""
    if path.suffix.lower() not in TEXT_SUFFIXES:
        return TableForm()
    with path.open("rb") as file:
        raw = file.read(SAMPLE)
    encoding, text = _decode(raw)
    separator = _find_separator(text)
    decimal = "," if separator != "," and _has_decimal_commas(text, separator) else "."
    skip = count_title_rows(_cut_lines(text, separator))
    form = {"separator": separator, "decimal": decimal, "encoding": encoding, "skip": skip}
    return TableForm.model_validate(form)


def count_title_rows(rows: Sequence[Sequence[str]]) -> int:
    """How many rows come before the header: those with fewer than half the cells of the fullest row."""
    filled = [sum(bool(cell.strip()) for cell in row) for row in rows[:HEAD_ROWS]]
    most = max(filled, default=0)
    return next((k for k, cells in enumerate(filled) if 2 * cells >= most), 0) if most > 2 else 0


def _decode(raw: bytes) -> tuple[str, str]:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16", raw.decode("utf-16", errors="replace")
    try:
        # the sample may end inside a letter
        return "utf-8", raw.decode("utf-8-sig") if len(raw) < SAMPLE else raw[: raw.rfind(b"\n")].decode("utf-8-sig")
    except UnicodeDecodeError:
        return "cp1252", raw.decode("cp1252", errors="replace")


def _find_separator(text: str) -> str:
    """The sign that cuts the header into the most fields, and the next lines into as many, after the fewest titles."""

    def score(sign: str) -> tuple[bool, int, int]:
        rows = [row for row in _cut_lines(text, sign) if any(row)]
        titles = count_title_rows(rows)
        widths = [len(row) for row in rows[titles:]]
        width = widths[0] if widths else 0
        return width > 1 and len(set(widths)) == 1, -titles, width

    return max(",;\t|", key=score)


def _cut_lines(text: str, separator: str) -> list[list[str]]:
    """The first lines as fields; a blank line has none."""
    lines = text.splitlines()[:HEAD_ROWS]
    return [next(csv.reader([line], delimiter=separator), []) if line.strip() else [] for line in lines]


def _has_decimal_commas(text: str, separator: str) -> bool:
    fields = [field.strip() for row in csv.reader(io.StringIO(text), delimiter=separator) for field in row]
    commas = sum(bool(_COMMA_NUMBER.fullmatch(field)) for field in fields)
    return commas > sum(bool(_POINT_NUMBER.fullmatch(field)) for field in fields)
