"""From parts on a cluster to a site's checked data: counts, checks and cuts as of one file of the rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from coterie_learners.core.registry import learner_of
from coterie_learners.errors import LearnerError, pluralise
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import block_size
from coterie_node.data.checks import PatternRows, check_variation
from coterie_node.data.cluster import parts
from coterie_node.data.cluster.answers import check_digest, check_paths, check_summary
from coterie_node.data.cluster.cluster_rows import ClusterCodes, ClusterRows
from coterie_node.data.cluster.connection import Cluster
from coterie_node.data.cluster.parts import PartJob, PartSummary
from coterie_node.data.cluster.spans import plan_spans
from coterie_node.data.cohort.flow import FlowStep
from coterie_node.data.findings import FileOrigin, Origin, quote
from coterie_node.data.load import FirstPass, Loaded, check_enough
from coterie_node.data.mapping.document import SiteMapping, read_mapping
from coterie_node.data.source import stamp_file

# Rows of a block of values: those of rows in memory.
CODES = 1 << 17
MOST_PARTS = 100_000


@dataclass(frozen=True)
class ClusterSource:
    """Parts by their identity; `whole` rows are in them, of which conditions left out some."""

    origin: Origin
    cluster: Cluster
    mapping: SiteMapping
    path: FileOrigin
    parts: tuple[PartSummary, ...]
    read: int
    steps: tuple[FlowStep, ...]
    patients: int | None = None

    @property
    def source(self) -> ClusterSource:
        """The parts themselves."""
        return self

    def stamp(self) -> str:
        """The digest, and the stamp of the mapping: nothing cheaper is known of files on other machines."""
        return f"{stamp_file(self.path)}; {self.digest().hex()}"

    def digest(self) -> bytes:
        """SHA-256 of the mapping's digest and of those of all parts, read again at the workers."""
        site, total = self.origin.site, hashlib.sha256(b"coterie parts\0" + bytes.fromhex(self.mapping.digest))
        tasks = (partial(self.cluster.submit, parts.digest_part, site, part.path) for part in self.parts)
        with closing(self.cluster.read_in_order(f"{site}: digests", tasks, len(self.parts))) as answers:
            for part, digest in zip(self.parts, answers, strict=True):
                total.update(check_digest(site, part.path, digest))
        return total.digest()


def load_cluster(path: Path, study: Study, site: str) -> Loaded:
    """Read and check all parts at the workers; DataError names the part and what is wrong."""
    mapping = read_mapping(path, site)
    assert mapping.dask is not None
    name = f"dask:{Path(mapping.dask.files).name}"
    origin = Origin(site, name, "cluster", (("mapping", mapping.digest), ("engine", "dask")))
    design = Design(study, site)
    form = _check_engine(study, design, origin)
    cluster = Cluster(origin, mapping.dask, path.parent)
    try:
        return _load_parts(cluster, PartJob(study, site, mapping), FileOrigin.of(site, path), form)
    except LearnerError:
        cluster.close()
        raise


def _load_parts(cluster: Cluster, job: PartJob, path: FileOrigin, form: str) -> Loaded:
    origin, design = cluster.origin, job.design
    summaries = _read_parts(cluster, job)
    source = _describe_source(cluster, job.mapping, path, summaries)
    first = _merge(design, summaries)
    check_enough(source, first)
    spread = first.spread
    rows = _cut(cluster, job, summaries, form, first.missing)
    if isinstance(rows, ClusterRows):
        check_variation(origin, design, rows, spread)
    elif form == "codes":
        for model in design.models:
            check_variation(origin, model, PatternRows(model, rows), spread)
    events = first.events if design.outcome_here is not None and design.outcome.type == "binary" else None
    return Loaded(source, job.site, first.read, first.missing, events, rows, None)


