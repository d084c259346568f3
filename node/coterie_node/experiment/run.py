"""A whole experiment: read the rows, run what trials are missing, time other transports, and put it together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import chain
from pathlib import Path

from coterie_learners.study.design import Design
from coterie_node.experiment.cohort import Cohort, load_experiment_rows
from coterie_node.experiment.estimators import make_estimator
from coterie_node.experiment.models import PROTOCOLS
from coterie_node.experiment.plan import ExperimentPlan
from coterie_node.experiment.results import Experiment, Transported
from coterie_node.experiment.splits import split_trial
from coterie_node.experiment.transports import conduct_over, open_transport
from coterie_node.experiment.trials import TrialFiles, run_trial, run_trials


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
    check_experiment(plan, cohort)
    files = TrialFiles(trials, make_trial_key(plan, cohort, gated))
    results = run_trials(plan, cohort, files, jobs, observe, gated)
    transported = [time_transport(plan, cohort, trials, files.key, text, gated) for text in over]
    return Experiment(plan, cohort.n, cohort.dropped, results, gated, tuple(chain.from_iterable(transported)))


def time_transport(
    plan: ExperimentPlan, cohort: Cohort, folder: Path, key: str, text: str, gated: bool
) -> tuple[Transported, ...]:
    """Seconds an iteration of the plan's protocols over a transport, once a trial, one after the other.

    A finished run is a file too, so that it is not made again.
    """
    name = text.partition(":")[0]
    files = TrialFiles(folder / name, key)
    missing = [number for number in range(plan.trials) if files.find(number) is None]
    if missing:
        with open_transport(text) as transport:
            for number in missing:
                files.save(run_trial(plan, cohort, number, gated, partial(conduct_over, transport), PROTOCOLS))
    results = [result for number in range(plan.trials) if (result := files.find(number)) is not None]
    by_learner: dict[str, list[float]] = {}
    for result in results:
        for score in result.scores:
            if score.seconds is not None and score.rounds:
                by_learner.setdefault(score.model, []).append(score.seconds / score.rounds)
    return tuple(Transported(learner, name, tuple(seconds)) for learner, seconds in by_learner.items())


def check_experiment(plan: ExperimentPlan, cohort: Cohort) -> None:
    """Raise before the first trial what every trial would raise: a wrong split, study or estimator."""
    split = split_trial(plan, cohort, 0)
    Design(plan.study_of_rows(tuple(split.sites), {}))
    for learner in ("vertigo", "valoris"):
        if learner in plan.kinds:
            Design(plan.study_of_columns(learner, {}))
    if {"ensemble_rows", "ensemble_columns"} & set(plan.kinds):
        for name in plan.estimators:
            make_estimator(name, plan.seed)


def make_trial_key(plan: ExperimentPlan, cohort: Cohort, gated: bool) -> str:
    """What a finished trial must agree with to stand: plan, rows, gate, and this program's version."""
    parts = (plan.key, cohort.digest, str(gated), version("coterie"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
