"""How commands print: one JSON document, or a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from coterie_node.data.findings import printable


def print_json(document: Any) -> None:
    """One JSON document; what is not JSON becomes its text, and what is not ASCII an escape."""
    print(json.dumps(document, indent=2, default=str))


def print_document(document: Any, text: str, as_json: bool) -> None:
    """A document as JSON, or the text that says the same."""
    if as_json:
        print_json(document)
    else:
        print(text)


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, columns: Sequence[str]) -> None:
    """A table with these columns; everything as JSON."""
    if as_json:
        print_json(rows)
        return
    lines = [[name.replace("_", " ") for name in columns]]
    lines += [[printable(str(row.get(name, ""))) for name in columns] for row in rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
