"""Cox models at three sites, timed beside coxph, lifelines and statsmodels on the pooled rows, in one run.

    survival.py [PATIENTS]            100,000 x 20, stratified by site, beside the packages
    survival.py common PATIENTS STEPS one baseline hazard on a grid; prints the bytes of each round's post

All fits have Efron's ties and the same rows; the packages have the sites as strata. R runs as `Rscript`; lifelines in
the interpreter that COTERIE_LIFELINES_PYTHON names (benchmarks/lifelines.txt). Sites run one after the other in this
process, with masks, replayed server steps and no ledger. Reading a file is in no figure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.registry import complete_study
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, Data
from coterie_node.run.simulate import simulate

SITES, P, DAYS = ("a", "b", "c"), 20, 365.0
TERMS = tuple(f"x{k}" for k in range(P))
Columns = dict[str, NDArray[np.float64]]
_R = """
suppressMessages(library(survival)); d <- read.csv(commandArgs(TRUE)[1])
f <- as.formula(paste("Surv(days, died) ~", paste0("x", 0:19, collapse = " + "), "+ strata(site)"))
t <- system.time(m <- coxph(f, d, ties = "efron")); cat(t["elapsed"], t["user.self"] + t["sys.self"], coef(m)[1])
"""
_LIFELINES = """
import sys, time, pandas as pd
from lifelines import CoxPHFitter
d = pd.read_csv(sys.argv[1]); t, c = time.perf_counter(), time.process_time()
m = CoxPHFitter().fit(d, "days", "died", strata=["site"])
print(time.perf_counter() - t, time.process_time() - c, m.params_.iloc[0])
"""


def draw_patients(n: int, steps: float) -> Columns:
    """Patients in turn of three sites, with times in whole steps of a year."""
    rng = np.random.default_rng(1)
    x = np.round(rng.normal(size=(n, P)), 4)
    exits = rng.exponential(np.exp(-x @ (rng.normal(size=P) * 0.1)) * 400)
    leaves = rng.uniform(50, 800, n)
    days = np.minimum(np.ceil(np.minimum(exits, leaves) * steps / DAYS), steps)
    died = (exits <= leaves) & (days < steps)
    columns = {name: x[:, k] for k, name in enumerate(TERMS)}
    return {**columns, "days": days, "died": died.astype(np.float64), "site": np.arange(n) % 3.0}


def build_study(steps: float, **options: Any) -> Study:
    """A study of all covariates; without a floor, as no gate judges it here."""
    variables: dict[str, Any] = {name: {"type": "number", "range": [-8, 8]} for name in TERMS}
    variables |= {"days": {"type": "number", "range": [0, steps]}, "died": {"type": "binary"}}
    learner = {"name": "cox", "time": "days", "event": "died", "opening": "none", "proportionality": "none", **options}
    plain = {"name": "speed", "sites": list(SITES), "formula": f"died ~ {' + '.join(TERMS)}", "variables": variables}
    return complete_study(Study.model_validate({**plain, "learner": learner, "disclosure": {"cell": 0, "rows": 1}}))


def time_ours(columns: Columns, study: Study) -> tuple[float, float, float]:
    """Seconds on the clock and of the processor, and the first estimate."""
    rows: dict[str, Data] = {
        site: ArrayCodes({k: np.ascontiguousarray(v[columns["site"] == at]) for k, v in columns.items()})
        for at, site in enumerate(SITES)
    }
    start, cpu = time.perf_counter(), time.process_time()
    _, runners, _ = simulate(study, rows)
    seconds = time.perf_counter() - start, time.process_time() - cpu
    fit = next(iter(runners.values())).machine.result
    print(f"  rounds: {fit.rounds}")
    return (*seconds, float(fit.estimates[0]))


def time_statsmodels(columns: Columns) -> tuple[float, float, float]:
    """The same of PHReg."""
    from statsmodels.duration.hazard_regression import PHReg

    x = np.column_stack([columns[name] for name in TERMS])
    start, cpu = time.perf_counter(), time.process_time()
    fit = PHReg(columns["days"], x, status=columns["died"], strata=columns["site"], ties="efron").fit()
    return time.perf_counter() - start, time.process_time() - cpu, float(fit.params[0])


def time_program(command: list[str]) -> tuple[float, float, float] | None:
    """What a program prints of itself: seconds on the clock and of the processor, and the first estimate."""
    if shutil.which(command[0]) is None:
        return None
    wall, cpu, first = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(wall), float(cpu), float(first)


def compare(n: int) -> None:
    """Print a row for each package, and the ratio to the fastest."""
    columns = draw_patients(n, DAYS)
    figures = {"coterie, three sites": time_ours(columns, build_study(DAYS, baseline="site"))}
    figures["statsmodels PHReg, pooled"] = time_statsmodels(columns)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv"
        np.savetxt(path, np.column_stack(list(columns.values())), delimiter=",", header=",".join(columns), comments="")
        others = {"R coxph, pooled": ["Rscript", "-e", _R, str(path)]}
        if "COTERIE_LIFELINES_PYTHON" in os.environ:
            others["lifelines, pooled"] = [os.environ["COTERIE_LIFELINES_PYTHON"], "-c", _LIFELINES, str(path)]
        for name, command in others.items():
            seconds = time_program(command)
            figures |= {name: seconds} if seconds else {}
    for name, (wall, cpu, first) in figures.items():
        print(f"{name:28s} {wall:8.2f} s  {cpu:8.2f} s of CPU  first estimate {first:.9f}")
    ours, *rest = figures.values()
    fastest, least = (min(figure[k] for figure in rest) for k in (0, 1))
    print(f"ratio to the fastest: {ours[0] / fastest:.2f} (CPU {ours[1] / least:.2f})")


def measure_grid(n: int, steps: int) -> None:
    """Print the time of a fit with one baseline hazard."""
    study = build_study(steps, baseline="common", time_grid={"width": 1, "horizon": steps})
    wall, cpu, _ = time_ours(draw_patients(n, steps), study)
    print(f"{n} x {P}, {steps} steps: {wall:.1f} s, {cpu:.1f} s of CPU")


if __name__ == "__main__":
    print(json.dumps({"load": os.getloadavg()}))
    if sys.argv[1:2] == ["common"]:
        measure_grid(int(sys.argv[2]), int(sys.argv[3]))
    else:
        compare(int(sys.argv[1]) if sys.argv[1:] else 100_000)
