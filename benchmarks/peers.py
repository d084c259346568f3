"""The same Newton-Raphson on other platforms, and pooled engines from memory and from file.

    peers.py [ROWS COLUMNS RUNS] [PART ...]      rows of each of three sites; default 10000 20 5, and all parts

Parts: coterie-anvil, coterie-clique, coterie-amqp, coterie-redis, coterie-memory, redis, flower, nvflare, numpy,
scikit-learn, glum, statsmodels, r. Each runs in a process of its own, prints its line at once, and is ended with all
that it started after DEADLINE seconds; a part that fails says why, and the others go on.

Coterie's learner runs over Anvil and a folder, Clique and Kubo, RabbitMQ, Redis and memory, its sites as threads of the
process. The same sums run over Redis (`redis_newton.py`), Flower (`flower_newton.py`) and NVFLARE (`nvflare_newton.py`)
in three processes, where COTERIE_REDIS_PYTHON, COTERIE_FLOWER_PYTHON and COTERIE_NVFLARE_PYTHON name a Python with what
the text file of each lists. Pooled: Newton's method in numpy, scikit-learn (`newton-cholesky`, no penalty), glum
(`irls-ls`) and statsmodels, each at the loosest tolerance that brings it within ERROR of numpy's estimates, and R's glm
where it is installed. Every line has medians, the largest difference from numpy's estimates, and the load.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pc
from ledger_cost import HERE, ONE_THREAD, SITES, run_redis, study_text, write_rows
from numpy.typing import NDArray

from coterie_learners.core.registry import complete_study
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows
from coterie_node.experiment.transports import conduct_over, open_transport

Vector = NDArray[np.float64]
Rows = tuple[Vector, Vector]
TRANSPORTS = ("anvil", "clique", "amqp", "redis", "memory")
# Seconds that a part may take, and that it has to end what it started.
DEADLINE, GRACE = 1800, 60
# How near an engine must come to numpy's estimates.
ERROR = 1e-8
# Newton's rounds of the platforms that do not test whether the fit rests.
ROUNDS = 6


@dataclass(frozen=True)
class Bench:
    """The rows that all parts fit: a file for each site in a folder; how many columns, and runs of each part."""

    folder: Path
    columns: int
    runs: int

    @property
    def files(self) -> Mapping[str, Path]:
        """Each site's rows."""
        return {site: self.folder / f"{site}.csv" for site in SITES}

    @cached_property
    def rows(self) -> Rows:
        """All rows."""
        return read_rows(self.files)

    @cached_property
    def truth(self) -> Vector:
        """numpy's estimates (p,), computed once for all parts."""
        file = self.folder / "truth.npy"
        if not file.exists():
            np.save(file, fit_numpy(*self.rows))
        return np.asarray(np.load(file))

    def print_line(self, name: str, seconds: list[float], rounds: int | None, estimates: Any) -> None:
        """One platform's figures."""
        middle, off = statistics.median(seconds), float(np.max(np.abs(np.asarray(estimates) - self.truth)))
        each = f"{1000 * middle / rounds:8.1f} ms a round ({rounds})" if rounds else " " * 24
        load = os.getloadavg()[0]
        print(f"{name:42s} {middle:8.3f} s {each}  off by {off:.1e}, {len(seconds)} runs, load {load:.1f}", flush=True)


def read_rows(files: Mapping[str, Path]) -> Rows:
    """Columns (n, p) without the intercept and outcomes (n,) of all files."""
    tables = [pc.read_csv(path) for path in files.values()]
    x = np.concatenate([np.column_stack([t.column(c).to_numpy() for c in t.column_names[1:]]) for t in tables])
    return x, np.concatenate([t.column("y").to_numpy() for t in tables]).astype(np.float64)


def fit_numpy(x: Vector, y: Vector) -> Vector:
    """Newton's method to the last digit."""
    x = np.column_stack([np.ones(len(y)), x])
    beta = np.zeros(x.shape[1])
    for _ in range(25):
        mean = 1.0 / (1.0 + np.exp(-(x @ beta)))
        step = np.linalg.solve((x.T * (mean * (1.0 - mean))) @ x, x.T @ (y - mean))
        beta = beta + step
        if np.max(np.abs(step)) < 1e-10:
            break
    return beta


