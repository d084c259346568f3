"""A site's rows cut into those of the fit and those of the evaluation, the same way every time.

By chance: a patient is held out where a keyed hash of the identifier, as a fraction of its range, is below the study's
share. So all rows of a patient fall on one side, a larger share holds out the same patients and more, and studies of
one seed agree about each patient. If no column identifies patients, the hash is of all values of a row.

By a condition (`evaluate.where`): rows that fulfil it are evaluated, all others are fitted. A patient with rows of both
kinds is in the fit; the evaluation leaves this patient's rows out, so that no patient is in both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.protocol import Site
from coterie_learners.errors import DataError, pluralise
from coterie_learners.study.design import Design
from coterie_learners.study.document import IN_EVALUATION, Study
from coterie_learners.study.identifiers import encode_parts, normalise
from coterie_learners.study.rows import (
    ArrayRows,
    Block,
    CodedBlocks,
    CodedPart,
    CodedRows,
    Codes,
    Data,
    join_blocks,
)

# A larger design matrix is made again in each pass.
IN_MEMORY = 256 << 20
# What the session of the evaluation is called beside that of the fit.
EVALUATION = "evaluation"
_RANGE = 2.0**64


def find_seed(study: Study) -> str:
    """What names the split: the seed, or else the cohort, or else the study."""
    return study.evaluate.seed or study.cohort.name or study.name


@dataclass(frozen=True)
class RowSplit:
    """Which rows (n,) are fitted, and which evaluated; none is both, and some may be neither."""

    fitted: NDArray[np.bool_]
    evaluated: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if np.any(self.fitted & self.evaluated):
            raise ValueError("a row is in the fit and in the evaluation")

    @property
    def neither(self) -> int:
        """How many rows are in neither."""
        return int(np.count_nonzero(~(self.fitted | self.evaluated)))


def split_by_condition(fulfils: NDArray[np.bool_], patients: Sequence[bytes] | None) -> RowSplit:
    """The split by a condition (n,) on rows of these patients; each row is a patient where None is given."""
    if patients is None:
        return RowSplit(~fulfils, fulfils)
    fitted = {patient for patient, inside in zip(patients, fulfils, strict=True) if not inside}
    again = np.fromiter((patient in fitted for patient in patients), dtype=bool, count=len(patients))
    return RowSplit(~fulfils, fulfils & ~again)


def draw_held_out(study: Study, words: Sequence[bytes]) -> NDArray[np.bool_]:
    """Whether each row (n,) is held out, by what identifies its patient."""
    key = hashlib.sha256(b"coterie/1 held out/" + find_seed(study).encode()).digest()
    start = hashlib.blake2b(key=key, digest_size=8)
    out = np.empty(len(words), dtype=np.float64)
    for row, word in enumerate(words):
        state = start.copy()
        state.update(word)
        out[row] = int.from_bytes(state.digest(), "big") / _RANGE
    return np.asarray(out < study.evaluate.held_out)


class FitRows:
    """Rows of the design matrix made of a part's values: once, if they fit in memory."""

    def __init__(self, design: Design, coded: CodedRows) -> None:
        self.coded = coded
        made = CodedBlocks(design, coded)
        small = coded.n * len(design.columns) * 8 <= IN_MEMORY
        self._rows = ArrayRows.of(join_blocks(made)) if small and coded.n else made

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.coded.n

    def blocks(self) -> Iterator[Block]:
        """The rows, block by block."""
        return self._rows.blocks()


@dataclass(frozen=True, eq=False)
class OwnParts:
    """The two parts of one site's rows; nothing for an auditor. `by_rows`: the fit reads the design matrix."""

    site: Site
    design: Design
    by_rows: bool

    @cached_property
    def split(self) -> RowSplit:
        """Which rows are fitted, and which evaluated."""
        study, names = self.site.study, self.site.read_patients()
        patients = None if names is None else [encode_parts([normalise("code", name) or ""]) for name in names]
        if study.evaluate.where:
            parts = [np.asarray(codes[IN_EVALUATION]) == 1 for codes in self.site.codes.codes()]
            split = split_by_condition(np.concatenate([np.zeros(0, dtype=bool), *parts]), patients)
            self._check_sizes(split)
            return split
        held_out = draw_held_out(study, list_row_words(self.site.codes) if patients is None else patients)
        return RowSplit(~held_out, held_out)

    def _check_sizes(self, split: RowSplit) -> None:
        """DataError for a part that the release gate would refuse after the first steps."""
        study, least = self.site.study, max(self.site.study.rows.minimum, self.site.study.disclosure.rows)
        fitted, evaluated = int(np.count_nonzero(split.fitted)), int(np.count_nonzero(split.evaluated))
        if min(fitted, evaluated) < least:
            message = f"{self.site.name} has {pluralise(fitted, 'row')} for the fit and {evaluated} to evaluate"
            cause = f"by evaluate.where = {study.evaluate.where.strip()!r}; each part needs {least}"
            raise DataError("CO-D144", f"{message}, {cause}. Change the condition, or leave the site out.")

    @cached_property
    def fitted(self) -> Data | None:
        """The rows of the fit."""
        if self.site.data is None:
            return None
        part = CodedPart(self._whole, self.split.fitted)
        return FitRows(self.design, part) if self.by_rows else part

    @cached_property
    def evaluated(self) -> Data | None:
        """The rows of the evaluation."""
        return None if self.site.data is None else CodedPart(self._whole, self.split.evaluated)

    @property
    def _whole(self) -> CodedRows:
        """All rows; DataError for a table that was counted elsewhere."""
        whole = self.site.codes
        first: Codes = next(iter(whole.codes()), {})
        if self.design.formula.outcome not in first:
            message = f"The data of {self.site.name} are counts without single rows, so that none can be kept apart"
            raise DataError("CO-D140", f"{message}. Take part with rows, or leave [evaluate] out.")
        return whole

    def to_fit(self, site: Site) -> Site:
        """The site on the rows of the fit."""
        return site.stand_on(self.fitted)

    def to_evaluate(self, site: Site) -> Site:
        """The site on the rows of the evaluation."""
        return site.stand_on(self.evaluated, EVALUATION)


def list_row_words(rows: CodedRows) -> list[bytes]:
    """All values of each row as bytes."""
    out: list[bytes] = []
    for codes in rows.codes():
        table = np.column_stack([np.asarray(codes[name], dtype="<f8") + 0.0 for name in sorted(codes)])
        out += [row.tobytes() for row in np.ascontiguousarray(table)]
    return out
