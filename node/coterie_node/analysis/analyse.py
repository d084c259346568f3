"""A whole analysis from Python: read a study, fit it on files of this machine, replay it, look at the result."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from coterie_learners.core.fit import merge_fits
from coterie_learners.errors import DataError, pluralise
from coterie_learners.study.design import design_of
from coterie_learners.study.document import Study as PlainStudy
from coterie_learners.study.model_card import make_model_card
from coterie_node.audit.printed.notebook import render_facts
from coterie_node.audit.replay import replay
from coterie_node.audit.result import Cost, Result
from coterie_node.data.cohort.flow import Prepared, list_flow_lines
from coterie_node.data.installed_source import parse_rows_address
from coterie_node.data.load import Loaded, load_site
from coterie_node.data.tables.frame import ArrowStream, FrameAddress, RowsPlace
from coterie_node.release.gate import Gate
from coterie_node.run.follower import Progress
from coterie_node.run.simulate import check_sites, simulate
from coterie_node.run.study_files import check_permit, load_study


class Study(PlainStudy):
    """A study that knows how to come from a file."""

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a study from TOML or canonical JSON, with its learner's options and version completed."""
        return cls.model_validate(load_study(Path(path)).model_dump())

    def _repr_html_(self) -> str:
        facts: dict[str, Any] = {"title": self.title, "sites": ", ".join(self.sites), "formula": self.formula}
        facts |= {"models": "; ".join(f"{m.name}: {m.formula}" for m in self.models), "learner": self.learner.name}
        facts |= {"options": dict(self.learner.options), "hash": self.hash.hex()}
        return render_facts(f"Study {self.name}", {name: value for name, value in facts.items() if value})


def analyse(
    study: PlainStudy,
    data: Mapping[str, str | RowsPlace | ArrowStream],
    observe: Callable[[Progress], None] = lambda _: None,
) -> Result:
    """Fit a study on the rows of each site, all sites in this process, and replay it.

    Rows are a file (CSV, Parquet, a mapping), an address, or a table of Python: pandas, polars, Arrow, DuckDB.

    Nothing leaves the machine; a payload that would be kept back at its site is refused here too. Raises DataError,
    StudyError, ReleaseRefused, NotConverged, Separation or Collinear.
    """
    loaded = load_sites(study, data)
    gates = {name: Gate(study) for name in study.sites}
    world, runners, total = simulate(study, {name: item.rows for name, item in loaded.items()}, observe, gates)
    # A simulation has the keys of all sites, so that its replay can check sealed payloads too.
    outcome = replay(world.ledger(), world.blobs, world.number, granted=world.view())
    seconds = {k: sum(r.seconds[k] for r in runners.values()) for k in ("compute", "ledger", "store")}
    payload_bytes = sum(r.payload_bytes for r in runners.values())
    cost = Cost(outcome.verdict.records, payload_bytes, None, seconds | {"total": total})
    fit = merge_fits({name: runner.machine.result for name, runner in runners.items()}, design_of(study).names)
    result = Result(study.name, study.sites, fit, cost, outcome.verdict, make_model_card(study))
    return describe_files(result, loaded)


def load_sites(study: PlainStudy, data: Mapping[str, str | RowsPlace | ArrowStream]) -> dict[str, Loaded]:
    """The checked rows of each site that has any; DataError if two sites have the same ones.

    StudyError (CO-S506) after the last day of the study's data permit.
    """
    check_sites(study, data)
    check_permit(study, int(time.time()))
    addresses = {name: _read_address(at) for name, at in data.items()}
    if not study.columns:
        check_files_differ({name: at for name, at in addresses.items() if isinstance(at, Path)})
    loaded = {name: load_site(at, study, name) for name, at in addresses.items()}
    rows = {name: site_data for name, site_data in loaded.items() if site_data is not None}
    if not study.columns:
        others = {name: site_data for name, site_data in rows.items() if not isinstance(addresses[name], Path)}
        _check_digests({name: (item.source.digest().hex(), item.source.origin.name) for name, item in others.items()})
    return rows


def _read_address(place: str | RowsPlace | ArrowStream) -> RowsPlace:
    if isinstance(place, str):
        return parse_rows_address(place)
    return FrameAddress(place) if isinstance(place, ArrowStream) else place


def describe_files(result: Result, rows: Mapping[str, Loaded]) -> Result:
    """The result with what the holder of all files can know besides: the counts of each site, and warnings of them."""
    return replace(
        result,
        notes=(*result.notes, *(describe_counts(item) for item in rows.values())),
        warnings=tuple(warning for item in rows.values() for warning in item.row_warnings),
        rows={name: list_counts(item) for name, item in rows.items()},
    )


def check_files_differ(paths: Mapping[str, Path]) -> None:
    """DataError if two sites have files of the same bytes: every patient would count twice, unseen."""
    digests = {}
    for name, path in paths.items():
        if path.is_file():  # of any other the loader says what is wrong
            with path.open("rb") as file:
                digests[name] = (hashlib.file_digest(file, "sha256").hexdigest(), path.name)
    _check_digests(digests)


def _check_digests(digests: Mapping[str, tuple[str, str]]) -> None:
    """DataError if two sites have one digest; each comes with what the rows are called."""
    sites_by_digest: dict[str, str] = {}
    for name, (digest, called) in digests.items():
        other = sites_by_digest.setdefault(digest, name)
        if other != name:
            raise DataError(
                "CO-D124",
                f"The rows of {other} and {name} are the same ({called}): each patient would count twice. Give "
                "each site its own rows; a file of all sites must be split by site first.",
            )


def describe_counts(rows: Loaded) -> str:
    """One site's rows in a sentence for the people who hold all of the files."""
    events = "" if rows.events is None else f", {pluralise(rows.events, 'event')}"
    lacking = ", ".join(f"{name} {count}" for name, count in rows.missing.items() if count)
    which = f" (a row may lack several: {lacking})" if rows.dropped else ""
    text = f"{rows.site}: {pluralise(rows.n, 'row')}{events}, {rows.dropped} dropped for missing values{which}."
    if rows.flow is None or not isinstance(rows.source, Prepared):
        return text
    return f"{text} Before: {'; '.join(line.removeprefix('- ') for line in list_flow_lines(rows.flow)[:-1])}."


def list_counts(rows: Loaded) -> dict[str, Any]:
    """The same as JSON has it: rows read, used and dropped, events among those used, and who lacks which variable."""
    counts = {"read": rows.read, "used": rows.n, "dropped": rows.dropped, "events": rows.events}
    flow = {"flow": rows.flow.as_dict()} if rows.flow is not None and isinstance(rows.source, Prepared) else {}
    return {**counts, "missing": dict(rows.missing), **flow}
