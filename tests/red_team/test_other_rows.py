"""Attacks by the rows that a study evaluates: two conditions that differ by one patient, in whichever part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from support.lanes import later
from support.learners.evaluation_study import find_group, other_rows_study, play_evaluation, split_older_stays
from support.red_team.hospitals import Network

from coterie_learners.core import masked_sum
from coterie_learners.core.disclosure import judge_exposure
from coterie_learners.core.protocol import Site
from coterie_learners.core.registry import complete_study
from coterie_learners.errors import DataError, Withheld
from coterie_learners.evaluate.evaluation_plan import PREFIX, EvaluationPlan, ShownRanges
from coterie_learners.evaluate.evaluation_steps import expose_scores
from coterie_learners.evaluate.site_scores import ScoreModel, mark_groups
from coterie_learners.study.document import Study
from coterie_learners.study.rows import CodedBlocks
from coterie_learners.sums.opening.counts import Opening
from coterie_node.errors import ReleaseRefused
from coterie_node.release.known_ranges import warn_of_evaluations

STUDY = """
name = "temporal"
sites = ["a", "b", "c"]
formula = "arm ~ age + sex"
patient = "pseudonym"
{more}
[learner]
name = "glore"
{evaluate}
[variables.arm]
type = "binary"
[variables.sex]
type = "binary"
[variables.age]
type = "number"
range = [0, 120]
[variables.admission]
type = "date"
range = [2020-01-01, 2025-12-31]
"""
# The victim comes on the first of these days, and nobody else comes on it.
DAY, NEXT = "2023-06-01", "2023-06-02"
COHORT = '[cohort]\nwhere = "admission < 2023-01-01 or admission >= {}"'


def evaluate(where: str, more: str = "") -> str:
    return STUDY.format(evaluate=f'[evaluate]\non = "other rows"\nwhere = "{where}"', more=more)


def draw(seed: int, n: int = 600) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    age, sex = np.round(rng.normal(64, 9, n), 1), rng.integers(0, 2, n)
    arm = rng.random(n) < 1.0 / (1.0 + np.exp(-(0.09 * (age - 64) + 0.5 * sex)))
    day = (np.datetime64("2020-01-01") + rng.integers(0, 2000, n)).astype(str)
    day = np.where(day == DAY, "2022-06-01", day)
    names = np.array([f"{seed}-{k}" for k in range(n)])
    return {"pseudonym": names, "age": age, "sex": sex, "arm": arm.astype(int), "admission": day}


@pytest.fixture
def hospitals(tmp_path: Path) -> Network:
    network = Network(tmp_path, {site: draw(k) for k, site in enumerate("abc")})
    network.data["a"]["admission"][0] = DAY
    return network


def test_later_rows_are_evaluated_as_scikit_learn_does_and_two_later_conditions_pass(hospitals: Network) -> None:
    fit = hospitals.fit(evaluate(f"admission >= {DAY}"))
    whole = {name: np.concatenate([hospitals.data[site][name] for site in "abc"]) for name in hospitals.data["a"]}
    later_rows = whole["admission"] >= DAY
    score = whole["age"] * fit.estimates[1] + whole["sex"] * fit.estimates[2]
    group = find_group(fit)
    assert fit.n == int(np.count_nonzero(~later_rows))
    assert (group["n"], group["events"]) == (int(later_rows.sum()), int(whole["arm"][later_rows].sum()))
    exact = roc_auc_score(whole["arm"][later_rows], score[later_rows])
    assert abs(group["auc"]["value"] - exact) <= group["auc"]["within"]
    hospitals.fit(evaluate("admission >= 2024-06-01"))


SECOND = {
    "one day later": f"admission >= {NEXT}",
    "the other part but one": f"admission < {NEXT}",
    "without the oldest": f"admission >= {DAY} and age < 100",
}


@pytest.mark.parametrize("second", ["one day later", *later("the other part but one", "without the oldest")])
def test_a_second_condition_that_moves_one_patient_is_refused(hospitals: Network, second: str) -> None:
    hospitals.data["a"]["age"][1], hospitals.data["a"]["admission"][1] = 101.0, "2024-01-01"
    hospitals.fit(evaluate(f"admission >= {DAY}"))
    with pytest.raises(ReleaseRefused, match=r"\((added|dropped|re-coded)\)"):
        hospitals.fit(evaluate(SECOND[second]))


def test_two_evaluations_after_the_same_fit_that_differ_by_one_patient_are_refused(hospitals: Network) -> None:
    hospitals.fit(evaluate("admission >= 2023-02-01", COHORT.format(DAY)))
    with pytest.raises(ReleaseRefused, match=r"'evaluation/labels'.*\(dropped\)"):
        hospitals.fit(evaluate("admission >= 2023-02-01", COHORT.format(NEXT)))


@pytest.mark.long
def test_a_fit_of_all_patients_beside_one_of_all_but_one_s_evaluation_is_refused(hospitals: Network) -> None:
    hospitals.data["a"]["admission"][1:] = "2022-01-01"
    hospitals.fit(STUDY.format(evaluate="", more=""))
    with pytest.raises(DataError, match="1 to evaluate"):
        hospitals.fit(evaluate(f"admission >= {DAY}"))


@pytest.mark.long
def test_the_two_parts_may_change_places_and_a_fit_of_all_may_come_first(hospitals: Network) -> None:
    hospitals.fit(STUDY.format(evaluate="", more=""))
    first = hospitals.fit(evaluate(f"admission >= {DAY}"))
    second = hospitals.fit(evaluate(f"admission < {DAY}"))
    assert (first.n, find_group(first)["n"]) == (find_group(second)["n"], second.n)


def test_a_second_model_on_the_same_later_rows_is_foreseen(hospitals: Network) -> None:
    first = evaluate(f"admission >= {DAY}")
    hospitals.fit(first)
    storage = hospitals.logs["a"].storage
    second = complete_study(Study.from_toml(first.replace("age + sex", "age").replace('"temporal"', '"second"')))
    warning = warn_of_evaluations(second, storage)
    assert "evaluate other rows (evaluate.where)" in warning
    assert warn_of_evaluations(complete_study(Study.from_toml(first)), storage) == ""


def leave_few_of_a_level(hospitals: Network, more: int = 0) -> None:
    """Later patients lack the level, but for the first of each site, of whom there are 1 + more at the first."""
    for site, data in hospitals.data.items():
        data["sex"][data["admission"] >= DAY] = 0
        data["sex"][np.flatnonzero(data["admission"] >= DAY)[: more + (site == "a")]] = 1


def test_a_level_that_one_evaluated_patient_of_the_pool_has_stops_the_study_before_its_fit(hospitals: Network) -> None:
    """The fit has many of them. Sums of scores by outcome would count this patient, with or without the outcome."""
    leave_few_of_a_level(hospitals)
    with pytest.raises(Withheld, match=r"sex has fewer than 5 patients in the evaluated part .*\(small level\)"):
        hospitals.fit(evaluate(f"admission >= {DAY}").replace("age + sex", "sex"))


@pytest.mark.long
def test_a_level_that_some_evaluated_patients_of_each_site_have_is_let_go(hospitals: Network) -> None:
    leave_few_of_a_level(hospitals, more=8)
    hospitals.fit(evaluate(f"admission >= {DAY}"))


def test_one_event_among_the_evaluated_patients_of_the_pool_stops_the_study(hospitals: Network) -> None:
    """Number, sum and squares of the logits of those with the outcome would be that patient's score."""
    for data in hospitals.data.values():
        data["arm"][data["admission"] >= DAY] = 0
    hospitals.data["a"]["arm"][0] = 1
    with pytest.raises(Withheld, match=r"arm = 1 has fewer than 5 patients in the evaluated part"):
        hospitals.fit(evaluate(f"admission >= {DAY}"))


