"""`coterie data check`: a report of a site's rows for the site's own people. It shows values, and stays at home."""

from __future__ import annotations

import datetime
import difflib
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coterie_learners.errors import pluralise
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_node.data.coding import as_text, code
from coterie_node.data.cohort.flow import Flow
from coterie_node.data.installed_source import RowsAddress
from coterie_node.data.load import open_source, read_flow
from coterie_node.data.mapping.convert import as_texts, decode
from coterie_node.data.mapping.document import SiteMapping, read_mapping
from coterie_node.data.mapping.mapped_rows import open_mapped_table
from coterie_node.data.mapping.words import is_mapping
from coterie_node.data.quality.column_check import ColumnCheck, ColumnTally, count_rows
from coterie_node.data.source import RowSource
from coterie_node.data.tables.table import SiteTable

_EXAMPLES = 3


@dataclass(frozen=True)
class DataCheck:
    """All that was found in a site's rows; `against` are the differences from other sites' profiles."""

    study: str
    site: str
    source: str
    rows: int
    complete: int
    columns: tuple[ColumnCheck, ...]
    duplicates: tuple[str, ...]
    dates: tuple[str, ...]
    flow: Flow
    against: tuple[str, ...] = ()
    mapped: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[str, ...]:
        """What the study refuses."""
        return tuple(fault for column in self.columns for fault in column.faults)

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should look at."""
        far = [f"{column.name}: {text}" for column in self.columns for text in column.outliers]
        constant = [f"{c.name} is the same in all rows" for c in self.columns if _is_constant(c)]
        return (*self.mapped, *self.against, *self.dates, *self.duplicates, *far, *constant)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        return {
            "study": self.study,
            "site": self.site,
            "source": self.source,
            "rows": self.rows,
            "complete": self.complete,
            "flow": self.flow.as_dict(),
            "faults": list(self.faults),
            "notes": list(self.notes),
            "columns": [column.as_dict() for column in self.columns],
        }


def _is_constant(column: ColumnCheck) -> bool:
    if column.quarters is not None:
        return column.quarters[0] == column.quarters[-1]
    return sum(count > 0 for count in column.levels.values()) == 1


def check_data(address: RowsAddress, study: Study, site: str) -> DataCheck:
    """Read all rows of a site once and report on them; DataError if they cannot be read."""
    design = Design(study, site)
    source, _ = open_source(address, design, site)
    joined = study.preparation is not None and study.preparation.by_patient
    names = design.used if joined else design.read  # a value of all visits of a patient is no value to look at
    tallies = {name: ColumnTally(name, design.declaration(name)) for name in names}
    rows, complete = 0, 0
    people: Counter[tuple[str, ...]] = Counter()
    for batch in source.batches():
        usable = {name: t.add(code(batch[name], t.variable), batch) for name, t in tallies.items()}
        rows += len(usable[names[0]])
        complete += int(np.count_nonzero(np.logical_and.reduce([usable[name] for name in design.used])))
        people.update(zip(*(as_text(batch[name]) for name in design.identifier), strict=True))
    columns = tuple(tally.conclude(source.places) for tally in tallies.values())
    path = address if isinstance(address, Path) and is_mapping(address) else None
    dates = check_dates(path, site) if path is not None else ()
    mapped = compare_mapping(read_mapping(path, site), study) if path is not None else ()
    why = "a value is missing or wrong" if any(column.faults for column in columns) else "a value is missing"
    flow = read_flow(source, rows, {name: tallies[name].missing for name in design.used}, complete, why)
    duplicates = _describe_duplicates(people, source, design)
    return DataCheck(
        study.name, site, source.origin.name, rows, complete, columns, duplicates, dates, flow, mapped=mapped
    )


def _describe_duplicates(people: Counter[tuple[str, ...]], source: RowSource, design: Design) -> tuple[str, ...]:
    """Identifiers that several rows carry; copies of whole rows where no column identifies patients."""
    if design.identifier:
        several = [count for count in people.values() if count > 1]
        if not several:
            return ()
        rows = f"({sum(several)} rows, at most {max(several)} of one)"
        remedy = "a model needs one row of each: derive values of patients (docs/cohort.md)"
        return (f"{pluralise(len(several), 'patient has', 'patients have')} several rows {rows}; {remedy}",)
    seen: Counter[tuple[object, ...]] = Counter()
    for batch in source.batches():
        seen.update(zip(*(as_text(batch[name]) for name in design.read), strict=True))
    copies = sum(count - 1 for count in seen.values())
    total = sum(seen.values())
    # Patients may share all values of a few coarse variables; copies are worth a word where values are fine.
    repeat = f"{count_rows(copies)} {'repeats' if copies == 1 else 'repeat'}"
    return (f"{repeat} another row in every column of the study",) if 0 < copies < total // 4 else ()


def compare_mapping(mapping: SiteMapping, study: Study) -> tuple[str, ...]:
    """Differences of a mapping and the study: units that are not converted, and columns that it does not declare."""
    out = []
    known = {*study.variables, *study.identifier, study.patient, study.cohort.order}
    for name, rule in mapping.columns.items():
        declared = study.variables.get(name)
        of_study = "" if declared is None else declared.unit
        converted = rule.converts or rule.date is not None or not rule.unit or not of_study
        if not converted and rule.unit.casefold() != of_study.casefold():
            units = f"the file is in {rule.unit} by the mapping, and the study in {of_study}"
            out.append(f"{name}: {units}; write the factor, divisor or offset that converts it")
        if name not in known:
            near = difflib.get_close_matches(name.casefold(), [other.casefold() for other in study.variables], 1)
            wish = f"; did you mean {near[0]}?" if near else ""
            out.append(f"the mapping has [columns.{name}], which the study does not declare{wish}")
    return tuple(out)


def check_dates(path: Path, site: str) -> tuple[str, ...]:
    """Dates of a mapping's file: which cannot be read, lie in the future, or come in another order than declared."""
    mapping = read_mapping(path, site)
    if not mapping.dates.forms:
        return ()
    table = open_mapped_table(mapping, path, site)
    days, unread = _read_dates(table, mapping)
    rows = [f"{name}: {', '.join(places)}" for name, places in unread.items() if places]
    out = [f"dates that do not have their declared form: {'; '.join(rows)}"] if rows else []
    for names in mapping.dates.order:
        out += [_describe_order(table, a, b, days) for a, b in itertools.pairwise(names)]
    return tuple(text for text in out if text)


