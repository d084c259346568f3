"""Figures of the learners that count patterns; `make bench` runs this after the others. Medians of several runs.

tables.py [PART ...]      counting, parquet, streaming, secure, influenza, suppressed; default all
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coterie_chain.ledger.protocol import Record
from coterie_learners.cola.cola import plan_table
from coterie_learners.cola.tables.pattern_counts import count_patterns
from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, CodedRows
from coterie_node.data.load import load_site
from coterie_node.run.simulate import simulate

REPEATS = 7
STREAM_ROWS = 50_000_000
# The six databases of the paper's influenza study, by size, and how old their patients are.
SITES = {"ccae": (1_000_000, 0.08), "mdcr": (92_184, 0.97), "mdcd": (378_900, 0.20), "jmdc": (311_870, 0.06),
         "optum": (751_291, 0.24), "clin": (1_000_000, 0.27)}  # fmt: skip
NAMES = ("age60", "male", "cancer", "copd", "diabetes", "heart", "hypertension", "lipids", "kidney")
TRUTH = np.array([-5.6, 1.35, 0.25, 0.40, 0.65, 0.25, 0.60, 0.25, -0.15, 0.55])

Columns = dict[str, NDArray[np.uint8]]
Counting = Callable[[Columns], tuple[Mapping[str, NDArray[Any]], NDArray[Any]]]


def main() -> None:
    """Run every benchmark and print one line each."""
    parts = {
        "counting": time_counting,
        "parquet": time_parquet,
        "streaming": time_streaming,
        "secure": time_secure,
        "influenza": run_influenza,
        "suppressed": run_suppressed,
    }
    for name in sys.argv[1:] or parts:
        parts[name]()


def study(
    variables: Mapping[str, int], sites: int, learner: str = "cola", names: tuple[str, ...] = (), **options: Any
) -> Study:
    """A logistic study of covariates with so many levels."""
    declared: dict[str, Any] = {
        name: {"type": "binary"} if levels == 2 else {"type": "category", "levels": [str(k) for k in range(levels)]}
        for name, levels in variables.items()
    }
    plain = {
        "name": "bench",
        "sites": list(names or (f"s{k}" for k in range(sites))),
        "formula": f"y ~ {' + '.join(variables)}",
        "variables": {"y": {"type": "binary"}, **declared},
        "disclosure": {"cell": 0},
        "learner": {"name": learner, **options},
    }
    return complete_study(Study.model_validate(plain))


def rows(variables: Mapping[str, int], n: int, seed: int) -> Columns:
    """Rows of these covariates with an outcome."""
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(0, levels, n).astype(np.uint8) for name, levels in variables.items()}
    eta = -1.5 + sum(0.2 * values.astype(np.float32) for values in columns.values())
    return columns | {"y": (rng.random(n) < 1.0 / (1.0 + np.exp(-eta))).astype(np.uint8)}


def median(f: Callable[[], object], repeats: int = REPEATS) -> tuple[float, float]:
    """Median seconds of the wall clock and of the processor."""
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        f()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall_times, cpu_times = zip(*times, strict=True)
    return statistics.median(wall_times), statistics.median(cpu_times)


def time_counting() -> None:
    """One site's count from memory."""
    for label, variables in (("9 binary", dict.fromkeys(NAMES, 2)), ("8 of three levels", dict.fromkeys(NAMES[:8], 3))):
        plan, data = plan_table(study(variables, 2)), rows(variables, 1_000_000, 1)
        for kind in (np.uint8, np.float64):
            own_rows = ArrayCodes({name: values.astype(kind) for name, values in data.items()})
            wall, cpu = median(partial(count_patterns, plan.tally, own_rows))
            print(f"Count 1,000,000 x {label} from memory ({kind.__name__}): {1e3 * wall:.1f} ms (CPU {1e3 * cpu:.1f})")


def time_parquet() -> None:
    """One site's checks and count from a Parquet file of small integers, and of text in dictionaries."""
    variables = dict.fromkeys(NAMES, 2)
    data = rows(variables, 1_000_000, 1)
    coded = study(variables, 2)
    words = study(dict.fromkeys(NAMES, 3), 2)
    text = pa.array(["0", "1"])
    stored: dict[str, tuple[Study, dict[str, Any]]] = {
        "int8": (coded, {name: pa.array(values.astype(np.int8)) for name, values in data.items()}),
        "text": (
            words,
            {n: pa.DictionaryArray.from_arrays(v.astype(np.int8), text) for n, v in data.items()},
        ),
    }
    stored["text"][1]["y"] = pa.array(data["y"].astype(np.int8))
    with tempfile.TemporaryDirectory() as folder:
        for kind, (of, columns) in stored.items():
            path = Path(folder) / f"{kind}.parquet"
            pq.write_table(pa.table(columns), path)
            wall, cpu = median(partial(check_and_count, path, of))
            print(f"Check and count 1,000,000 x 9 from Parquet ({kind}): {1e3 * wall:.0f} ms (CPU {1e3 * cpu:.0f})")


