"""One cohort's rows as the design matrices of several models, each made once if all fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.protocol import Site
from coterie_learners.study.design import Design
from coterie_learners.study.rows import ArrayRows, Block, CodedRows, Rows, block_size, join_blocks

# Design matrices of all models together that stay in memory.
_IN_MEMORY = 512 << 20


@dataclass(frozen=True)
class ModelBlocks:
    """The rows of one model, made of the variables' values as they are asked for.

    `groups` (n,): the number of each row's patient here, or None where nothing is summed by patient.
    """

    design: Design
    codes: CodedRows
    groups: NDArray[np.int64] | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.codes.n

    def blocks(self) -> Iterator[Block]:
        """The rows, block by block."""
        at = 0
        for codes in self.codes.codes():
            # Whole numbers are kept in few bytes, which powers of them would leave.
            block = self.design.block({name: codes[name].astype(np.float64) for name in self.design.inputs})
            end = at + len(block)
            yield block if self.groups is None else replace(block, group=self.groups[at:end])
            at = end


@dataclass(frozen=True)
class ModelRows:
    """The rows of each model at one site, all cut at the same places.

    `by_patient`: models whose sums are by patient.
    """

    designs: dict[str, Design]
    by_patient: frozenset[str] = frozenset()
    _kept: dict[str, Rows] = field(default_factory=dict, init=False, repr=False, compare=False)

    def read(self, name: str, site: Site) -> Rows:
        """The rows of a model at a site; those of a site that has them already."""
        if isinstance(site.data, ArrayRows | ModelBlocks):
            return site.rows
        if name not in self._kept:
            self._kept[name] = self._make(name, site)
        return self._kept[name]

    def seat(self, name: str, site: Site) -> Site:
        """The site with the rows of one model; an auditor has none."""
        return site if site.data is None else replace(site, data=self.read(name, site))

    def _make(self, name: str, site: Site) -> Rows:
        groups = index_patients(site) if name in self.by_patient else None
        rows = ModelBlocks(self.designs[name], site.codes, groups)
        widths = [len(design.columns) + 2 for design in self.designs.values()]
        if site.codes.n * sum(widths) * 8 > _IN_MEMORY:
            return rows
        block = join_blocks(rows)
        return ArrayRows.of(replace(block, x=np.asfortranarray(block.x)), block_size(max(widths)))


def index_patients(site: Site) -> NDArray[np.int64] | None:
    """The number of each row's patient (n,) in order of first sight; None where the node gives no identifiers."""
    identifiers = site.read_patients()
    if identifiers is None:
        return None
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in identifiers], dtype=np.int64)
