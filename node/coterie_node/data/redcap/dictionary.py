"""The data dictionary of a REDCap project, as REDCap writes it: fields with their types, choices and labels."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from coterie_node.data.files.bounded_file import read_bounded_text
from coterie_node.data.findings import FileOrigin, quote
from coterie_node.data.source import unreadable_error

MAX_DICTIONARY = 16 << 20
_NAME, _KIND, _LABEL = "Variable / Field Name", "Field Type", "Field Label"
_CHOICES = "Choices, Calculations, OR Slider Labels"
_VALIDATION, _LOW, _HIGH = "Text Validation Type OR Show Slider Number", "Text Validation Min", "Text Validation Max"
_IDENTIFIER = "Identifier?"
CHOOSING = ("radio", "dropdown")
# Fields that are no columns of an export.
UNSEEN = ("descriptive",)
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_CODE = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True)
class RedcapField:
    """One field: `choices` has the label of each code; `bounds` are those of the validation, as they are written."""

    name: str
    kind: str
    label: str
    choices: Mapping[str, str] = field(default_factory=dict)
    validation: str = ""
    bounds: tuple[str, str] = ("", "")
    identifies: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns in an export: one for each choice of a checkbox."""
        if self.kind == "checkbox":
            return tuple(f"{self.name}___{code.lower().replace('-', '_')}" for code in self.choices)
        return () if self.kind in UNSEEN else (self.name,)


def read_dictionary(origin: FileOrigin) -> tuple[RedcapField, ...]:
    """The fields in their order; DataError (CO-D178) for a file that is no data dictionary."""
    try:
        text = read_bounded_text(origin.path, MAX_DICTIONARY).removeprefix("\ufeff")
    except OSError as error:
        raise unreadable_error(origin, error) from None
    except ValueError as error:
        raise origin.error("CO-D178", f"It is no text in UTF-8 within {MAX_DICTIONARY} bytes: {error}.") from None
    rows = _read_records(origin, text)
    lacking = [name for name in (_NAME, _KIND, _LABEL, _CHOICES) if not rows or name not in rows[0]]
    if lacking:
        raise origin.error(
            "CO-D178", f"It has no column {quote(lacking[0])}. Download the project's data dictionary from REDCap."
        )
    fields = tuple(_read_field(origin, row, number) for number, row in enumerate(rows, 2))
    columns = Counter(name for field in fields for name in field.columns or (field.name,))
    if twice := [name for name, times in columns.items() if times > 1]:
        message = f"Its fields give the column {quote(twice[0])} {columns[twice[0]]} times"
        raise origin.error("CO-D178", f"{message}. Download the data dictionary again, and rename a field.")
    return fields


def _read_records(origin: FileOrigin, text: str) -> list[dict[str, str]]:
    """The records by the names of their columns; DataError (CO-D178) for what is no table."""
    try:
        header, *lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line] or [[]]
    except csv.Error as error:
        raise origin.error("CO-D178", f"It is no CSV: {error}. Download the data dictionary again.") from None
    if twice := [name for name, times in Counter(header).items() if times > 1 and name]:
        raise origin.error("CO-D178", f"It has the column {quote(twice[0])} twice. Download it again from REDCap.")
    for number, line in enumerate(lines, 2):
        if any(line[len(header) :]):
            message = f"Record {number} has {len(line)} cells, and the header has {len(header)}"
            raise origin.error("CO-D178", f"{message}. Download the data dictionary again.")
    return [dict(zip(header, [*line, *[""] * (len(header) - len(line))], strict=False)) for line in lines]


def _read_field(origin: FileOrigin, row: Mapping[str, str], number: int) -> RedcapField:
    name, kind = row[_NAME].strip(), row[_KIND].strip()
    if not _FIELD_NAME.fullmatch(name):
        raise origin.error("CO-D178", f"Record {number} has {quote(name)} as the name of a field. Correct it.")
    choosing = kind in (*CHOOSING, "checkbox")
    choices = _read_choices(origin, name, row[_CHOICES]) if choosing else {}
    bounds = (row.get(_LOW, "").strip(), row.get(_HIGH, "").strip())
    identifies = row.get(_IDENTIFIER, "").strip().lower() == "y"
    return RedcapField(name, kind, row[_LABEL].strip(), choices, row.get(_VALIDATION, "").strip(), bounds, identifies)


def _read_choices(origin: FileOrigin, name: str, text: str) -> dict[str, str]:
    """Choices such as `1, Male | 2, Female`."""
    choices: dict[str, str] = {}
    for part in text.split("|"):
        code, comma, label = part.partition(",")
        if not comma or not _CODE.fullmatch(code.strip()) or code.strip() in choices:
            message = f"The field {quote(name)} has the choice {quote(part.strip())}"
            raise origin.error("CO-D178", f"{message}, which is no code with a label, or has a code twice. Correct it.")
        choices[code.strip()] = label.strip()
    return choices
