"""A site's own rows, from a file or another source to what a learner sees; all checks come before their first use."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.registry import learner_of
from coterie_learners.errors import StudyError, pluralise
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design, design_of
from coterie_learners.study.document import IdentifierKind, Study
from coterie_learners.study.identifiers import Unreadable, normalise
from coterie_learners.study.rows import ArrayRows, Block, CodedRows, Codes, Data, OwnColumns, Rows
from coterie_node.data.arrow_values import Mask
from coterie_node.data.checks import ObservedRanges, PatternRows, check_variation
from coterie_node.data.coding import FAULTS, Coded, advice, as_text, faults, value_at
from coterie_node.data.cohort.flow import Flow, FlowStep, Prepared
from coterie_node.data.files.csv_file import open_csv
from coterie_node.data.files.row_spool import RowSpool
from coterie_node.data.findings import FileOrigin, Findings, Origin, quote
from coterie_node.data.installed_source import SourceAddress, open_installed
from coterie_node.data.patients.objectors import WithoutObjectors, read_objectors
from coterie_node.data.patients.site_rows import RawSiteColumns, SiteCodes, SiteRows, WithRaw, raw_of_codes
from coterie_node.data.row_copies import Contents, RowCopies, make_key
from coterie_node.data.source import Batch, FileRows, RowSource, SourceIdentity, check_unchanged, stamp_file
from coterie_node.data.streaming import (
    StreamedCodes,
    StreamedRows,
    StreamedSource,
    code_columns,
    compact,
    complete,
    lacking,
    number_patients,
    width,
)
from coterie_node.data.tables.frame import FrameAddress, RowsPlace, open_frame
from coterie_node.privacy.prints import RawRows

# Bytes. A Parquet file whose design matrix is larger is read again in each pass.
IN_MEMORY = 256 << 20
# Rows of the design matrix that are made in one go.
CHUNK = 1 << 16


@dataclass(frozen=True)
class Summary:
    """The counts of a site's rows, without any value of them."""

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
class Loaded:
    """Checked data of one site, in the form that the study's learner reads.

    `source` is what the rows came from, `read` counts all of its rows; `missing` those that lack each variable, which
    were dropped (a row may lack several); `events` the rows used with outcome 1, where the outcome is binary. `before`:
    the source's stamp when it was opened.
    """

    source: SourceIdentity
    site: str
    read: int
    missing: Mapping[str, int]
    events: int | None
    rows: Data
    before: str | None = None
    flow: Flow | None = field(default=None, kw_only=True)

    @property
    def n(self) -> int:
        """Number of rows used."""
        return self.rows.n

    @property
    def dropped(self) -> int:
        """Rows left out because a value is missing."""
        return self.read - self.n

    @property
    def row_warnings(self) -> tuple[str, ...]:
        """A warning if more than half of the rows are left out; nothing otherwise."""
        if 2 * self.dropped <= self.read:
            return ()
        return (
            f"{self.site}: more than half of its rows are left out ({self.dropped} of {self.read}), and the rest may "
            "differ from them. Look for a column that lacks most values.",
        )

    @property
    def summary(self) -> Summary:
        """The counts, for people."""
        streamed = isinstance(self.rows, StreamedSource)
        return Summary(self.site, self.source.origin.name, self.read, self.n, dict(self.missing), self.events, streamed)


@dataclass(frozen=True)
class MemoryRows(Loaded):
    """Checked rows of one site, as `coterie_learners.study.rows.Rows`."""

    rows: Rows

    def blocks(self) -> Iterator[Block]:
        """The rows, block by block, always cut at the same places."""
        return self.rows.blocks()


@dataclass(frozen=True)
class CodedLoaded(Loaded):
    """Checked rows of one site, as `coterie_learners.study.rows.CodedRows`."""

    rows: CodedRows


