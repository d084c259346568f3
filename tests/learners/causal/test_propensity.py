"""Effects by propensity scores are those of R on all rows: glm, svyglm, sandwich, and the stacked sandwich of both."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.learners.r_stays import references
from support.learners.treatment_study import (
    HAZARDS,
    MODELS,
    find_effect_differences,
    fit_effect,
    treatment_study,
)

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