def fit_statsmodels(x: Vector, y: Vector, tolerance: float) -> Vector:
    """statsmodels' GLM; the tolerance is of the deviance."""
    import statsmodels.api as sm

    return np.asarray(sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial()).fit(tol=tolerance).params)


def fit_scikit_learn(x: Vector, y: Vector, tolerance: float) -> Vector:
    """scikit-learn's regression without a penalty; the tolerance is of the gradient."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=tolerance).fit(x, y)
    return np.concatenate([model.intercept_, model.coef_[0]])


def fit_glum(x: Vector, y: Vector, tolerance: float) -> Vector:
    """glum's iteratively reweighted least squares; the tolerance is of the gradient."""
    from glum import GeneralizedLinearRegressor

    model = GeneralizedLinearRegressor(family="binomial", alpha=0, gradient_tol=tolerance, solver="irls-ls").fit(x, y)
    return np.concatenate([[model.intercept_], model.coef_])


Fit = Callable[[Vector, Vector, float], Vector]
ENGINES: Mapping[str, Fit] = {
    "numpy": lambda x, y, _: fit_numpy(x, y),
    "scikit-learn": fit_scikit_learn,
    "glum": fit_glum,
    "statsmodels": fit_statsmodels,
}


def find_tolerance(fit: Fit, bench: Bench) -> float:
    """The loosest power of ten that brings an engine within ERROR; the strictest one if none does."""
    powers = [10.0**-k for k in range(4, 11)]
    reached = (power for power in powers if np.max(np.abs(fit(*bench.rows, power) - bench.truth)) < ERROR)
    return next(reached, powers[-1])


# Parts


def time_coterie(bench: Bench, name: str) -> None:
    """Coterie's learner over a transport; rows come from memory."""
    study = complete_study(Study.from_toml(study_text(bench.columns)))
    design = Design(study)
    data, names = {}, [f"x{j}" for j in range(bench.columns)]
    for site, file in bench.files.items():
        x, y = read_rows({site: file})
        data[site] = ArrayRows.of(design.block({"y": y, **dict(zip(names, x.T, strict=True))}))
    seconds = []
    with open_transport(name) as transport:
        for _ in range(bench.runs):
            results, elapsed = conduct_over(transport, study, data, gated=False)
            seconds.append(elapsed)
    fit: Any = next(fit for fit in results.values() if fit is not None)
    bench.print_line(f"Coterie over {name}", seconds, fit.rounds, fit.estimates)


def time_redis(bench: Bench) -> None:
    """The same sums over Redis."""
    figures = [run_redis(bench.files) for _ in range(bench.runs)]
    seconds = [run.round * run.rounds for run in figures]
    bench.print_line("a script over Redis, 3 processes", seconds, figures[0].rounds, figures[0].estimates)


def time_flower(bench: Bench) -> None:
    """The same sums over Flower."""
    python = find_python("flower")
    results = [run_flower(python, bench) for _ in range(bench.runs)]
    seconds = [sum(result["rounds"]) for result in results]
    bench.print_line("Flower, 3 clients over gRPC", seconds, ROUNDS, results[0]["estimates"])


def find_python(name: str) -> str:
    """The Python that has another platform; SystemExit without it."""
    variable = f"COTERIE_{name.upper()}_PYTHON"
    if variable not in os.environ:
        raise SystemExit(f"{variable} names no Python with what benchmarks/{name}.txt lists")
    return os.environ[variable]


def run_flower(python: str, bench: Bench) -> dict[str, Any]:
    """Seconds of each round on Flower, from the first coefficients sent, and the estimates."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    script, settings = str(HERE / "flower_newton.py"), os.environ | ONE_THREAD | {"FLWR_TELEMETRY_ENABLED": "0"}

    def start(*words: str) -> subprocess.Popen[str]:
        out, quiet = subprocess.PIPE, subprocess.DEVNULL
        return subprocess.Popen([python, script, *words], stdout=out, stderr=quiet, env=settings, text=True)

    server_process = start("server", port, str(len(SITES)), str(ROUNDS), str(bench.columns))
    await_server(int(port))
    sites = [start("site", port, str(file)) for file in bench.files.values()]
    result: dict[str, Any] = json.loads(server_process.communicate(timeout=DEADLINE)[0])
    for site in sites:
        site.communicate(timeout=GRACE)
    return result


def await_server(port: int) -> None:
    """Wait until a server takes connections; TimeoutError after two minutes."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"Flower's server did not listen on port {port} within 120 s. Look at its own output.")


