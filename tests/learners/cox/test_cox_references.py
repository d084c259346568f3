"""Cox models of both forms are those of R's coxph, survfit, cox.zph and concordance (tests/golden/r/cox_more.R)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.lanes import diagonal
from support.learners.cox_cohort import common_study, model_study, play_cohort, read_cohort, split_rows
from support.learners.survival_study import read_cox_more

from coterie_learners.core.fit import Fit, coefficient_table
from coterie_learners.study.document import Study

TIES = ("breslow", "efron")
OFFSET = "died ~ age + arm + stage + offset(dose)"
MODELS: dict[str, dict[str, Any]] = {
    "common": {},
    "common identity": {"proportionality": "identity"},
    "common tied": {"width": 12},
    "common strata": {"strata": "stage", "formula": "died ~ age + arm"},
    "common entry": {"entry": "entry"},
    "common offset": {"formula": OFFSET},
    "common robust": {"robust": True},
    "common cluster": {"robust": "patient", "patient": "pseudonym"},
    "common weights": {"weights": "weight"},
    "common weights robust": {"weights": "weight", "robust": True},
    "common changing": {
        "entry": "start",
        "formula": "died ~ age + arm + treated",
        "robust": "patient",
        "patient": "pseudonym",
    },
    "site": {},
    "site cluster": {"robust": "patient", "patient": "pseudonym", "proportionality": "log"},
    "site weights": {"weights": "weight"},
    "site offset": {"formula": OFFSET},
    "site entry": {"entry": "entry"},
    "site changing": {
        "entry": "start",
        "formula": "died ~ age + arm + treated",
        "robust": "patient",
        "patient": "pseudonym",
    },
}


def fit_model(model: str, ties: str, count: int = 3) -> tuple[Study, Fit]:
    make = common_study if model.startswith("common") else model_study
    study = make(count, ties=ties, **MODELS[model])
    cohort = read_cohort(count, clusters="cluster" in model)
    return study, play_cohort(study, split_rows(cohort) if "changing" in model else cohort)[0]


def check_estimates(fit: Fit, want: dict[str, tuple[float, float]]) -> None:
    for row in coefficient_table(fit):
        assert row.estimate == pytest.approx(want[row.term][0], abs=1e-9)
        assert row.std_error == pytest.approx(want[row.term][1], abs=1e-9)


@pytest.mark.parametrize(("model", "ties"), diagonal(list(MODELS), TIES))
def test_estimates_tests_and_concordance_are_those_of_r(model: str, ties: str) -> None:
    _, fit = fit_model(model, ties)
    want, details = read_cox_more(f"{ties} {model}"), fit.details["cox"]
    check_estimates(fit, want)
    assert fit.log_likelihood == pytest.approx(want["log-likelihood"][0], abs=1e-7)
    assert fit.bic == pytest.approx(want["BIC"][0], abs=1e-6)
    for name, term in (("likelihood_ratio", "likelihood ratio"), ("score", "score"), ("wald", "wald")):
        assert details["tests"][name]["chi2"] == pytest.approx(want[term][0], rel=1e-7)
    for row in details["proportionality"]["terms"]:
        assert row["chi2"] == pytest.approx(want[f"zph {row['term']}"][0], rel=1e-6)
        assert row["p"] == pytest.approx(want[f"zph {row['term']}"][1], abs=1e-6)
    if "concordance" in want:
        assert details["concordance"]["c"] == pytest.approx(want["concordance"][0], abs=1e-12)


@pytest.mark.parametrize(("count", "ties"), diagonal((2, 5), TIES))
def test_one_baseline_does_not_depend_on_the_split(count: int, ties: str) -> None:
    _, fit = fit_model("common", ties, count)
    want = read_cox_more(f"{ties} common")
    check_estimates(fit, want)
    terms = fit.details["cox"]["proportionality"]["terms"]
    assert [row["chi2"] for row in terms] == pytest.approx([want[f"zph {row['term']}"][0] for row in terms], rel=1e-6)


@pytest.mark.parametrize("ties", TIES)
def test_a_ridge_is_that_of_coxph(ties: str) -> None:
    cohort = read_cohort()
    cohort[0]["treated"] = (cohort[0]["arm"] == 1).astype(float)
    study = common_study(ties=ties, formula="died ~ age + treated", ridge=3.0)
    fit, _ = play_cohort(study, cohort)
    check_estimates(fit, read_cox_more(f"{ties} common ridge"))
    assert fit.details["cox"]["tests"] == {}
    assert "Ridge 3" in fit.warnings[0]


PATIENTS = {1: (40.0, 0, 0, 0), 2: (61.5, 1, 0, 1), 3: (80.0, 0, 1, 1)}


CURVES = ("common", "common tied", "common entry", "common offset")


@pytest.mark.parametrize(("model", "ties"), diagonal(CURVES, TIES))
def test_baseline_hazards_and_predicted_survival_are_those_of_survfit(model: str, ties: str) -> None:
    _, fit = fit_model(model, ties)
    want, baseline = read_cox_more(f"{ties} {model}"), fit.details["cox"]["baseline"]
    (stratum,) = baseline["strata"]
    hazard, mean = np.array(stratum["hazard"]), np.array(stratum["mean"])
    for number, row in PATIENTS.items():
        z = np.array(row) - np.array(baseline["centre"])
        times = np.exp(z @ fit.estimates)
        survival = np.exp(-hazard * times)
        drift = z * hazard[:, None] - mean
        assert fit.covariance is not None
        error = times * np.sqrt(np.array(stratum["variance"]) + np.sum((drift @ fit.covariance) * drift, axis=1))
        terms = [want[f"survival {number} {time:g}"] for time in stratum["times"]]
        np.testing.assert_allclose(survival, [value for value, _ in terms], atol=1e-10)
        np.testing.assert_allclose(error, [value for _, value in terms], rtol=1e-8)
