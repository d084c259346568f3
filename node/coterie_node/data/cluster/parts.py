"""What workers do with parts of rows: read and check a file, cut rows at the places of the whole, sum, hash.

All functions here run at a worker of the hospital's cluster. What they return to the node are counts, sums, digests and
findings; parts and groups of rows stay at the workers.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coterie_learners.numeric.parallel import one_thread
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, Block, CodedRows, Codes
from coterie_node.data.cohort.flow import FlowStep, Prepared
from coterie_node.data.commitment import hash_runs
from coterie_node.data.findings import FileOrigin
from coterie_node.data.load import CodesPass, FirstPass, check_values, prepare_rows
from coterie_node.data.mapping.convert import Conversion
from coterie_node.data.mapping.document import SiteMapping
from coterie_node.data.mapping.mapped_rows import MappedRows, list_kinds
from coterie_node.data.patients.site_rows import raw_of_codes
from coterie_node.data.source import FileRows, check_header, check_unchanged, explain_change
from coterie_node.data.streaming import compact
from coterie_node.data.tables.parquet_table import ParquetTable
from coterie_node.data.tables.table import open_table
from coterie_node.privacy.prints import RawRows

Sum = TypeVar("Sum")


@dataclass(frozen=True)
class PartJob:
    """What is read of every part: a study's columns at a site, as the mapping says. `coded`: values, no design."""

    study: Study
    site: str
    mapping: SiteMapping
    coded: bool

    @property
    def design(self) -> Design:
        """The study's design at the site."""
        return Design(self.study, self.site)


@dataclass(frozen=True)
class PartSummary:
    """What the node learns of a part: counts, ranges, the digest of its file and the types of its columns."""

    path: str
    read: int
    n: int
    events: int
    missing: dict[str, int]
    low: dict[str, float]
    high: dict[str, float]
    digest: bytes
    kinds: dict[str, str]
    whole: int
    steps: tuple[FlowStep, ...] = ()


@dataclass(frozen=True)
class Part:
    """The complete rows of a part, in few bytes."""

    summary: PartSummary
    values: Mapping[str, NDArray[Any]] = field(repr=False)


@dataclass(frozen=True)
class Cut:
    """Rows of a part; `digest` is that of the file when its rows were counted."""

    start: int
    end: int
    digest: bytes


def list_parts(pattern: str) -> list[str]:
    """Paths of the parts, in the order of their names, as a worker sees them."""
    return sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())


def read_part(job: PartJob, path: str) -> Part:
    """The checked rows of a part; DataError names the part and what is wrong in it."""
    origin, design = FileOrigin.of(job.site, Path(path)), job.design
    file = FileRows(origin)
    before, form = file.stamp(), job.mapping.table
    table = open_table(origin, form.dialect, form.sheet)
    plan = {name: Conversion(job.mapping.rule(name), form, kind) for name, kind in list_kinds(design).items()}
    wanted = list(dict.fromkeys(source for conversion in plan.values() for source in conversion.sources))
    check_header(origin, table.header, wanted)
    source = prepare_rows(MappedRows(origin, job.mapping, origin, table, plan), design)
    first = (CodesPass if job.coded else FirstPass)(design, keep=True)
    for batch in source.batches():
        first.add(batch)
    check_values(source, first)
    values = _join(design, first)
    digest = file.digest()
    check_unchanged(file, before)
    whole, steps = (source.read, source.steps) if isinstance(source, Prepared) else (first.read, ())
    stored = table.kinds if isinstance(table, ParquetTable) else dict.fromkeys(wanted, "text")
    kinds = {name: stored[name] for name in wanted}
    counts = (first.read, first.n, first.events, first.missing, first.spread.low, first.spread.high)
    return Part(PartSummary(path, *counts, digest, kinds, whole, steps), values)


def read_summary(part: Part) -> PartSummary:
    """What the node learns of a part."""
    return part.summary


def digest_part(site: str, path: str) -> bytes:
    """SHA-256 of a part's file as it is now."""
    return FileRows(FileOrigin.of(site, Path(path))).digest()


def cut_group(job: PartJob, cuts: Sequence[Cut], *parts: Part) -> dict[str, NDArray[Any]]:
    """Rows of one or more parts, in order; DataError if a part that was read again is another one."""
    for cut, part in zip(cuts, parts, strict=True):
        if part.summary.digest != cut.digest:
            raise explain_change(FileOrigin.of(job.site, Path(part.summary.path)))
    return _concatenate(
        [{n: v[c.start : c.end] for n, v in p.values.items()} for c, p in zip(cuts, parts, strict=True)]
    )


def over_blocks(
    job: PartJob, work: Callable[[int, Block], Sum], first: int, size: int, group: Mapping[str, NDArray[Any]]
) -> list[Sum]:
    """What work makes of each block of a group, whose first block has this number."""
    design, n = job.design, len(next(iter(group.values())))
    out = []
    with one_thread():
        for k, at in enumerate(range(0, n, size)):
            cut = {name: np.asarray(v[at : at + size], dtype=np.float64) for name, v in group.items()}
            out.append(work(first + k, design.block({name: cut[name] for name in design.inputs})))
    return out


def over_codes(job: PartJob, work: Callable[[int, Codes], Sum], first: int, group: Mapping[str, NDArray[Any]]) -> Sum:
    """What work makes of a group's values."""
    with one_thread():
        return work(first, derive_codes(job, group))


def together(job: PartJob, work: Callable[[CodedRows], Sum], *groups: Mapping[str, NDArray[Any]]) -> Sum:
    """What work makes of all values at once."""
    return work(ArrayCodes(derive_codes(job, _concatenate(groups))))


def derive_codes(job: PartJob, group: Mapping[str, NDArray[Any]]) -> Codes:
    """The values that the learner reads, with those that the formula derives."""
    design = job.design
    codes = design.derive(raw_of_codes(job.study, [group]).values)
    return {name: codes[name] for name in dict.fromkeys((*design.variables, *design.inputs))}


def join_raw(job: PartJob, missing: Mapping[str, int], *groups: Mapping[str, NDArray[Any]]) -> RawRows:
    """The raw rows of all groups, for the gate's judgement at this worker."""
    return raw_of_codes(job.study, [_concatenate(groups)], None, missing)


def hash_block(salt: bytes, runs: int, number: int, block: Block) -> list[bytes]:
    """The leaves of a block in the tree of all rows; every block but the last has so many runs."""
    more = [part for part in (block.offset, block.prior) if part is not None]
    return hash_runs(np.column_stack([block.x, block.y, *more]), salt, number * runs)


def hash_codes(salt: bytes, runs: int, number: int, codes: Codes) -> list[bytes]:
    """The same of a block of values."""
    return hash_runs(np.column_stack([codes[name] for name in sorted(codes)]), salt, number * runs)


def _join(design: Design, first: FirstPass) -> dict[str, NDArray[Any]]:
    """All complete rows in few bytes; a batch is let go as soon as it is in."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in design.read}
    while first.chunks:
        for name, values in compact(first.chunks.popleft(), design).items():
            parts[name].append(values)
    return {name: np.concatenate(own) if own else np.zeros(0) for name, own in parts.items()}


def _concatenate(groups: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    filled = [group for group in groups if len(next(iter(group.values())))] or groups[:1]
    return {name: np.concatenate([group[name] for group in filled]) for name in filled[0]}