def time_nvflare(bench: Bench) -> None:
    """The same sums over NVFLARE, all runs in one job."""
    python, folder = find_python("nvflare"), bench.folder / "nvflare"
    folder.mkdir()
    words = [python, str(HERE / "nvflare_newton.py"), folder, bench.runs, ROUNDS, bench.columns, *bench.files.values()]
    settings = os.environ | ONE_THREAD | {"PYTHONPATH": str(HERE)}
    with subprocess.Popen(list(map(str, words)), stdout=-1, stderr=-1, text=True, env=settings) as process:
        try:
            out, fault = process.communicate(timeout=DEADLINE)
        except BaseException:
            process.send_signal(signal.SIGINT)  # it ends NVFLARE's daemons, which are in sessions of their own
            process.wait(timeout=GRACE)
            raise
    if process.returncode:
        raise SystemExit(f"NVFLARE ended with status {process.returncode}: {fault.strip()[-300:]}")
    result = json.loads(out.splitlines()[-1])
    seconds = [sum(rounds) for rounds in result["fits"]]
    bench.print_line("NVFLARE, POC mode, 3 sites", seconds, ROUNDS, result["estimates"])


def time_pooled(bench: Bench, name: str) -> None:
    """A pooled engine on rows in memory, then from their files; its imports and threads are there before."""
    fit = ENGINES[name]
    tolerance = 0.0 if name == "numpy" else find_tolerance(fit, bench)
    words = f"{name} at {tolerance:.0e}" if tolerance else name
    for where in ("memory", "file"):
        seconds = []
        for _ in range(bench.runs):
            start = time.perf_counter()
            estimates = fit(*(bench.rows if where == "memory" else read_rows(bench.files)), tolerance)
            seconds.append(time.perf_counter() - start)
        bench.print_line(f"{words}, pooled, from {where}", seconds, None, estimates)


def time_r(bench: Bench) -> None:
    """R's glm, where it is installed."""
    program = shutil.which("Rscript")
    if program is None:
        raise SystemExit("R is not installed")
    words = [program, "--vanilla", str(HERE / "pooled.R"), str(bench.runs), *map(str, bench.files.values())]
    result = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    for where in ("memory", "file"):
        bench.print_line(f"R's glm, pooled, from {where}", [result[where]] * bench.runs, None, result["estimates"])


PARTS: Mapping[str, Callable[[Bench], None]] = {
    **{f"coterie-{name}": partial(time_coterie, name=name) for name in TRANSPORTS},
    "redis": time_redis,
    "flower": time_flower,
    "nvflare": time_nvflare,
    **{name: partial(time_pooled, name=name) for name in ENGINES},
    "r": time_r,
}


# Each in a process of its own


def run_part(bench: Bench, name: str) -> None:
    """Run a part, and say why it has no line. What it started ends with it."""
    words = [sys.executable, __file__, "part", name, str(bench.folder), str(bench.columns), str(bench.runs)]
    process = subprocess.Popen(words, start_new_session=True)
    try:
        status = process.wait(timeout=DEADLINE)
        reason = f"ended with status {status}" if status else ""
    except subprocess.TimeoutExpired:
        reason = f"not done within {DEADLINE} s"
    finally:
        end_group(process)
    if reason:
        print(f"{name:42s} not measured: {reason}", flush=True)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that may have time to end what it started, then whatever is left of its session."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=GRACE)


def main() -> None:
    """Run the parts in turn; `part NAME FOLDER COLUMNS RUNS` runs one on rows that are there."""
    if sys.argv[1:2] == ["part"]:
        PARTS[sys.argv[2]](Bench(Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the part that runs ends with it
    names = [word for word in sys.argv[1:] if not word.isdigit()]
    sizes = [int(word) for word in sys.argv[1:] if word.isdigit()]
    rows, columns, runs = [*sizes, *(10_000, 20, 5)[len(sizes) :]]
    if unknown := sorted(set(names) - set(PARTS)):
        raise SystemExit(f"No part is called {', '.join(unknown)}. Parts: {', '.join(PARTS)}.")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), columns, runs)
        write_rows(bench.folder, rows, columns)
        print(
            f"3 x {rows} x {columns}, medians; numpy's estimates: {bench.truth[:2].round(6).tolist()} ...", flush=True
        )
        for name in names or PARTS:
            run_part(bench, name)


if __name__ == "__main__":
    main()
