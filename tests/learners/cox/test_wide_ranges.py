"""Cox models do not depend on how wide the covariates' ranges are declared: R's numbers in all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from support.lanes import later
from support.learners.cox_cohort import common_study, model_study, play_cohort, read_cohort
from support.learners.survival_study import read_cox_more

from coterie_learners.core.fit import Fit, coefficient_table
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import Collinear
from coterie_learners.study.document import Study

SPANS = ([0, 5e6], [-2e9, 2e9], *later([0, 5e4], [0, 4e9], [-1e12, 1e12]))
MODELS: dict[str, dict[str, Any]] = {
    "site": {},
    "site cluster": {"robust": "patient", "patient": "pseudonym", "proportionality": "log"},
    "site offset": {"formula": "died ~ age + arm + stage + offset(dose)"},
    "common": {},
    "common robust": {"robust": True},
    "common tied": {"width": 12},
}


def widen(study: Study, span: Sequence[float]) -> Study:
    plain = study.model_dump(mode="json")
    plain["variables"]["age"]["range"] = list(span)
    plain["learner"].pop("version")
    return complete_study(Study.model_validate(plain))


def fit(model: str, span: Sequence[float], **options: Any) -> Fit:
    make = common_study if model.startswith("common") else model_study
    study = widen(make(3, **{**MODELS.get(model, {}), **options}), span)
    return play_cohort(study, read_cohort(3, clusters="cluster" in model))[0]


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize(
    "model", ["site", "common", *later("site cluster", "site offset", "common robust", "common tied")]
)
def test_estimates_and_tests_are_those_of_r_in_any_range(model: str, span: Sequence[float]) -> None:
    got, want = fit(model, span), read_cox_more(f"efron {model}")
    # Values at an end of so wide a range have fewer digits themselves.
    within = 1e-6 if span in ([0, 4e9], [-1e12, 1e12]) else 1e-8
    for row in coefficient_table(got):
        assert row.estimate == pytest.approx(want[row.term][0], rel=within, abs=within)
        assert row.std_error == pytest.approx(want[row.term][1], rel=within)
    details = got.details["cox"]
    for name, term in (("likelihood_ratio", "likelihood ratio"), ("score", "score"), ("wald", "wald")):
        assert details["tests"][name]["chi2"] == pytest.approx(want[term][0], rel=within)
    for row in details["proportionality"]["terms"]:
        assert row["chi2"] == pytest.approx(want[f"zph {row['term']}"][0], rel=1e-5)
    assert got.rounds <= 9


@pytest.mark.parametrize("options", [{"firth": True, "max_rounds": 60}, *later({"ridge": 30.0}, {"ties": "breslow"})])
def test_penalties_are_of_coefficients_in_the_variables_own_units(options: dict[str, Any]) -> None:
    wide, near = (fit("site", span, **options) for span in ([0, 5e6], [0, 120]))
    np.testing.assert_allclose(wide.estimates, near.estimates, rtol=1e-8)
    np.testing.assert_allclose(wide.std_errors, near.std_errors, rtol=1e-8)


def test_the_baseline_hazard_is_that_of_patients_whatever_its_centre() -> None:
    at_zero = []
    for span in ([0, 120], [0, 5e6]):
        got = fit("common", span)
        baseline = got.details["cox"]["baseline"]
        hazard = np.array(baseline["strata"][0]["hazard"])
        at_zero.append(hazard * np.exp(-np.array(baseline["centre"]) @ got.estimates))
    np.testing.assert_allclose(at_zero[1], at_zero[0], rtol=1e-8)


def test_a_column_without_any_spread_is_still_named() -> None:
    columns, place, patient = read_cohort(3)
    study = widen(model_study(3), [0, 5e6])
    with pytest.raises(Collinear, match="no variation in age"):
        play_cohort(study, ({**columns, "age": np.full(900, 60.0)}, place, patient))