class FirstPass:
    """Reads all rows once, checks every value, counts, and keeps the numbers if they are to stay in memory.

    most: rows that stay in memory at most; beyond that all are put aside in a file.
    """

    def __init__(self, design: Design, keep: bool, most: int | None = None) -> None:
        self.design = design
        self.keep = keep
        self.most = most
        self.spool: RowSpool | None = None
        self.findings = Findings()
        self.spread = ObservedRanges()
        self.missing = dict.fromkeys(design.used, 0)
        self.read = self.n = self.events = 0
        self.chunks: deque[Codes] = deque()
        self.identifiers: list[tuple[str, ...]] = []
        self.incomplete: list[tuple[str, ...]] = []
        self.refusals: dict[str, str] = {}

    def add(self, batch: Batch) -> None:
        """Take in the next rows."""
        coded = code_columns(batch, self.design)
        for name, column in coded.items():
            self._check(name, column, batch)
        codes = complete(coded, self.design)
        first, outcome = self.design.read[0], self.design.outcome_here
        if self.design.identifier:
            self._identify(batch, ~lacking(coded, self.design))
        self.read += len(coded[first].values)
        self.n += len(codes[first])
        self.events += 0 if outcome is None else int(np.count_nonzero(codes[outcome] == 1))
        self.spread.add(self.design.derive(codes))
        if self.keep and not self.findings.by_column:
            self.chunks.append(self._keep_codes(codes))

    def put_aside(self, origin: Origin) -> None:
        """Move the rows kept so far into a file, if they are too many for memory."""
        if not self.keep or (self.spool is None and (self.most is None or self.n <= self.most)):
            return
        self.spool = self.spool or RowSpool(origin)
        while self.chunks:
            self.spool.add(compact(self.chunks.popleft(), self.design))

    @property
    def known_patients(self) -> list[tuple[str, ...]] | None:
        """The identifiers of the rows used, or None where rows are taken for patients."""
        return self.identifiers if self.design.identifier else None

    def _keep_codes(self, codes: Codes) -> Codes:
        """The numbers in the form in which they stay in memory."""
        return codes

    def _identify(self, batch: Batch, used: Mask) -> None:
        """Keep the identifying values of the rows used, and of those that lack a value; note rows that have none."""
        kinds = self.design.identifying
        columns = [as_text(batch[name]) for name in kinds]
        for (name, kind), column in zip(kinds.items(), columns, strict=True):
            self._check_identifiers(name, kind, column)
        for row, use in zip(zip(*columns, strict=True), used.tolist(), strict=True):
            (self.identifiers if use else self.incomplete).append(row)

    def _check_identifiers(self, name: str, kind: IdentifierKind, column: list[str]) -> None:
        """Note values that identify nobody, and values that the declared kind refuses."""
        missing, wrong = np.zeros(len(column), dtype=bool), np.zeros(len(column), dtype=bool)
        for row, value in enumerate(column):
            try:
                missing[row] = normalise(kind, value) is None
            except Unreadable as refusal:
                wrong[row] = True
                self.refusals.setdefault(name, str(refusal))
        if self.design.study.linkage.unidentified == "refuse":
            self.findings.note(name, "CO-D132", missing, self.read, column.__getitem__)
        self.findings.note(name, "CO-D134", wrong, self.read, column.__getitem__)

    def _check(self, name: str, coded: Coded, batch: Batch) -> None:
        wrong = list(faults(coded, self.design.declaration(name)))
        if name not in self.design.behind:
            self.missing[name] += int(np.count_nonzero(coded.missing))
        if name not in self.design.behind and self.design.study.rows.missing == "refuse":
            wrong.append(("CO-D117", coded.missing))
        for fault, mask in wrong:
            self.findings.note(name, fault, mask, self.read, lambda i: value_at(batch[name], i))


class CodesPass(FirstPass):
    """A first pass that keeps whole numbers in few bytes."""

    def _keep_codes(self, codes: Codes) -> Codes:
        return compact(codes, self.design)


