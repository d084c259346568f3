"""Effects by propensity scores over the real runner: every property of a learner, and words for people."""

from __future__ import annotations

import pytest
from support.lanes import later
from support.learners.r_stays import references
from support.learners.treatment_study import split_treatment_rows, treatment_study

from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.audit.report.model_words import describe_model

SITES = ("north", "south", "west", "east", "mid")


def reference(model: str) -> Reference:
    want = references("propensity")[model].terms
    pairs = {"(Intercept)": want["mean 0"], "frail": want["difference"]}
    return Reference({t: v for t, (v, _) in pairs.items()}, {t: e for t, (_, e) in pairs.items()})


@pytest.mark.parametrize("count", [3, *later(2, 5)])
def test_effects_have_every_property_of_a_learner(count: int) -> None:
    study = treatment_study(SITES[:count])
    report = check_learner(study, split_treatment_rows(study), reference("stay_ate"))
    assert report.estimate_difference < 1e-10
    assert report.std_error_difference is not None
    assert report.std_error_difference < 1e-9
    assert (report.unchecked, report.restarts) == (0, report.records)


def test_hazard_ratios_have_every_property_of_a_learner() -> None:
    study = treatment_study(SITES[:3], outcome="readmit", effect="hazard_ratio", time="days")
    estimate, error = references("propensity")["hazard_turns 3"].terms["log hazard ratio"]
    report = check_learner(study, split_treatment_rows(study), Reference({"frail": estimate}, {"frail": error}))
    assert report.estimate_difference < 1e-10
    assert (report.unchecked, report.restarts) == (0, report.records)
    assert describe_model(study, None) == (
        "Cox model weighted by propensity scores, stratified by site, with robust standard errors, for the effect of "
        "frail in all patients (ATE), by PROPENSITY"
    )


def test_a_methods_section_says_in_whom_the_effect_is() -> None:
    words = describe_model(treatment_study(SITES[:3], estimand="ATT"), None)
    assert words == (
        "marginal structural model weighted by propensity scores, with stacked sandwich errors, for the effect of "
        "frail in the treated (ATT), by PROPENSITY"
    )
