"""A table as a Word document: the same cells as in every other format, numbers to the right, remarks below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coterie_node.audit.printed.printed_table import INDENT, PrintedTable
from coterie_node.data.findings import printable
from coterie_node.data.tables.packages import import_extra
from coterie_node.errors import ConfigError

# How far a cell stands under its parent, in points.
_STEP = 12


def save_word_document(path: Path, title: str, table: PrintedTable, remarks: Sequence[str] = ()) -> None:
    """Write a new .docx file; ConfigError if it cannot be written (CO-F205) or python-docx is missing (CO-F231)."""
    words = import_extra("docx", "docx", "A Word document")
    document = words.Document()
    document.core_properties.author, document.core_properties.title = "", printable(title)
    document.add_paragraph(printable(title), style="Caption")
    _fill(document.add_table(rows=0, cols=len(table.head), style="Table Grid"), table)
    for remark in remarks:
        document.add_paragraph(printable(remark))
    try:
        with path.open("xb") as file:
            document.save(file)
    except OSError as error:
        raise ConfigError("CO-F205", f"{path} cannot be written: {error.strerror}. Name a new file.") from None


def _fill(grid: Any, table: PrintedTable) -> None:
    for k, line in enumerate((table.head, *table.lines)):
        for j, (cell, text) in enumerate(zip(grid.add_row().cells, line, strict=True)):
            _write(cell.paragraphs[0], text, bold=k == 0, right=j > 0)


def _write(paragraph: Any, text: str, bold: bool, right: bool) -> None:
    paragraph.add_run(printable(text.strip())).bold = bold
    if right:
        paragraph.alignment = import_extra("docx.enum.text", "docx", "A Word document").WD_ALIGN_PARAGRAPH.RIGHT
    elif text.startswith(INDENT):
        paragraph.paragraph_format.left_indent = import_extra("docx.shared", "docx", "A Word document").Pt(_STEP)