def load_rows(address: RowsPlace, design: Design, site: str, objectors: frozenset[str] = frozenset()) -> MemoryRows:
    """Read rows and check all of them; DataError names site, file, column and rows of what is wrong."""
    source, before = open_source(address, design, site, objectors)
    small = source.rows is None or source.rows * len(design.columns) * 8 <= IN_MEMORY
    most = _find_most_rows(address, len(design.columns) * 8)
    first = check_rows(source, before, FirstPass(design, small, most))
    if small and first.spool is None:
        return _build_rows(source, before, design, _contents_of(design, first), first.spread)
    rows = StreamedRows(source, before, design, first, spool=first.spool)
    check_variation(source.origin, design, rows, first.spread)
    return MemoryRows(source, site, first.read, first.missing, _count_events(design, first), rows, before)


def _find_most_rows(address: RowsPlace, row: int) -> int | None:
    """How many rows of so many bytes stay in memory; None for a CSV, which a daemon reads from its copy."""
    plain = isinstance(address, Path) and address.suffix.lower() == ".csv"
    return None if plain else IN_MEMORY // max(row, 1)


def load_columns(address: RowsPlace, design: Design, site: str, objectors: frozenset[str] = frozenset()) -> Loaded:
    """Read and check the columns that a site has about its own patients, and their identifiers."""
    source, before = open_source(address, design, site, objectors)
    first = check_rows(source, before, FirstPass(design, keep=True))
    raw = raw_of_codes(design.study, [_join_columns(design, first)], first.identifiers, first.missing)
    contents = Contents(first.read, _count_events(design, first), raw, tuple(first.incomplete))
    return _build_columns(source, before, design, contents, first.spread)


def load_coded_rows(address: RowsPlace, design: Design, site: str, objectors: frozenset[str] = frozenset()) -> Loaded:
    """Read and check a site's rows as the variables' values; a table of the R package pda comes as it is."""
    if isinstance(address, Path) and address.suffix.lower() == ".json":
        file = FileRows(FileOrigin.of(site, address))
        before = file.stamp()
        if design.study.preparation is not None:
            text = "The study has conditions or derived variables, which a table of patterns cannot fulfil."
            raise file.origin.error("CO-D191", f"{text} Take part with rows.")
        from coterie_node.data import pda  # it imports COLA

        table = pda.read_table(file.origin, design)
        return Loaded(file, site, table.n, {}, None, table, before)
    loaded, first = _load_codes(address, design, site, objectors)
    for model in design.models:
        check_variation(loaded.source.origin, model, PatternRows(model, loaded.rows), first.spread)
    return loaded


def load_values(address: RowsPlace, design: Design, site: str, objectors: frozenset[str] = frozenset()) -> Loaded:
    """Read and check a site's rows as the variables' values, some of which may be missing; no model uses them."""
    return _load_codes(address, design, site, objectors)[0]


def _load_codes(
    address: RowsPlace, design: Design, site: str, objectors: frozenset[str]
) -> tuple[CodedLoaded, FirstPass]:
    source, before = open_source(address, design, site, objectors)
    keeps = design.study.rows.missing == "keep"
    row = sum(8 if keeps else width(design.declaration(name)).itemsize for name in design.read)
    small = source.rows is None or source.rows * row <= IN_MEMORY
    first = check_rows(source, before, CodesPass(design, small, _find_most_rows(address, row)))
    counts = (first.read, first.missing, _count_events(design, first))
    if not small or first.spool is not None:
        codes = StreamedCodes(source, before, design, first, spool=first.spool)
        return CodedLoaded(source, site, *counts, codes, before), first
    raw = _contents_of(design, first).raw
    return CodedLoaded(source, site, *counts, SiteCodes(_codes_of(design, raw), raw), before), first


def _build_rows(
    source: SourceIdentity, before: str, design: Design, contents: Contents, spread: ObservedRanges
) -> MemoryRows:
    rows, site = _in_memory(design, contents.raw), source.origin.site
    check_variation(source.origin, design, rows, spread)
    return MemoryRows(source, site, contents.read, contents.raw.lacking, contents.events, rows, before)


def _build_codes(
    source: SourceIdentity, before: str, design: Design, contents: Contents, spread: ObservedRanges
) -> Loaded:
    rows, site = SiteCodes(_codes_of(design, contents.raw), contents.raw), source.origin.site
    for model in design.models:
        check_variation(source.origin, model, PatternRows(model, rows), spread)
    return Loaded(source, site, contents.read, contents.raw.lacking, contents.events, rows, before)


