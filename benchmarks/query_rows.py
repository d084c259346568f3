"""Memory and time of loading the rows of a query, of a mapped Parquet file and of a mapped CSV, each by a process.

    python benchmarks/query_rows.py 1 3 10 --memory 16      # millions of rows; MiB that stay in memory

Prints a line each: kind, rows, seconds until the rows are checked, seconds of one pass over them, and the largest
resident memory. DuckDB makes the query's rows, so that no server is measured.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STUDY = """
name = "many"
sites = ["north"]
formula = "death ~ age + sex + pressure"
rows = { missing = "drop", minimum = 1 }
learner = { name = "glore" }
[variables.death]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
[variables.sex]
type = "category"
levels = ["female", "male"]
[variables.pressure]
type = "number"
range = [50, 260]
"""
QUERY = """
SELECT CAST(hash(k) % 3 = 0 AS INTEGER) AS death, 20 + hash(k * 7) % 700 / 10.0 AS age,
CASE WHEN k % 2 = 0 THEN 'female' ELSE 'male' END AS sex, 80 + hash(k * 13) % 120 AS pressure
FROM range({rows}) AS r(k) ORDER BY k
"""


def write_source(kind: str, rows: int, folder: Path) -> Path:
    """A mapping of the kind."""
    import duckdb

    path = folder / "north.mapping.toml"
    query = QUERY.format(rows=rows)
    if kind == "query":
        duckdb.connect(str(folder / "empty.duckdb")).close()
        text = f'[sql]\ndatabase = "duckdb:///{folder}/empty.duckdb"\nseconds = 86400\nquery = """{query}"""\n'
    else:
        form = "(FORMAT parquet)" if kind == "parquet" else "(FORMAT csv, HEADER)"
        with duckdb.connect() as base:
            base.execute(f"COPY ({query.replace('ORDER BY k', '')}) TO '{folder}/rows.{kind}' {form}")
        text = f'file = "rows.{kind}"\n'
    path.write_text(text)
    return path


def measure(path: Path, memory: int) -> None:
    """Load a mapping's rows, pass over them, and print what it took."""
    from coterie_learners.core.registry import complete_study
    from coterie_learners.study.document import Study
    from coterie_node.data import load
    from coterie_node.data.load import MemoryRows, load_site

    load.IN_MEMORY = memory << 20
    start = time.monotonic()
    loaded = load_site(path, complete_study(Study.from_toml(STUDY)), "north")
    assert isinstance(loaded, MemoryRows)
    middle = time.monotonic()
    rows = sum(len(block) for block in loaded.blocks())
    end = time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{rows:>10} rows  {middle - start:7.1f} s checked  {end - middle:6.1f} s a pass  {peak:>5} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("millions", type=int, nargs="*", default=[1, 3, 10])
    parser.add_argument("--kinds", default="query,parquet,csv")
    parser.add_argument("--memory", type=int, default=256)
    parser.add_argument("--measure", type=Path)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.memory)
        return
    for kind in arguments.kinds.split(","):
        for millions in arguments.millions:
            with tempfile.TemporaryDirectory() as folder:
                # Made in a process of its own, whose memory is none of what is measured.
                path = write_source(kind, millions * 1_000_000, Path(folder))
                print(f"{kind:8}", end=" ", flush=True)
                words = ["--measure", str(path), "--memory", str(arguments.memory)]
                subprocess.run([sys.executable, __file__, *words], check=True)


if __name__ == "__main__":
    main()
