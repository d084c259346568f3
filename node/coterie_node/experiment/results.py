"""An experiment that has run: areas, tests and seconds, as one JSON document, tables, figures and a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

from coterie_node.experiment.comparison import PairTest, Quartiles, compare_models
from coterie_node.experiment.models import PROTOCOLS, ModelScore
from coterie_node.experiment.plan import ExperimentPlan
from coterie_node.experiment.trials import TrialResult

WITHOUT_GATE = "All of it ran on one machine that has all rows, and no release gate judged what the sites exchange."
WITH_GATE = "All of it ran on one machine that has all rows; each site's release gate judged what leaves it."


@dataclass(frozen=True)
class Transported:
    """Seconds an iteration of one learner over one transport, one value for each run."""

    learner: str
    transport: str
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Experiment:
    """A plan, its trials in order, rows used and dropped, and seconds over other transports than memory."""

    plan: ExperimentPlan
    rows: int
    dropped: int
    trials: tuple[TrialResult, ...]
    gated: bool = False
    transported: tuple[Transported, ...] = ()

    @property
    def setting(self) -> str:
        """The place where it ran, and whether gates judged what was exchanged."""
        return WITH_GATE if self.gated else WITHOUT_GATE

    @cached_property
    def scores(self) -> Mapping[str, tuple[ModelScore, ...]]:
        """Every model's scores, one for each trial."""
        names = dict.fromkeys(score.model for trial in self.trials for score in trial.scores)
        by_trial = [{score.model: score for score in trial.scores} for trial in self.trials]
        return {name: tuple(scores.get(name, ModelScore(name, None)) for scores in by_trial) for name in names}

    @cached_property
    def areas(self) -> Mapping[str, tuple[float | None, ...]]:
        """Every model's areas, None where a trial was skipped or has one outcome only."""
        return {name: tuple(map(_area_of, scores)) for name, scores in self.scores.items()}

    @cached_property
    def tests(self) -> tuple[PairTest, ...]:
        """The signed-rank tests of all pairs."""
        return compare_models(self.areas)

    @cached_property
    def seconds(self) -> Mapping[str, tuple[float, ...]]:
        """Seconds an iteration by model, in memory, and by model and transport where others were timed."""
        memory = {
            name: tuple(s.seconds / s.rounds for s in scores if s.seconds is not None and s.rounds)
            for name, scores in self.scores.items()
            if name in PROTOCOLS
        }
        others = {f"{part.learner} over {part.transport}": part.seconds for part in self.transported}
        return {name: values for name, values in (*memory.items(), *others.items()) if values}

    def count_policies(self, name: str) -> dict[str, int]:
        """How many trials of a model needed the policy on separation, by what was done."""
        return dict(sorted(Counter(score.policy for score in self.scores[name] if score.policy).items()))

    def as_dict(self) -> dict[str, Any]:
        """The stable JSON keys."""
        return {
            "experiment": self.plan.name,
            "key": self.plan.key,
            "coterie": version("coterie"),
            "setting": self.setting,
            "rows": self.rows,
            "dropped": self.dropped,
            "trials": len(self.trials),
            "separation": self.plan.separation,
            "models": {name: self._describe(name) for name in self.areas},
            "tests": [asdict(test) for test in self.tests],
            "seconds_per_iteration": {
                name: {**asdict(Quartiles.of(values)), "runs": len(values)} for name, values in self.seconds.items()
            },
        }

    def _describe(self, name: str) -> dict[str, Any]:
        values = list_usable(self.areas[name])
        return {
            "auc": list(self.areas[name]),
            "quartiles": asdict(Quartiles.of(values)) if values else None,
            "policies": self.count_policies(name),
            "causes": dict(Counter(score.cause for score in self.scores[name] if score.cause)),
        }


def _area_of(score: ModelScore) -> float | None:
    return None if score.auc is None or math.isnan(score.auc) else score.auc


def list_usable(areas: Sequence[float | None]) -> list[float]:
    """The areas of the trials that have one."""
    return [area for area in areas if area is not None]
