"""A site's patients by score and outcome: counts on the grid, sums of scores and squares, and those of a calibration.

The score is the probability that the model gives a patient. For a group of patients with outcomes y and scores p, the
squares are the sum of (p - y)^2. A calibration is a logistic regression of y on z = log(p / (1 - p)): with an intercept
a alone beside the offset z, and with intercept and slope.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie_learners.core.protocol import Site
from coterie_learners.evaluate.evaluation_plan import CALIBRATION_SUMS, EvaluationPlan, PatientGroups, ShownRanges
from coterie_learners.evaluate.range_cuts import cross_ranges, find_least_cut
from coterie_learners.evaluate.score_grid import MOST_SPREAD, BinPlaces, choose_cuts, mark_halves, merge_bins
from coterie_learners.numeric.array import Array
from coterie_learners.study.rows import Codes

# Beyond this a probability is 0 or 1 to a float.
MOST_LOGIT = 700.0


@dataclass(frozen=True)
class ScoredPatients:
    """Some rows (m,): probability, its logit, outcome (0 or 1), bin, and the level of each column of `by`.

    `site`: the number of the site whose rows they are.
    """

    probability: Array
    logit: Array
    outcome: Array
    bins: BinPlaces
    levels: Mapping[str, NDArray[Any]]
    site: int

    def place(self, groups: PatientGroups) -> BinPlaces:
        """The level (m,) of each row among some groups."""
        if not groups.column or groups.sites:
            return np.full(len(self.bins), self.site if groups.sites else 0, dtype=np.int64)
        return self.levels[groups.column].astype(np.int64)


@dataclass(frozen=True)
class ScoreModel:
    """A model (p,) on the columns of a plan's design: its probabilities are the scores."""

    plan: EvaluationPlan
    beta: Array

    def score(self, site: Site) -> Iterator[ScoredPatients]:
        """The rows of a site, block by block."""
        return (self._score(codes, site) for codes in site.codes.codes() if len(next(iter(codes.values()))))

    def _score(self, codes: Codes, site: Site) -> ScoredPatients:
        block = self.plan.design.block(codes)
        eta = block.x @ self.beta if block.offset is None else block.x @ self.beta + block.offset
        probability = self.plan.family.parts(eta, block.y).mean
        logit = np.clip(eta if self.plan.family.link == "logit" else _take_logit(probability), -MOST_LOGIT, MOST_LOGIT)
        number = self.plan.study.owners.index(site.name)
        levels = {name: np.asarray(codes[name]) for name in self.plan.study.evaluate.by}
        return ScoredPatients(probability, logit, block.y, self.plan.grid.place(probability, logit), levels, number)


def _take_logit(probability: Array) -> Array:
    tiny = np.finfo(np.float64).tiny
    return np.asarray(np.log(np.maximum(probability, tiny)) - np.log(np.maximum(1.0 - probability, tiny)))


@dataclass(frozen=True)
class GridCounts:
    """For some groups: patients by level, bin and outcome (levels, size, 2), and their scores (levels, size)."""

    counts: Array
    scores: Array
    squares: Array

    @classmethod
    def empty(cls, groups: PatientGroups, size: int) -> GridCounts:
        """Nobody."""
        levels = len(groups.levels)
        return cls(np.zeros((levels, size, 2)), np.zeros((levels, size)), np.zeros(levels))

    def add(self, rows: ScoredPatients, groups: PatientGroups) -> GridCounts:
        """These and more rows."""
        level = rows.place(groups)
        at = level * self.scores.shape[1] + rows.bins
        cells = np.bincount(2 * at + (rows.outcome > 0.5), minlength=self.counts.size)
        scores = np.bincount(at, rows.probability, minlength=self.scores.size)
        squares = np.bincount(level, (rows.probability - rows.outcome) ** 2, minlength=len(self.squares))
        return GridCounts(
            self.counts + cells.reshape(self.counts.shape),
            self.scores + scores.reshape(self.scores.shape),
            self.squares + squares,
        )


def tally_scores(model: ScoreModel, site: Site, groups: tuple[PatientGroups, ...]) -> tuple[GridCounts, ...]:
    """The counts of each of the groups."""
    out = [GridCounts.empty(item, model.plan.grid.size) for item in groups]
    for rows in model.score(site):
        out = [counts.add(rows, item) for counts, item in zip(out, groups, strict=True)]
    return tuple(out)


def list_scores(model: ScoreModel, site: Site) -> dict[str, Array]:
    """The logit (n,) of each patient's score, as far as sums show it, and the score itself."""
    rows = list(model.score(site))
    logits = [np.clip(part.logit, -MOST_SPREAD, MOST_SPREAD) for part in rows]
    return {
        "logit": np.concatenate([np.zeros(0), *logits]),
        "probability": np.concatenate([np.zeros(0), *(part.probability for part in rows)]),
    }


