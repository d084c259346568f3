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
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from deployed import SITES, declare_numbers, read_busiest, read_peak, run_once
from scipy.special import expit

from coterie_learners.numeric.array import Array
from coterie_node.demo.cases.nhefs import quote_names


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
    return (
        f'name = "bench"\nsites = [{quote_names(SITES)}]\nhelpers = ["helper"]\nformula = "y ~ {" + ".join(names)}"\n'
        f'[learner]\nname = "secure_glm"\n{declare_numbers(names)}[variables.y]\ntype = "binary"\n'
    )


def draw_frames(job: Job) -> Mapping[str, pd.DataFrame]:
    """What each hospital holds: half of the rows."""
    x, y = make_table(job)
    frame = pd.DataFrame(x, columns=[f"x{j}" for j in range(job.m)]).assign(y=y.astype(int))
    return {"left": frame.iloc[: job.n // 2], "right": frame.iloc[job.n // 2 :]}


def measure(job: Job, delay: float) -> None:
    """Run a job and print what it took and how far it is from the pooled fit."""
    load, used = os.getloadavg()[0], resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    report, seconds = run_once(study_text(job), draw_frames(job), delay)
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used
    fit = report["fit"]
    session = fit["details"]["interactive"]
    print(
        f"{job.n:,} x {job.m}, {1000 * delay:.0f} ms one way: {seconds:.1f} s wall and {used:.0f} s CPU in all "
        f"at load {load:.1f} to {os.getloadavg()[0]:.1f}; "
        f"{session['rounds']} rounds, {fit['details']['iterations']} evaluations and a last one, "
        f"{read_busiest(session):.1f} MB sent by the busiest party; "
        f"largest process so far {read_peak():.0f} MB; {compare(job, fit)}",
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
