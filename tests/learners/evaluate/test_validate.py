"""A published model on split patients has the measures of pROC and glm on all of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from support.lanes import later
from support.learners.evaluation_study import find_group, play_evaluation, split_stays, validation_study
from support.learners.r_stays import references

from coterie_learners.errors import StudyError, Withheld
from coterie_learners.study.document import Study

WITHIN = 1e-10


def compare_calibration(group: dict[str, Any], model: str, within: float = WITHIN) -> None:
    want = references("validate")[model].terms
    assert group["brier"] == pytest.approx(want["brier"][0], rel=1e-12)
    for key in ("in_the_large", "intercept", "slope"):
        estimate, error = want[key]
        assert group[key]["estimate"] == pytest.approx(estimate, abs=within * error)
        assert group[key]["std_error"] == pytest.approx(error, rel=1e-9)


def compare_benefit(group: dict[str, Any], model: str) -> None:
    points = {round(point["threshold"], 6): point["net_benefit"] for point in group["net_benefit"]}
    for threshold in (0.2, 0.3):
        want = references("validate")[model].terms[f"net benefit {threshold}"][0]
        assert points[threshold] == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("split", [(3, "masked"), *later((3, "plain"), (2, "plain"), (5, "masked"))])
def test_where_the_grid_holds_every_score_the_measures_are_those_of_proc_and_glm(split: tuple[int, str]) -> None:
    count, aggregation = split
    study = validation_study("patterns", count, learner={"aggregation": aggregation})
    group = find_group(play_evaluation(study, split_stays(study))[0])
    want = references("validate")["patterns"].terms
    area = group["auc"]
    assert area["value"] == pytest.approx(want["AUC"][0], abs=1e-13)
    assert area["std_error"] == pytest.approx(want["AUC"][1], rel=1e-11)
    assert [area["low"], area["high"]] == pytest.approx([want["AUC low"][0], want["AUC high"][0]], abs=1e-12)
    compare_calibration(group, "patterns")
    compare_benefit(group, "patterns")


def test_scores_of_each_patient_are_evaluated_within_the_stated_width_and_by_ward() -> None:
    study = validation_study("scores", by=["ward"])
    fit, _ = play_evaluation(study, split_stays(study))
    for name in ("all", "ward[medical]", "ward[surgical]", "ward[intensive]"):
        group, model = find_group(fit, name), "scores" if name == "all" else f"scores {name}"
        want = references("validate")[model].terms
        assert abs(group["auc"]["value"] - want["AUC"][0]) <= group["auc"]["within"] < 0.01
        assert group["auc"]["std_error"] == pytest.approx(want["AUC"][1], rel=0.01)
        compare_calibration(group, model)
        compare_benefit(group, model)


def test_the_measures_do_not_depend_on_the_scale_beyond_the_stated_width() -> None:
    want = references("validate")["scores"].terms["AUC"][0]
    for scale in ("spread", "logit"):
        study = validation_study("scores", scale=scale, grid=300)
        group = find_group(play_evaluation(study, split_stays(study))[0])
        assert abs(group["auc"]["value"] - want) <= group["auc"]["within"] < 0.03
        compare_calibration(group, "scores")


@pytest.mark.parametrize("link", ["probit", "cloglog"])
def test_other_links_give_other_probabilities(link: str) -> None:
    study = validation_study("patterns", learner={"link": link})
    group = find_group(play_evaluation(study, split_stays(study))[0])
    mean = {"probit": lambda z: 0.5 * math.erfc(-z / math.sqrt(2)), "cloglog": lambda z: 1 - math.exp(-math.exp(z))}
    low, high = mean[link](-0.9 - 0.2), mean[link](-0.9 + 0.8 + 0.55)
    assert min(part["predicted"] for part in group["ranges"]) == pytest.approx(low, rel=1e-10)
    assert max(part["predicted"] for part in group["ranges"]) == pytest.approx(high, rel=1e-10)
    # The order of the patterns is the same.
    assert group["auc"]["value"] == pytest.approx(references("validate")["patterns"].terms["AUC"][0], abs=1e-13)


def test_each_site_s_part_adds_up_to_the_whole() -> None:
    study = validation_study("patterns", per_site=True, floor=5)
    fit, _ = play_evaluation(study, split_stays(study))
    parts = [find_group(fit, f"site[{name}]") for name in study.sites]
    for key in ("n", "events"):
        assert sum(part[key] for part in parts) == find_group(fit)[key]
    assert sum(part["brier"] * part["n"] for part in parts) == pytest.approx(fit.n * find_group(fit)["brier"])


def test_an_auditor_without_rows_recomputes_the_same_evaluation() -> None:
    study = validation_study("scores", floor=5, by=["ward"])
    fit, protocol = play_evaluation(study, split_stays(study))
    auditor = protocol.auditor()
    assert (auditor.checked, auditor.unchecked) == (6, 0)
    assert repr(auditor.result.details) == repr(fit.details)


def test_under_masks_nothing_but_words_leaves_a_site() -> None:
    study = validation_study("scores", scale="spread")
    _, protocol = play_evaluation(study, split_stays(study))
    own = [topic for topic in protocol.topics if topic.split("/")[1:2] and "pool" not in topic]
    each = [topic for topic in own if len(protocol.posts(topic)) == len(study.sites)]
    assert len(each) == 9
    assert {name for topic in each for post in protocol.posts(topic).values() for name in post} == {"masked"}


def test_a_floor_that_no_site_reaches_withholds_the_evaluation() -> None:
    study = validation_study("scores", floor=160)
    with pytest.raises(Withheld, match="so that nothing was counted"):
        play_evaluation(study, split_stays(study))


def test_a_level_below_the_floor_in_the_pool_stops_the_evaluation_before_its_sums() -> None:
    study = validation_study("scores", floor=400)
    with pytest.raises(Withheld, match=r"stops before its sums are opened: frail .*\(small level\)"):
        play_evaluation(study, split_stays(study))


# What is refused


def change_study(**keys: Any) -> Study:
    return validation_study("patterns", **keys)


def test_coefficients_of_other_columns_are_refused() -> None:
    with pytest.raises(StudyError, match=r"no coefficient for ward\[surgical\], ward\[intensive\]") as refusal:
        change_study(learner={"coefficients": {"(Intercept)": 1.0, "pain[mild]": 0.0, "pain[severe]": 0.0, "age": 1.0}})
    assert refusal.value.code == "CO-S363"
    assert "a coefficient for age, which is no column" in refusal.value.message


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"held_out": 0.2}, "CO-S364"),
        ({"by": ["readmit"]}, "CO-S361"),
        ({"count": 2, "learner": {"aggregation": "masked"}}, "CO-S305"),
    ],
)
def test_a_study_that_cannot_be_evaluated_is_refused(keys: dict[str, Any], code: str) -> None:
    with pytest.raises(StudyError) as refusal:
        change_study(**keys)
    assert refusal.value.code == code


def test_a_column_that_is_no_category_makes_no_groups() -> None:
    with pytest.raises(ValueError, match=r"`evaluate.by` names 'age'"):
        change_study(by=["age"])
