"""Cox models over the real runner: every property of a learner, a restart after each record, words for people."""

from __future__ import annotations

from typing import Any

import pytest
from support.learners.cox_cohort import common_study, model_study, read_cohort, share_rows
from support.learners.survival_study import read_cox_more

from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference
from coterie_node.audit.report.model_words import describe_model
from coterie_node.cli.study.advise import advise
from coterie_node.release.gate import Gate
from coterie_node.run.simulate import simulate


@pytest.mark.parametrize("count", [2, 3])
def test_one_baseline_has_every_property_of_a_learner(count: int) -> None:
    study, values = common_study(count), read_cox_more("efron common")
    terms = [term for term in values if term[:3] in ("age", "arm", "sta")]
    want = Reference({t: values[t][0] for t in terms}, {t: values[t][1] for t in terms})
    report = check_learner(study, share_rows(read_cohort(count), study.sites), want)
    assert report.estimate_difference < 1e-9
    assert report.std_error_difference is not None
    assert report.std_error_difference < 1e-9
    assert (report.unchecked, report.order_difference) == (0, 0.0)
    rounds = report.server_steps - 1
    assert report.restarts == report.records == count * (3 + rounds) + rounds + 2


def test_a_study_with_one_baseline_opens_its_levels_before_its_gates() -> None:
    study = common_study(floor=5, opening="counts", ties="breslow", formula="died ~ age", max_rounds=6)
    _, runners, _ = simulate(study, share_rows(read_cohort(), study.sites), gates={s: Gate(study) for s in study.sites})
    fits = [runner.machine.result for runner in runners.values()]
    assert len({fit.estimates.tobytes() for fit in fits}) == 1
    assert fits[0].details["cox"]["baseline"]["grid"]["width"] >= 2


def test_a_methods_section_names_the_baseline_ties_and_errors() -> None:
    options: dict[str, Any] = {
        "robust": "patient",
        "patient": "pseudonym",
        "weights": "weight",
        "formula": "died ~ age",
    }
    assert describe_model(common_study(strata="stage", **options), None) == (
        "Cox proportional-hazards model, one baseline hazard for each level of stage on a grid of 2 months, "
        "Efron ties, prior weights weight, sandwich standard errors (clustered by patient) by COX"
    )
    assert describe_model(model_study(ties="breslow", ridge=2.0), None) == (
        "Cox proportional-hazards model, stratified by site, Breslow ties, ridge penalty 2 by COX"
    )


def test_advice_on_times_to_an_event_names_no_learner_that_knows_no_times() -> None:
    fitting = [item.learner for item in advise(common_study()) if item.fits]
    assert fitting[0] == "cox"
    assert not {"glore", "cola", "secure_cola"} & set(fitting)
    glore = next(item for item in advise(common_study()) if item.learner == "glore")
    assert "models no times to an event" in glore.why
