"""Twenty models on one cohort against one of them: `python benchmarks/many_models.py [ROWS [REPEATS]]`.

Three sites with a CSV file each, masked sums, release gates and replay: `coterie simulate` as a command from the shell,
and the same in this process, start-up apart. With `keep` as third word each site is a process on a development chain
(`--keep`). One and twenty are measured in turn; the ratio is that of CPU seconds, pair by pair.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_node.analysis.analyse import analyse

COVARIATES, MODELS, SITES = 10, 20, ("a", "b", "c")


def main() -> None:
    """Print a line for each pair, and the median ratio."""
    rows, repeats = (int(sys.argv[k]) if len(sys.argv) > k else default for k, default in ((1, 2000), (2, 5)))
    with tempfile.TemporaryDirectory() as folder:
        files = write_sites(Path(folder), rows)
        studies = [complete_study(Study.model_validate(make_study(count))) for count in (1, MODELS)]
        keep = "keep" in sys.argv[3:]
        for what, measure in (("command", partial(run_command, keep=keep)), ("start-up apart", measure_here)):
            ratios = [time_pair(studies, files, measure) for _ in range(repeats)]
            middle = statistics.median(ratios)
            print(f"{MODELS} models on {rows} x {COVARIATES}, {what}: {middle:.2f} times one (asked: below 3)")


Measure = Callable[[Study, Mapping[str, Path]], tuple[float, float]]


def time_pair(studies: list[Study], files: Mapping[str, Path], measure: Measure) -> float:
    """The ratio of CPU seconds; prints both, wall seconds and the load."""
    one, many = (measure(study, files) for study in studies)
    load = os.getloadavg()[0]
    print(f"one {one[0]:.2f} s CPU, {one[1]:.2f} s; {MODELS} {many[0]:.2f} s CPU, {many[1]:.2f} s (load {load:.0f})")
    return many[0] / one[0]


def run_command(study: Study, files: Mapping[str, Path], keep: bool = False) -> tuple[float, float]:
    """CPU seconds of all processes, and wall seconds, of the command."""
    folder = files["a"].parent
    path = folder / "study.toml"
    path.write_text(write_toml(study))
    data = [word for site, file in files.items() for word in ("--data", f"{site}={file}")]
    kept = ["--keep", str(folder / f"kept-{time.time_ns()}")] if keep else []
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "coterie_node", "simulate", path, *data, *kept], check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - wall


def measure_here(study: Study, files: Mapping[str, Path]) -> tuple[float, float]:
    """CPU and wall seconds of a study on these files in this process."""
    cpu, wall = time.process_time(), time.perf_counter()
    analyse(study, dict(files))
    return time.process_time() - cpu, time.perf_counter() - wall


def make_study(count: int) -> dict[str, object]:
    """The full model, or with it models of one to nineteen subsets of its covariates, by a seed."""
    names = [f"x{k}" for k in range(COVARIATES)]
    rng = np.random.default_rng(4)
    subsets = [names, *(sorted(rng.choice(names, 2 + k % 8, replace=False).tolist()) for k in range(count - 1))]
    models = [{"name": f"m{k}", "formula": f"y ~ {' + '.join(terms)}"} for k, terms in enumerate(subsets)]
    variables = {name: {"type": "binary"} if k % 3 == 2 else {"type": "number", "range": [-9, 9]}
                 for k, name in enumerate(names)}  # fmt: skip
    plain = {"name": "bench", "sites": list(SITES), "variables": {**variables, "y": {"type": "binary"}}}
    plain |= {"learner": {"name": "glore"}}
    return plain | ({"formula": models[0]["formula"]} if count == 1 else {"models": models})


def write_toml(study: Study) -> str:
    """The study as people write it."""
    head = f'name = "{study.name}"\nsites = {json.dumps(study.sites)}\n'
    formula = f'formula = "{study.formula}"\n' if study.formula else ""
    models = (f'[[models]]\nname = "{model.name}"\nformula = "{model.formula}"\n' for model in study.models)
    kinds = (f'[variables.{name}]\ntype = "{v.type}"\n' + (f"range = {json.dumps(v.range)}\n" if v.range else "")
             for name, v in study.variables.items())  # fmt: skip
    return "".join([head, formula, '[learner]\nname = "glore"\n', *models, *kinds])


def write_sites(folder: Path, rows: int) -> dict[str, Path]:
    """A CSV file for each site."""
    rng = np.random.default_rng(1)
    x = np.clip(rng.normal(size=(rows, COVARIATES)), -9, 9).round(3)
    x[:, 2::3] = x[:, 2::3] > 0
    y = rng.random(rows) < 1 / (1 + np.exp(0.5 - x @ rng.normal(0, 0.3, COVARIATES)))
    head = ",".join([*(f"x{k}" for k in range(COVARIATES)), "y"])
    paths = {}
    for site, at in zip(SITES, np.array_split(np.arange(rows), len(SITES)), strict=True):
        paths[site] = folder / f"{site}.csv"
        lines = np.column_stack([x[at], y[at]])
        np.savetxt(paths[site], lines, "%g", ",", header=head, comments="")
    return paths


if __name__ == "__main__":
    main()
