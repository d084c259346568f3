"""Memory and processor time of a site with more rows than it keeps in memory: a DuckDB file, or Dask of two workers.

    python benchmarks/large_site.py 5 10 20 --columns 20 --engine duckdb
    python benchmarks/large_site.py 5 10 20 --columns 20 --engine dask

For each number of millions a process makes the rows, and another one loads them (all checks), hashes the snapshot and
fits a linear model by GLORE without a gate, which is what a site does in each study. Printed: CPU and wall seconds of
each step, and the largest resident memory of the node and of each worker. With `--gate` the gate judges too: it needs
the study's columns of all rows in 1 to 8 bytes a value.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = 40


def write_study(columns: int) -> str:
    """A study with an outcome and so many covariates."""
    names = [f"x{k}" for k in range(columns - 1)]
    head = f'name = "large"\nsites = ["north"]\nformula = "y ~ {" + ".join(names)}"\n'
    head += 'rows = { missing = "drop", minimum = 1 }\n'
    head += 'learner = { name = "glore", family = "gaussian", aggregation = "plain", opening = "none" }\n'
    return head + "".join(f'[variables.{name}]\ntype = "number"\nrange = [0, 100]\n' for name in ["y", *names])


def write_rows(engine: str, rows: int, columns: int, folder: Path) -> Path:
    """A mapping of the rows, which are in one DuckDB file or in Parquet parts."""
    import duckdb

    values = ", ".join(f"hash(k * {2 * j + 3}) % 10000 / 100.0 AS x{j}" for j in range(columns - 1))
    select = f"SELECT k, hash(k * 2) % 10000 / 100.0 AS y, {values} FROM range({{start}}, {{end}}) AS r(k)"
    path = folder / "north.mapping.toml"
    with duckdb.connect(str(folder / "rows.duckdb"), config={"memory_limit": "2GiB", "threads": 2}) as base:
        if engine == "duckdb":
            base.execute(f"CREATE TABLE patients AS {select.format(start=0, end=rows)}")
            names = ", ".join(["y", *(f"x{j}" for j in range(columns - 1))])
            query = f"SELECT {names} FROM patients ORDER BY k"
            address = f"duckdb:///{folder}/rows.duckdb"
            path.write_text(f'[sql]\ndatabase = "{address}"\nseconds = 86400\nquery = "{query}"\n')
            return path
        for part in range(PARTS):
            own = select.format(start=part * rows // PARTS, end=(part + 1) * rows // PARTS)
            base.execute(f"COPY ({own}) TO '{folder}/part-{part:03d}.parquet' (FORMAT parquet)")
    path.write_text(f'[dask]\nscheduler = "SCHEDULER"\nfiles = "{folder}/part-*.parquet"\nseconds = 3600\n')
    return path


def measure(path: Path, study_text: str, gate: bool, workers: Callable[[], str]) -> None:
    """Load, hash and fit, and print what each took."""
    from coterie_learners.core.registry import complete_study
    from coterie_learners.study.document import Study
    from coterie_node.data.commitment import make_snapshot
    from coterie_node.data.load import load_site
    from coterie_node.release.gate import Gate
    from coterie_node.run.simulate import simulate

    study = complete_study(Study.from_toml(study_text))
    marks = [(time.monotonic(), time.process_time())]
    loaded = load_site(path, study, "north")
    assert loaded is not None
    marks.append((time.monotonic(), time.process_time()))
    root = make_snapshot(loaded, b"s" * 32).root
    marks.append((time.monotonic(), time.process_time()))
    _, runners, _ = simulate(study, {"north": loaded.rows}, gates={"north": Gate(study)} if gate else None)
    marks.append((time.monotonic(), time.process_time()))
    assert runners["north"].machine.result is not None
    names = ("checked", "snapshot", "fit")
    steps = [
        f"{name} {later[1] - first[1]:7.1f} s CPU {later[0] - first[0]:7.1f} s"
        for name, first, later in zip(names, marks[:-1], marks[1:], strict=True)
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{loaded.n:>10} rows  {'; '.join(steps)}; node {peak} MiB{workers()}; root {root[:12]}", flush=True)


def measure_cluster(path: Path, study_text: str, gate: bool) -> None:
    """The same on a LocalCluster of two workers of one thread and 2 GiB each."""
    import distributed

    make: Any = distributed.LocalCluster
    with make(
        n_workers=2, threads_per_worker=1, memory_limit="2GiB", dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        path.write_text(path.read_text().replace("SCHEDULER", cluster.scheduler_address))
        client: Any = distributed.Client(cluster, set_as_default=False)  # type: ignore[no-untyped-call]
        measure(path, study_text, gate, lambda: describe_workers(client.run(read_use)))
        client.close()


def read_use() -> tuple[int, float]:
    """The largest resident memory of this process so far in MiB, and its CPU seconds."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, time.process_time()


def describe_workers(uses: dict[str, tuple[int, float]]) -> str:
    """Memory of each worker, and the CPU seconds of all."""
    peaks, seconds = zip(*sorted(uses.values()), strict=True)
    return f", workers {' and '.join(map(str, peaks))} MiB, CPU {sum(seconds):.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("millions", type=float, nargs="*", default=[5, 10, 20])
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--engine", choices=["duckdb", "dask"], default="duckdb")
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--measure", type=Path)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    study, rows = write_study(arguments.columns), [int(1e6 * m) for m in arguments.millions]
    if arguments.write:
        write_rows(arguments.engine, rows[0], arguments.columns, arguments.write)
    elif arguments.measure and arguments.engine == "dask":
        measure_cluster(arguments.measure, study, arguments.gate)
    elif arguments.measure:
        measure(arguments.measure, study, arguments.gate, str)
    else:
        words = ["--columns", str(arguments.columns), "--engine", arguments.engine, *["--gate"] * arguments.gate]
        for count in rows:
            with tempfile.TemporaryDirectory() as folder:
                run = [sys.executable, __file__, str(count / 1e6), *words]
                subprocess.run([*run, "--write", folder], check=True)
                print(f"{arguments.engine:7}", end=" ", flush=True)
                subprocess.run([*run, "--measure", f"{folder}/north.mapping.toml"], check=True)


if __name__ == "__main__":
    main()
