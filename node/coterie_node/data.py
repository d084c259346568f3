"""A site's own rows, from a file to what a learner sees, with every check done before the first of them is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coterie_learners.design import Codes, Design
from coterie_learners.rows import Array, ArrayRows, Block, Rows
from coterie_node.coding import FAULTS, Coded, advice, faults, shown
from coterie_node.csv_file import open_csv
from coterie_node.findings import Findings, Origin, quote
from coterie_node.parquet_file import open_parquet
from coterie_node.source import Batch, Source, check_unchanged, stamp
from coterie_node.streaming import StreamedRows, coded_columns, complete
from coterie_node.variation import Spread, check_variation

# A Parquet file whose design matrix is larger is read anew in each pass.
IN_MEMORY = 256 << 20


@dataclass(frozen=True)
class Summary:
    """What there is to say about a site's rows without showing any."""

    site: str
    file: str
    read: int
    used: int
    missing: Mapping[str, int]
    events: int | None
    streamed: bool

    @property
    def dropped(self) -> int:
        """Rows left out because a value is missing."""
        return self.read - self.used


@dataclass(frozen=True)
class LoadedRows:
    """Checked rows of one site, as `coterie_learners.rows.Rows`.

    `read` counts all rows of the file; `missing` the rows that lack each variable, which were dropped (a row may lack
    several); `events` the rows used with outcome 1, where the outcome is binary.
    """

    path: Path
    site: str
    read: int
    missing: Mapping[str, int]
    events: int | None
    rows: Rows

    @property
    def n(self) -> int:
        """Number of rows used."""
        return self.rows.n

    @property
    def dropped(self) -> int:
        """Rows left out because a value is missing."""
        return self.read - self.n

    @property
    def summary(self) -> Summary:
        """The counts, for people."""
        streamed = isinstance(self.rows, StreamedRows)
        return Summary(self.site, self.path.name, self.read, self.n, dict(self.missing), self.events, streamed)

    def blocks(self) -> Iterator[Block]:
        """The rows, block by block, always cut at the same places."""
        return self.rows.blocks()


class FirstPass:
    """Reads all rows once, checks every value, counts, and keeps the numbers if they are to stay in memory."""

    def __init__(self, design: Design, keep: bool) -> None:
        self.design = design
        self.keep = keep
        self.findings = Findings()
        self.spread = Spread()
        self.missing = dict.fromkeys(design.variables, 0)
        self.read = self.n = self.events = 0
        self.chunks: deque[Codes] = deque()

    def add(self, batch: Batch) -> None:
        """Take in the next rows."""
        coded = coded_columns(batch, self.design)
        for name, column in coded.items():
            self._check(name, column, batch)
        codes = complete(coded)
        outcome = codes[self.design.formula.outcome]
        self.read += len(coded[self.design.formula.outcome].values)
        self.n += len(outcome)
        self.events += int(np.count_nonzero(outcome == 1))
        self.spread.add(codes)
        if self.keep and not self.findings.found:
            self.chunks.append(codes)

    def _check(self, name: str, coded: Coded, batch: Batch) -> None:
        self.missing[name] += int(np.count_nonzero(coded.missing))
        wrong = list(faults(coded, self.design.study.variables[name]))
        if self.design.study.rows.missing == "refuse":
            wrong.append(("CO-D117", coded.missing))
        for fault, mask in wrong:
            self.findings.note(name, fault, mask, self.read, lambda i: shown(batch[name], i))


def load_rows(path: Path, design: Design, site: str) -> LoadedRows:
    """Read a CSV or Parquet file and check all of it; DataError names site, file, column and rows of what is wrong."""
    origin = Origin(site, path)
    before = stamp(origin)
    source = _open(origin, design)
    small = source.rows is None or source.rows * len(design.columns) * 8 <= IN_MEMORY
    first = FirstPass(design, keep=small)
    for batch in source.batches():
        first.add(batch)
    check_unchanged(origin, before)
    _check_values(source, first)
    _check_enough(origin, first)
    rows: Rows = _in_memory(design, first) if small else StreamedRows(source, before, design, first.n)
    check_variation(origin, design, rows, first.spread)
    events = first.events if design.outcome.type == "binary" else None
    return LoadedRows(path, site, first.read, first.missing, events, rows)


def _open(origin: Origin, design: Design) -> Source:
    suffix = origin.path.suffix.lower()
    if suffix == ".csv":
        return open_csv(origin, design.variables)
    if suffix == ".parquet":
        return open_parquet(origin, design)
    raise origin.error("CO-D119", f"The ending {quote(suffix)} is neither .csv nor .parquet. Export it as one of them.")


def _check_values(source: Source, first: FirstPass) -> None:
    design, findings = first.design, first.findings
    key = findings.first(design.variables)
    if key is None:
        return
    name, fault = key
    kind = "outcome" if name == design.formula.outcome else "column"
    where = findings.rows(key, first.read, source.places)
    todo = advice(fault, design.study.variables[name], findings.found[key].first[0][1])
    raise source.origin.error(
        fault, f"The {kind} {quote(name)} is {FAULTS[fault]} {where}. {todo}{findings.others(key)}"
    )


def _check_enough(origin: Origin, first: FirstPass) -> None:
    if first.read == 0:
        raise origin.error("CO-D103", "There is a header and no rows. Export the rows as well.")
    minimum = first.design.study.rows.minimum
    if first.n < minimum:
        lacking = ", ".join(f"{quote(name)} in {count}" for name, count in first.missing.items() if count)
        dropped = f", {first.read - first.n} having been dropped (missing: {lacking})" if lacking else ""
        raise origin.error(
            "CO-D118",
            f"{first.n} rows can be used{dropped}; the study wants at least {minimum} at each site. "
            "Add rows, or do not take part.",
        )


def _in_memory(design: Design, first: FirstPass) -> ArrayRows:
    x = np.empty((first.n, len(design.columns)), order="F")
    y = np.empty(first.n)
    offset: Array | None = np.empty(first.n) if design.formula.offset else None
    at = 0
    while first.chunks:
        # A chunk is let go as soon as it is in the matrix.
        block = design.block(first.chunks.popleft())
        cut = slice(at, at + len(block))
        x[cut], y[cut] = block.x, block.y
        if offset is not None:
            offset[cut] = block.offset
        at += len(block)
    return ArrayRows(x, y, offset)
