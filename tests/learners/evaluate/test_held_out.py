"""A model is evaluated on rows that its fit has not seen: the same as scikit-learn's on the pooled held-out rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve
from support.lanes import later
from support.learners.evaluation_study import (
    draw_site,
    draw_sites,
    find_group,
    held_out_study,
    play_evaluation,
    pool_held_out,
)

from coterie_learners.core.payload import decode
from coterie_learners.core.protocol import Machine, Site
from coterie_learners.core.registry import learner_of
from coterie_learners.errors import ProtocolError, StudyError
from coterie_learners.evaluate.parts import draw_held_out, list_row_words
from coterie_learners.evaluate.validate import VALIDATE
from coterie_learners.study.design import Design
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayCodes, CodedBlocks

ROWS = draw_sites()


@pytest.mark.parametrize("learner", [{}, *later({"aggregation": "plain"}, {"link": "probit"}, {"ridge": 1.0})])
def test_the_fit_is_that_of_the_other_rows_alone(learner: dict[str, Any]) -> None:
    study = held_out_study(learner=learner)
    fit, _ = play_evaluation(study, ROWS)
    kept = {}
    for name, site in ROWS.items():
        assert isinstance(site, ArrayCodes)
        inside = ~draw_held_out(study, list_row_words(site))
        kept[name] = ArrayCodes({column: values[inside] for column, values in site.everything.items()})
    alone = Study.model_validate(study.model_dump() | {"evaluate": {}})
    blocks = {name: CodedBlocks(Design(alone), part) for name, part in kept.items()}
    other, _ = play_evaluation(alone, blocks)
    assert fit.n == sum(part.n for part in kept.values())
    np.testing.assert_allclose(fit.estimates, other.estimates, rtol=1e-12)


def test_the_measures_are_those_of_scikit_learn_on_the_pooled_held_out_rows() -> None:
    study = held_out_study(floor=0, grid=1000, by=["ward"])
    fit, _ = play_evaluation(study, ROWS)
    rows = pool_held_out(study, ROWS, fit.estimates)
    for level, name in ((None, "all"), (0, "ward[a]"), (1, "ward[b]"), (2, "ward[c]")):
        inside = np.ones(len(rows.score), bool) if level is None else rows.columns["ward"] == level
        y, p, group = rows.outcome[inside], rows.score[inside], find_group(fit, name)
        assert (group["n"], group["events"]) == (len(y), int(y.sum()))
        assert abs(group["auc"]["value"] - roc_auc_score(y, p)) <= group["auc"]["within"] < 2e-3
        assert group["brier"] == pytest.approx(brier_score_loss(y, p), rel=1e-10)
        logit = np.log(p / (1 - p))
        pooled = sm.GLM(y, sm.add_constant(logit), family=sm.families.Binomial()).fit(tol=1e-14, maxiter=100)
        assert group["slope"]["estimate"] == pytest.approx(pooled.params[1], abs=1e-9)
        assert group["slope"]["std_error"] == pytest.approx(pooled.bse[1], rel=1e-8)


def test_the_roc_curve_goes_through_points_of_scikit_learn_s() -> None:
    study = held_out_study(floor=0, grid=100, scale="probability")
    fit, _ = play_evaluation(study, ROWS)
    rows = pool_held_out(study, ROWS, fit.estimates)
    false, true, at = roc_curve(rows.outcome, rows.score, drop_intermediate=False)
    for point in find_group(fit)["roc"][1:-1]:
        last = np.flatnonzero(at >= point["threshold"])[-1]
        assert point["sensitivity"] == pytest.approx(true[last])
        assert 1 - point["specificity"] == pytest.approx(false[last])


def test_with_a_floor_the_area_is_within_the_width_that_is_stated() -> None:
    study = held_out_study(floor=5)
    fit, _ = play_evaluation(study, ROWS)
    rows, area = pool_held_out(study, ROWS, fit.estimates), find_group(fit)["auc"]
    assert 0.0 < abs(area["value"] - roc_auc_score(rows.outcome, rows.score)) <= area["within"] < 0.15


def test_a_counted_table_is_evaluated_too() -> None:
    study = held_out_study(formula="ill ~ male + ward", learner={"name": "cola"}, by=["male"])
    fit, protocol = play_evaluation(study, ROWS)
    assert find_group(fit, "male[1]")["auc"]["value"] > 0.5
    assert protocol.auditor().unchecked == 0


def test_a_larger_share_holds_out_the_same_rows_and_more() -> None:
    words = list_row_words(draw_site(5))
    small, large = (draw_held_out(held_out_study(held_out=share), words) for share in (0.1, 0.3))
    assert not np.any(small & ~large)
    assert np.mean(small) == pytest.approx(0.1, abs=0.03)
    other = draw_held_out(held_out_study(held_out=0.3, seed="other"), words)
    assert 0 < np.mean(other & large) < 0.2


def test_a_site_with_too_few_patients_of_a_kind_ends_with_the_fit_alone() -> None:
    rows = {**ROWS, "west": draw_site(9, 30)}
    fit, _ = play_evaluation(held_out_study(), rows)
    assert fit.details["evaluation"]["groups"] == []
    assert any("not evaluated" in note for note in fit.notes)


def test_what_is_counted_in_no_group_is_named() -> None:
    rows = {**ROWS, "west": draw_site(9, 150)}
    fit, _ = play_evaluation(held_out_study(by=["ward"]), rows)
    assert fit.details["evaluation"]["not_shown"] == ["ward"]
    assert any("by ward: not shown" in note for note in fit.notes)


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"learner": {"name": "table_one"}}, "CO-S364"),
        ({"learner": {"site_intercepts": True}}, "CO-S362"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(keys: dict[str, Any], code: str) -> None:
    with pytest.raises(StudyError) as refusal:
        held_out_study(**keys)
    assert refusal.value.code == code


def test_an_evaluation_without_a_rule_leaves_a_study_s_hash_as_it_was() -> None:
    plain = held_out_study().model_dump() | {"evaluate": {}}
    assert b"evaluate" not in Study.model_validate(plain).document
    assert learner_of(Study.model_validate(plain)).reads == "rows"
    assert VALIDATE.reads == "values"


# Hostile posts


def test_counts_that_no_patients_can_give_are_refused() -> None:
    study = held_out_study(learner={"aggregation": "plain"})
    _, protocol = play_evaluation(study, ROWS)
    at = protocol.topics.index("evaluation/scores")
    for name, change in (("counts", -1e6), ("counts", 0.5), ("scores", 1e9), ("squares", -1e9)):
        assert_refused(protocol, at, name, change)


def test_a_calibration_without_information_is_refused() -> None:
    study = held_out_study(learner={"aggregation": "plain"})
    _, protocol = play_evaluation(study, ROWS)
    assert_refused(protocol, protocol.topics.index("evaluation/calibration/0"), "calibration", -1e6)


def assert_refused(protocol: Any, at: int, name: str, change: float) -> None:
    """That the sites refuse to pool posts of which one was changed."""
    machine = Machine(protocol.script, Site(protocol.study, "auditor"))
    for blobs in protocol.log[:at]:
        machine.advance({site: decode(blob)[1] for site, blob in blobs.items()})
    posts = {site: dict(decode(blob)[1]) for site, blob in protocol.log[at].items()}
    posts["north"][name] = np.asarray(posts["north"][name]) + change
    machine.advance(posts)
    with pytest.raises(ProtocolError):
        machine.draft(protocol.study.sites, 0)
