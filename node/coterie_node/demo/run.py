"""The demo: a public cohort split over sites, each a process of its own, on a development chain of this machine."""

from __future__ import annotations

import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coterie_chain.ledger.protocol import Ledger, Record
from coterie_chain.network.programs.service import scale_wait
from coterie_learners.core.fit import fit_from_json, merge_fits
from coterie_learners.core.registry import learner_of
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.model_card import make_model_card
from coterie_node.analysis.analyse import describe_files
from coterie_node.analysis.certificate import certifiable, certify, save_certificate
from coterie_node.analysis.pooled import Reference
from coterie_node.audit.replay import replay
from coterie_node.audit.result import Cost, Result
from coterie_node.audit.sources import note_seals
from coterie_node.data.load import Loaded
from coterie_node.demo.cases.case import Case, RunFiles
from coterie_node.demo.forked_sites import ONE_THREAD, ForkedSite, can_fork, start_forked
from coterie_node.errors import AuditFailed, ConfigError, DeadlinePassed, SiteFailed
from coterie_node.network.devnet import check_programs, make_settings, run_network
from coterie_node.network.devnet import founders as founders
from coterie_node.network.local_nodes import SiteDaemons
from coterie_node.run.recorded_steps import AUDITOR
from coterie_node.run.study_files import load_study
from coterie_node.run.view_grants import View, view_of
from coterie_node.site.decisions import make_decision
from coterie_node.site.run_folder import RunFolder, RunSettings

DEADLINE = 600.0
STOPPED_BY_ANOTHER = "CO-R101"

ProgressCallback = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class DemoProcesses:
    """The processes of a demo's sites."""

    processes: Mapping[str, subprocess.Popen[str] | ForkedSite]

    def stop(self) -> None:
        """Stop whatever still runs."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


def demo(place: RunFolder, case: Case, sites: Sequence[str], settings: RunSettings, tell: ProgressCallback) -> Result:
    """Set up a network in a folder, let the sites' processes fit the model, replay it, compare with the pooled fit."""
    prepare(place, case, sites)
    certify_study(place)
    if learner_of(load_study(place.study)).needs_channel(load_study(place.study)):
        tell({"trust": describe_trust(load_study(place.study))})
    # The pooled fit, whose libraries take a second to import, runs beside the sites' processes.
    with ThreadPoolExecutor(1) as beside:
        with run_network(place, sites, settings):
            pooled = beside.submit(case.pooled)
            reports, seconds = run_sites(place, sites, tell)
        return _save_result(place, conclude(place, case, reports, seconds, pooled.result))


def simulate_kept(
    place: RunFolder, study: Study, files: RunFiles, rows: Mapping[str, Loaded], tell: ProgressCallback
) -> Result:
    """Fit a study on files, each site a process of its own on a development chain; the folder holds the whole run."""
    prepare_files(place, files, study.sites)
    with run_network(place, study.sites, make_settings("anvil", "folder")):
        reports, seconds = run_sites(place, study.sites, tell)
    return _save_result(place, describe_files(collect_result(place, reports, seconds, files.notes), rows))


def rerun(place: RunFolder, case: Case) -> Result:
    """The same on a network whose sites' daemons run: people propose and approve, the daemons do the rest.

    A study that has ended there is not run again; its result is looked at again.
    """
    sites = place.settings().sites
    case.site_names(len(sites))
    place.study.write_text(case.study_text(sites), encoding="utf-8")
    study = load_study(place.study)
    check_programs(place)
    files = case.write_sites(place.root.absolute() / "data" / study.name, sites)
    for name in sites:
        folder = place.site(name).decisions
        if folder.latest(study.hash) is None:
            folder.save_document(study.hash, study.document)
            data = str(files[name]) if name in files else ""
            folder.record(make_decision(study.hash, "propose" if name == sites[0] else "approve", data=data))
    within = scale_wait(DEADLINE, len(sites))
    deadline = time.monotonic() + within
    results = {name: _await_result(place, name, study.hash.hex(), deadline, within) for name in sites}
    # a daemon counts the gas and the seconds of all its studies together, and none of one study
    reports = {name: {**report, "seconds": {}, "gas": None} for name, report in results.items()}
    seconds = _ledger_seconds(place, results[sites[0]]["study"])
    return _save_result(place, conclude(place, case, reports, seconds, case.pooled, granted=False))


