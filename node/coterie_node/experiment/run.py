"""A whole experiment: read the rows, run what trials are missing, time other transports, and put it together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from coterie_node.experiment.cohort import Cohort, load_experiment_rows
from coterie_node.experiment.plan import ExperimentPlan
from coterie_node.experiment.results import Experiment
from coterie_node.experiment.trials import TrialFiles, run_trials


def run_experiment(
    plan: ExperimentPlan,
    data: Path,
    trials: Path,
    jobs: int = 1,
    observe: Callable[[int, int], None] = lambda *_: None,
    *,
    gated: bool = False,
    over: tuple[str, ...] = (),
) -> Experiment:
    """Run a plan whose files are relative to `data`, with its finished trials in the folder `trials`."""
    cohort = load_experiment_rows(plan, data)
    files = TrialFiles(trials, make_trial_key(plan, cohort, gated))
    results = run_trials(plan, cohort, files, jobs, observe, gated)
    return Experiment(plan, cohort.n, cohort.dropped, results, gated)


def make_trial_key(plan: ExperimentPlan, cohort: Cohort, gated: bool) -> str:
    """What a finished trial must agree with to stand: plan, rows, gate, and this program's version."""
    parts = (plan.key, cohort.digest, str(gated), version("coterie"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
