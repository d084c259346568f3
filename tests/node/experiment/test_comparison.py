"""Areas and tests against scikit-learn, and against values that can be counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from coterie_node.experiment.comparison import Quartiles, compare_models, compute_auc


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_the_area_is_that_of_scikit_learn_with_ties_and_without(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    outcome = (rng.random(200) < 0.3).astype(float)
    scores = np.round(rng.normal(size=200) + outcome, decimals)
    assert compute_auc(scores, outcome) == pytest.approx(roc_auc_score(outcome, scores), abs=1e-15)


def test_scores_that_differ_by_rounding_alone_are_ties() -> None:
    assert compute_auc(np.array([0.3, 0.1 + 0.2]), np.array([1.0, 0.0])) == 0.5


def test_one_outcome_has_no_area() -> None:
    assert math.isnan(compute_auc(np.array([1.0, 2.0]), np.array([1.0, 1.0])))


def test_signed_ranks_of_six_trials_that_all_agree() -> None:
    better = [0.91, 0.92, 0.93, 0.94, 0.95, 0.96]
    worse = [area - 0.01 * k for k, area in enumerate(better, 1)]
    (test,) = compare_models({"a": better, "b": worse})
    assert test.p_value == pytest.approx(2 / 2**6)  # one of 64 signings, and its mirror
    assert test.trials == 6
    assert test.difference == pytest.approx(0.035)


def test_models_that_never_differ_have_a_p_value_of_one() -> None:
    (test,) = compare_models({"a": [0.7, 0.8], "b": [0.7 + 1e-15, 0.8]})
    assert (test.p_value, test.difference) == (1.0, 0.0)


def test_a_pair_is_compared_on_the_trials_that_both_have() -> None:
    (test,) = compare_models({"a": [0.7, None, 0.9], "b": [0.6, 0.5, None]})
    assert test.trials == 1
    assert test.difference == pytest.approx(0.1)


def test_holms_adjustment_multiplies_the_least_p_value_by_the_number_of_pairs() -> None:
    steps = np.arange(1, 9) / 100
    tests = compare_models({"a": list(0.9 + steps), "b": list(0.9 - steps), "c": list(0.9 + steps[::-1] * 0.1)})
    least = min(test.p_value for test in tests)
    assert min(test.p_holm for test in tests) == pytest.approx(3 * least)
    assert all(test.p_value <= test.p_holm <= 1.0 for test in tests)


def test_quartiles_are_those_of_numpy() -> None:
    assert Quartiles.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Quartiles(3.0, 2.0, 4.0)