def _read_dates(
    table: SiteTable, mapping: SiteMapping
) -> tuple[dict[str, list[datetime.date | None]], dict[str, list[str]]]:
    """The days of each date column, and the places of texts that are no date."""
    forms = mapping.dates.forms
    days: dict[str, list[datetime.date | None]] = {name: [] for name in forms}
    wrong: dict[str, list[int]] = {name: [] for name in forms}
    blank = {"", "NA", *mapping.table.missing}
    for batch in table.batches(tuple(forms)):
        for name, form in forms.items():
            for text in as_texts(decode(batch[name])):
                plain = (text or "").strip()
                day = form.read(plain)
                if day is None and plain not in blank:
                    wrong[name].append(len(days[name]))
                days[name].append(day)
    return days, {name: table.places(rows[:_EXAMPLES]) if rows else [] for name, rows in wrong.items()}


def _describe_order(table: SiteTable, first: str, second: str, days: dict[str, list[datetime.date | None]]) -> str:
    pairs = enumerate(zip(days[first], days[second], strict=True))
    rows = [row for row, (a, b) in pairs if a is not None and b is not None and a > b]
    if not rows:
        return ""
    return f"{first} is later than {second} in {count_rows(len(rows))}: {', '.join(table.places(rows[:_EXAMPLES]))}"