def _await_result(place: RunFolder, name: str, study: str, deadline: float, within: float) -> dict[str, Any]:
    """The result that a site's daemon wrote; DeadlinePassed (CO-R204) names a site without one, and what it waits for.

    All sites have one deadline (`time.monotonic`), `within` seconds after the study was decided.
    """
    while time.monotonic() < deadline:
        for file in (place.site_root(name) / "results").glob("*.json"):
            report: dict[str, Any] = json.loads(file.read_text())
            if report["hash"] == study:
                return report
        time.sleep(0.2)
    message = f"No result of study {study[:16]} at {name} within {within:.0f} s"
    cause = SiteDaemons(place).read_cause(name, study)
    message += f"; its daemon says: {cause}" if cause else "; its daemon does not answer"
    raise DeadlinePassed("CO-R204", f"{message}. Read {place.site_root(name) / 'node' / 'log'}.")


def _ledger_seconds(place: RunFolder, number: int) -> float:
    """From the last site's joining to the last record, by the chain's clock."""
    with place.reader() as ledger:
        times = [e.time for e in ledger.history(number)]
        first = [e.time for e in ledger.history(number) if not isinstance(e, Record) and e.name == "StudyJoined"]
    return float(max(times) - max(first))


def _save_result(place: RunFolder, result: Result) -> Result:
    (place.root / "result.json").write_text(json.dumps(result.as_dict(), indent=2) + "\n")
    return result


@contextmanager
def open_run_folder(keep: Path | None) -> Iterator[RunFolder]:
    """A folder for the run: `keep`, which must be new or empty and stays, or a temporary one that does not."""
    if keep is None:
        folder = Path(tempfile.mkdtemp(prefix="coterie-demo-"))
        try:
            yield RunFolder(folder)
        finally:
            shutil.rmtree(folder)
        return
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise ConfigError(
            "CO-F203", f"{keep} is not an empty folder, and a run never replaces another. Name an empty folder."
        )
    keep.mkdir(parents=True, exist_ok=True)
    yield RunFolder(keep)


def prepare(place: RunFolder, case: Case, sites: Sequence[str]) -> None:
    """Write a demo's study, its sites' folders and their data."""
    prepare_files(place, case.files, sites)


def prepare_files(place: RunFolder, files: RunFiles, sites: Sequence[str]) -> None:
    """Write the study, its sites' folders and their data."""
    for name in sites:
        place.site_root(name).mkdir(mode=0o700, parents=True, exist_ok=True)
    place.study.write_text(files.study_text(sites), encoding="utf-8")
    study = load_study(place.study)
    (place.root / "study.json").write_bytes(study.document)
    place.chain_state.parent.mkdir(exist_ok=True)
    files.write_sites(place.root / "sites", sites)
    if learner_of(study).needs_channel(study):
        place.talk.write_text(json.dumps(free_addresses(sites), indent=2) + "\n")


def describe_trust(study: Study) -> str:
    """The sites that must not collude, and what everybody learns, as the learner discloses it."""
    disclosure = learner_of(study).discloses(study)
    return " ".join((*disclosure.everybody, *disclosure.collusion))


def free_addresses(sites: Sequence[str]) -> dict[str, str]:
    """A free port of this machine's loopback for each site."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in sites}
        return {name: f"127.0.0.1:{server.getsockname()[1]}" for name, server in servers.items()}


def certify_study(place: RunFolder) -> None:
    """Compare the study's shape with the pooled fit before the proposal, where one is known."""
    study = load_study(place.study)
    if certifiable(study):
        save_certificate(certify(study), place.certificate)


def run_sites(
    place: RunFolder, sites: Sequence[str], tell: ProgressCallback
) -> tuple[dict[str, dict[str, Any]], float]:
    """Start one process per site and wait for all; returns their reports and the seconds from start to end of the fit.

    The first site's progress is passed on; the first failure of any site stops them all.
    """
    crew = DemoProcesses(start_sites(place, sites))
    try:
        reports = await_reports(crew, sites[0], tell)
    finally:
        crew.stop()
    started = min(r["started"] for r in reports.values())
    return reports, max(r["ended"] for r in reports.values()) - started


def await_reports(crew: DemoProcesses, spokesman: str, tell: ProgressCallback) -> dict[str, dict[str, Any]]:
    """The last line of every process; SiteFailed or Overdue name the site that spoils it."""
    lines: queue.Queue[tuple[str, str | None]] = queue.Queue()
    for name, process in crew.processes.items():
        threading.Thread(target=_read_lines, args=(name, process, lines), daemon=True).start()
    last: dict[str, dict[str, Any]] = {name: {} for name in crew.processes}
    pending, deadline = set(crew.processes), time.monotonic() + DEADLINE
    failures: list[SiteFailed] = []
    while pending:
        try:
            name, line = lines.get(timeout=max(deadline - time.monotonic(), 0.0))
        except queue.Empty:
            raise DeadlinePassed(
                "CO-R203", f"No end of {', '.join(sorted(pending))} within {DEADLINE:.0f} s."
            ) from None
        if line is None:
            pending.remove(name)
            try:
                _check_end(name, crew.processes[name], last[name])
            except SiteFailed as error:
                if error.code != STOPPED_BY_ANOTHER:
                    raise
                failures.append(error)  # the site that stopped the study says why
            continue
        last[name] = json.loads(line)
        if name == spokesman:
            tell(last[name])
    if failures:
        raise failures[0]
    return last


