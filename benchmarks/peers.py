"""The same Newton-Raphson on other platforms, and pooled engines from memory and from file.

    peers.py [ROWS COLUMNS RUNS] [clique]     rows of each of three sites; default 10000 20 5

Coterie's learner runs over Anvil and a folder, RabbitMQ, Redis and memory, with `clique` over Clique and Kubo too, its
sites as threads of this process. The same sums run over Redis (`redis_newton.py`) and, where COTERIE_FLOWER_PYTHON is a
Python with what flower.txt lists, over Flower (`flower_newton.py`), in three processes. Pooled: Newton's method in
numpy, statsmodels, scikit-learn (`newton-cholesky`, no penalty), glum (`irls-ls`), and R's glm where it is installed,
at tolerances with which each comes within 1e-8. Every line has medians, and the largest difference from numpy's
estimates.
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
from collections.abc import Callable, Mapping
from contextlib import ExitStack
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
from coterie_node.experiment.transports import Transport, conduct_over, open_transport

Vector = NDArray[np.float64]
Rows = tuple[Vector, Vector]
TRANSPORTS = ("anvil", "amqp", "redis", "memory")


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


def fit_statsmodels(x: Vector, y: Vector) -> Vector:
    """statsmodels' GLM at its default tolerance."""
    import statsmodels.api as sm

    return np.asarray(sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial()).fit().params)


def fit_scikit_learn(x: Vector, y: Vector) -> Vector:
    """scikit-learn's regression without a penalty."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-9).fit(x, y)
    return np.concatenate([model.intercept_, model.coef_[0]])


def fit_glum(x: Vector, y: Vector) -> Vector:
    """glum's iteratively reweighted least squares."""
    from glum import GeneralizedLinearRegressor

    model = GeneralizedLinearRegressor(family="binomial", alpha=0, gradient_tol=1e-6, solver="irls-ls").fit(x, y)
    return np.concatenate([[model.intercept_], model.coef_])


POOLED: dict[str, Callable[[Vector, Vector], Vector]] = {
    "numpy": fit_numpy,
    "scikit-learn": fit_scikit_learn,
    "glum": fit_glum,
    "statsmodels": fit_statsmodels,
}


def fit_over(transport: Transport, files: Mapping[str, Path], columns: int) -> tuple[Vector, float, int]:
    """Coterie's estimates, seconds of the fit and rounds over a transport; rows come from memory."""
    study = complete_study(Study.from_toml(study_text(columns)))
    design = Design(study)
    data = {}
    for site in SITES:
        x, y = read_rows({site: files[site]})
        names = [f"x{j}" for j in range(columns)]
        data[site] = ArrayRows.of(design.block({"y": y, **dict(zip(names, x.T, strict=True))}))
    results, seconds = conduct_over(transport, study, data, gated=False)
    fit: Any = next(fit for fit in results.values() if fit is not None)
    return fit.estimates, seconds, fit.rounds


def print_line(name: str, seconds: list[float], rounds: int | None, difference: float) -> None:
    """One platform's figures."""
    middle = statistics.median(seconds)
    each = f"{1000 * middle / rounds:8.1f} ms a round ({rounds})" if rounds else " " * 24
    print(f"{name:34s} {middle:8.3f} s {each}  off by {difference:.1e}", flush=True)


def run_flower(python: str, files: Mapping[str, Path], columns: int, rounds: int) -> tuple[float, Vector]:
    """Seconds of all rounds on Flower, from the first coefficients sent, and the estimates."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    script, settings = str(HERE / "flower_newton.py"), os.environ | ONE_THREAD | {"FLWR_TELEMETRY_ENABLED": "0"}

    def start(*words: str) -> subprocess.Popen[str]:
        out, quiet = subprocess.PIPE, subprocess.DEVNULL
        return subprocess.Popen([python, script, *words], stdout=out, stderr=quiet, env=settings, text=True)

    server_process = start("server", port, str(len(files)), str(rounds), str(columns))
    await_server(int(port))
    sites = [start("site", port, str(file)) for file in files.values()]
    result = json.loads(server_process.communicate(timeout=600)[0])
    for site in sites:
        site.communicate(timeout=60)
    return sum(result["rounds"]), np.array(result["estimates"])


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


def time_flower(files: Mapping[str, Path], columns: int, runs: int, rounds: int, truth: Vector) -> None:
    """Flower, where it is installed."""
    python = os.environ.get("COTERIE_FLOWER_PYTHON", "")
    if not python:
        print("Flower is not installed (flower.txt).")
        return
    results = [run_flower(python, files, columns, rounds) for _ in range(runs)]
    off = max(float(np.max(np.abs(estimates - truth))) for _, estimates in results)
    print_line("Flower, 3 clients over gRPC", [seconds for seconds, _ in results], rounds, off)


def time_r(files: Mapping[str, Path], runs: int, truth: Vector) -> None:
    """R's glm, where it is installed."""
    program = shutil.which("Rscript")
    if program is None:
        print("R is not installed.")
        return
    words = [program, "--vanilla", str(HERE / "pooled.R"), str(runs), *map(str, files.values())]
    result = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    off = float(np.max(np.abs(np.array(result["estimates"]) - truth)))
    for where in ("memory", "file"):
        print_line(f"R's glm, pooled, from {where}", [result[where]], None, off)


def time_federated(files: Mapping[str, Path], columns: int, runs: int, truth: Vector, names: tuple[str, ...]) -> None:
    """Coterie over each transport in turn, and the same sums over Redis and Flower."""
    with ExitStack() as stack:
        transports = {name: stack.enter_context(open_transport(name)) for name in names}
        fits = {
            name: [fit_over(transport, files, columns) for _ in range(runs)] for name, transport in transports.items()
        }
    for name, results in fits.items():
        off = max(float(np.max(np.abs(estimates - truth))) for estimates, _, _ in results)
        print_line(f"Coterie over {name}", [seconds for _, seconds, _ in results], results[0][2], off)
    figures = [run_redis(files) for _ in range(runs)]
    off = float(np.max(np.abs(np.subtract(figures[0].estimates, truth))))
    print_line("a script over Redis, 3 processes", [f.round * f.rounds for f in figures], figures[0].rounds, off)
    time_flower(files, columns, runs, figures[0].rounds, truth)


def time_pooled(files: Mapping[str, Path], rows: Rows, runs: int, truth: Vector) -> None:
    """Pooled engines on rows in memory, then from their files."""
    for where in ("memory", "file"):
        for name, fit in POOLED.items():
            fit(*(part[:200] for part in rows))  # imports and thread pools are not part of the figure
            seconds = []
            for _ in range(runs):
                start = time.perf_counter()
                estimates = fit(*(rows if where == "memory" else read_rows(files)))
                seconds.append(time.perf_counter() - start)
            print_line(f"{name}, pooled, from {where}", seconds, None, float(np.max(np.abs(estimates - truth))))


def main() -> None:
    """Run everything in turn and print it with the load."""
    words = [word for word in sys.argv[1:] if word != "clique"]
    rows, columns, runs = [*map(int, words[:3]), *(10_000, 20, 5)[len(words) :]]
    names = (*TRANSPORTS, "clique") if "clique" in sys.argv else TRANSPORTS
    with tempfile.TemporaryDirectory() as folder:
        files = write_rows(Path(folder), rows, columns)
        everything = read_rows(files)
        truth = fit_numpy(*everything)
        print(f"3 x {rows} x {columns}, medians of {runs}, load {os.getloadavg()[0]:.1f}")
        time_federated(files, columns, runs, truth, names)
        time_pooled(files, everything, runs, truth)
        time_r(files, runs, truth)
        print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