def _build_columns(
    source: SourceIdentity, before: str, design: Design, contents: Contents, spread: ObservedRanges
) -> Loaded:
    raw, site = contents.raw, source.origin.site
    x = design.matrix(dict(raw.values), raw.n)
    check_variation(source.origin, design, ArrayRows(x, np.zeros(raw.n)), spread)
    outcome, offset = (raw.values.get(name or "") for name in (design.formula.outcome, design.formula.offset))
    identifiers = tuple(tuple(row) for row in raw.identifiers or ())
    rows = RawSiteColumns(identifiers, design.names, x, outcome, offset, contents.incomplete, raw)
    return Loaded(source, site, contents.read, raw.lacking, contents.events, rows, before)


def _join_columns(design: Design, first: FirstPass) -> Codes:
    return {name: np.concatenate([chunk[name] for chunk in first.chunks]) for name in design.read}


def load_site(
    address: RowsPlace | None,
    study: Study,
    site: str,
    exclude: Path | None = None,
    copies: RowCopies | None = None,
) -> Loaded | None:
    """A site's data in the form that the study's learner reads; None for a helper, which has no data.

    `exclude`: a file with the identifiers of patients who object; their rows are no part of anything. `copies`: where
    the checked rows of a file are kept, so that the next call need not read it as text.
    """
    if site not in study.owners:
        return None
    if address is None:
        raise StudyError("CO-S105", f"{site} has data in the study {study.name!r}; name its file.")
    design = design_of(study, site)
    objectors = read_objectors(exclude, design, site)
    if isinstance(address, Path) and _is_on_cluster(address, site):
        from coterie_node.data.cluster.load_cluster import load_cluster  # for sites with a cluster alone

        loaded = load_cluster(address, study, site)
        return replace(loaded, flow=read_flow(loaded.source, loaded.read, loaded.missing, loaded.n))
    form = "columns" if study.columns else learner_of(study).reads
    # A copy holds complete rows only.
    copied = form in BUILDERS and isinstance(address, Path) and _is_slow_to_read(address, design)
    if copies is None or not isinstance(address, Path) or not copied:
        loaded = LOADERS[form](address, design, site, objectors)
    else:
        loaded = _load_by_copy(FileOrigin.of(site, address), form, design, objectors, copies)
    return replace(loaded, flow=read_flow(loaded.source, loaded.read, loaded.missing, loaded.n))


def _is_on_cluster(path: Path, site: str) -> bool:
    """Whether rows are named by a mapping with parts on a cluster."""
    if path.suffix.lower() != ".toml":
        return False
    from coterie_node.data.mapping.document import read_mapping  # for sites with a mapping alone

    return read_mapping(path, site).dask is not None


def _is_slow_to_read(path: Path, design: Design) -> bool:
    """Whether a copy saves anything: Parquet has types already, unless identifiers are brought to their normal form."""
    if design.study.preparation is not None:  # a copy does not count those that a condition left out
        return False
    suffix = path.suffix.lower()
    return suffix == ".csv" or (suffix == ".parquet" and bool(design.identifier))


def _load_by_copy(
    origin: FileOrigin, form: str, design: Design, objectors: frozenset[str], copies: RowCopies
) -> Loaded:
    """A site's data from their checked copy, or from the file, which is then copied."""
    source, before = FileRows(origin), stamp_file(origin)
    key = make_key(design, origin.site, origin.path.suffix.lower(), source.digest(), objectors)
    contents = copies.find(design, key)
    # Until here the file may have been replaced: then neither the digest nor the stamp is that of the rows.
    check_unchanged(source, before)
    if contents is not None:
        return BUILDERS[form](source, before, design, contents, ObservedRanges.of(design.derive(contents.raw.values)))
    loaded = LOADERS[form](origin.path, design, origin.site, objectors)
    data = loaded.rows
    if isinstance(data, WithRaw) and not isinstance(data, StreamedSource) and loaded.before == before:
        incomplete = data.incomplete if isinstance(data, OwnColumns) else ()
        copies.save(design, key, Contents(loaded.read, loaded.events, data.read_raw(), incomplete))
    return loaded


