"""All figures in one run: `make bench`. Medians of several repetitions; sizes in COTERIE_BENCH_ROWS / _STREAM_ROWS."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from coterie_learners.core.registry import complete_study
from coterie_learners.glore.glore import GlorePlan
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows
from coterie_learners.sums.frame import Frame
from coterie_node.run.simulate import simulate

ROWS = int(os.environ.get("COTERIE_BENCH_ROWS", 1_000_000))
STREAM_ROWS = int(os.environ.get("COTERIE_BENCH_STREAM_ROWS", 10_000_000))
P = 100
REPEATS = 5


def main() -> None:
    """Run every benchmark and print one line each, with the machine."""
    print(f"Machine: {machine()}")
    x, y = logistic_rows(ROWS, P)
    time_local_step(x, y)
    time_fit(x, y)
    del x, y
    time_demo_rounds()
    time_streaming()


def machine() -> str:
    """Processor, cores, memory and the versions that matter."""
    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown")
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, numpy {np.__version__}"
    )


def logistic_rows(n: int, p: int) -> tuple[Array, Array]:
    """A design (n, p) with an intercept and standard normal columns scaled into [-1, 1], and a binary outcome."""
    rng = np.random.default_rng(1)
    x = np.asfortranarray(np.clip(rng.standard_normal((n, p)) / 6.0, -1.0, 1.0))
    x[:, 0] = 1.0
    eta = x @ (rng.standard_normal(p) * 0.5) - 1.0
    return x, (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(float)


def study_of(columns: int, sites: int) -> Study:
    """A logistic study with `columns` numeric covariates."""
    variables = "\n".join(f'[variables.x{j}]\ntype = "number"\nrange = [-1, 1]' for j in range(columns))
    names = ", ".join(f'"s{k}"' for k in range(sites))
    formula = "y ~ " + " + ".join(f"x{j}" for j in range(columns))
    header = f'name = "bench"\nsites = [{names}]\nformula = "{formula}"\n[learner]\nname = "glore"\n'
    return complete_study(Study.from_toml(header + '[variables.y]\ntype = "binary"\n' + variables))


def time_local_step(x: Array, y: Array) -> None:
    """One site's work of one round against the bare weighted product, in the same process, in turn."""
    plan, rows = GlorePlan.of(study_of(P - 1, 3)), ArrayRows(x, y)
    weight = np.random.default_rng(2).random(len(y))
    frame, beta = Frame.from_ranges(plan.model.layout), np.full(P, 0.01)
    pairs = [
        (seconds(lambda: (x.T * weight) @ x), seconds(lambda: plan.model.round("round", rows, frame, beta, 0.0)))
        for _ in range(REPEATS)
    ]
    bare, own = (statistics.median(t) for t in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(
        f"GLORE local step, {len(y)} x {P}: {own:.3f} s; "
        f"bare weighted X'X {bare:.3f} s; ratio {ratio:.2f} (at most 1.3)"
    )


def time_fit(x: Array, y: Array) -> None:
    """A federated fit on three sites in simulation against pooled fits by other libraries, to the same tolerance."""
    study = study_of(P - 1, 3)
    parts = np.array_split(np.arange(len(y)), 3)
    rows = {
        name: ArrayRows(x[part[0] : part[-1] + 1], y[part[0] : part[-1] + 1])
        for name, part in zip(study.sites, parts, strict=True)
    }
    results: dict[str, list[float]] = {}
    estimates: dict[str, Array] = {}

    def federated() -> Array:
        _, runners, _ = simulate(study, rows)
        return np.asarray(runners[study.sites[0]].machine.result.estimates)

    contestants: dict[str, Callable[[], Array]] = {"coterie, 3 sites": federated, **time_pooled_fits(x, y)}
    for turn in range(3):
        for name, fit in contestants.items():
            if turn and name == "statsmodels":  # it is an order of magnitude behind; once is enough
                continue
            start = time.perf_counter()
            estimates[name] = fit()
            results.setdefault(name, []).append(time.perf_counter() - start)
    truth = estimates["statsmodels"]
    for name, times in results.items():
        gap = float(np.max(np.abs(estimates[name] - truth)))
        print(
            f"Whole fit, {len(y)} x {P}: {name}: {statistics.median(times):.2f} s; "
            f"largest difference to statsmodels {gap:.1e}"
        )


def time_pooled_fits(x: Array, y: Array) -> dict[str, Callable[[], Array]]:
    """Pooled fits; each library at the loosest setting that brings it within 1e-8 of the optimum."""
    import statsmodels.api as sm
    from glum import GeneralizedLinearRegressor
    from sklearn.linear_model import LogisticRegression

    # Both are as fast or faster on rows that lie together (C order) than on columns.
    in_rows = np.ascontiguousarray(x[:, 1:])

    def fit_statsmodels() -> Array:
        fitted: Array = sm.GLM(y, x, family=sm.families.Binomial()).fit(tol=1e-10).params
        return fitted

    def fit_sklearn() -> Array:
        model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8).fit(in_rows, y)
        return np.concatenate([np.ravel(model.intercept_), np.ravel(model.coef_)])

    def fit_glum() -> Array:
        model = GeneralizedLinearRegressor(family="binomial", alpha=0, gradient_tol=1e-6, solver="irls-ls").fit(
            in_rows, y
        )
        return np.concatenate([np.ravel(model.intercept_), np.ravel(model.coef_)])

    return {"statsmodels": fit_statsmodels, "scikit-learn": fit_sklearn, "glum": fit_glum}


