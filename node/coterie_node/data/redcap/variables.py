"""What a data dictionary says of a study's variables, as lines of TOML that people read and correct."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from coterie_node.data.findings import printable
from coterie_node.data.redcap.dictionary import CHOOSING, RedcapField

NUMBERS = ("number", "number_1dp", "number_2dp", "number_3dp", "number_4dp")


def write_variables(fields: Sequence[RedcapField]) -> str:
    """Declarations for a study; fields that no model takes are named with the reason."""
    return "\n".join(line for field in fields for line in _write_field(field)) + "\n"


def _write_field(field: RedcapField) -> Iterator[str]:
    label = printable(field.label)[:200]
    yield f"# {label}" if label else f"# {field.name}"
    reason = _find_reason(field)
    if reason:
        yield from (f"# {field.name} is left out: {reason}.", "")
        return
    if field.kind == "checkbox":
        for column, choice in zip(field.columns, field.choices.values(), strict=True):
            yield from (f"# {printable(choice)[:200]}", f"[variables.{column}]", 'type = "binary"', "")
        return
    yield f"[variables.{field.name}]"
    if field.kind in CHOOSING:
        yield from ('type = "category"', f"levels = {json.dumps(list(field.choices.values()), ensure_ascii=False)}", "")
    elif field.kind in ("yesno", "truefalse"):
        yield from ('type = "binary"', "")
    else:
        kind = "count" if field.validation == "integer" else "number"
        yield from (f'type = "{kind}"', _write_range(field), "")


def _write_range(field: RedcapField) -> str:
    low, high = (_read_number(text) for text in field.bounds)
    if field.kind == "slider":
        low, high = 0.0 if low is None else low, 100.0 if high is None else high
    if low is None or high is None:
        return "# range = [?, ?]    the dictionary has no bounds"
    return f"range = [{low:.15g}, {high:.15g}]"


def _read_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e300 else None


def _find_reason(field: RedcapField) -> str:
    """Why a field is no variable; blank if it is."""
    if field.identifies:
        return "it identifies patients"
    if field.validation.startswith(("date", "time")):
        return "it is a date or a time; the mapping counts days with `date` and `since`"
    if field.kind in (*CHOOSING, "checkbox", "yesno", "truefalse", "slider", "calc"):
        return ""
    if field.kind == "text" and field.validation in ("integer", *NUMBERS):
        return ""
    return f"a field of the type {field.kind} is no number and no choice"
