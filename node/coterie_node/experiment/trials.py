"""Trials, side by side on the cores of this machine; a finished one is a file, so that a killed experiment resumes."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from coterie_chain.keys.private_files import replace_private
from coterie_node.data.files.bounded_file import read_bounded
from coterie_node.errors import ConfigError, CoterieError
from coterie_node.experiment.cohort import Cohort
from coterie_node.experiment.models import Conduct, ModelScore, TrialRows, conduct_in_memory, list_fits, score_model
from coterie_node.experiment.plan import EVERY_KIND, ExperimentPlan, ModelKind
from coterie_node.experiment.splits import split_trial

MOST_TRIAL_BYTES = 1 << 20


@dataclass(frozen=True)
class TrialResult:
    """One trial: its number from 0, and every model's score."""

    number: int
    scores: tuple[ModelScore, ...]


@dataclass(frozen=True)
class Failure:
    """An error of ours on its way between processes, where an exception would lose its code."""

    code: str
    message: str


@dataclass(frozen=True)
class TrialFiles:
    """Results of trials in a folder, each written whole or not at all; `key` names experiment, rows and rules."""

    folder: Path
    key: str

    def find(self, number: int) -> TrialResult | None:
        """A trial that is finished, of this very experiment; None if there is none that can be read."""
        try:
            plain = json.loads(read_bounded(self._locate(number), MOST_TRIAL_BYTES))
            if plain["key"] != self.key or plain["trial"] != number:
                return None
            return TrialResult(number, tuple(ModelScore(**score) for score in plain["scores"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, result: TrialResult) -> None:
        """Write a finished trial."""
        scores = [asdict(score) for score in result.scores]
        text = json.dumps({"key": self.key, "trial": result.number, "scores": scores}, indent=1)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_private(self._locate(result.number), text + "\n")
        except OSError as error:
            message = f"{self.folder} cannot be written: {error.strerror or error}. Check the disk and the rights."
            raise ConfigError("CO-F205", message) from None

    def _locate(self, number: int) -> Path:
        return self.folder / f"{number:05d}.json"


def run_trial(
    plan: ExperimentPlan,
    cohort: Cohort,
    number: int,
    gated: bool = False,
    conduct: Conduct = conduct_in_memory,
    only: Collection[ModelKind] = EVERY_KIND,
) -> TrialResult:
    """Fit and score the plan's models, of these kinds only, on one permutation of the rows."""
    rows = TrialRows(plan, cohort, split_trial(plan, cohort, number), plan.seed + number, gated, conduct)
    return TrialResult(number, tuple(score_model(rows, name, fit) for name, fit in list_fits(rows, only)))


def run_trials(
    plan: ExperimentPlan,
    cohort: Cohort,
    files: TrialFiles,
    jobs: int,
    observe: Callable[[int, int], None] = lambda *_: None,
    gated: bool = False,
) -> tuple[TrialResult, ...]:
    """All trials of a plan in their order; those that the files hold are not run again.

    `observe` is called with how many trials are finished, and of how many.
    """
    results = {k: result for k in range(plan.trials) if (result := files.find(k)) is not None}
    observe(len(results), plan.trials)
    for result in _run_missing(plan, cohort, [k for k in range(plan.trials) if k not in results], jobs, gated):
        files.save(result)
        results[result.number] = result
        observe(len(results), plan.trials)
    return tuple(results[k] for k in range(plan.trials))


def _run_missing(
    plan: ExperimentPlan, cohort: Cohort, numbers: Sequence[int], jobs: int, gated: bool
) -> Iterator[TrialResult]:
    """The results of these trials as they are finished."""
    if min(jobs, len(numbers)) <= 1:
        with threadpool_limits(1):
            for number in numbers:
                yield run_trial(plan, cohort, number, gated)
        return
    arguments = (plan, cohort, gated)
    with ProcessPoolExecutor(min(jobs, len(numbers)), get_context("spawn"), _enter_process, arguments) as pool:
        for future in as_completed([pool.submit(_run_one, k) for k in numbers]):
            result = future.result()
            if isinstance(result, Failure):
                pool.shutdown(cancel_futures=True)
                raise ConfigError(result.code, result.message)
            yield result


_of_process: dict[str, Any] = {}


def _enter_process(plan: ExperimentPlan, cohort: Cohort, gated: bool) -> None:
    """What each process of the pool does first."""
    threadpool_limits(1)
    _of_process.update(plan=plan, cohort=cohort, gated=gated)


def _run_one(number: int) -> TrialResult | Failure:
    try:
        return run_trial(_of_process["plan"], _of_process["cohort"], number, _of_process["gated"])
    except CoterieError as error:
        return Failure(error.code, error.message)
