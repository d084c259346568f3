"""What workers make of the rows of one or more parts: sums of blocks, leaves of the snapshot, a judgement.

A span is the blocks that begin in one part, with the rows of the next parts that fill the last of them. So a pass reads
each part about once, in batches, and a worker has a batch and a block of rows in memory, whatever the parts' sizes.
All functions but `plan_spans` run at a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.parallel import one_thread
from coterie_learners.study.rows import ArrayCodes, Block, CodedRows, Codes
from coterie_node.data.arrow import pa
from coterie_node.data.cluster.parts import Cut, PartJob, PartSummary, read_cut
from coterie_node.data.commitment import hash_runs
from coterie_node.data.patients.site_rows import raw_of_codes
from coterie_node.data.streaming import regroup

Sum = TypeVar("Sum")


@dataclass(frozen=True)
class Span:
    """Whole blocks of rows, the first with the number `first`, and the places of their rows, in order."""

    first: int
    cuts: tuple[Cut, ...]

    @property
    def n(self) -> int:
        """Number of rows."""
        return sum(cut.end - cut.start for cut in self.cuts)


def plan_spans(summaries: Sequence[PartSummary], size: int) -> Iterator[Span]:
    """Spans of blocks of `size` rows, the very last block of fewer, wherever the parts end."""
    ends = list(accumulate(summary.n for summary in summaries))
    bounds = sorted({min(-(-end // size) * size, ends[-1]) for end in ends if end})
    number = at = start = 0
    for bound in bounds:
        room, cuts = bound - start, []
        while room:
            part = summaries[number]
            taken = min(room, part.n - at)
            if taken:
                cuts.append(Cut(part.path, at, at + taken, part.digest))
            at, room = at + taken, room - taken
            if at == part.n:
                number, at = number + 1, 0
        yield Span(start // size, tuple(cuts))
        start = bound


def over_blocks(job: PartJob, work: Callable[[int, Block], Sum], size: int, span: Span) -> list[Sum]:
    """What work makes of each block of a span; work gets the block's number too."""
    design, out = job.design, []
    with _sparing(), one_thread():
        for k, group in enumerate(regroup(_read_span(job, span), size)):
            values = {name: np.asarray(group[name], dtype=np.float64) for name in design.inputs}
            out.append(work(span.first + k, design.block(values)))
    return out


def over_codes(job: PartJob, work: Callable[[int, Codes], Sum], size: int, span: Span) -> list[Sum]:
    """What work makes of each block of values; work gets the block's number too."""
    with _sparing(), one_thread():
        groups = enumerate(regroup(_read_span(job, span), size))
        return [work(span.first + k, _derive_codes(job, group)) for k, group in groups]


def together(job: PartJob, work: Callable[[CodedRows], Sum], span: Span) -> Sum:
    """What work makes of all values at once."""
    with _sparing():
        return work(ArrayCodes(_derive_codes(job, _read_whole(job, span))))


def make_beside(
    job: PartJob, missing: Mapping[str, int], span: Span, make: Callable[..., Sum], *arguments: object
) -> Sum:
    """make(raw rows, *arguments), for the gate's judgement at this worker."""
    with _sparing():
        return make(raw_of_codes(job.study, [_read_whole(job, span)], None, missing), *arguments)


def hash_block(salt: bytes, runs: int, number: int, block: Block) -> list[bytes]:
    """The leaves of a block in the tree of all rows; every block but the last has so many runs."""
    more = [part for part in (block.offset, block.prior) if part is not None]
    return hash_runs(np.column_stack([block.x, block.y, *more]), salt, number * runs)


def hash_codes(salt: bytes, runs: int, number: int, codes: Codes) -> list[bytes]:
    """The same of a block of values."""
    return hash_runs(np.column_stack([codes[name] for name in sorted(codes)]), salt, number * runs)


@contextmanager
def _sparing() -> Iterator[None]:
    """Give the memory of batches back to the machine afterwards, which Arrow would keep for the next ones."""
    try:
        yield
    finally:
        pa.default_memory_pool().release_unused()


def _read_span(job: PartJob, span: Span) -> Iterator[Codes]:
    return chain.from_iterable(read_cut(job, cut) for cut in span.cuts)


def _read_whole(job: PartJob, span: Span) -> Codes:
    """All rows of a span at once, each column in one array that is filled batch by batch."""
    whole: dict[str, NDArray[Any]] = {}
    at = 0
    for rows in _read_span(job, span):
        count = len(next(iter(rows.values())))
        for name, values in rows.items():
            whole.setdefault(name, np.empty(span.n, values.dtype))[at : at + count] = values
        at += count
    return whole


def _derive_codes(job: PartJob, group: Codes) -> Codes:
    """The values that the learner reads, with those that the formula derives."""
    design = job.design
    codes = design.derive(raw_of_codes(job.study, [group]).values)
    return {name: codes[name] for name in dict.fromkeys((*design.variables, *design.inputs))}