def test_later_patients_of_one_site_alone_are_refused_before_any_sum_of_theirs(hospitals: Network) -> None:
    whole = dict(hospitals.data["a"])
    first = np.argsort(whole["admission"])[:-30]
    hospitals.data["a"] = {name: column[first] for name, column in whole.items()}
    hospitals.fit(evaluate(f"admission >= {DAY}"))
    hospitals.data["a"] = whole
    with pytest.raises(ReleaseRefused, match=r"'evaluation/opening'.*\(site added\)"):
        hospitals.fit(evaluate(f"admission >= {DAY}"))


def test_the_opening_of_evaluated_patients_counts_no_events_by_level() -> None:
    study = other_rows_study(floor=5)
    _, protocol = play_evaluation(study, split_older_stays(study))
    design = EvaluationPlan.of(study, "logit", True).design
    form = Opening(design, 5, True, lambda site: CodedBlocks(design, site.codes), prefix=PREFIX, events_by_level=False)
    counts = form.begin()
    for stage in form.stages:
        opened = masked_sum.unmask_sums(protocol.posts(form.topic_of(stage)), form.shapes_of(stage))
        assert not opened["events"].size
        counts = stage.add(counts, opened)
    assert counts["patients"].min() >= 5
    assert not counts["events"].any()


def test_ranges_that_a_crooked_member_forces_upon_a_site_are_not_counted() -> None:
    """Nobody sees who set a flag under masks: a member that sets it twice speaks for a site that did not set it."""
    study = other_rows_study(floor=5)
    fit, _ = play_evaluation(study, rows := split_older_stays(study))
    model = ScoreModel(EvaluationPlan.of(study, "logit", True), np.asarray(fit.estimates))
    site = Site(study, study.sites[0], rows[study.sites[0]], parties=study.sites)
    honest = mark_groups(model, site)["halves"] * 3.0
    for flags, refused in ((honest, False), (np.full_like(honest, 3.0), True)):
        exposure = expose_scores(model, ShownRanges.of(model.plan, flags, 3), site, {})
        verdict = judge_exposure(exposure, study.disclosure, "evaluation/scores")
        assert verdict.refused == refused
    assert "has not agreed to" in verdict.sentence
