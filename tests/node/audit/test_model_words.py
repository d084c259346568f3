"""The methods paragraph names the model that was fitted, with its penalty, and no number that the record lacks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.learners import cohorts, vertical

from coterie_learners.study.document import Study
from coterie_node.audit.replay import replay
from coterie_node.audit.report.model_words import describe_model, describe_patients
from coterie_node.run.simulate import simulate


def study_of(learner: str, **options: Any) -> Study:
    study = vertical.study()
    choice = type(study.learner).model_validate({"name": learner, "version": "1", **options})
    return study.model_copy(update={"learner": choice})


@pytest.mark.parametrize(
    ("learner", "options", "words"),
    [
        ("valoris", {}, "binomial regression (logit link) by VALORIS"),
        ("glore", {"family": "gamma", "link": None}, "gamma regression (inverse link) by GLORE"),
        ("valoris", {"family": "gaussian", "link": "identity"}, "gaussian regression (identity link) by VALORIS"),
        ("vertigo", {"ridge": 2.5}, "binomial regression (logit link), ridge penalty 2.5 by VERTIGO"),
        (
            "secure_lasso",
            {"alpha": [0.01]},
            "Lasso (gaussian regression (identity link), penalty 0.01) by SECURE_LASSO",
        ),
        (
            "secure_lasso",
            {"alpha": [0.1, 0.01], "folds": 5, "l1_ratio": 0.5},
            "elastic net (L1 share 0.5) (gaussian regression (identity link), penalty 0.1, 0.01, chosen by "
            "cross-validation in 5 folds) by SECURE_LASSO",
        ),
        ("secure_glm", {"ridge": 0.5}, "binomial regression (logit link), ridge penalty 0.5 by SECURE_GLM"),
        (
            "cola",
            {"family": "poisson", "link": "log", "firth": True},
            "poisson regression (log link), Firth's penalty by COLA",
        ),
    ],
)
def test_a_model_without_a_fit_is_the_one_that_the_study_asks_for(
    learner: str, options: dict[str, Any], words: str
) -> None:
    assert describe_model(study_of(learner, **options), None) == words


def test_a_fit_says_how_many_patients_and_events_there_are() -> None:
    study = cohorts.study(aggregation="plain", ridge=0.5)
    codes = cohorts.split_sizes(cohorts.draw(90), cohorts.even_sizes(90, len(study.sites)))
    rows = {name: cohorts.rows(study, part) for name, part in zip(study.sites, codes, strict=True)}
    world, _, _ = simulate(study, rows)
    fit = replay(world.ledger(), world.blobs, world.number).fit
    assert describe_model(study, fit) == "binomial regression (logit link), ridge penalty 0.5 by GLORE"
    assert describe_patients(fit) == f" on 90 patients ({fit.events} events)"
    assert describe_patients(replace(fit, events=None)) == " on 90 patients"
    assert "only the sites know" in describe_patients(None)