def check_and_count(path: Path, of: Study) -> None:
    """A site's work from file to table."""
    count_patterns(plan_table(of).tally, load_rows(path, of))


def load_rows(path: Path, of: Study) -> CodedRows:
    """A site's checked rows."""
    own_rows = load_site(path, of, of.sites[0])
    assert own_rows is not None
    assert isinstance(own_rows.rows, CodedRows)
    return own_rows.rows


STREAM = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, "benchmarks")
import tables
from coterie_learners.cola.cola import plan_table
from coterie_learners.cola.tables.pattern_counts import count_patterns
of = tables.study(dict.fromkeys(tables.NAMES, 2), 2)
start = time.perf_counter()
own = tables.load_rows(Path(sys.argv[1]), of)
checked = time.perf_counter()
patterns = count_patterns(plan_table(of).tally, own)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(f"{type(own).__name__}, {own.n} rows, {len(patterns.keys)} patterns: checks {checked - start:.1f} s, "
      f"count {time.perf_counter() - checked:.1f} s, peak memory {peak:.0f} MiB")
"""


def time_streaming() -> None:
    """Rows that do not fit in memory, from Parquet, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for total in (STREAM_ROWS // 5, STREAM_ROWS):
            path = Path(folder) / "large.parquet"
            block = rows(dict.fromkeys(NAMES, 2), 1_000_000, 1)
            table = pa.table({name: pa.array(values.astype(np.int8)) for name, values in block.items()})
            with pq.ParquetWriter(path, table.schema) as writer:
                for _ in range(total // 1_000_000):
                    writer.write_table(table)
            done = subprocess.run([sys.executable, "-c", STREAM, str(path)], capture_output=True, text=True, check=True)
            print(f"Streamed from Parquet: {done.stdout.strip()}")


def time_secure() -> None:
    """The whole protocol in simulation, and the bytes that a site uploads, for small and large tables."""
    few = dict.fromkeys(NAMES[:8], 2)
    many = {"a": 5, "b": 5, "c": 5, "d": 5, "e": 2, "f": 2, "g": 2}
    for scheme in ("masks", "bfv", "ckks", "newton"):
        for sites in (4, 10):
            for variables in (few, many):
                of = study(variables, sites, "secure_cola", scheme=scheme)
                plain = study(variables, sites)
                data = {name: ArrayCodes(rows(variables, 40_000, k)) for k, name in enumerate(of.sites)}
                want = simulate(plain, data)[1]["s0"].machine.result
                print(secure_line(of, data, want.estimates, scheme))


def secure_line(of: Study, data: Mapping[str, ArrayCodes], want: NDArray[np.float64], scheme: str) -> str:
    """One line: seconds of all sites together in one process, and the largest upload."""
    durations: list[float] = []
    uploads: defaultdict[str, int] = defaultdict(int)
    for _ in range(3):
        world, runners, seconds = simulate(of, data)
        durations.append(seconds)
    for record in (e for e in world.chain.log if isinstance(e, Record)):
        uploads[record.site] += record.post.size
    gap = float(np.max(np.abs(runners["s1"].machine.result.estimates - want)))
    largest, others = max(uploads.values()), sorted(uploads.values())[-2]
    patterns = plan_table(study_like(of)).grid.size
    return (
        f"secure_cola {scheme}, {len(of.sites)} sites, {patterns} patterns: {statistics.median(durations):.2f} s; "
        f"uploads at most {largest / 1e3:.0f} kB (holder), {others / 1e3:.0f} kB (others); difference to cola {gap:.1e}"
    )


def study_like(of: Study) -> Study:
    """The same study for COLA-GLM, whose plan knows the grid."""
    plain = of.model_dump()
    return complete_study(Study.model_validate({**plain, "learner": {"name": "cola"}}))


def run_influenza() -> None:
    """3,534,245 rows of six sites: site work and fit in simulation, against the pooled fit in the same run."""
    data = {name: patients(n, old, k) for k, (name, (n, old)) in enumerate(SITES.items())}
    of = study(dict.fromkeys(NAMES, 2), 6, names=tuple(SITES))
    own_rows = {name: ArrayCodes(columns) for name, columns in data.items()}
    durations = []
    for _ in range(5):
        cpu = time.process_time()
        _, runners, seconds = simulate(of, own_rows)
        durations.append((seconds, time.process_time() - cpu))
    wall, cpu = (statistics.median(column) for column in zip(*durations, strict=True))
    fit = runners["ccae"].machine.result
    print(
        f"Influenza size, {fit.n} rows, 6 sites, {fit.events} events: {wall:.2f} s in all (CPU {cpu:.2f}), "
        f"load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    for name, count in (("Arrow's group_by", count_by_groups), ("codes in numpy", count_by_codes)):
        seconds, counting, params = time_counts_first(data, count)
        print(
            f"... counted first by {name}, then statsmodels on the patterns: {seconds:.2f} s in all, {counting:.2f} s "
            f"of it counting; largest difference {np.abs(params - fit.estimates).max():.1e}",
            flush=True,
        )
    start = time.perf_counter()
    want = pool_tables(data)
    gaps = [float(np.abs(a - b).max()) for a, b in ((fit.estimates, want.params), (fit.std_errors, want.bse))]
    print(
        f"... statsmodels on all rows: {time.perf_counter() - start:.0f} s; largest differences {gaps[0]:.1e} "
        f"(coefficients), {gaps[1]:.1e} (standard errors)",
        flush=True,
    )


def time_counts_first(data: Mapping[str, Columns], count: Counting) -> tuple[float, float, NDArray[np.float64]]:
    """Median seconds of all and of the counting alone, and the estimates: pooled rows counted, then a grouped fit."""
    import statsmodels.api as sm

    seconds, counts = [], []
    for _ in range(5):
        start = time.perf_counter()
        patterns, sizes = count({n: np.concatenate([part[n] for part in data.values()]) for n in (*NAMES, "y")})
        counts.append(time.perf_counter() - start)
        x = np.column_stack([np.ones(len(sizes)), *(patterns[name] for name in NAMES)])
        model = sm.GLM(patterns["y"].astype(float), x, family=sm.families.Binomial(), freq_weights=sizes)
        fit = model.fit(tol=1e-14, maxiter=50)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), statistics.median(counts), np.asarray(fit.params)


def count_by_groups(columns: Columns) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any]]:
    """Patterns and how many rows each has, by Arrow's group_by."""
    table = pa.table(columns).group_by(list(columns)).aggregate([([], "count_all")])
    return {name: table.column(name).to_numpy() for name in columns}, table.column("count_all").to_numpy()