def time_demo_rounds() -> None:
    """Ledger and store time per round on Anvil and a folder, three site processes."""
    runs: list[Mapping[str, Any]] = []
    for _ in range(REPEATS):
        done = subprocess.run(
            [sys.executable, "-m", "coterie_node", "demo", "--json"], capture_output=True, text=True, check=True
        )
        runs.append(json.loads(done.stdout))
    per_round = [1000 * (r["seconds"]["ledger"] + r["seconds"]["store"]) / r["rounds"] for r in runs]
    wall = [1000 * r["seconds"]["total"] / r["rounds"] for r in runs]
    gas = runs[-1]["ledger"]["gas"] / runs[-1]["ledger"]["records"]
    print(
        f"Demo, 3 site processes on Anvil + folder: ledger and store {statistics.median(per_round):.0f} ms a round "
        f"(at most 60), wall {statistics.median(wall):.0f} ms a round; {gas:.0f} gas a record with joins"
    )


def time_streaming() -> None:
    """Memory of one site's step over a Parquet file that does not fit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write_parquet(path, STREAM_ROWS)
        done = subprocess.run(
            [sys.executable, __file__, "--streamed", str(path)], capture_output=True, text=True, check=True
        )
        print(done.stdout.strip())


def stream_step(path: Path) -> None:
    """In a process of its own: read, check, and run one local step."""
    from coterie_node.data.load import load_rows

    peak = [0]
    threading.Thread(target=_watch, args=(peak,), daemon=True).start()
    study = study_of(9, 3)
    start = time.perf_counter()
    rows = load_rows(path, Design(study), "s0")
    loaded = time.perf_counter()
    plan = GlorePlan.of(study)
    plan.model.round("round", rows, Frame.from_ranges(plan.model.layout), np.zeros(10), 0.0)
    print(
        f"Parquet, {rows.n} x 10 in {path.stat().st_size / 2**20:.0f} MiB: checks {loaded - start:.1f} s, "
        f"one step {time.perf_counter() - loaded:.1f} s, peak {peak[0] / 2**20:.0f} MiB (at most 2048)"
    )


def write_parquet(path: Path, n: int) -> None:
    """`n` simulated rows of nine numbers and a binary outcome, written in groups."""
    rng = np.random.default_rng(3)
    names = [f"x{j}" for j in range(9)]
    schema = pa.schema([(name, pa.float64()) for name in names]).append(pa.field("y", pa.int8()))
    with pq.ParquetWriter(path, schema) as writer:
        for at in range(0, n, 1_000_000):
            m = min(1_000_000, n - at)
            columns = [pa.array(np.clip(rng.standard_normal(m) / 6, -1, 1)) for _ in names]
            writer.write_table(pa.table([*columns, pa.array((rng.random(m) < 0.2).astype(np.int8))], schema=schema))


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _watch(peak: list[int]) -> None:
    process = psutil.Process()
    while True:
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.01)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--streamed"]:
        stream_step(Path(sys.argv[2]))
    else:
        main()
