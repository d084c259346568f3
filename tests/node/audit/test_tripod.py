"""The items of TRIPOD+AI: their numbers and topics, and which belong to a development or an evaluation."""

from __future__ import annotations

import pytest
from support.learners.evaluation_study import (
    draw_sites,
    held_out_study,
    other_rows_study,
    play_evaluation,
    split_older_stays,
    split_stays,
    validation_study,
)

from coterie_node.audit.report.tripod import list_items

# Number, topic and use (D development, E evaluation) of the published checklist (Collins et al. 2024, table 2).
CHECKLIST = {
    "1": ("Title", "DE"),
    "6a": ("Participants", "DE"),
    "8a": ("Outcome", "DE"),
    "9b": ("Predictors", "DE"),
    "11": ("Missing data", "DE"),
    "12a": ("Analytical methods", "D"),
    "12c": ("Analytical methods", "D"),
    "12d": ("Analytical methods", "DE"),
    "12e": ("Analytical methods", "DE"),
    "12g": ("Analytical methods", "E"),
    "14": ("Fairness", "DE"),
    "15": ("Model output", "D"),
    "18c": ("Protocol", "DE"),
    "21": ("Model development", "DE"),
    "22": ("Model specification", "D"),
    "23a": ("Model performance", "DE"),
    "23b": ("Model performance", "DE"),
}


@pytest.mark.parametrize("external", [False, True])
def test_items_have_the_numbers_and_topics_of_the_checklist(external: bool) -> None:
    study = validation_study("scores", by=["ward"], per_site=True) if external else held_out_study()
    fit, _ = play_evaluation(study, split_stays(study) if external else draw_sites())
    items = list_items(study, fit)
    use = "E" if external else "D"
    assert [item.number for item in items] == [number for number, (_, uses) in CHECKLIST.items() if use in uses]
    for item in items:
        assert item.topic.partition(":")[0] == CHECKLIST[item.number][0]
        assert item.answer.endswith(".")


def test_an_external_validation_names_the_predictors_and_the_whole_given_model() -> None:
    study = validation_study("scores")
    fit, _ = play_evaluation(study, split_stays(study))
    answers = {item.number: item.answer for item in list_items(study, fit)}
    assert answers["9b"] == "age (number), frail (binary), ward (category)."
    assert "age 0.032; frail 0.45" in answers["12g"]
    assert answers["21"] == f"{fit.n} patients evaluated, {fit.events} with the outcome."


def test_a_development_with_other_rows_names_the_condition() -> None:
    study = other_rows_study(floor=5)
    fit, _ = play_evaluation(study, split_older_stays(study))
    answers = {item.number: item.answer for item in list_items(study, fit)}
    assert answers["1"] == "Development, with evaluation on rows that fulfil `age >= 60`."
    assert answers["12a"] == "Rows that fulfil `age >= 60` are evaluated, and the others are fitted."
