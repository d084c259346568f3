"""A model is fitted on some rows and evaluated on those that fulfil a condition: as R does it on the pooled rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.lanes import later
from support.learners.evaluation_study import find_group, other_rows_study, play_evaluation, split_older_stays
from support.learners.r_stays import references

from coterie_learners.core.registry import learner_of
from coterie_learners.errors import DataError, StudyError
from coterie_learners.evaluate.parts import RowSplit, split_by_condition
from coterie_learners.study.document import Study
from coterie_learners.study.model_card import make_model_card


@pytest.mark.parametrize("learner", [{}, *later({"aggregation": "plain"}, {"name": "cola"})])
def test_the_fit_is_glm_s_on_the_younger_and_the_measures_are_proc_s_on_the_older(learner: dict[str, Any]) -> None:
    study = other_rows_study(learner=learner)
    fit, _ = play_evaluation(study, split_older_stays(study))
    young, want = references("validate")["young"].terms, references("validate")["other rows"].terms
    np.testing.assert_allclose(fit.estimates, [value for value, _ in young.values()], rtol=1e-10)
    np.testing.assert_allclose(fit.std_errors, [error for _, error in young.values()], rtol=1e-9)
    group = find_group(fit)
    area = group["auc"]
    assert area["value"] == pytest.approx(want["AUC"][0], abs=1e-13)
    assert [area["low"], area["high"]] == pytest.approx([want["AUC low"][0], want["AUC high"][0]], abs=1e-12)
    assert group["brier"] == pytest.approx(want["brier"][0], rel=1e-10)
    for key in ("in_the_large", "intercept", "slope"):
        assert group[key]["estimate"] == pytest.approx(want[key][0], abs=1e-9)
        assert group[key]["std_error"] == pytest.approx(want[key][1], rel=1e-8)
    assert fit.details["evaluation"]["where"] == "age >= 60"


def test_an_auditor_without_rows_recomputes_the_same_fit_and_evaluation() -> None:
    study = other_rows_study(floor=5, per_site=True)
    fit, protocol = play_evaluation(study, split_older_stays(study))
    auditor = protocol.auditor()
    assert auditor.unchecked == 0
    assert repr(auditor.result.details) == repr(fit.details)
    parts = [find_group(fit, f"site[{name}]") for name in study.sites]
    assert sum(part["n"] for part in parts) == find_group(fit)["n"]


def test_no_patient_is_in_both_parts_and_every_row_without_earlier_ones_is_evaluated() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        fulfils, patients = rng.random(40) < 0.5, [b"%d" % k for k in rng.integers(0, 20, 40)]
        split = split_by_condition(fulfils, patients)
        fitted = {name for name, inside in zip(patients, split.fitted, strict=True) if inside}
        evaluated = {name for name, inside in zip(patients, split.evaluated, strict=True) if inside}
        assert not fitted & evaluated
        assert fitted | evaluated == set(patients)
        assert split.neither == sum(name in fitted for name, later in zip(patients, fulfils, strict=True) if later)


def test_rows_without_patients_are_all_in_one_part_and_a_row_in_both_is_impossible() -> None:
    fulfils = np.array([True, False, True])
    assert split_by_condition(fulfils, None).neither == 0
    with pytest.raises(ValueError, match="in the fit and in the evaluation"):
        RowSplit(fulfils, fulfils)


def test_a_site_with_too_few_rows_of_one_part_says_so_before_anything_leaves() -> None:
    study = other_rows_study(floor=5)
    with pytest.raises(DataError, match=r"rows for the fit and 0 to evaluate, by evaluate.where = 'age >= 60'"):
        play_evaluation(study, split_older_stays(study, age=999.0))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"where": "readmit == 1"}, "CO-S361"),
        ({"where": "age"}, "CO-S214"),
        ({"where": "1 == 1"}, "CO-S214"),
        ({"where": "in_evaluation == 1"}, "CO-S215"),
        ({"learner": {"name": "validate", "coefficients": {}}}, "CO-S364"),
        ({"learner": {"weights": "w"}}, "CO-S362"),
    ],
)
def test_a_condition_that_makes_no_evaluation_is_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(StudyError) as refusal:
        other_rows_study(**change)
    assert refusal.value.code == code


@pytest.mark.parametrize("rules", [{"held_out": 0.2}, {"where": " "}, {"on": ""}, {"seed": "s"}])
def test_chance_and_condition_are_not_mixed(rules: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"goes with it|by chance"):
        other_rows_study(**rules)


def test_the_condition_is_in_the_hash_and_the_study_reads_back_the_same() -> None:
    study = other_rows_study()
    assert Study.from_json(study.document).hash == study.hash
    assert other_rows_study(where="age >= 61").hash != study.hash
    assert b'"where":"age >= 60"' in study.document


def test_a_prediction_needs_no_mark_of_evaluated_rows() -> None:
    card = make_model_card(other_rows_study(where="age >= 60 and frail == 1"))
    assert set(card["variables"]) == {"readmit", "ward", "pain"}


def test_the_disclosure_names_the_condition() -> None:
    study = other_rows_study(floor=5)
    step = learner_of(study).discloses(study).find_step("evaluation/scores")
    assert step is not None
    assert "the patients of the rows that fulfil `age >= 60`" in step.what