def sum_logits(model: ScoreModel, site: Site) -> dict[str, Array]:
    """How many patients there are, the sum of their logits, and of the squares of these, by outcome (2, 3)."""
    out = np.zeros((2, 3))
    for rows in model.score(site):
        logit = np.clip(rows.logit, -MOST_SPREAD, MOST_SPREAD)
        for outcome in (0, 1):
            own = logit[(rows.outcome > 0.5) == bool(outcome)]
            out[outcome] += np.array([len(own), own.sum(), own @ own])
    return {"moments": out}


def mark_groups(model: ScoreModel, site: Site) -> dict[str, Array]:
    """How far this site halves the grid of each of the plan's groups, so that no two of them together show too much."""
    plan = model.plan
    tallies = tally_scores(model, site, plan.groups)
    flags = [mark_halves(plan.grid, tally.counts, plan.floor, plan.sensitive) for tally in tallies]
    if plan.floor > 1 and len(flags) > 1:
        flags = _keep_apart(model, site, flags)
    return {"halves": np.stack(flags)}


def _keep_apart(model: ScoreModel, site: Site, flags: list[Array]) -> list[Array]:
    """The flags, of which later groups' are taken back where few patients follow from them and earlier ones."""
    grid, out, places = model.plan.grid, list[Array](), list[BinPlaces]()
    for groups, own in zip(model.plan.groups, flags, strict=True):
        whole = np.zeros_like(own)
        whole[0] = own[0]
        for choice in (own, whole):
            cuts = choose_cuts(grid, choice, 1)
            mine = place_ranges(model, site, groups, cuts) if cuts else None
            if mine is not None and all(_hides(model, other, mine) for other in places):
                out.append(choice)
                places.append(mine)
                break
        else:
            out.append(np.zeros_like(own))
    return out


def _hides(model: ScoreModel, first: BinPlaces, second: BinPlaces) -> bool:
    return find_least_cut(cross_ranges(first, second)) >= model.plan.floor


def place_ranges(model: ScoreModel, site: Site, groups: PatientGroups, cuts: tuple[int, ...]) -> BinPlaces:
    """The range (n,) of each of a site's patients among those that are counted of some groups."""
    inner, ranges = np.array(cuts[1:-1]), len(cuts) - 1
    parts = [
        rows.place(groups) * ranges + np.searchsorted(inner, rows.bins, side="right") for rows in model.score(site)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def place_shown(model: ScoreModel, site: Site, shown: ShownRanges) -> dict[str, BinPlaces]:
    """The range (n,) of each of a site's patients in each count that is shown, by its column."""
    pairs = ((groups, cuts) for groups, cuts in shown.counted if not groups.sites)
    return {groups.column: place_ranges(model, site, groups, cuts) for groups, cuts in pairs}


def sum_scores(model: ScoreModel, site: Site, shown: ShownRanges) -> dict[str, Array]:
    """This site's counts, scores and squares of what is shown; zeros where nothing is."""
    if not shown.counted:
        return {name: np.zeros(shape) for name, shape in shown.shapes.items()}
    tallies = tally_scores(model, site, tuple(groups for groups, _ in shown.counted))
    pairs = [(tally, cuts) for tally, (_, cuts) in zip(tallies, shown.counted, strict=True)]
    return {
        "counts": np.concatenate([merge_bins(tally.counts, cuts).reshape(-1, 2) for tally, cuts in pairs]),
        "scores": np.concatenate([merge_bins(tally.scores, cuts).ravel() for tally, cuts in pairs]),
        "squares": np.concatenate([tally.squares for tally, _ in pairs]),
    }


@dataclass(frozen=True)
class CalibrationPoint:
    """The state of a calibration, by group: the intercept alone (s,), and intercept and slope (s,)."""

    state: Array

    @cached_property
    def alone(self) -> Array:
        """The intercept beside a slope of one."""
        return self.state[:, 0]

    @cached_property
    def both(self) -> tuple[Array, Array]:
        """Intercept and slope."""
        return self.state[:, 1], self.state[:, 2]


def sum_calibration(model: ScoreModel, site: Site, shown: ShownRanges, state: Array) -> dict[str, Array]:
    """This site's score and information of both calibrations at a state (s, 3), by group."""
    out, at = np.zeros(shown.calibration["calibration"]), 0
    point = CalibrationPoint(state)
    starts = []
    for groups, _ in shown.counted:
        starts.append(at)
        at += len(groups.levels)
    for rows in model.score(site) if shown.counted else ():
        for start, (groups, _) in zip(starts, shown.counted, strict=True):
            place = start + rows.place(groups)
            for column, values in enumerate(_list_pieces(rows, point, place)):
                out[:, column] += np.bincount(place, values, minlength=len(out))
    return {"calibration": out}


def _list_pieces(rows: ScoredPatients, point: CalibrationPoint, place: BinPlaces) -> list[Array]:
    """The pieces (m,) of each row."""
    z, (intercept, slope) = rows.logit, point.both
    alone = _expit(point.alone[place] + z)
    mean = _expit(intercept[place] + slope[place] * z)
    residual, weight = rows.outcome - mean, mean * (1.0 - mean)
    pieces = [rows.outcome - alone, alone * (1.0 - alone), residual, residual * z, weight, weight * z, weight * z * z]
    assert len(pieces) == CALIBRATION_SUMS
    return pieces


def _expit(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))