def _check_engine(study: Study, design: Design, origin: Origin) -> str:
    """What the learner reads; DataError (CO-D184) for a study that cannot run on rows that stay where they are."""
    learner, plan = learner_of(study), study.preparation
    reasons = {
        "its columns are split over sites": bool(study.columns),
        "it identifies patients": bool(design.identifier),
        "it joins rows of one patient": plan is not None and plan.by_patient,
        "it has several models": bool(study.models),
        "it evaluates on held-out rows": bool(study.evaluate.held_out),
        "it names a cohort that later studies stand on": bool(study.cohort.name),
        f"{learner.name}, with these options, needs the rows themselves": not learner.by_blocks(study),
    }
    for reason, holds in reasons.items():
        if holds:
            todo = "Take part with a file or a query, or choose glore, cola or table_one with plain options."
            raise origin.error("CO-D184", f"The study cannot run on a cluster: {reason}. {todo}")
    return learner.reads


def _read_parts(cluster: Cluster, job: PartJob) -> list[PartSummary]:
    """Summaries of all parts; DataError if there are none, or they are of several types."""
    source, design = cluster.source, job.design
    paths = check_paths(cluster.origin, cluster.read(cluster.submit(parts.list_parts, source.files)))
    if not 0 < len(paths) <= MOST_PARTS:
        message = f"The workers see {pluralise(len(paths), 'file')} as {source.files}"
        raise cluster.origin.error("CO-D183", f"{message}. Correct `files`: 1 to {MOST_PARTS} are read.")
    tasks = (partial(cluster.submit, parts.read_summary, job, path) for path in paths)
    with closing(cluster.read_in_order(f"{job.site}: reading", tasks, len(paths))) as answers:
        pairs = zip(paths, answers, strict=True)
        summaries = [check_summary(job.site, path, design, answer) for path, answer in pairs]
    filled = [summary for summary in summaries if summary.whole]  # a part without rows may have lost its types
    for summary in filled:
        other = FileOrigin.of(job.site, Path(summary.path))
        if fault := _find_other_kind(filled[0], summary):
            raise other.error("CO-D183", f"{fault}. Write all parts with the same types.")
    return summaries


def _find_other_kind(first: PartSummary, other: PartSummary) -> str:
    """Which column another part stores as another type; empty if none."""
    for name, kind in first.kinds.items():
        if other.kinds[name] != kind:
            mine = f"the part {quote(Path(first.path).name)} has it as {quote(kind)}"
            return f"The column {quote(name)} is stored as {quote(other.kinds[name])}, and {mine}"
    return ""


def _merge(design: Design, summaries: Sequence[PartSummary]) -> FirstPass:
    """The counts and ranges of all parts."""
    first = FirstPass(design, keep=False)
    for part in summaries:
        first.read, first.n, first.events = first.read + part.read, first.n + part.n, first.events + part.events
        first.missing = {name: count + part.missing[name] for name, count in first.missing.items()}
        low, high = first.spread.low, first.spread.high
        low |= {name: min(value, low.get(name, value)) for name, value in part.low.items()}
        high |= {name: max(value, high.get(name, value)) for name, value in part.high.items()}
    return first


def _describe_source(
    cluster: Cluster, mapping: SiteMapping, path: FileOrigin, summaries: Sequence[PartSummary]
) -> ClusterSource:
    steps = tuple(_add_steps([s.steps[k] for s in summaries]) for k in range(len(summaries[0].steps)))
    whole = sum(summary.whole for summary in summaries)
    return ClusterSource(cluster.origin, cluster, mapping, path, tuple(summaries), whole, steps)


def _add_steps(steps: Sequence[FlowStep]) -> FlowStep:
    left_out, unknown = sum(step.left_out for step in steps), sum(step.unknown for step in steps)
    return replace(steps[0], left_out=left_out, unknown=unknown)


def _cut(
    cluster: Cluster, job: PartJob, summaries: Sequence[PartSummary], form: str, missing: dict[str, int]
) -> ClusterRows | ClusterCodes:
    """The complete rows in blocks that end where those of one file end."""
    size = block_size(len(job.design.columns)) if form == "rows" else CODES
    n = sum(summary.n for summary in summaries)
    kind = ClusterRows if form == "rows" else ClusterCodes
    return kind(cluster, job, n, size, missing, tuple(plan_spans(summaries, size)))
