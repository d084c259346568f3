"""Secure GLM as deployed: three processes, TLS on loopback, Anvil, a folder store. `make bench-mpc`.

    python benchmarks/secure_glm.py [--delay 0.02] [1000x5 ...]

`--delay`: seconds that every message takes one way, through the relays of relay.py.
Simulated columns at two hospitals, half of the rows at each, and a helper. Prints the wall seconds from the last site's
joining to the result, rounds, bytes, the largest process, and the differences to statsmodels on the pooled rows.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from relay import delay_sites
from scipy.special import expit

from coterie_learners.numeric.array import Array
from coterie_node.analysis.pooled import Reference
from coterie_node.demo.cases.case import Case
from coterie_node.demo.cases.nhefs import quote_names, write_frame
from coterie_node.demo.run import DemoProcesses, await_reports, prepare, run_sites, start_site
from coterie_node.network.devnet import make_settings, run_network
from coterie_node.site.run_folder import RunFolder

SITES = ("left", "right", "helper")


@dataclass(frozen=True)
class Job:
    """One measurement: rows of both hospitals together, and columns."""

    n: int
    m: int


JOBS = {
    "200x3": Job(200, 3),
    "1000x5": Job(1_000, 5),
    "1500x12": Job(1_500, 12),
    "5000x30": Job(5_000, 30),
    "50000x20": Job(50_000, 20),
}


@cache
def make_table(job: Job) -> tuple[Array, Array]:
    """Columns with correlations of 0.3 and an outcome that depends on them."""
    rng = np.random.default_rng(4)
    x = np.sqrt(0.3) * rng.normal(size=(job.n, 1)) + np.sqrt(0.7) * rng.normal(size=(job.n, job.m))
    eta = x @ rng.normal(0.0, 0.25, job.m) - 0.7
    return x, (rng.random(job.n) < expit(eta)).astype(float)


def study_text(job: Job) -> str:
    """The study file."""
    names = [f"x{j}" for j in range(job.m)]
    ranges = "\n".join(f'[variables.{name}]\ntype = "number"\nrange = [-8, 8]\n' for name in names)
    return (
        f'name = "bench"\nsites = [{quote_names(SITES)}]\nhelpers = ["helper"]\nformula = "y ~ {" + ".join(names)}"\n'
        f'[learner]\nname = "secure_glm"\n{ranges}[variables.y]\ntype = "binary"\n'
    )


def make_case(job: Job) -> Case:
    """The job as the demo runs it."""
    x, y = make_table(job)
    frame = pd.DataFrame(x, columns=[f"x{j}" for j in range(job.m)]).assign(y=y.astype(int))
    parts = {"left": frame.iloc[: job.n // 2], "right": frame.iloc[job.n // 2 :]}

    def write_sites(folder: Path, sites: Sequence[str]) -> Mapping[str, Path]:
        return {name: write_frame(part, folder / name / "data.csv") for name, part in parts.items()}

    return Case(lambda _: SITES, lambda _: study_text(job), write_sites, lambda: Reference({}))


def run(job: Job, delay: float) -> tuple[dict[str, Any], float]:
    """One run over processes of their own; the report of the first site, and the wall seconds from join to result."""
    with tempfile.TemporaryDirectory() as folder:
        place = RunFolder(Path(folder) / "run")
        place.root.mkdir()
        prepare(place, make_case(job), SITES)
        with run_network(place, SITES, make_settings("anvil", "folder")):
            reports, seconds = run_sites(place, SITES, lambda _: None) if delay == 0.0 else run_delayed(place, delay)
    return reports["left"], seconds


def run_delayed(place: RunFolder, delay: float) -> tuple[dict[str, dict[str, Any]], float]:
    """As the demo's `run_sites`, with relays between the sites."""
    with delay_sites(place, SITES, delay) as views:
        crew = DemoProcesses({name: start_site(view, name) for name, view in views.items()})
        try:
            reports = await_reports(crew, SITES[0], lambda _: None)
        finally:
            crew.stop()
    return reports, max(r["ended"] for r in reports.values()) - min(r["started"] for r in reports.values())


def measure(job: Job, delay: float) -> None:
    """Run a job and print what it took and how far it is from the pooled fit."""
    load, used = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    report, seconds = run(job, delay)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used
    fit = report["fit"]
    session = fit["details"]["interactive"]
    busiest = max(session["bytes_sent"].values()) / 1e6
    # Kilobytes on Linux: the largest of all processes that have ended, here those of the sites.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{job.n:,} x {job.m}, {1000 * delay:.0f} ms one way: {seconds:.1f} s wall and {used:.0f} s CPU in all "
        f"at load {load:.1f} to {os.getloadavg()[0]:.1f}; "
        f"{session['rounds']} rounds, {fit['details']['iterations']} evaluations and a last one, {busiest:.1f} MB sent "
        f"by the busiest party; largest process so far {peak:.0f} MB; {compare(job, fit)}",
        flush=True,
    )


def compare(job: Job, fit: Mapping[str, Any]) -> str:
    """The differences to statsmodels on the pooled rows."""
    x, y = make_table(job)
    pooled = sm.GLM(y, np.column_stack([np.ones(job.n), x]), family=sm.families.Binomial()).fit(tol=1e-13)
    gap = np.abs((np.array(fit["estimates"]) - pooled.params) / pooled.bse).max()
    errors = np.sqrt(np.diag(np.array(fit["covariance"], dtype=float)))
    relative = np.abs(errors / pooled.bse - 1.0).max()
    return f"coefficients within {gap:.1e} standard errors of statsmodels', standard errors within {relative:.1e}"


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--delay", type=float, default=0.0)
    options.add_argument("jobs", nargs="*", choices=[*JOBS, []])
    chosen = options.parse_args()
    for name in chosen.jobs or JOBS:
        measure(JOBS[name], chosen.delay)
