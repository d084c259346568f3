"""A real network of three sites to hurt: Geth, Kubo and one process per site, and what must hold whatever was done."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.devnet.doomed import OPENING as OPENING
from support.node.rows_files import file_of

from coterie_chain.errors import LedgerUnreachable, StoreFault
from coterie_chain.ethereum.ethereum_ledger import EthereumLedger
from coterie_chain.ledger.protocol import Event, Ledger, Record, StudyView
from coterie_chain.network.programs.executables import GETH, IPFS
from coterie_chain.network.programs.service import Service
from coterie_chain.store.kubo_files import RepoBlobs
from coterie_node.analysis.analyse import analyse
from coterie_node.audit.replay import replay
from coterie_node.demo.cases.glore import CASE
from coterie_node.demo.cases.nhefs import VARIABLES
from coterie_node.network.devnet import make_settings, services, start_network, stop_programs
from coterie_node.run.study_files import load_study
from coterie_node.site.run_folder import RunFolder

SITES = ("north", "south", "west")
HERE = Path(__file__).parent
STUDY = """\
name = "trial"
sites = ["north", "south", "west"]
formula = "death ~ age + sex + sbp"

[learner]
name = "glore"
tolerance = {tolerance}

[rows]
missing = "drop"

[ledger]
step_seconds = {step_seconds}

"""
# No patient has this age; it must never be found outside the file of the site that holds it.
CANARY = "61.7351946"
END_TIMEOUT = 240.0

Done = tuple[str, dict[str, Any]]


def scale_with_load(seconds: float) -> float:
    """A patience that is longer where more programs want to run than there are processors."""
    return seconds * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def read_if_there(file: Path) -> bytes:
    """A file of a program that runs, which may take it away at any moment."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


