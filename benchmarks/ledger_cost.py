"""What the ledger costs: one logistic fit of three site processes on Anvil and a folder, and the same over Redis.

    ledger_cost.py ROWS COLUMNS [RUNS]        rows of each site

The two run in turn. Figures are medians over the runs: seconds a round, once as the whole fit over the rounds, with
opening and end, and once between rounds (from one server's record to the next); seconds from the start of the sites'
processes to the last result, and CPU seconds of all processes with broker or chain. Redis keeps nothing on the disk.
It wants `redis-server`, and in COTERIE_REDIS_PYTHON a Python with what redis.txt lists (`make bench-redis`).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc

from coterie_node.demo.cases.case import RunFiles
from coterie_node.demo.run import collect_result, open_run_folder, prepare_files, run_sites
from coterie_node.network.devnet import make_settings, run_network

SITES = ("s0", "s1", "s2")
HERE = Path(__file__).parent
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Figures:
    """Seconds: of a round (all of the fit over the rounds; between rounds), to the result, of all processors."""

    round: float
    between: float
    result: float
    cpu: float
    rounds: int
    estimates: tuple[float, ...]


def write_rows(folder: Path, rows: int, columns: int) -> Mapping[str, Path]:
    """A CSV file for each site: covariates in [-1, 1] and a logistic outcome."""
    effects, files = np.random.default_rng(0).normal(size=columns) / 2, {}
    for k, site in enumerate(SITES):
        rng = np.random.default_rng(k + 1)
        x = np.clip(rng.normal(size=(rows, columns)) / 6, -1, 1)
        y = (rng.random(rows) < 1 / (1 + np.exp(1 - x @ effects))).astype(np.int8)
        files[site] = folder / f"{site}.csv"
        pc.write_csv(pa.table({"y": y, **{f"x{j}": x[:, j] for j in range(columns)}}), files[site])
    return files


def study_text(columns: int) -> str:
    """The study of these rows."""
    formula = "y ~ " + " + ".join(f"x{j}" for j in range(columns))
    head = f'name = "ledger-cost"\nsites = {json.dumps(SITES)}\nformula = "{formula}"\nlearner = {{name = "glore"}}\n'
    numbers = "".join(f'[variables.x{j}]\ntype = "number"\nrange = [-1, 1]\n' for j in range(columns))
    return head + '[variables.y]\ntype = "binary"\n' + numbers


def run_coterie(files: Mapping[str, Path], columns: int) -> Figures:
    """The fit on Anvil and a folder store, by the processes that `coterie demo` starts."""

    def copy(folder: Path, sites: Sequence[str]) -> Mapping[str, Path]:
        return {site: Path(shutil.copy(files[site], folder / site / "data.csv")) for site in sites}

    at: list[float] = []

    def note(line: Mapping[str, Any]) -> None:
        if "deviance" in line:
            at.append(time.perf_counter())

    before = _children_seconds()
    with open_run_folder(None) as place:
        prepare_files(place, RunFiles(lambda _: study_text(columns), copy), SITES)
        with run_network(place, SITES, make_settings("anvil", "folder")):
            start = time.perf_counter()
            reports, seconds = run_sites(place, SITES, note)
            result = time.perf_counter() - start
        cpu = _children_seconds() - before
        fit = collect_result(place, reports, seconds, ()).fit
    between = statistics.median(np.diff(at))
    return Figures(seconds / fit.rounds, between, result, cpu, fit.rounds, tuple(fit.estimates))


def run_redis(files: Mapping[str, Path]) -> Figures:
    """The same over Redis, by three processes of redis_newton.py."""
    python, before = os.environ.get("COTERIE_REDIS_PYTHON", sys.executable), _children_seconds()
    with _run_broker() as port:
        start = time.perf_counter()
        sites = [
            subprocess.Popen(
                [python, str(HERE / "redis_newton.py"), str(port), str(k), str(len(files)), str(file)],
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | ONE_THREAD,
            )
            for k, file in enumerate(files.values())
        ]
        results = [json.loads(site.communicate(timeout=600)[0]) for site in sites]
        result = time.perf_counter() - start
    seconds = max(r["ended"] for r in results) - min(r["started"] for r in results)
    rounds = len(results[0]["rounds"])
    between, estimates = statistics.median(results[0]["rounds"]), tuple(results[0]["estimates"])
    return Figures(seconds / rounds, between, result, _children_seconds() - before, rounds, estimates)


@contextmanager
def _run_broker() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with tempfile.TemporaryDirectory() as folder:
        broker = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
        try:
            _await_port(port)
            yield port
        finally:
            broker.terminate()
            broker.wait(timeout=30)


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise SystemExit(f"redis-server does not answer at port {port} within 10 s.")


def _children_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def _line(name: str, runs: Sequence[Figures]) -> str:
    middle = {
        part: statistics.median(getattr(run, part) for run in runs) for part in ("round", "between", "result", "cpu")
    }
    least = min(run.round for run in runs)
    return (
        f"{name:8s} {1000 * middle['round']:7.1f} ms a round (least {1000 * least:.1f}, {runs[0].rounds} rounds), "
        f"{1000 * middle['between']:.1f} ms between rounds, "
        f"{middle['result']:.2f} s to the result, CPU {middle['cpu']:.2f} s"
    )


def main() -> None:
    """Run both in turn and print the figures with the load."""
    rows, columns, count = (*map(int, sys.argv[1:4]), 5)[:3]
    coterie: list[Figures] = []
    broker: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        files = write_rows(Path(folder), rows, columns)
        for _ in range(count):
            broker.append(run_redis(files))
            coterie.append(run_coterie(files, columns))
    print(f"3 x {rows} x {columns}, {count} runs of each in turn, load {os.getloadavg()[0]:.1f}")
    print(_line("Redis", broker))
    print(_line("Coterie", coterie))
    pairs = [(ours, theirs) for ours, theirs in zip(coterie, broker, strict=True)]
    print(
        f"between rounds: {1000 * statistics.median(a.between - b.between for a, b in pairs):+.1f} ms, "
        f"x {statistics.median(a.between / b.between for a, b in pairs):.2f}; "
        f"a round: {1000 * statistics.median(a.round - b.round for a, b in pairs):+.1f} ms, "
        f"x {statistics.median(a.round / b.round for a, b in pairs):.2f}; to the result "
        f"x {statistics.median(a.result / b.result for a, b in pairs):.2f}, CPU "
        f"x {statistics.median(a.cpu / b.cpu for a, b in pairs):.2f}; estimates differ by at most "
        f"{np.max(np.abs(np.subtract(coterie[0].estimates, broker[0].estimates))):.1e}"
    )


if __name__ == "__main__":
    main()
