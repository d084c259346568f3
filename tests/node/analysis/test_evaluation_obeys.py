"""An evaluation runs, replays, and survives a restart after every record; its gate judges what it discloses."""

from __future__ import annotations

from typing import Any

import pytest
from support.lanes import later
from support.learners.evaluation_study import (
    draw_site,
    held_out_study,
    other_rows_study,
    play_evaluation,
    split_older_stays,
    split_stays,
    validation_study,
)

from coterie_learners.core.registry import learner_of
from coterie_learners.study.document import Study
from coterie_learners.study.rows import Data
from coterie_node.analysis.conformance import check_learner
from coterie_node.analysis.pooled import Reference

ROWS: dict[str, Data] = {name: draw_site(seed, 250) for seed, name in enumerate(("north", "south", "west"))}
COUNTED: dict[str, Any] = {"formula": "ill ~ male + ward", "learner": {"name": "cola"}}


def obey(study: Study, rows: dict[str, Data]) -> int:
    """The number of steps whose posts come from rows, once the learner is proved on the study."""
    fit, _ = play_evaluation(study, rows)
    errors = None if fit.covariance is None else dict(zip(fit.terms, fit.std_errors.tolist(), strict=True))
    reference = Reference(dict(zip(fit.terms, fit.estimates.tolist(), strict=True)), errors)
    report = check_learner(study, rows, reference)
    assert report.unchecked == 0
    assert report.restarts == report.records
    return len([topic for topic in report.disclosed if topic.startswith("evaluation/")])


@pytest.mark.parametrize("aggregation", ["masked", *later("plain")])
def test_a_validation_obeys(aggregation: str) -> None:
    study = validation_study("patterns", floor=5, learner={"aggregation": aggregation})
    assert obey(study, split_stays(study)) == 7


@pytest.mark.long
@pytest.mark.parametrize(("keys", "steps"), [({}, 10), ({"learner": {"aggregation": "plain"}}, 8), (COUNTED, 8)])
def test_a_learner_with_rows_apart_obeys(keys: dict[str, Any], steps: int) -> None:
    study = held_out_study(by=["male"], **keys)
    assert obey(study, ROWS) == steps


@pytest.mark.long
@pytest.mark.parametrize(("learner", "steps"), [({}, 9), ({"aggregation": "plain"}, 7), ({"name": "cola"}, 7)])
def test_a_learner_with_other_rows_obeys(learner: dict[str, Any], steps: int) -> None:
    study = other_rows_study(floor=5, learner=learner)
    assert obey(study, split_older_stays(study)) == steps


def test_a_study_says_before_it_runs_what_its_evaluation_discloses() -> None:
    disclosure = learner_of(held_out_study(by=["ward"])).discloses(held_out_study(by=["ward"]))
    step = disclosure.find_step("evaluation/scores")
    assert step is not None
    assert "all patients, and by ward" in step.what
    assert step.protection == "masked"
    assert any("No count of a site is from 1 to 4" in sentence for sentence in step.rebuilds)
    assert disclosure.steps[-1].topic == "conclusion"
