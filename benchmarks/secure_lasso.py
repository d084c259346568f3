"""Secure join and Secure Lasso as deployed: three processes, TLS, Anvil, a folder store. `make bench-mpc`.

Simulated columns as in the paper's timing (scikit-learn's make_regression, the outcome over its standard deviation),
half at each of two owners, who hold a quarter more patients each. Also what the paper's own packages take on the same
rows, where they install (tno.py, in a virtual environment of its own).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from deployed import SITES, declare_numbers, read_busiest, read_children_seconds, read_peak, run_once
from sklearn.datasets import make_regression
from sklearn.linear_model import Lasso, LassoCV
from sklearn.metrics import r2_score

from coterie_learners.numeric.array import Array
from coterie_node.demo.cases.nhefs import quote_names

LAMBDA = 0.001
DEFAULT = ("5000x30", "10000x40", "100000x10", "path", "paillier")


@dataclass(frozen=True)
class Job:
    """One measurement: rows in common, columns, and the learner's options as TOML."""

    title: str
    n: int
    m: int
    options: str = f"alpha = {LAMBDA}\ntolerance = 1e-4"
    linkage: str = "masks"


JOBS = {
    "5000x30": Job("join and fit, 5,000 x 30", 5_000, 30),
    "10000x40": Job("join and fit, 10,000 x 40", 10_000, 40),
    "100000x10": Job("join and fit, 100,000 x 10", 100_000, 10),
    # Not in the list of `make bench-mpc`: minutes each. Name them.
    **{f"{n}x10": Job(f"join and fit, {n:,} x 10", n, 10) for n in (25_000, 50_000, 200_000, 400_000, 1_000_000)},
    "longpath": Job(
        "20 penalties, 5 folds, 20,000 x 10", 20_000, 10, f"alpha = {np.geomspace(1, 0.001, 20).tolist()}\nfolds = 5"
    ),
    "path": Job(
        "20 penalties, 5 folds, 1,000 x 10", 1_000, 10, f"alpha = {np.geomspace(1, 0.001, 20).tolist()}\nfolds = 5"
    ),
    "paillier": Job("join with Paillier and fit, 500 x 15", 500, 15, f'alpha = {LAMBDA}\nlinkage = "paillier"'),
}


def make_table(n: int, m: int) -> tuple[Array, Array]:
    """The rows of the paper's timing."""
    x, y = make_regression(n_samples=n, n_features=m, n_informative=max(1, m // 2), noise=25.0, random_state=3)
    return x, y / np.std(y)


def draw_frames(job: Job) -> Mapping[str, pd.DataFrame]:
    """What each owner holds: the common patients and a quarter more of its own, in an order of its own."""
    x, y = make_table(job.n, job.m)
    rng, extra, half = np.random.default_rng(1), job.n // 4, job.m // 2
    frames = {}
    for k, (name, part) in enumerate((("left", slice(0, half)), ("right", slice(half, job.m)))):
        own = np.vstack([x[:, part], rng.normal(size=(extra, x[:, part].shape[1]))])
        frame = pd.DataFrame(own, columns=[f"x{j}" for j in range(job.m)][part])
        frame["person"] = [f"P{i:07d}" for i in range(job.n)] + [f"Q{k}{i:06d}" for i in range(extra)]
        if name == "right":
            frame["y"] = np.concatenate([y, rng.normal(size=extra)])
        frames[name] = frame.iloc[rng.permutation(job.n + extra)]
    return frames


def study_text(job: Job) -> str:
    """The study file."""
    names = [f"x{j}" for j in range(job.m)]
    half = job.m // 2
    columns = {"left": names[:half], "right": [*names[half:], "y"], "helper": []}
    shared = "\n".join(f"{site} = [{quote_names(held_)}]" for site, held_ in columns.items())
    return (
        f'name = "bench"\nsites = [{quote_names(SITES)}]\nformula = "y ~ {" + ".join(names)}"\n'
        'identifier = ["person"]\n'
        f'[columns]\n{shared}\n[learner]\nname = "secure_lasso"\n{job.options}\n{declare_numbers([*names, "y"])}'
    )


def measure(job: Job) -> None:
    """Run a job three times and print the median, the differences to scikit-learn, bytes and memory."""
    walls, cpus, frames = [], [], draw_frames(job)
    for _ in range(1 if job.n >= 20_000 else 3):
        before = read_children_seconds()
        report, seconds = run_once(study_text(job), frames)
        walls.append(seconds)
        cpus.append(read_children_seconds() - before)
    fit = report["fit"]
    session = fit["details"]["interactive"]
    print(
        f"{job.title}: {sorted(walls)[len(walls) // 2]:.1f} s wall (of {', '.join(f'{w:.1f}' for w in walls)}), "
        f"CPU of all processes from their start {sorted(cpus)[len(cpus) // 2]:.1f} s, load {os.getloadavg()[0]:.1f}; "
        f"{session['rounds']} rounds, {fit['details']['iterations']} iterations, "
        f"{read_busiest(session):.1f} MB sent by the busiest party between parties; "
        f"largest process so far {read_peak():.0f} MB; {compare(job, fit)}",
        flush=True,
    )


def compare(job: Job, fit: Mapping[str, Any]) -> str:
    """The differences to scikit-learn on the pooled rows."""
    x, y = make_table(job.n, job.m)
    alpha, estimates = fit["details"]["alpha"], np.array(fit["estimates"])
    pooled = Lasso(alpha=alpha, tol=1e-12, max_iter=10**6).fit(x, y)
    coefficient = max(float(np.abs(estimates[1:] - pooled.coef_).max()), abs(estimates[0] - float(pooled.intercept_)))
    same = bool(((estimates[1:] == 0) == (pooled.coef_ == 0)).all())
    gap = abs(fit["details"]["r2"][0] - r2_score(y, estimates[0] + x @ estimates[1:]))
    zeros = f"zeros {'the same' if same else 'differ'} ({int((pooled.coef_ == 0).sum())})"
    summary = f"coefficients within {coefficient:.1e} of scikit-learn's, {zeros}, R2 within {gap:.1e} of plaintext"
    if "cross_validation_mse" in fit["details"]:
        plain = LassoCV(alphas=np.geomspace(1, 0.001, 20), cv=5, tol=1e-8, max_iter=10**5).fit(x, y)
        summary += f", penalty chosen {alpha:.4g} (LassoCV on other folds: {plain.alpha_:.4g})"
    return summary


if __name__ == "__main__":
    for name in sys.argv[1:] or DEFAULT:
        measure(JOBS[name])
