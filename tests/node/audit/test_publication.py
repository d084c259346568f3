"""A published result against the replay: what was changed in it is named, and what is honest passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support.node.worlds import cohort, sweep

from coterie_node.audit.publication import check_publication, read_publication
from coterie_node.audit.replay import Replay, replay
from coterie_node.audit.result import Cost, Result
from coterie_node.errors import ConfigError

Plain = dict[str, Any]


@cache
def honest() -> tuple[str, Replay]:
    world = cohort(3)
    sweep(world.crew().values())
    outcome = replay(world.ledger(), world.blobs, world.number)
    result = Result(world.study.name, outcome.contributors, outcome.fit, Cost(0, 0, 0, {}), outcome.verdict)
    return json.dumps(result.as_dict()), outcome


def check_change(change: Callable[[Plain], Any]) -> tuple[str, str]:
    plain: Plain = json.loads(honest()[0])
    change(plain)
    verdict = check_publication(plain, "paper.json", honest()[1])
    return verdict.code, verdict.problem


def test_an_honest_result_passes(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(honest()[0])
    assert (
        check_publication(read_publication(tmp_path / "result.json"), "result.json", honest()[1]) == honest()[1].verdict
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda r: r["terms"][1].__setitem__("estimate", 0.5), "estimate of age"),
        (lambda r: r["terms"][2].__setitem__("p_value", 0.0499), "p_value of crp"),
        (lambda r: r["terms"][2].__setitem__("std_error", None), "std_error of crp"),
        (lambda r: r["terms"][0].pop("estimate"), "estimate of (Intercept)"),
        (lambda r: r["terms"].reverse(), "term"),
        (lambda r: r["terms"].pop(), "the number of terms"),
        (lambda r: r.__setitem__("n", 91), "for n,"),
        (lambda r: r.pop("n"), "for n,"),
        (lambda r: r.__setitem__("events", True), "events"),
        (lambda r: r.__setitem__("aic", r["aic"] - 2), "aic"),
        (lambda r: r.__setitem__("deviance", "12"), "deviance"),
        (lambda r: r.__setitem__("sites", ["north", "south", "moon"]), "sites"),
        (lambda r: r.__setitem__("study", "another"), "study"),
        (lambda r: r.__setitem__("terms", {"age": 1}), "terms"),
    ],
)
def test_every_forged_number_is_named(change: Callable[[Plain], Any], named: str) -> None:
    code, problem = check_change(change)
    assert code == "CO-A110"
    assert named in problem
    assert problem.startswith("paper.json says ")


def test_a_result_of_an_older_release_lacks_newer_keys_and_passes() -> None:
    assert check_change(lambda r: [r.pop(key) for key in ("statistic", "df_null", "bic")]) == ("", "")


def test_details_are_compared_as_far_as_the_replay_has_them() -> None:
    outcome = replace(honest()[1], fit=replace(honest()[1].fit, details={"auc": 0.7, "by": {"q": [1.0, 2.0]}}))
    plain: Plain = json.loads(honest()[0])
    for details, code in (
        ({"auc": 0.7, "alignment": 3}, ""),
        ({"auc": 0.8}, "CO-A110"),
        ({"by": {"q": [1.0, 2.5]}}, "CO-A110"),
        ({}, ""),
    ):
        assert check_publication({**plain, "details": details}, "paper.json", outcome).code == code


def test_without_a_model_there_is_nothing_to_hold_a_result_against() -> None:
    verdict = check_publication({"terms": [1]}, "paper.json", replace(honest()[1], fit=None))
    assert (verdict.verdict, verdict.code) == ("FAIL", "CO-A110")
    assert "no model" in verdict.problem


def test_a_failed_replay_stays_what_it_is() -> None:
    failed = replace(honest()[1], verdict=replace(honest()[1].verdict, verdict="FAIL", code="CO-P201"))
    assert check_publication({"terms": [1]}, "paper.json", failed).code == "CO-P201"


@pytest.mark.parametrize("content", ["", "no JSON", "[]", "{}", '{"terms": []}'])
def test_what_is_no_result_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ConfigError) as caught:
        read_publication(tmp_path / "result.json")
    assert caught.value.code == "CO-F331"
    with pytest.raises(ConfigError) as caught:
        read_publication(tmp_path / "nowhere.json")
    assert caught.value.code == "CO-F206"


@pytest.mark.parametrize(
    ("factor", "code"), [(1 + 1e-10, ""), (1 - 1e-10, ""), (1 + 1e-7, "CO-A110"), (1 - 1e-7, "CO-A110")]
)
def test_a_published_estimate_may_differ_by_rounding_and_by_no_more(factor: float, code: str) -> None:
    def scale(result: Plain) -> None:
        result["terms"][1]["estimate"] *= factor

    assert check_change(scale)[0] == code


def test_a_small_number_is_compared_by_its_own_size() -> None:
    def shift(result: Plain) -> None:
        result["terms"][1]["p_value"] = honest_p() + 1e-9 if honest_p() < 1e-3 else honest_p() + 1e-6

    def honest_p() -> float:
        return float(json.loads(honest()[0])["terms"][1]["p_value"])

    assert check_change(shift)[0] == "CO-A110"