BUILDERS: Mapping[str, Callable[[SourceIdentity, str, Design, Contents, ObservedRanges], Loaded]] = {
    "rows": _build_rows,
    "codes": _build_codes,
    "columns": _build_columns,
}

LOADERS: Mapping[str, Callable[[RowsPlace, Design, str, frozenset[str]], Loaded]] = {
    "rows": load_rows,
    "codes": load_coded_rows,
    "values": load_values,
    "columns": load_columns,
}


def check_rows(source: RowSource, before: str, first: FirstPass) -> FirstPass:
    """The first pass over all rows; DataError for what is wrong with any of them."""
    for batch in source.batches():
        first.add(batch)
        first.put_aside(source.origin)
    check_unchanged(source, before)
    check_values(source, first)
    check_enough(source, first)
    return first


def _count_events(design: Design, first: FirstPass) -> int | None:
    return first.events if design.outcome_here is not None and design.outcome.type == "binary" else None


def open_source(
    address: RowsPlace, design: Design, site: str, objectors: frozenset[str] = frozenset()
) -> tuple[RowSource, str]:
    """A site's rows as the study takes them, and their stamp from before anything of them was read.

    DataError if they cannot be opened.
    """
    source, before = open_file_rows(address, design, site)
    source = WithoutObjectors(source, design.identifier[0], objectors) if objectors else source
    return prepare_rows(source, design), before


def prepare_rows(source: RowSource, design: Design) -> RowSource:
    """The rows that the study's conditions let in, with derived variables; the same rows without any."""
    plan = design.study.preparation
    if plan is None:
        return source
    from coterie_node.data.cohort.prepared_rows import PreparedRows  # for studies with conditions alone

    return PreparedRows(source, design, plan)


def open_file_rows(address: RowsPlace, design: Design, site: str) -> tuple[RowSource, str]:
    """All rows of a site in the study's words, before any condition; and their stamp. DataError as `open_source`."""
    if isinstance(address, SourceAddress):
        installed = open_installed(address, design, site)
        return installed, installed.stamp()
    if isinstance(address, FrameAddress):
        frame = open_frame(address, design, site)
        return frame, frame.stamp()
    if address.suffix.lower() == ".toml":
        from coterie_node.data.mapping.mapped_rows import open_mapped  # for sites with a mapping alone

        mapped = open_mapped(address, design, site)
        return mapped, mapped.stamp()
    origin = FileOrigin.of(site, address)
    before = stamp_file(origin)
    return _open(origin, design), before


def _open(origin: FileOrigin, design: Design) -> RowSource:
    suffix = origin.path.suffix.lower()
    if suffix == ".csv":
        return open_csv(origin, (*design.file_columns, *design.identifier))
    if suffix == ".parquet":
        from coterie_node.data.files.parquet_file import (
            open_parquet,
        )  # with Arrow's file systems, which a CSV needs not

        return open_parquet(origin, design)
    raise origin.error(
        "CO-D119",
        f"The ending {quote(suffix)} is neither .csv nor .parquet. Export it as one of them, or name it in a mapping "
        "(.toml).",
    )


def check_values(source: RowSource, first: FirstPass) -> None:
    """DataError for the first column with values that its declaration refuses."""
    design, findings = first.design, first.findings
    key = findings.first((*design.read, *design.identifier))
    if key is None:
        return
    name, fault = key
    kind = "outcome" if name == design.formula.outcome else "column"
    where = findings.rows(key, first.read, source.places)
    if name in design.identifier:
        raise source.origin.error(
            fault, f"{_describe_identifier_fault(first, name, fault, where)}{findings.others(key)}"
        )
    todo = advice(fault, design.declaration(name), findings.by_column[key].first[0][1])
    raise source.origin.error(
        fault, f"The {kind} {quote(name)} is {FAULTS[fault]} {where}. {todo}{findings.others(key)}"
    )


