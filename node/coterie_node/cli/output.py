"""How commands print: one JSON document, or a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie_node.data.findings import printable
from coterie_node.errors import ConfigError

if TYPE_CHECKING:
    from coterie_learners.core.fit import Fit
    from coterie_node.audit.printed.printed_table import PrintedTable
    from coterie_node.cli.options import Format


def print_json(document: Any) -> None:
    """One JSON document; what is not JSON becomes its text, and what is not ASCII an escape."""
    print(format_json(document))


def format_json(document: Any) -> str:
    """One JSON document as text."""
    return json.dumps(document, indent=2, default=str)


def print_document(document: Any, text: str, as_json: bool) -> None:
    """A document as JSON, or the text that says the same."""
    if as_json:
        print_json(document)
    else:
        print(text)


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, columns: Sequence[str]) -> None:
    """A table with these columns, `-` where a row has nothing to show; everything as JSON."""
    if as_json:
        print_json(rows)
        return
    lines = [[name.replace("_", " ") for name in columns]]
    lines += [
        ["-" if row.get(name, "") is None else printable(str(row.get(name, ""))) for name in columns] for row in rows
    ]
    widths = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def save_or_print(text: str, out: Path | None) -> None:
    """Print a text, or write it into a new file; ConfigError (CO-F205) where that is not possible."""
    if out is None:
        print(text)
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise ConfigError("CO-F205", f"{out} cannot be written: {error.strerror}. Name a new file.") from None


def save_or_print_fit(
    fit: Fit, study: str, shape: Format, out: Path | None, level: float, beside: Mapping[str, float] | None = None
) -> None:
    """A fit's table in a format that papers take, printed or written into a new file."""
    from coterie_node.audit.result import format_table, print_fit, title_of

    if shape.value == "docx":
        save_or_print_table(print_fit(fit, beside, level), shape, out, title_of(fit, study), fit.notes)
    else:
        save_or_print(format_table(fit, shape.value, beside, level), out)


def save_or_print_table(
    table: PrintedTable, shape: Format, out: Path | None, title: str = "", remarks: Sequence[str] = ()
) -> None:
    """A table in a format that papers take, printed or written into a new file. Word alone has a `title`."""
    if shape.value != "docx" or out is None:
        save_or_print("\n".join([table.writers[shape.value](), *(remarks if shape.value == "text" else ())]), out)
        return
    from coterie_node.audit.printed.word_document import save_word_document

    save_word_document(out, title, table, remarks)
