"""Every field that the node writes to its log is foreseen: an unknown one would end the daemon."""

from __future__ import annotations

import ast
from pathlib import Path

import coterie_node
from coterie_node.site.watch.log import FIELDS

NOT_FIELDS = {"level"}


def find_written_fields() -> dict[str, set[str]]:
    """The names of keywords in each call `log.tell` or `log.fault` of the package, by its place."""
    found: dict[str, set[str]] = {}
    for file in Path(coterie_node.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                continue
            if call.func.attr in ("tell", "fault") and ast.unparse(call.func.value).split(".")[-1] in ("log", "_log"):
                found[f"{file.name}:{call.lineno}"] = {word.arg for word in call.keywords if word.arg} - NOT_FIELDS
    return found


def test_the_log_foresees_each_field_that_the_node_writes() -> None:
    written = find_written_fields()
    assert {"records"} in written.values()
    assert {place: fields - FIELDS for place, fields in written.items() if fields - FIELDS} == {}