class SiteProcesses:
    """A network in a folder, with the processes of its sites."""

    def __init__(self, folder: Path, *, step_seconds: int = 3600, tolerance: float = 1e-2) -> None:
        self.place = RunFolder(folder)
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.started: list[subprocess.Popen[str]] = []
        folder.mkdir(parents=True, exist_ok=True)
        CASE.write_sites(folder / "sites", SITES)
        data = file_of(self.place.site("south").data)
        head, first, *rest = data.read_text().splitlines()
        at = head.split(",").index("age")
        fields = first.split(",")
        fields[at] = CANARY
        data.write_text("\n".join([head, ",".join(fields), *rest]) + "\n")
        self.place.study.write_text(STUDY.format(step_seconds=step_seconds, tolerance=tolerance) + VARIABLES)
        self.study = load_study(self.place.study)
        start_network(self.place, SITES, make_settings("clique", "kubo"))

    # The sites' processes

    def start(self, site: str, *kill_point: str, root: Path | None = None) -> None:
        """Start a site's process, in a copy of the folder for `root`; a doom is a point, a step, and a signal there."""
        program = [str(HERE / "doomed.py"), *kill_point] if kill_point else ["-m", "coterie_node"]
        arguments = [
            "take-part",
            "--at",
            str(root or self.place.root),
            "--site",
            site,
            "--approve",
            self.study.hash.hex(),
        ]
        part = self.place.site(site).root
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        aside = part / "starting.out"
        with aside.open("w") as out, (part / "node.err").open("a") as err:
            process = subprocess.Popen(
                [sys.executable, *program, *arguments], stdout=out, stderr=err, text=True, env=environment
            )
        # Each process tells its own story: two of one site may run at once.
        aside.rename(part / f"{process.pid}.out")
        self.processes[site] = process
        self.started.append(process)

    def start_all(self) -> None:
        """Start every site's process."""
        for site in SITES:
            self.start(site)

    def signal(self, site: str, number: int) -> None:
        """Send a signal to a site's process."""
        self.processes[site].send_signal(number)

    def await_end(self, site: str, within: float = END_TIMEOUT) -> tuple[int, dict[str, Any]]:
        """Exit status and last line of a site's process."""
        process = self.processes[site]
        status = process.wait(scale_with_load(within))
        lines = (self.place.site(site).root / f"{process.pid}.out").read_text().splitlines()
        return status, json.loads(lines[-1]) if lines else {}

    def service(self, site: str, program: str) -> Service:
        """One of the network's programs."""
        return services(self.place)[site, program]

    # Looking

    @contextmanager
    def ledger(self, site: str = "west") -> Iterator[Ledger]:
        """A reader through one site's node."""
        with EthereumLedger(self.place.network(site), None) as ledger:
            yield ledger

    def view(self, site: str = "west") -> StudyView | None:
        """The study as one site's node tells it."""
        with self.ledger(site) as ledger:
            numbers = ledger.studies()
            return ledger.view(numbers[-1]) if numbers else None

    def await_view(self, holds: Callable[[StudyView], bool], within: float = 90.0, site: str = "west") -> StudyView:
        """Wait until the study is somewhere; a node that does not answer in time on a busy machine is asked again."""
        deadline, seen = time.monotonic() + scale_with_load(within), "where nobody saw it"
        while time.monotonic() < deadline:
            try:
                view = self.view(site)
            except LedgerUnreachable as away:
                view, seen = None, str(away)
            if view is not None and holds(view):
                return view
            seen = seen if view is None else str(view)
            time.sleep(0.1)
        raise AssertionError(f"the study stayed at {seen}")

    def await_position(self, position: int) -> None:
        """Wait until a step is open, or one behind it."""
        self.await_view(lambda view: view.open is not None and view.open.position >= position)

    # What must hold

    def finish(self) -> list[Record]:
        """All sites end well with the model of an undisturbed run, and the run replays; returns its records."""
        ends = {site: self.await_end(site) for site in SITES}
        assert all(status == 0 and "fit" in last for status, last in ends.values()), ends
        wanted = analyse(self.study, {site: self.place.site(site).data for site in SITES}).fit
        for _, last in ends.values():
            assert last["fit"]["estimates"] == wanted.estimates.tolist()
        return self.check()

    def check(self) -> list[Record]:
        """The run replays identically, nothing is recorded twice, blocks lie at two sites, no patient's value out."""
        with self.ledger() as ledger:
            number = ledger.studies()[-1]
            verdict = replay(ledger, self.place.blobs(), number).verdict
            records = [e for e in ledger.history(number) if isinstance(e, Record)]
        assert (verdict.verdict, verdict.grade) == ("PASS", "identical"), verdict
        slots = Counter((r.post.position, r.post.attempt, r.site, r.kind) for r in records)
        assert max(slots.values()) == 1
        stores = [RepoBlobs([self.place.site(site).root / "kubo" / "repo"]) for site in SITES]
        assert all(sum(store.has(r.post.cid) for store in stores) >= 2 for r in records)
        self._check_canary()
        return records

    def events(self) -> list[Event]:
        """What happened besides records."""
        with self.ledger() as ledger:
            return [e for e in ledger.history() if isinstance(e, Event)]

    def _check_canary(self) -> None:
        traces = (CANARY.encode(), struct.pack("<d", float(CANARY)), struct.pack(">d", float(CANARY)))
        files = [p for p in self.place.root.rglob("*") if p.is_file() and p.name != "data.csv"]
        assert files
        assert [p for p in files if any(t in read_if_there(p) for t in traces)] == []

    def close(self) -> None:
        """End everything."""
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        stop_programs(self.place)


def skip_without_programs() -> None:
    """Skip the test where Geth or Kubo is missing."""
    for program in (GETH, IPFS):
        try:
            program.find()
        except StoreFault as fault:
            pytest.skip(fault.message)


@contextmanager
def run_site_processes(folder: Path, **options: Any) -> Iterator[SiteProcesses]:
    """A bed for one test; skipped where the programs are missing."""
    skip_without_programs()
    site_processes = None
    try:
        site_processes = SiteProcesses(folder / "net", **options)
        yield site_processes
    finally:
        if site_processes is not None:
            site_processes.close()
        elif (folder / "net" / "place.json").exists():
            stop_programs(RunFolder(folder / "net"))


def run_through_kills(processes: SiteProcesses, kill_points: dict[str, Sequence[tuple[str, str]]]) -> None:
    """Let every site die its deaths in order, each in a process of its own, and then live."""
    kills_left = {site: list(kill_points.get(site, ())) for site in SITES}
    for site, kills in kills_left.items():
        processes.start(site, *((*kills[0], "SIGKILL") if kills else ()))
    deadline = time.monotonic() + scale_with_load(END_TIMEOUT)
    while any(kills_left.values()):
        assert time.monotonic() < deadline, f"not reached: {kills_left}"
        for site, kills in kills_left.items():
            status = processes.processes[site].poll()
            if kills and status is not None:
                assert status == -signal.SIGKILL, (site, kills[0], processes.await_end(site))
                kills.pop(0)
                processes.start(site, *((*kills[0], "SIGKILL") if kills else ()))
        time.sleep(0.05)
