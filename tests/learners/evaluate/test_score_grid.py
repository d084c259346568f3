"""A site halves the grid of scores as far as its patients allow; cuts of two counts show how few patients follow."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from coterie_learners.evaluate.range_cuts import cross_ranges, find_least_cut
from coterie_learners.evaluate.score_grid import ScoreGrid, choose_cuts, mark_halves, merge_bins
from coterie_learners.numeric.array import Array

FLOOR = 5


def draw_counts(seed: int, size: int = 40, levels: int = 1) -> Array:
    """Counts (levels, size, 2) of few patients each."""
    return np.random.default_rng(seed).poisson(1.5, (levels, size, 2)).astype(float)


@pytest.mark.parametrize("seed", range(6))
def test_no_range_that_is_counted_is_small_or_has_the_outcome_alone(seed: int) -> None:
    grid, counts = ScoreGrid(40, "probability"), draw_counts(seed, levels=2)
    cuts = choose_cuts(grid, mark_halves(grid, counts, FLOOR), 1)
    assert len(cuts) > 2
    merged = merge_bins(counts, cuts)
    assert not np.any((merged > 0) & (merged < FLOOR))
    assert not np.any((merged[:, :, 1] > 0) & (merged[:, :, 0] == 0))


@pytest.mark.parametrize("seed", range(4))
def test_what_all_sites_count_each_of_them_allows(seed: int) -> None:
    grid, sites = ScoreGrid(40, "probability"), [draw_counts(10 * seed + k) for k in range(3)]
    flags = [mark_halves(grid, counts, FLOOR) for counts in sites]
    cuts = choose_cuts(grid, np.sum(flags, axis=0), 3)
    for counts in sites:
        merged = merge_bins(counts, cuts)
        assert not np.any((merged > 0) & (merged < FLOOR))


def test_within_what_is_not_halved_nothing_is_said() -> None:
    grid, counts = ScoreGrid(8, "probability"), np.full((1, 8, 2), 50.0)
    counts[0, 0, 1] = 1.0
    counts[0, 1, 1] = 0.0
    flags = dict(zip(grid.halves, mark_halves(grid, counts, FLOOR)[1:].tolist(), strict=True))
    assert (flags[0, 4, 8], flags[0, 2, 4], flags[0, 1, 2], flags[2, 3, 4]) == (1.0, 0.0, 0.0, 0.0)
    assert flags[4, 6, 8] == 1.0


def test_of_a_sensitive_outcome_no_range_is_without_it() -> None:
    grid, counts = ScoreGrid(4, "probability"), np.full((1, 4, 2), 20.0)
    counts[0, :2, 1] = 0.0
    assert choose_cuts(grid, mark_halves(grid, counts, FLOOR), 1) == (0, 1, 2, 3, 4)
    assert choose_cuts(grid, mark_halves(grid, counts, FLOOR, sensitive=True), 1) == (0, 4)


def test_without_a_floor_every_bin_is_counted() -> None:
    grid = ScoreGrid(7, "logit")
    assert choose_cuts(grid, mark_halves(grid, draw_counts(1, 7), 1), 1) == tuple(range(8))


@pytest.mark.parametrize(
    "grid", [ScoreGrid(50, "probability"), ScoreGrid(50, "logit"), ScoreGrid(50, "spread", -1, 0.6)]
)
def test_a_score_on_a_threshold_is_in_the_bin_above_it(grid: ScoreGrid) -> None:
    at = np.array(grid.thresholds[1:-1])
    assert grid.place(at, np.log(at / (1 - at))).tolist() == list(range(1, 50))
    assert sorted(grid.thresholds) == list(grid.thresholds)


# Cuts


def find_least_cut_by_trying(weights: Array) -> float:
    """The least positive weight over all sets of points: in a connected graph each set is cut."""
    points = range(len(weights))
    cuts = []
    for size in range(1, len(weights)):
        for inside in itertools.combinations(points, size):
            mask = np.isin(points, inside)
            cuts.append(float(weights[mask][:, ~mask].sum()))
    return min((cut for cut in cuts if cut > 0), default=math.inf)


@pytest.mark.parametrize("seed", range(12))
def test_the_least_cut_is_that_of_all_sets_of_ranges(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(-1, 4, 40), rng.integers(-1, 3, 40)
    weights = cross_ranges(first, second)
    assert find_least_cut(weights) == find_least_cut_by_trying(weights)


def test_one_patient_who_changes_the_range_is_cut_off() -> None:
    first = np.repeat([0, 1, 2], 20)
    second = first.copy()
    assert find_least_cut(cross_ranges(first, second)) == 20
    second[0] = 1
    assert find_least_cut(cross_ranges(first, second)) == 1
    second[20] = 0
    assert find_least_cut(cross_ranges(first, second)) == 2
