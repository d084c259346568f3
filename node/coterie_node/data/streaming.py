"""Rows of a checked file that do not fit in memory: read, coded and cut again in each pass, always the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from coterie_learners.errors import DataError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Variable
from coterie_learners.study.rows import ArrayRows, Block, Codes, block_size
from coterie_node.data.arrow_values import Mask
from coterie_node.data.coding import Coded, code
from coterie_node.data.files.row_spool import RowSpool
from coterie_node.data.patients.site_rows import raw_of_codes
from coterie_node.data.source import Batch, RowSource, check_unchanged, explain_change
from coterie_node.privacy.prints import RawRows

# Blocks that are built in one go: some 16 MiB.
GROUP = 8


class Checked(Protocol):
    """What the first pass over a file knows of it."""

    @property
    def n(self) -> int:
        """Number of complete rows."""

    @property
    def missing(self) -> dict[str, int]:
        """Rows that lack each variable."""

    @property
    def known_patients(self) -> Sequence[Sequence[str]] | None:
        """The identifiers of the rows used, or None where rows are taken for patients."""


@dataclass(frozen=True)
class CheckedCohort:
    """What is known of some rows of a checked file."""

    n: int
    missing: dict[str, int]
    known_patients: Sequence[Sequence[str]] | None


class StreamedSource:
    """Complete rows of a checked file, read again in each pass; DataError if the file changed since.

    `cohort`: who of the complete rows is in (n,); everybody without it. `spool`: the complete rows, where the first
    pass put them aside; the source is not read again then.
    """

    def __init__(
        self,
        source: RowSource,
        before: str,
        design: Design,
        checked: Checked,
        cohort: Mask | None = None,
        spool: RowSpool | None = None,
    ) -> None:
        self._source = source
        self._before = before
        self._design = design
        self._n = checked.n
        self._checked = checked
        self._cohort = cohort
        self._spool = spool

    def take(self, at: NDArray[np.intp]) -> Self:
        """These rows only, in the file's order."""
        within = np.zeros(self._n, dtype=bool)
        within[at] = True
        cohort = within if self._cohort is None else _nest(self._cohort, within)
        patients = self._checked.known_patients
        own = None if patients is None else [patients[k] for k in np.flatnonzero(within).tolist()]
        checked = CheckedCohort(int(np.count_nonzero(within)), self._checked.missing, own)
        return type(self)(self._source, self._before, self._design, checked, cohort, self._spool)

    def read_raw(self) -> RawRows:
        """The raw rows, read once more and kept in as few bytes as their declarations need."""
        codes = (compact(chunk, self._design) for chunk in self._chunks())
        return raw_of_codes(self._design.study, codes, self._checked.known_patients, self._checked.missing)

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._n

    def _chunks(self) -> Iterator[Codes]:
        if self._spool is None:
            yield from self._read_chunks()
            return
        at = 0
        for chunk in self._spool.batches():
            yield self._cut(chunk, at)
            at += len(chunk[self._design.read[0]])

    def _read_chunks(self) -> Iterator[Codes]:
        """The complete rows from their source."""
        self._check_unchanged()
        rows_read = 0
        try:
            for batch in self._source.batches():
                chunk = complete(code_columns(batch, self._design), self._design)
                at = rows_read
                rows_read += len(chunk[self._design.read[0]])
                yield self._cut(chunk, at)
        except DataError:
            # What could be read before can be read again, unless it was replaced meanwhile.
            self._check_unchanged()
            raise
        self._check_unchanged()
        if rows_read != (self._n if self._cohort is None else len(self._cohort)):
            raise explain_change(self._source.origin)

    def _cut(self, chunk: Codes, at: int) -> Codes:
        """The rows of a chunk that are in the cohort; the chunk begins at the complete row `at`."""
        if self._cohort is None:
            return chunk
        return {name: values[self._cohort[at : at + len(values)]] for name, values in chunk.items()}

    def _check_unchanged(self) -> None:
        check_unchanged(self._source, self._before)


