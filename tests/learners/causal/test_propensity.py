"""Effects by propensity scores are those of R on all rows: glm, svyglm, sandwich, and the stacked sandwich of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.lanes import later
from support.learners.metamorphic import Trial
from support.learners.r_stays import references
from support.learners.treatment_study import (
    HAZARDS,
    MODELS,
    find_effect_differences,
    fit_effect,
    treatment_study,
)

from coterie_learners.core.fit import Fit
from coterie_learners.errors import StudyError

ESTIMATES, ERRORS = 1e-8, 1e-7


QUICK = ("stay_ate", "stay_truncated", "readmit_att", "death_ate")
# The fifth hospital of the stays has nobody in intensive care, the fourth of the cohort nobody older than 80; at three
# sites the masked cohort would have these patients at two sites, which is refused.
STAYS_SPLITS = [(5, "auto"), (2, "auto"), (3, "masked"), (3, "plain"), (5, "plain")]
COHORT_SPLITS = [(4, "masked"), (2, "auto"), (3, "plain"), (4, "plain")]
CASES = [
    pytest.param(model, *split, marks=() if k == 0 and model in QUICK else pytest.mark.long)
    for model, (data, _, _) in MODELS.items()
    for k, split in enumerate(STAYS_SPLITS if data == "stays" else COHORT_SPLITS)
]


@pytest.mark.parametrize(("model", "count", "aggregation"), CASES)
def test_effects_weights_and_errors_are_those_of_r(model: str, count: int, aggregation: str, tmp_path: Path) -> None:
    estimates, errors = find_effect_differences(fit_effect(model, count, tmp_path, aggregation=aggregation), model)
    assert estimates < ESTIMATES
    assert errors < ERRORS


HAZARD_CASES = [
    pytest.param(
        model, count, marks=() if (model, count) in (("hazard_late", 3), ("hazard_death", 4)) else pytest.mark.long
    )
    for model, (data, _, _) in HAZARDS.items()
    for count in ((5, 3) if model in ("hazard_ate", "hazard_late") else (5 if data == "stays" else 4,))
]


@pytest.mark.parametrize(("model", "count"), HAZARD_CASES)
def test_hazard_ratios_of_weighted_patients_are_those_of_r_s_coxph(model: str, count: int, tmp_path: Path) -> None:
    fit, want = fit_effect(model, count, tmp_path), references("propensity")[f"{model} {count}"].terms
    estimate, error = want["log hazard ratio"]
    assert fit.estimates[0] == pytest.approx(estimate, rel=ESTIMATES)
    assert fit.std_errors[0] == pytest.approx(error, rel=ERRORS)
    causal = fit.details["causal"]
    assert causal["weights"]["effective"] == pytest.approx([want[f"effective {k}"][0] for k in (0, 1)], rel=1e-9)
    assert causal["effects"][0]["value"] == pytest.approx(math.exp(estimate), rel=ESTIMATES)
    assert (fit.family, fit.ratio, len(fit.terms)) == ("Cox", "HR", 1)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"effect": "hazard_ratio"}, "CO-S352"),
        ({"time": "days"}, "CO-S352"),
        ({"entry": "entered"}, "CO-S352"),
        ({"effect": "hazard_ratio", "time": "days", "entry": "days"}, "CO-S204"),
        ({"effect": "hazard_ratio", "time": "days", "entry": "age"}, "CO-S204"),
        ({"effect": "hazard_ratio", "time": "days", "entry": "ward"}, "CO-S336"),
        ({"effect": "hazard_ratio", "time": "age"}, "CO-S204"),
        ({"effect": "hazard_ratio", "time": "ward"}, "CO-S336"),
        ({"effect": "hazard_ratio", "time": "days", "aggregation": "plain"}, "CO-S305"),
    ],
)
def test_a_hazard_ratio_needs_a_time_of_its_own_and_masks(options: dict[str, Any], code: str) -> None:
    with pytest.raises(StudyError) as error:
        treatment_study(("north", "south", "west"), outcome="readmit", **options)
    assert error.value.code == code


def test_the_coefficients_are_the_mean_without_treatment_and_the_effect(tmp_path: Path) -> None:
    fit = fit_effect("readmit_ate", 3, tmp_path)
    want = references("propensity")["readmit_ate"].terms
    assert (fit.terms, fit.family, fit.link, fit.ratio) == (("(Intercept)", "frail"), "binomial", "log", "RR")
    assert fit.estimates[0] == pytest.approx(math.log(want["mean 0"][0]), rel=1e-9)
    assert fit.estimates[1] == pytest.approx(want["log ratio"][0], rel=1e-9)
    assert fit.std_errors[0] == pytest.approx(want["mean 0"][1] / want["mean 0"][0], rel=1e-7)
    assert fit.std_errors[1] == pytest.approx(want["log ratio"][1], rel=1e-7)


def test_stabilised_weights_have_a_mean_near_one_and_the_same_effect(tmp_path: Path) -> None:
    fit = fit_effect("stay_ate", 3, tmp_path)
    other = fit_effect("stay_ate", 3, tmp_path, stabilised=False)
    assert fit.estimates.tobytes() == other.estimates.tobytes()
    assert fit.details["causal"]["weights"]["mean"] == pytest.approx([1.0, 1.0], abs=0.01)
    want = [references("propensity")["stay_ate"].terms[f"mean weight {k}"][0] for k in (0, 1)]
    assert other.details["causal"]["weights"]["mean"] == pytest.approx(want, rel=1e-9)


def test_patients_by_score_add_up_to_the_arms(tmp_path: Path) -> None:
    causal = fit_effect("stay_ate", 3, tmp_path).details["causal"]
    assert len(causal["scores"]["ends"]) == 11
    assert np.array(causal["scores"]["counts"]).sum(axis=1).tolist() == causal["weights"]["patients"]


def fit_wide(aggregation: str, span: Sequence[float], unit: float = 1.0) -> Fit:
    """The effect on an outcome near 6 (times a unit), whose range is declared so."""
    rng = np.random.default_rng(7)
    x, n = rng.normal(0, 1, 300), 300
    treated = (rng.random(n) < 1 / (1 + np.exp(-x))).astype(float)
    y = np.round(6 + 0.1 * treated + 0.05 * x + rng.normal(0, 0.12, n), 3) * unit
    variables: dict[str, dict[str, Any]] = {
        "y": {"type": "number", "range": list(span)},
        "treated": {"type": "binary"},
        "x": {"type": "number", "range": [-6, 6]},
    }
    learner = {"name": "propensity", "treatment": "treated", "aggregation": aggregation}
    codes = {"y": y, "treated": treated, "x": np.round(x, 2)}
    return Trial("y ~ treated + x", learner, codes, variables, (100, 100, 100)).fit()


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
@pytest.mark.parametrize("span", [[-2e9, 2e9], *later([0, 5e6], [0, 4e9], [-1e12, 1e12])])
def test_errors_do_not_depend_on_the_declared_range_of_the_outcome(aggregation: str, span: Sequence[float]) -> None:
    near, wide = (fit_wide(aggregation, s) for s in ([0, 10], span))
    # Values in so wide a range are rounded themselves where they are summed.
    within = 1e-4 if span[1] > 3e9 else 1e-8
    np.testing.assert_allclose(wide.estimates, near.estimates, rtol=within)
    if aggregation == "masked":
        np.testing.assert_allclose(wide.std_errors, near.std_errors, rtol=1e-6)
    assert near.warnings == tuple(w for w in wide.warnings if "narrower range" not in w)
    assert any("narrower range" in w for w in wide.warnings) == (span[1] > 1e11)


def test_means_that_are_lost_in_the_declared_range_are_warned_of() -> None:
    fit = fit_wide("masked", [0, 2e6], unit=1e-9)
    assert any("tell its means to" in warning and "narrower range" in warning for warning in fit.warnings)
