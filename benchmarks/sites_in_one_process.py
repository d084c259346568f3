"""What a study takes as its sites grow in number, all in one process, with the same few rows at each.

    python benchmarks/sites_in_one_process.py [REPEATS]            CPU seconds at 50, 100 and 200 sites, and exponents
    python benchmarks/sites_in_one_process.py calls SITES...       calls by function at each number of sites

Masked GLORE with ten covariates and 100 rows a site, without gates. Seconds are CPU of the whole study, without
start-up; the median over the repeats, which take the sizes in turn. An exponent is the log2 of the ratio of two
neighbouring sizes. Calls are those whose number grows with the square of the sites, counted by a profiler.
"""

from __future__ import annotations

import cProfile
import hashlib
import math
import pstats
import statistics
import sys
import time
from collections.abc import Mapping

import numpy as np

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows, Rows
from coterie_node.run.simulate import simulate

SITES, REPEATS = (50, 100, 200), 5
COLUMNS, ROWS = 10, 100


def main(arguments: list[str]) -> None:
    """Print seconds, or calls."""
    if arguments[:1] == ["calls"]:
        print_calls([int(n) for n in arguments[1:]])
        return
    repeats = int(arguments[0]) if arguments else REPEATS
    cases = {n: make_case(n) for n in SITES}
    measure(*cases[SITES[0]])
    runs = [{n: measure(*case) for n, case in cases.items()} for _ in range(repeats)]
    seconds = {n: statistics.median(run[n][0] for run in runs) for n in SITES}
    for n in SITES:
        rounds, digest = runs[0][n][1:]
        exponent = f", exponent {math.log2(seconds[n] / seconds[n // 2]):.2f}" if n // 2 in seconds else ""
        print(f"{n} sites: {seconds[n]:.2f} s of CPU, {rounds} rounds{exponent}; estimates {digest}", flush=True)


def make_case(sites: int) -> tuple[Study, Mapping[str, Rows]]:
    """A study of so many sites, and the rows of each."""
    names = [f"s{k}" for k in range(sites)]
    kinds = {f"x{j}": {"type": "number", "range": [-1, 1]} for j in range(COLUMNS)} | {"y": {"type": "binary"}}
    study = {
        "name": "bench",
        "sites": names,
        "formula": "y ~ " + " + ".join(f"x{j}" for j in range(COLUMNS)),
        "learner": {"name": "glore"},
        "variables": kinds,
    }
    rng, effects = np.random.default_rng(1), np.linspace(-1.0, 1.0, COLUMNS + 1)
    rows: dict[str, Rows] = {}
    for name in names:
        x = np.asfortranarray(np.clip(rng.standard_normal((ROWS, COLUMNS + 1)) / 3.0, -1.0, 1.0))
        x[:, 0] = 1.0
        rows[name] = ArrayRows(x, (rng.random(ROWS) < 1.0 / (1.0 + np.exp(-x @ effects))).astype(float))
    return complete_study(Study.model_validate(study)), rows


def measure(study: Study, rows: Mapping[str, Rows]) -> tuple[float, int, str]:
    """CPU seconds of a study, its rounds, and a digest of its estimates."""
    begun = time.process_time()
    _, runners, _ = simulate(study, rows)
    seconds = time.process_time() - begun
    fits = [runner.machine.result for runner in runners.values()]
    digests = {hashlib.sha256(np.asarray(fit.estimates).tobytes()).hexdigest()[:16] for fit in fits}
    return seconds, fits[0].rounds, "/".join(sorted(digests))


def print_calls(sizes: list[int]) -> None:
    """Functions with more than half a call for each pair of sites at the largest size."""
    counts = {n: count_calls(n) for n in sizes}
    last = counts[sizes[-1]]
    often = [f for f, (calls, _) in last.items() if calls > sizes[-1] ** 2 / 2]
    for f in sorted(often, key=lambda f: -last[f][1])[:60]:
        numbers = " ".join(f"{counts[n].get(f, (0, 0.0))[0]:>9,}" for n in sizes)
        print(f"{numbers}  {last[f][1]:6.2f} s  {f}")


def count_calls(sites: int) -> dict[str, tuple[int, float]]:
    """Calls and own seconds by function."""
    case, profile = make_case(sites), cProfile.Profile()
    measure(*make_case(3))
    profile.runcall(measure, *case)
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    out: dict[str, tuple[int, float]] = {}
    for (file, line, name), (_, calls, own, *_rest) in stats.items():
        out[f"{file.rsplit('/', 1)[-1]}:{line} {name}"] = calls, own
    return out


if __name__ == "__main__":
    main(sys.argv[1:])
