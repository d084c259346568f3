"""What a worker does with a part of rows: find it, read it batch by batch, check and count it; and how parts are cut.

All functions here run at a worker of the hospital's cluster. What they return to the node are counts, ranges, digests
and findings. No pass keeps rows: the next one reads the file again, and knows by its digest that it is the same.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from coterie_learners.errors import DataError
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Codes
from coterie_node.data.cohort.flow import FlowStep, Prepared
from coterie_node.data.findings import FileOrigin
from coterie_node.data.load import FirstPass, check_values, prepare_rows
from coterie_node.data.mapping.convert import Conversion
from coterie_node.data.mapping.document import SiteMapping
from coterie_node.data.mapping.mapped_rows import MappedRows, list_kinds
from coterie_node.data.source import FileRows, RowSource, check_header, check_unchanged, explain_change
from coterie_node.data.streaming import code_columns, compact, complete
from coterie_node.data.tables.parquet_table import ParquetTable
from coterie_node.data.tables.table import open_table


@dataclass(frozen=True)
class PartJob:
    """What is read of every part: a study's columns at a site, as the mapping says."""

    study: Study
    site: str
    mapping: SiteMapping

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
class Cut:
    """Complete rows of a part, from `start` to before `end`; `digest` is that of the file when they were counted."""

    path: str
    start: int
    end: int
    digest: bytes


def list_parts(pattern: str) -> list[str]:
    """Paths of the parts, in the order of their names, as a worker sees them."""
    return sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())


def read_summary(job: PartJob, path: str) -> PartSummary:
    """What is in a part, whose rows are checked; DataError names the part and what is wrong in it."""
    origin, design = FileOrigin.of(job.site, Path(path)), job.design
    file = FileRows(origin)
    before = file.stamp()
    source, kinds = _open_part(job, origin, design)
    first = FirstPass(design, keep=False)
    for batch in source.batches():
        first.add(batch)
    check_values(source, first)
    digest = _digest_once(origin, before)
    check_unchanged(file, before)
    whole, steps = (source.read, source.steps) if isinstance(source, Prepared) else (first.read, ())
    counts = (first.read, first.n, first.events, first.missing, first.spread.low, first.spread.high)
    return PartSummary(path, *counts, digest, kinds, whole, steps)


def digest_part(site: str, path: str) -> bytes:
    """SHA-256 of a part's file as it is now."""
    return FileRows(FileOrigin.of(site, Path(path))).digest()


def read_cut(job: PartJob, cut: Cut) -> Iterator[Codes]:
    """The rows of a cut, batch by batch in few bytes; DataError if the part is not the one that was counted."""
    origin, design = FileOrigin.of(job.site, Path(cut.path)), job.design
    file, at = FileRows(origin), 0
    before = file.stamp()
    if _digest_once(origin, before) != cut.digest:
        raise explain_change(origin)
    try:
        for batch in _open_part(job, origin, design)[0].batches():
            rows = compact(complete(code_columns(batch, design), design), design)
            count = len(rows[design.read[0]])
            low, high = max(cut.start - at, 0), min(cut.end - at, count)
            if low < high:
                yield {name: values[low:high] for name, values in rows.items()}
            at += count
            if at >= cut.end:
                break
    except DataError:
        check_unchanged(file, before)
        raise
    check_unchanged(file, before)
    if at < cut.end:
        raise explain_change(origin)


def _open_part(job: PartJob, origin: FileOrigin, design: Design) -> tuple[RowSource, dict[str, str]]:
    """A part's rows as the study takes them, and the types of the columns that are read."""
    form = job.mapping.table
    table = open_table(origin, form.dialect, form.sheet)
    plan = {name: Conversion(job.mapping.rule(name), form, kind) for name, kind in list_kinds(design).items()}
    wanted = list(dict.fromkeys(source for conversion in plan.values() for source in conversion.sources))
    check_header(origin, table.header, wanted)
    stored = table.kinds if isinstance(table, ParquetTable) else dict.fromkeys(wanted, "text")
    source = prepare_rows(MappedRows(origin, job.mapping, origin, table, plan), design)
    return source, {name: stored[name] for name in wanted}


@lru_cache(maxsize=1 << 12)
def _digest_once(origin: FileOrigin, _: str) -> bytes:
    """SHA-256 of a part, computed once in this process for each size and time of the file."""
    return FileRows(origin).digest()