def _read_lines(
    name: str, process: subprocess.Popen[str] | ForkedSite, lines: queue.Queue[tuple[str, str | None]]
) -> None:
    assert process.stdout is not None
    with process.stdout as stream:
        for line in stream:
            lines.put((name, line))
    lines.put((name, None))


def _check_end(name: str, process: subprocess.Popen[str] | ForkedSite, last: Mapping[str, Any]) -> None:
    status = process.wait(timeout=30)
    if status != 0 or "ended" not in last:
        error = last.get("error", {"code": "CO-F401", "message": "the process ended without a word"})
        raise SiteFailed(str(error["code"]), f"{name}: {error['message']}", status or 1)


def start_sites(place: RunFolder, names: Sequence[str]) -> Mapping[str, subprocess.Popen[str] | ForkedSite]:
    """Start one process per site: forked from a warm one where that is safe, so that libraries are imported once."""
    if can_fork():
        return start_forked(place, names, load_study(place.study).hash.hex())
    return {name: start_site(place, name) for name in names}


def start_site(place: RunFolder, name: str) -> subprocess.Popen[str]:
    """Start one site's process; it tells its progress as JSON lines on standard output."""
    approved = load_study(place.study).hash.hex()
    arguments = ["take-part", "--at", str(place.root), "--site", name, "--approve", approved]
    return subprocess.Popen(
        [sys.executable, "-m", "coterie_node", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | ONE_THREAD,
    )


def conclude(
    place: RunFolder,
    case: Case,
    reports: Mapping[str, Mapping[str, Any]],
    total: float,
    pool: Callable[[], Reference],
    *,
    granted: bool = True,
) -> Result:
    """The result of a demo, beside the pooled fit that `pool` gives."""
    result, pooled = collect_result(place, reports, total, case.notes, granted=granted), pool()
    return replace(result, pooled=pooled.differences(result.fit), beside=pooled.estimates)


def collect_result(
    place: RunFolder,
    reports: Mapping[str, Mapping[str, Any]],
    total: float,
    notes: Sequence[str],
    *,
    granted: bool = True,
) -> Result:
    """Replay the run as an auditor with grants of all sites, and put its result together.

    While daemons run, nobody else may open the sites' journals: such an auditor has no view of sealed payloads.
    """
    number = next(iter(reports.values()))["study"]
    with place.reader() as ledger:
        view = _collect_views(place, ledger, number, list(reports)) if granted else {}
        outcome = note_seals(replay(ledger, place.blobs(), number, granted=view), ledger)
        records = [e for e in ledger.history(number) if isinstance(e, Record)]
    if outcome.study is None:
        message = f"The run does not replay: {outcome.verdict.problem}"
        raise AuditFailed(outcome.verdict.code, message, outcome.verdict.site, outcome.verdict.topic)
    parts = {part: _find_longest(reports, part) for part in ("compute", "ledger", "store")}
    # If only the sites know their parts of the result, the demo joins the parts of its own sites.
    fits = {name: None if report["fit"] is None else fit_from_json(report["fit"]) for name, report in reports.items()}
    fit = merge_fits(fits | {AUDITOR: outcome.fit}, Design(outcome.study).names)
    cost = Cost(
        records=len(records),
        payload_bytes=sum(r.post.size for r in records),
        gas=_add_gas(reports),
        seconds={**parts, "total": total, "round": total / max(fit.rounds, 1)},
    )
    about = (place.chain().note, *notes)
    model = make_model_card(outcome.study)
    return Result(outcome.study.name, outcome.contributors, fit, cost, outcome.verdict, model, notes=about)


def _find_longest(reports: Mapping[str, Mapping[str, Any]], part: str) -> float | None:
    """Seconds of the site that spent most; None unless every site measured them."""
    seconds = [report["seconds"].get(part) for report in reports.values()]
    return None if None in seconds else float(max(seconds))


def _add_gas(reports: Mapping[str, Mapping[str, Any]]) -> int | None:
    """Gas of all sites; None unless every site counted its own."""
    amounts = [report["gas"] for report in reports.values()]
    return None if None in amounts else sum(amounts)


def _collect_views(place: RunFolder, ledger: Ledger, number: int, sites: Sequence[str]) -> View:
    view: dict[bytes, bytes] = {}
    for name in sites:
        keys = place.site(name).load_study_keys(f"{place.network().scope}/{number}")
        view.update(view_of(ledger, place.blobs(), number, name, keys))
    return view
