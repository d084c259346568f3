"""A raw REDCap export as a table: codes of choices become their labels; one row for each record, or it is refused."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import pluralise
from coterie_node.data.arrow import pa, pc
from coterie_node.data.arrow_values import Mask, Values, read_mask
from coterie_node.data.findings import FileOrigin, Origin, join_values, quote
from coterie_node.data.redcap.dictionary import CHOOSING, RedcapField, read_dictionary
from coterie_node.data.source import Batch, FileRows
from coterie_node.data.tables.table import SiteTable

EVENT = "redcap_event_name"
_REPEATED = ("redcap_repeat_instrument", "redcap_repeat_instance")
# Columns that REDCap adds to an export.
ADDED = (EVENT, *_REPEATED, "redcap_data_access_group", "redcap_survey_identifier")


class RedcapTable:
    """An export of one event, decoded by the project's dictionary."""

    def __init__(
        self,
        table: SiteTable,
        dictionary: FileOrigin,
        fields: Sequence[RedcapField],
        event: str,
        missing: Sequence[str],
    ) -> None:
        self._table = table
        self._dictionary = FileRows(dictionary)
        self._choices = {field.name: field.choices for field in fields if field.kind in CHOOSING}
        self._event = event
        self._missing = tuple(missing)
        self._record = fields[0].name if fields else ""
        self._seen: set[str] = set()
        self._kept: list[NDArray[np.intp]] = []
        self._events: set[str] = set()

    @property
    def origin(self) -> Origin:
        """Whose rows, and from where."""
        return self._table.origin

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the export's columns."""
        return self._table.header

    @property
    def provenance(self) -> tuple[tuple[str, str], ...]:
        """The SHA-256 of the dictionary."""
        return (*self._table.provenance, ("dictionary", self._dictionary.digest().hex()))

    def stamp(self) -> str:
        """The stamps of export and dictionary."""
        return f"{self._table.stamp()}; {self._dictionary.stamp()}"

    def digest(self) -> bytes:
        """SHA-256 of the digests of export and dictionary."""
        return hashlib.sha256(b"redcap\0" + self._table.digest() + self._dictionary.digest()).digest()

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """These columns of the event's rows; DataError (CO-D179) for repeated instruments, other events and codes."""
        control = [name for name in (EVENT, *_REPEATED, self._record) if name in self.header]
        self._kept, self._seen, start = [], set(), 0
        for batch in self._table.batches(tuple(dict.fromkeys((*columns, *control)))):
            keep = self._choose(batch, control, start)
            self._check_records(batch, keep, start)
            self._kept.append(start + np.flatnonzero(keep))
            mask = pa.array(keep.tolist(), pa.bool_())
            yield {name: self._decode(name, batch[name], start).filter(mask) for name in columns}
            start += len(keep)

    def places(self, rows: Sequence[int]) -> list[str]:
        """Numbers of lines of the export."""
        kept = np.concatenate(self._kept) if self._kept else np.zeros(0, dtype=np.intp)
        return self._table.places([int(kept[row]) if row < len(kept) else row for row in rows])

    def _choose(self, batch: Batch, control: Sequence[str], start: int) -> Mask:
        """Which rows are of the event; every record must have one row in it."""
        keep = np.ones(len(next(iter(batch.values()))), dtype=np.bool_)
        if EVENT in control:
            keep = self._match_event(batch[EVENT])
        for name in (name for name in _REPEATED if name in control):
            repeated = ~read_mask(pc.is_in(_trim(batch[name]), value_set=pa.array([""]))) & keep
            if repeated.any():
                first = self._table.places([start + int(np.flatnonzero(repeated)[0])])[0]
                rows = pluralise(int(repeated.sum()), "row repeats", "rows repeat")
                message = f"The column {quote(name)} says that {rows} an instrument, first {first}"
                raise self.origin.error(
                    "CO-D179", f"{message}. Export without repeating instruments, or with one row for each record."
                )
        return keep

    def _check_records(self, batch: Batch, keep: Mask, start: int) -> None:
        """DataError (CO-D179) for a second row of a record, by the project's first field, if the export has it."""
        if self._record not in self.header:
            return
        for row, record in enumerate(_trim(batch[self._record]).to_pylist()):
            if not keep[row] or not record:
                continue
            if record in self._seen:
                place = self._table.places([start + row])[0]
                message = f"The column {quote(self._record)} has a record a second time, at {place}"
                raise self.origin.error("CO-D179", f"{message}. Export one row for each record.")
            self._seen.add(record)

    def _match_event(self, values: Values) -> Mask:
        """Which rows are of the event; without a declared one there may be one alone."""
        names = _trim(values)
        if self._event:
            return read_mask(pc.is_in(names, value_set=pa.array([self._event])))
        self._events |= {str(name) for name in pc.unique(names).to_pylist()}
        if len(self._events) > 1:
            message = (
                f"The export has the events {join_values(sorted(self._events), 10)}, with a row of a record in each"
            )
            raise self.origin.error("CO-D179", f"{message}. Name the one to read as `event` in [redcap].")
        return np.ones(len(values), dtype=np.bool_)

    def _decode(self, name: str, values: Values, start: int) -> Values:
        """A choice's label for its code; other columns as they are."""
        choices: Mapping[str, str] | None = self._choices.get(name)
        if choices is None:
            return values
        labels = Counter(choices.values())
        if twice := [label for label, times in labels.items() if times > 1]:
            message = f"The field {quote(name)} has the label {quote(twice[0])} for {labels[twice[0]]} codes"
            raise self.origin.error("CO-D178", f"{message}. Give each choice a label of its own in the dictionary.")
        words = _trim(values)
        places = pc.index_in(words, value_set=pa.array(list(choices), pa.string()))
        blank = pc.is_in(words, value_set=pa.array(["", *self._missing], pa.string()))
        unknown = np.flatnonzero(read_mask(pc.is_null(places)) & ~read_mask(blank))
        if len(unknown):
            lines = self._table.places([start + int(row) for row in unknown[:5]])
            examples = join_values(sorted({str(words[int(row)].as_py()) for row in unknown[:100]}), 5)
            message = (
                f"The column {quote(name)} has {examples} in {pluralise(len(unknown), 'row')} ({', '.join(lines)})"
            )
            codes = join_values(list(choices), 20)
            raise self.origin.error(
                "CO-D179",
                f"{message}; its choices have the codes {codes}. Export raw values and not labels, take the dictionary "
                "of the same day, and declare codes for missing values in [table].",
            )
        return pa.array(list(choices.values()), pa.string()).take(places)


def _trim(values: Values) -> Values:
    """Text without blanks at its ends; blank text for null."""
    text = pc.cast(values, pa.string())
    return cast(Values, pc.fill_null(pc.utf8_trim_whitespace(text), pa.scalar("")))


def open_redcap(table: SiteTable, dictionary: FileOrigin, event: str, missing: Sequence[str]) -> RedcapTable:
    """An export with its dictionary; DataError (CO-D179) for columns that the dictionary does not have."""
    fields = read_dictionary(dictionary)
    forms = [name for name in table.header if name.endswith("_complete")]
    known = {column for field in fields for column in field.columns} | {*ADDED, *forms}
    unknown = [name for name in table.header if name not in known and not name.endswith("_timestamp")]
    if unknown:
        message = f"The dictionary has no field for the columns {join_values(unknown, 5)}"
        raise table.origin.error("CO-D179", f"{message}. Export raw data with the dictionary of the same day.")
    if event and EVENT not in table.header:
        raise table.origin.error("CO-D179", f"There is no column {EVENT}. Leave `event` out of [redcap].")
    return RedcapTable(table, dictionary, fields, event, missing)