def count_by_codes(columns: Columns) -> tuple[Mapping[str, NDArray[Any]], NDArray[Any]]:
    """The same by one number for each row, whose bits are the columns."""
    code = np.zeros(len(columns["y"]), np.uint16)
    for place, values in enumerate(columns.values()):
        code |= values.astype(np.uint16) << np.uint16(place)
    sizes = np.bincount(code, minlength=1 << len(columns))
    there = np.flatnonzero(sizes)
    return {name: (there >> place) & 1 for place, name in enumerate(columns)}, sizes[there]


def run_suppressed() -> None:
    """How far floors move the fit of the influenza-size study, in standard errors, and how many rows they take."""
    data = {name: ArrayCodes(patients(n, old, k)) for k, (name, (n, old)) in enumerate(SITES.items())}
    exact = study(dict.fromkeys(NAMES, 2), 6, names=tuple(SITES))
    want = simulate(exact, data)[1]["ccae"].machine.result
    for floor in (5, 11):
        for how in ("drop", "impute"):
            plain = {**exact.model_dump(), "disclosure": {"cell": floor}, "learner": {"name": "cola", "suppress": how}}
            fit = simulate(complete_study(Study.model_validate(plain)), data)[1]["ccae"].machine.result
            moved = float(np.max(np.abs(fit.estimates - want.estimates) / want.std_errors))
            print(
                f"Influenza size, floor {floor}, {how}: coefficients move by at most {moved:.2f} standard errors; "
                f"{fit.n - want.n:+d} rows of {want.n}; {fit.notes[0]}"
            )


def patients(n: int, old: float, seed: int) -> Columns:
    """One site's patients: frailty makes the illnesses go together."""
    rng = np.random.default_rng(seed)
    age, frailty = rng.random(n) < old, rng.normal(size=n)
    base = np.array([0.05, 0.06, 0.09, 0.12, 0.22, 0.22, 0.04])
    load, ageing = np.array([0.3, 0.7, 0.7, 0.9, 0.8, 0.8, 0.8]), np.array([1.2, 1.0, 0.9, 1.4, 1.5, 1.2, 1.3])
    eta = np.log(base / (1 - base)) - 0.35 + load * frailty[:, None] + ageing * age[:, None]
    ill = rng.random((n, 7)) < 1 / (1 + np.exp(-eta))
    x = np.column_stack([age, rng.random(n) < 0.42, ill]).astype(np.uint8)
    risk = 1 / (1 + np.exp(-(TRUTH[0] + x @ TRUTH[1:])))
    columns = {name: np.ascontiguousarray(x[:, j]) for j, name in enumerate(NAMES)}
    return columns | {"y": (rng.random(n) < risk).astype(np.uint8)}


def pool_tables(data: Mapping[str, Columns]) -> Any:
    """statsmodels on all rows."""
    import statsmodels.api as sm

    columns = [np.concatenate([part[name] for part in data.values()]) for name in NAMES]
    x = np.column_stack([np.ones(len(columns[0])), *columns])
    y = np.concatenate([part["y"] for part in data.values()]).astype(float)
    return sm.GLM(y, x, family=sm.families.Binomial()).fit(tol=1e-14, maxiter=50)


if __name__ == "__main__":
    main()
