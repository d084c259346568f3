"""Whether a site's own rows vary enough for the study: constant columns and columns that others make up.

No message here shows a value: it names columns, and the option of the study that allows what they lack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.cola.tables.patterns import Grid
from coterie_learners.errors import Collinear, StudyError
from coterie_learners.numeric.array import Array
from coterie_learners.numeric.linalg import cholesky
from coterie_learners.study.design import Design
from coterie_learners.study.document import IN_EVALUATION
from coterie_learners.study.elsewhere import over_blocks, over_codes
from coterie_learners.study.rows import Block, CodedRows, Codes, Rows
from coterie_node.data.findings import Origin, join_values, quote


@dataclass
class ObservedRanges:
    """Least and largest value of each variable so far."""

    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, NDArray[Any]]) -> ObservedRanges:
        """The spread of rows that all have a value, of any type of number."""
        low = {name: float(column.min()) for name, column in values.items()}
        return cls(low, {name: float(column.max()) for name, column in values.items()})

    def add(self, codes: Codes) -> None:
        """Take in more rows; NaN is passed over."""
        for name, values in codes.items():
            self.low[name] = float(np.fmin.reduce(values, initial=self.low.get(name, np.inf)))
            self.high[name] = float(np.fmax.reduce(values, initial=self.high.get(name, -np.inf)))

    def constant(self, name: str) -> bool:
        """Whether all rows have the same value."""
        return self.low[name] == self.high[name]


@dataclass(frozen=True)
class BlockMoments:
    """A block's rows, means, cross-products about these, and least and largest values by column."""

    n: int
    mean: Array
    sums: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, centred: bool, block: Block) -> BlockMoments:
        """Those of a block; about zero unless `centred`."""
        mean = block.x.mean(axis=0) if centred else np.zeros(block.x.shape[1])
        x = block.x - mean
        return cls(len(block), mean, x.T @ x, block.x.min(axis=0), block.x.max(axis=0))


class Gram:
    """Cross-products of the columns, centred on request, merged from blocks by Chan, Golub and LeVeque (1983)."""

    def __init__(self, p: int, centred: bool) -> None:
        self.n = 0
        self.centred = centred
        self.sums = np.zeros((p, p))
        self.mean = np.zeros(p)
        self.low, self.high = np.full(p, np.inf), np.full(p, -np.inf)

    def add(self, part: BlockMoments) -> None:
        """Take in a block."""
        m, apart = part.n, part.mean - self.mean
        self.sums += part.sums + apart[:, None] * apart * (self.n * m / (self.n + m))
        self.n += m
        self.mean = self.mean + apart * (m / self.n)
        self.low, self.high = np.minimum(self.low, part.low), np.maximum(self.high, part.high)

    @property
    def varies(self) -> NDArray[np.intp]:
        """Indices of the columns that are not constant."""
        return np.flatnonzero(self.low < self.high)


def check_variation(origin: Origin, design: Design, rows: Rows, spread: ObservedRanges) -> None:
    """DataError if a variable is constant here or the columns are collinear, unless the study allows it."""
    if design.study.rows.constant == "refuse":
        _check_constant(origin, design, rows.n, spread)
    if design.study.rows.collinear == "refuse":
        gram = Gram(len(design.names), design.formula.intercept)
        for part in over_blocks(partial(BlockMoments.of, gram.centred), rows):
            gram.add(part)
        _check_collinear(origin, design, gram, rows.n)


class PatternRows:
    """Coded rows as design blocks in which each pattern of the covariates stands once: collinear alike, and few."""

    def __init__(self, design: Design, rows: CodedRows) -> None:
        self._design = design
        self._rows = rows

    @property
    def n(self) -> int:
        """Number of rows, of which many may share a pattern."""
        return self._rows.n

    def blocks(self) -> Iterator[Block]:
        """One block of the patterns that occur; of all rows if a covariate is a number without a list of values."""
        try:
            grid = Grid.of(self._design, {})
        except StudyError:
            # Whole numbers are kept in few bytes, which powers of them would leave.
            wide = ({name: np.asarray(v, dtype=np.float64) for name, v in c.items()} for c in self._rows.codes())
            yield from (self._design.block(codes) for codes in wide)
            return
        first = self._design.variables[0]
        unique_keys = over_codes(lambda codes: np.unique(grid.keys(codes, len(codes[first]))), self._rows)
        keys = np.unique(np.concatenate(list(unique_keys)))
        yield Block(grid.matrix(self._design, keys), np.zeros(len(keys)))


def _name_option(design: Design, key: str) -> str:
    """The end of a remedy: the rows of other sites may have what these lack, but not where each site has columns."""
    return "." if design.study.columns else f', or let the study have rows.{key} = "allow".'


def _check_constant(origin: Origin, design: Design, n: int, spread: ObservedRanges) -> None:
    outcome, offset = design.outcome_here, design.formula.offset
    option = _name_option(design, "constant")
    if outcome is not None and spread.constant(outcome):
        text = f"The outcome {quote(outcome)} is the same in all {n} rows used. Check how the rows were chosen{option}"
        raise origin.error("CO-D121", text)
    if design.study.evaluate.where and spread.constant(IN_EVALUATION):
        text = f"evaluate.where is the same for all {n} rows used, so that the fit or the evaluation has none. "
        raise origin.error("CO-D144", f"{text}Change the condition, or leave the site out.")
    # A constant offset or weight takes nothing from the fit.
    aside = (offset, design.weights)
    names = [name for name in design.variables if name not in aside and spread.constant(name)]
    if names:
        text = f"The column {join_values(names, 10)} is the same in all {n} rows used. "
        text += f"Leave it out of the formula{option}"
        raise origin.error("CO-D120", text)


def _check_collinear(origin: Origin, design: Design, gram: Gram, n: int) -> None:
    option = _name_option(design, "collinear")
    varies = gram.varies
    columns = len(varies) + design.formula.intercept
    if n < columns:
        text = f"The formula makes {columns} columns that vary here, of {n} rows used. Shorten the formula{option}"
        raise origin.error("CO-D123", text)
    try:
        cholesky(gram.sums[np.ix_(varies, varies)], [design.names[j] for j in varies])
    except Collinear as error:
        text = f"In this site's own rows: {error.message.rstrip('.')}{option}"
        raise origin.error("CO-D122", text) from None
