"""A site's rows cut into those of the fit and those that are held out for the evaluation, the same way every time.

A patient is held out where a keyed hash of the identifier, as a fraction of its range, is below the study's share. So
all rows of a patient fall on one side, a larger share holds out the same patients and more, and studies of one seed
agree about each patient. Where no column identifies patients, the hash is of all values of a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.protocol import Site
from coterie_learners.errors import DataError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
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
    def held_out(self) -> NDArray[np.bool_]:
        """Whether each row (n,) is held out."""
        patients = self.site.read_patients()
        if patients is None:
            return draw_held_out(self.site.study, list_row_words(self.site.codes))
        return draw_held_out(self.site.study, [encode_parts([normalise("code", name) or ""]) for name in patients])

    @cached_property
    def fitted(self) -> Data | None:
        """The rows of the fit."""
        if self.site.data is None:
            return None
        part = CodedPart(self._whole, ~self.held_out)
        return FitRows(self.design, part) if self.by_rows else part

    @cached_property
    def evaluated(self) -> Data | None:
        """The rows of the evaluation."""
        return None if self.site.data is None else CodedPart(self._whole, self.held_out)

    @property
    def _whole(self) -> CodedRows:
        """All rows; DataError for a table that was counted elsewhere."""
        whole = self.site.codes
        first: Codes = next(iter(whole.codes()), {})
        if self.design.formula.outcome not in first:
            message = f"The data of {self.site.name} are counts without single rows, so that none can be held out"
            raise DataError("CO-D140", f"{message}. Take part with rows, or leave evaluate.held_out out.")
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
