"""A site's rows as a learner sees them: blocks of a design matrix with the outcome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.array import Array

# Values of each variable, as numbers and as level numbers counted from 0; small whole numbers may be stored as such.
Codes: TypeAlias = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Block:
    """Some rows: design x (m, p) and outcome y (m,), in the variables' own units unless a frame was put on them.

    If there are any: `offset` (m,) of the linear predictor; `weight` (m,): the number of patients of each row; `prior`
    (m,), the study's weights of the likelihood; `group` (m,), the number of each row's patient here.
    """

    x: Array
    y: Array
    offset: Array | None = None
    weight: Array | None = None
    prior: Array | None = None
    group: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, at: slice | NDArray[np.intp]) -> Block:
        """These rows only."""
        offset, weight, prior = (None if v is None else v[at] for v in (self.offset, self.weight, self.prior))
        group = None if self.group is None else self.group[at]
        return Block(self.x[at], self.y[at], offset, weight, prior, group)


class Rows(Protocol):
    """All rows of one site, in a fixed order; may stream, so that memory holds one block at a time."""

    @property
    def n(self) -> int:
        """Number of rows."""

    def blocks(self) -> Iterator[Block]:
        """The rows, block by block, always cut at the same places."""


@runtime_checkable
class CodedRows(Protocol):
    """All rows of one site as the variables' values, before any design matrix is made of them."""

    @property
    def n(self) -> int:
        """Number of rows."""

    def codes(self) -> Iterator[Codes]:
        """The complete rows' values by variable, block by block, always cut at the same places."""


@dataclass(frozen=True)
class OwnColumns:
    """One site's own columns of its patients, where sites hold other variables of the same patients.

    `identifiers` holds each row's identifying values as text; `x` (n, p) the site's columns on the inside scale, named
    by `names`; `y` (n,) the outcome at the site that holds it, and its `offset` (n,). `incomplete`: the identifying
    values of the rows that are left out, as they lack a value.
    """

    identifiers: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    x: Array
    y: Array | None = None
    offset: Array | None = None
    incomplete: tuple[tuple[str, ...], ...] = ()

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.x)


Data: TypeAlias = Rows | CodedRows | OwnColumns


class ArrayRows:
    """Rows in memory, handed out in blocks of `size` rows that fit a processor's cache."""

    def __init__(self, x: Array, y: Array, offset: Array | None = None, size: int = 0) -> None:
        self._all = Block(x, y, offset)
        self._size = size or block_size(x.shape[1])

    @classmethod
    def of(cls, block: Block, size: int = 0) -> ArrayRows:
        """The rows of one block, with all their fields."""
        rows = ArrayRows(block.x, block.y, block.offset, size)
        rows._all = block
        return rows

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self._all)

    @property
    def everything(self) -> Block:
        """All rows as one block."""
        return self._all

    def blocks(self) -> Iterator[Block]:
        """Slices of the arrays; nothing is copied."""
        for at in range(0, len(self._all), self._size):
            yield self._all.take(slice(at, at + self._size))


class WeightedRows:
    """Rows in memory, each with a number of patients, in one block."""

    def __init__(self, x: Array, y: Array, weight: Array) -> None:
        kept = weight > 0.0
        self._block = Block(np.asfortranarray(x[kept]), y[kept], None, weight[kept])

    @property
    def n(self) -> int:
        """Number of patients of these rows."""
        weight = self._block.weight
        return 0 if weight is None else round(float(weight.sum()))

    def blocks(self) -> Iterator[Block]:
        """All of them."""
        yield self._block


@dataclass(frozen=True)
class CodedPart:
    """Those of the coded rows of `whole` for which `inside` (n,) is true."""

    whole: CodedRows
    inside: NDArray[np.bool_]

    @property
    def n(self) -> int:
        """Number of rows."""
        return int(np.count_nonzero(self.inside))

    def codes(self) -> Iterator[Codes]:
        """The rows' values, cut at the places of the whole."""
        at = 0
        for codes in self.whole.codes():
            size = len(next(iter(codes.values())))
            inside = self.inside[at : at + size]
            at += size
            yield {name: values[inside] for name, values in codes.items()}


class BlockMaker(Protocol):
    """Whatever makes rows of variables' values: a design."""

    def block(self, codes: Codes) -> Block:
        """Rows of values."""


@runtime_checkable
class MadeOfCodes(Protocol):
    """Rows made from the variables' values."""

    @property
    def coded(self) -> CodedRows:
        """The values from which the rows are made."""


class CodedBlocks:
    """Rows made of the variables' values as they are asked for."""

    def __init__(self, design: BlockMaker, codes: CodedRows) -> None:
        self._design, self._codes = design, codes

    @property
    def coded(self) -> CodedRows:
        """The values from which the rows are made."""
        return self._codes

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._codes.n

    def blocks(self) -> Iterator[Block]:
        """The rows, block by block."""
        return (self._design.block(codes) for codes in self._codes.codes())


class ArrayCodes:
    """Coded rows in memory, handed out in blocks of `size` rows that fit a processor's cache."""

    def __init__(self, codes: Codes, size: int = 1 << 17) -> None:
        self._codes = codes
        self._size = size

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(next(iter(self._codes.values())))

    @property
    def everything(self) -> Codes:
        """All rows' values."""
        return self._codes

    def codes(self) -> Iterator[Codes]:
        """Slices of the arrays; nothing is copied."""
        for at in range(0, self.n, self._size):
            yield {name: values[at : at + self._size] for name, values in self._codes.items()}


def block_size(p: int) -> int:
    """Rows per block so that a weighted copy of a block stays in the cache (about 4 MiB)."""
    return max(256, (1 << 19) // max(p, 1))


def join_blocks(rows: Rows) -> Block:
    """All rows as one block, for learners that need them at once."""
    parts = list(rows.blocks())
    x, y = np.concatenate([b.x for b in parts]), np.concatenate([b.y for b in parts])
    return Block(x, y, *(_join(parts, name) for name in ("offset", "weight", "prior", "group")))


def _join(parts: Sequence[Block], name: str) -> NDArray[Any] | None:
    fields = [getattr(part, name) for part in parts]
    return None if any(field is None for field in fields) else np.concatenate(fields)