def _describe_identifier_fault(first: FirstPass, name: str, fault: str, where: str) -> str:
    """What is wrong with an identifying column, and what to do."""
    if fault == "CO-D132":
        todo = 'Give every row its identifier, or let the study leave such rows out with linkage.unidentified = "drop".'
        return f"The identifying column {quote(name)} is blank {where}. {todo}"
    kind = first.design.identifying[name]
    todo = "Correct the values, or let the study declare another kind."
    return f"The identifying column {quote(name)}, declared as {kind}, has {first.refusals[name]}, {where}. {todo}"


def read_flow(
    source: SourceIdentity, read: int, missing: Mapping[str, int], used: int, why: str = "a value is missing"
) -> Flow:
    """The flow of a site's rows into the study, of the latest pass over them; `why` the last ones are left out."""
    steps: list[FlowStep] = []
    whole, patients = read, None
    if isinstance(source, Prepared):
        whole, patients, steps = source.read, source.patients, list(source.steps)
        source = source.source
    if isinstance(source, WithoutObjectors) and source.excluded:
        whole += source.excluded
        steps.insert(0, FlowStep("patients who object", source.excluded))
    if read > used:
        lacking = ", ".join(f"{name} {count}" for name, count in missing.items() if count)
        unit: Literal["rows", "patients"] = "rows" if patients is None else "patients"
        steps.append(FlowStep(why, read - used, unit=unit, detail=lacking))
    return Flow(whole, tuple(steps), used, patients)


def check_enough(source: SourceIdentity, first: FirstPass) -> None:
    """DataError if no row, or fewer rows than the study wants, can be used."""
    origin = source.origin
    if first.read == 0 and isinstance(source, Prepared) and source.read:
        rules = "; ".join(step.rule for step in source.steps)
        text = f"None of {pluralise(source.read, 'row')} fulfils the study's conditions ({rules})."
        raise origin.error("CO-D192", f"{text} Look at `coterie data check`, or do not take part.")
    if first.read == 0:
        raise origin.error("CO-D103", "There is a header and no rows. Export the rows as well.")
    minimum = first.design.study.rows.minimum
    if first.n < minimum:
        lacking = ", ".join(f"{quote(name)} in {count}" for name, count in first.missing.items() if count)
        dropped = f", {first.read - first.n} having been dropped (missing: {lacking})" if lacking else ""
        raise origin.error(
            "CO-D118",
            f"{pluralise(first.n, 'row')} can be used{dropped}; the study wants at least {minimum} at each site. "
            "Add rows, or do not take part.",
        )


def _contents_of(design: Design, first: FirstPass) -> Contents:
    return Contents(first.read, _count_events(design, first), _raw(design, first))


def _raw(design: Design, first: FirstPass) -> RawRows:
    """All values in few bytes; a chunk is freed as soon as it is in."""
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in design.read}
    while first.chunks:
        for name, values in compact(first.chunks.popleft(), design).items():
            parts[name].append(values)
    joined = {name: np.concatenate(parts.pop(name)) for name in design.read}
    return raw_of_codes(design.study, [joined], first.known_patients, first.missing)


def _codes_of(design: Design, raw: RawRows) -> Codes:
    codes = design.derive(raw.values)
    return {name: codes[name] for name in dict.fromkeys((*design.variables, *design.inputs))}


def _in_memory(design: Design, raw: RawRows) -> SiteRows:
    x = np.empty((raw.n, len(design.columns)), order="F")
    y = np.empty(raw.n)
    offset: Array | None = np.empty(raw.n) if design.formula.offset else None
    prior: Array | None = np.empty(raw.n) if design.weights else None
    for at in range(0, raw.n, CHUNK):
        cut = slice(at, at + CHUNK)
        block = design.block({name: np.asarray(raw.values[name][cut], np.float64) for name in design.inputs})
        x[cut], y[cut] = block.x, block.y
        if offset is not None:
            offset[cut] = block.offset
        if prior is not None:
            prior[cut] = block.prior
    group = number_patients(raw.identifiers)
    return SiteRows(ArrayRows.of(Block(x, y, offset, None, prior, group)), raw)