def _nest(outer: Mask, inner: Mask) -> Mask:
    """Those of the outer rows that the inner mask, over these alone, lets in."""
    out = outer.copy()
    out[outer] = inner
    return out


class StreamedRows(StreamedSource):
    """Streamed rows as blocks of the design matrix."""

    def blocks(self) -> Iterator[Block]:
        """The blocks that the same rows in memory would give."""
        size, at = block_size(len(self._design.columns)), 0
        groups = number_patients(self._checked.known_patients)
        for group in regroup(self._chunks(), GROUP * size):
            block = self._design.block(group)
            if groups is not None:
                block = replace(block, group=groups[at : at + len(block)])
                at += len(block)
            yield from ArrayRows.of(block, size).blocks()


def number_patients(identifiers: Sequence[str | Sequence[str]] | None) -> NDArray[np.int64] | None:
    """The number (n,) of each row's patient, from 0; None where rows are taken for patients."""
    if identifiers is None:
        return None
    numbers: dict[str | tuple[str, ...], int] = {}
    return np.array(
        [numbers.setdefault(row if isinstance(row, str) else tuple(row), len(numbers)) for row in identifiers],
        dtype=np.int64,
    )


class StreamedCodes(StreamedSource):
    """Streamed rows as the variables' values."""

    def codes(self) -> Iterator[Codes]:
        """The batches of the file."""
        for chunk in self._chunks():
            yield compact(self._design.derive(chunk), self._design)


def compact(codes: Codes, design: Design) -> Codes:
    """The same values with whole numbers in as few bytes as their declaration needs; floats where some are missing."""
    if design.study.rows.missing == "keep":
        return codes
    wide = design.behind
    return {
        name: values if name in wide else values.astype(width(design.declared[name]), copy=False)
        for name, values in codes.items()
    }


def width(variable: Variable) -> np.dtype[Any]:
    """The type in which a variable's checked values are kept."""
    if variable.type == "number":
        return np.dtype(np.float64)
    low, high = (0, max(len(variable.levels) - 1, 1)) if variable.type != "count" else variable.bounds
    integer_types = (np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.int32))
    fits = (t for t in integer_types if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    return next(fits, np.dtype(np.float64))


def code_columns(batch: Batch, design: Design) -> dict[str, Coded]:
    """Every variable's numbers in a batch."""
    return {name: code(batch[name], design.declaration(name)) for name in design.read}


def complete(coded: Mapping[str, Coded], design: Design) -> Codes:
    """Codes of the rows that the study uses: those that lack nothing, or nothing that its cohort has complete."""
    lack = lacking(coded, design)
    if not lack.any():
        return {name: column.values for name, column in coded.items()}
    return {name: column.values[~lack] for name, column in coded.items()}


def lacking(coded: Mapping[str, Coded], design: Design) -> Mask:
    """Which rows lack a value; of the outcome or of what the cohort has complete, where the study keeps other rows."""
    keeps, outcome = design.study.rows.missing == "keep", design.formula.outcome
    names = (outcome, *design.study.cohort.complete) if keeps else design.used
    none: Mask = np.zeros(len(next(iter(coded.values())).values), dtype=np.bool_)
    mask: Mask = np.logical_or.reduce([none, *(coded[name].missing for name in names)])
    return mask


def regroup(chunks: Iterable[Codes], rows: int) -> Iterator[Codes]:
    """The same rows in groups of exactly `rows`; the last may have fewer."""
    pending: list[Codes] = []
    count = 0
    for chunk in chunks:
        pending.append(chunk)
        count += len(next(iter(chunk.values())))
        if count < rows:
            continue
        joined = _concatenate(pending)
        full = count - count % rows
        for at in range(0, full, rows):
            yield {name: values[at : at + rows] for name, values in joined.items()}
        pending, count = [{name: values[full:] for name, values in joined.items()}], count - full
    if count:
        yield _concatenate(pending)


def _concatenate(parts: list[Codes]) -> Codes:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
