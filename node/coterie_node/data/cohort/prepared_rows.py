"""A site's rows as the study takes them: those that its conditions let in, with derived variables, perhaps by patient.

Gate, snapshot, privacy log and every learner see these rows. Raw columns stay with them, so that the log compares what
is in the file, however a later study derives from it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.identifiers import normalise
from coterie_learners.study.preparation.kinds import ValueType
from coterie_learners.study.preparation.plan import ConditionCount, Preparation
from coterie_node.data.arrow import pa
from coterie_node.data.arrow_values import Mask, Values, set_null, text_values
from coterie_node.data.coding import FAULTS, as_text, code, faults, value_at
from coterie_node.data.cohort.flow import FlowStep
from coterie_node.data.findings import Findings, Origin, quote
from coterie_node.data.source import Batch, RowSource

# Faults of a value that cannot be read at all: of those outside a range the conditions may leave the rows out.
_UNREAD = ("CO-D112", "CO-D115", "CO-D116", "CO-D190")
_NO_IDENTIFIER = "no identifier"


class PreparedRows:
    """Rows that the study's conditions let in; `steps` counts the others in the latest pass, `read` the file's rows."""

    def __init__(self, source: RowSource, design: Design, plan: Preparation) -> None:
        self.source = source
        self._design = design
        self._plan = plan
        self._places: list[NDArray[np.intp]] = []
        self._findings = Findings()
        self._counts: list[tuple[ConditionCount, ...]] = []
        self._unidentified = 0
        self.read = 0
        self.steps: tuple[FlowStep, ...] = ()
        self.patients: int | None = None

    @property
    def origin(self) -> Origin:
        """Whose rows, and from where."""
        return self.source.origin

    @property
    def rows(self) -> int | None:
        """At most so many, if the file declares it; None of patients, who are kept in memory."""
        return None if self._plan.by_patient else self.source.rows

    def stamp(self) -> str:
        """The stamp of the rows behind."""
        return self.source.stamp()

    def digest(self) -> bytes:
        """The digest of the rows behind: the study has the digest of what it does with them."""
        return self.source.digest()

    def batches(self) -> Iterator[Batch]:
        """The rows, or patients, that stay; DataError for values that a condition or a derivation cannot read."""
        self._places, self._findings, self._counts = [], Findings(), []
        self.read, self._unidentified, self.patients = 0, 0, None
        if self._plan.by_patient:
            yield from self._join_visits()
        else:
            for batch in self.source.batches():
                yield self._select(batch)
            self._check_findings()
            self.steps = tuple(_list_steps(self._counts, "rows"))

    def places(self, rows: Sequence[int]) -> list[str]:
        """What to call these rows; of a patient the first row."""
        place = np.concatenate(self._places)
        return self.source.places([int(place[row]) for row in rows])

    def _select(self, batch: Batch) -> dict[str, Values]:
        values = self._code(batch)
        chosen = self._plan.select_rows(values)
        self._counts.append(chosen.counts)
        self._places.append(self.read + np.flatnonzero(chosen.stay))
        self.read += len(chosen.stay)
        derived = _to_arrow(chosen.derived, {name: t.kind for name, t in self._plan.row_derived.items()})
        keep = pa.array(chosen.stay, pa.bool_())
        return {name: column.filter(keep) for name, column in {**batch, **derived}.items()}

    def _code(self, batch: Batch) -> dict[str, Array]:
        """The values of the columns that the plan reads, NaN for those that are missing or wrong."""
        variables, out = self._design.study.variables, {}
        for name in self._plan.raw:
            coded = code(batch[name], variables[name])
            for fault, mask in faults(coded, variables[name]):
                if fault in _UNREAD:
                    self._findings.note(name, fault, mask, self.read, partial(value_at, batch[name]))
            out[name] = coded.values
        return out

    def _check_findings(self) -> None:
        key = self._findings.first((*self._plan.raw, *self._design.identifier))
        if key is None:
            return
        name, fault = key
        where = self._findings.rows(key, self.read, self.source.places)
        if fault == "CO-D132":
            todo = 'Give every row its identifier, or leave such rows out with linkage.unidentified = "drop".'
            raise self.origin.error(fault, f"The identifying column {quote(name)} is blank {where}. {todo}")
        todo = "A condition or a derived variable of the study reads it: correct the values, or map them."
        what = f"The column {quote(name)} is {FAULTS[fault]} {where}. {todo}{self._findings.others(key)}"
        raise self.origin.error(fault, what)

    def _join_visits(self) -> Iterator[Batch]:
        """One batch of all patients."""
        parts: list[dict[str, Array]] = []
        names: list[list[tuple[str, ...]]] = []
        for batch in self.source.batches():
            values = self._code(batch)
            chosen = self._plan.select_rows(values)
            self._counts.append(chosen.counts)
            stay = chosen.stay & self._identify(batch, chosen.stay)
            self._places.append(self.read + np.flatnonzero(stay))
            self.read += len(stay)
            parts.append({name: column[stay] for name, column in {**values, **chosen.derived}.items()})
            names.append(_list_names([as_text(batch[name]) for name in self._design.identifier], stay))
        self._check_findings()
        if parts:
            yield self._make_patients(parts, [name for part in names for name in part])

    def _identify(self, batch: Batch, inside: Mask) -> Mask:
        """Which rows say whose they are; the others are noted, or counted where the study leaves them out."""
        known = np.ones(len(inside), dtype=bool)
        for name, kind in self._design.identifying.items():
            column = as_text(batch[name])
            blank = np.array([normalise(kind, value) is None for value in column], dtype=bool)
            known &= ~blank
            if self._design.study.linkage.unidentified == "refuse":
                self._findings.note(name, "CO-D132", blank & inside, self.read, column.__getitem__)
        self._unidentified += int(np.count_nonzero(inside & ~known))
        return known

    def _make_patients(self, parts: list[dict[str, Array]], names: list[tuple[str, ...]]) -> Batch:
        values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        numbers: dict[tuple[str, ...], int] = {}
        patient = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
        chosen = self._plan.select_patients(values, patient)
        first = np.unique(patient, return_index=True)[1] if len(patient) else np.empty(0, np.intp)
        place = np.concatenate(self._places)
        self._places = [place[first[chosen.stay]]]
        self.patients = len(numbers)
        without = [FlowStep(_NO_IDENTIFIER, self._unidentified)] if self._unidentified else []
        self.steps = (
            *_list_steps(self._counts, "rows"),
            *without,
            *_list_steps([chosen.counts], "patients"),
        )
        kinds = {name: t.kind for name, t in self._plan.patient_derived.items()}
        columns = _to_arrow(chosen.derived, kinds)
        keys = list(numbers)
        for k, name in enumerate(self._design.identifier):
            columns[name] = pa.array([key[k] for key in keys], pa.string())
        keep = pa.array(chosen.stay, pa.bool_())
        return {name: column.filter(keep) for name, column in columns.items()}


def _list_names(columns: Sequence[list[str]], stay: Mask) -> list[tuple[str, ...]]:
    """The identifier of each row that stays, as it is compared: in NFC, without blanks around it."""
    plain = [[unicodedata.normalize("NFC", value).strip() for value in column] for column in columns]
    return [row for row, inside in zip(zip(*plain, strict=True), stay.tolist(), strict=True) if inside]


def _list_steps(counts: Sequence[Sequence[ConditionCount]], unit: str) -> Iterator[FlowStep]:
    """Each rule with how many it left out, over all batches."""
    for batches in zip(*counts, strict=True):
        false, unknown = sum(c.false for c in batches), sum(c.unknown for c in batches)
        yield FlowStep(batches[0].rule, false + unknown, unknown, "patients" if unit == "patients" else "rows")


def _to_arrow(values: Mapping[str, NDArray[np.float64]], kinds: Mapping[str, ValueType]) -> dict[str, Values]:
    """Values as Arrow has them: categories as text through a dictionary, null for what is missing."""
    return {name: _column(np.asarray(column), kinds.get(name)) for name, column in values.items()}


def _column(values: Array, kind: ValueType | None) -> Values:
    missing = np.isnan(values)
    if kind is None or kind.form != "category":
        return set_null(pa.array(np.ascontiguousarray(values), pa.float64()), missing)
    codes = np.where(missing, 0.0, values).astype(np.int32)
    indices = set_null(pa.array(codes, pa.int32()), missing)
    return pa.DictionaryArray.from_arrays(indices, text_values(kind.levels, pa.string()))
