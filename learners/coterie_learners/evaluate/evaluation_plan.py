"""What every site derives from the study of an evaluation: its groups of patients, its grid, and what is shown."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from coterie_learners.core.masked_sum import MIN_PARTIES
from coterie_learners.errors import StudyError
from coterie_learners.evaluate.score_grid import ScoreGrid, choose_cuts
from coterie_learners.numeric.array import Array
from coterie_learners.study.design import Design
from coterie_learners.study.document import IN_EVALUATION, Study
from coterie_learners.sums.families import choose_family
from coterie_learners.sums.family import Family

ALL_PATIENTS = "all"
# The prefix of the steps that open the pool of the evaluated rows; those of the fit have none.
PREFIX = "evaluation/"
# Newton steps of the calibration, from a start on the grid; each doubles the digits.
ROUNDS = 5
# Sums of a calibration round: score and information of the intercept alone, then of intercept and slope.
CALIBRATION_SUMS = 7


@dataclass(frozen=True)
class PatientGroups:
    """Groups of patients that have their grid in common: all of them, the levels of a column, or the sites."""

    column: str
    levels: tuple[str, ...]
    sites: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What each is called."""
        return tuple(f"{self.column}[{level}]" for level in self.levels) if self.column else (ALL_PATIENTS,)


@dataclass(frozen=True)
class EvaluationPlan:
    """What every site derives from the study alone, and centre and width of the scores once they are known.

    `family` with its link gives the probabilities.
    """

    study: Study
    design: Design
    family: Family
    masked: bool
    spread: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(cls, study: Study, link: str | None, masked: bool) -> EvaluationPlan:
        """The plan of a study whose model has this link."""
        return cls(study, Design(study), choose_family("binomial", link), masked)

    @property
    def floor(self) -> int:
        """The least count of patients, above zero, that may be shown of a site."""
        return self.study.disclosure.cell

    @property
    def sensitive(self) -> bool:
        """Whether it must not be known of a group that nobody in it has the outcome."""
        return self.design.formula.outcome in self.study.disclosure.sensitive

    @cached_property
    def grid(self) -> ScoreGrid:
        """The declared grid."""
        return ScoreGrid(self.study.evaluate.grid, self.study.evaluate.scale, *self.spread)

    @cached_property
    def groups(self) -> tuple[PatientGroups, ...]:
        """All patients, then the levels of each column."""
        by = (PatientGroups(name, _list_levels(self.study, name)) for name in self.study.evaluate.by)
        return (PatientGroups("", ("",)), *by)

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps in the ledger's schedule: the spread, what may be counted, the counts, and rounds."""
        spread = ("each", "server") if self.grid.scale == "spread" else ()
        return (*spread, "each", "each", "server", *("each", "server") * ROUNDS)

    @property
    def flags(self) -> dict[str, tuple[int, ...]]:
        """Shape of the flags: for each of `groups`, as `mark_halves` has them."""
        return {"halves": (len(self.groups), self.grid.size)}


def _list_levels(study: Study, name: str) -> tuple[str, ...]:
    declared = study.variables[name]
    return ("0", "1") if declared.type == "binary" else declared.levels


@dataclass(frozen=True)
class ShownRanges:
    """What the sites' flags allow: the ends of the counted ranges of each of the plan's groups, empty for nothing."""

    plan: EvaluationPlan
    cuts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, plan: EvaluationPlan, flags: Array, sites: int) -> ShownRanges:
        """What all sites allow, by the number of them that set each flag; nothing without a grid of all patients."""
        cuts = [choose_cuts(plan.grid, own, sites) for own in flags]
        return cls(plan, tuple(cuts) if cuts[0] else ((),) * len(cuts))

    @cached_property
    def counted(self) -> tuple[tuple[PatientGroups, tuple[int, ...]], ...]:
        """The groups that are shown with their ranges; each site's patients in the ranges of all."""
        pairs = [(groups, cuts) for groups, cuts in zip(self.plan.groups, self.cuts, strict=True) if cuts]
        sites = PatientGroups("site", self.plan.study.owners, sites=True)
        return (*pairs, *([(sites, self.cuts[0])] if pairs and self.plan.study.evaluate.per_site else []))

    @property
    def hidden(self) -> tuple[str, ...]:
        """The columns by which nothing is shown."""
        pairs = zip(self.plan.groups, self.cuts, strict=True)
        return tuple(groups.column for groups, cuts in pairs if not cuts and groups.column)

    @property
    def names(self) -> tuple[str, ...]:
        """The groups of patients that are shown, in order."""
        return tuple(name for groups, _ in self.counted for name in groups.names)

    @cached_property
    def bins(self) -> tuple[int, ...]:
        """How many ranges each of `names` has."""
        return tuple(len(cuts) - 1 for groups, cuts in self.counted for _ in groups.levels)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the sums: counts by range without and with the outcome, scores by range, squares by group."""
        bins = max(sum(self.bins), 1)
        return {"counts": (bins, 2), "scores": (bins,), "squares": (max(len(self.names), 1),)}

    @property
    def calibration(self) -> dict[str, tuple[int, ...]]:
        """Shape of the sums of a calibration round."""
        return {"calibration": (max(len(self.names), 1), CALIBRATION_SUMS)}

    def split(self, values: Array) -> tuple[Array, ...]:
        """Values (bins, ...) by group."""
        if not self.bins:
            return ()
        ends = list(itertools.accumulate(self.bins))
        return tuple(np.split(values, ends[:-1]))

    def list_cuts(self) -> Sequence[tuple[int, ...]]:
        """The ends of the ranges of each of `names`."""
        return [cuts for groups, cuts in self.counted for _ in groups.levels]


def check_evaluation(plan: EvaluationPlan) -> None:
    """StudyError for a study in which nothing can be evaluated."""
    study, outcome = plan.study, plan.design.formula.outcome
    if study.columns:
        message = "Rows can be kept apart, and a model evaluated, where sites hold other patients"
        raise StudyError("CO-S361", f"{message}; here they hold other columns. Leave [evaluate] out.")
    if plan.design.outcome.type != "binary":
        message = f"The outcome {outcome!r} is a {plan.design.outcome.type}; an evaluation counts events"
        raise StudyError("CO-S361", f"{message}. Declare a binary outcome, or leave [evaluate] out.")
    if study.evaluate.where and IN_EVALUATION in plan.design.list_descendants([outcome]):
        message = f"evaluate.where reads the outcome {outcome!r}, so that rows would be evaluated for what is predicted"
        raise StudyError("CO-S361", f"{message}. Choose them by other columns, such as a date.")
    if outcome in study.evaluate.by:
        raise StudyError("CO-S361", f"evaluate.by names the outcome {outcome!r}. Name other columns.")
    if study.ledger.silent_site == "exclude":
        message = "A site that is excluded between two counts would be in one of them alone"
        raise StudyError("CO-S332", f'{message}. Set silent_site = "wait" or "abort".')
    if plan.masked and len(study.sites) < MIN_PARTIES:
        message = f"A masked sum over {len(study.sites)} sites would give each the other's share"
        advice = 'Take part with three sites or more, or choose aggregation = "plain" knowingly.'
        raise StudyError("CO-S305", f"{message}. {advice}")
