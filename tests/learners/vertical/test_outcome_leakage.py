"""The check before an answer: whose outcome it leaves open, what it counts, and the twins that prove it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import special
from support.learners import attacks
from support.learners.cohorts import Array

from coterie_learners.sums.families import choose_family
from coterie_learners.vertical import outcome_leakage
from coterie_learners.vertical.gram_factor import standardise, thin_factor
from coterie_learners.vertical.outcome_leakage import (
    AlternativeData,
    AnswerKind,
    FactorEstimate,
    LeakageVerdict,
    alternative_outcome,
    assess,
    check_flips,
    compare_alternatives,
    is_alternative,
)

LOGIT = AnswerKind.of(choose_family("binomial", "logit"), intercept=True)


class Case:
    """A maximum likelihood fit on [1, L of the site, others], or a penalised one."""

    def __init__(self, n: int, m: int, others: int, ridge: float = 0.0, seed: int = 1) -> None:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, m + others))
        z = standardise(x, [str(j) for j in range(m + others)], centred=True).z
        self.factor = thin_factor(z[:, :m]).factor
        self.design = np.column_stack([np.ones(n), self.factor, z[:, m:]])
        eta = -0.3 + z @ rng.normal(0, 0.4, m + others)
        self.y = (rng.random(n) < special.expit(eta)).astype(float)
        theta, penalty = np.zeros(1 + m + others), np.r_[0.0, np.full(m + others, ridge)]
        for _ in range(40):
            p = special.expit(self.design @ theta)
            information = (self.design * (p * (1 - p))[:, None]).T @ self.design + np.diag(penalty)
            theta = theta + np.linalg.solve(information, self.design.T @ (self.y - p) - penalty * theta)
        self.x, self.eta = self.y - special.expit(self.design @ theta), self.design @ theta
        block = np.linalg.inv(information)[1 : 1 + m, 1 : 1 + m]
        self.answer = FactorEstimate(theta[1 : 1 + m], block, float(theta[0]))


@pytest.mark.parametrize("ridge", [0.0, 5.0, 100.0])
def test_among_many_patients_every_outcome_can_be_flipped(ridge: float) -> None:
    case = Case(300, 4, 3, ridge)
    flips = check_flips(case.factor, case.x, LOGIT)
    assert np.all(flips.flippable)
    assert not np.any(flips.fixed)


def test_the_patients_that_are_proved_fixed_are_those_that_an_attacker_reads() -> None:
    case = Case(26, 24, 0, ridge=30.0)
    flips = check_flips(case.factor, case.x, LOGIT)
    design = np.column_stack([np.ones(26), case.factor])
    read = ~np.isnan(attacks.outcomes(design, design.T @ case.x))
    assert np.sum(read) >= 10
    assert np.all(flips.fixed[read])
    assert not np.any(flips.flippable & flips.fixed)
    assert np.all(flips.flippable | flips.fixed)


def test_as_many_columns_as_patients_fix_everybody() -> None:
    case = Case(20, 19, 0, ridge=5.0)
    flips = check_flips(case.factor, case.x, LOGIT)
    assert np.all(flips.fixed)


def test_a_twin_gives_the_same_answer_with_other_outcomes() -> None:
    """Refitted from scratch, in an arithmetic that knows nothing of its construction."""
    case = Case(800, 4, 6)
    flipped = compare_alternatives(case.factor, case.answer, case.x, case.eta)
    assert 400 < np.sum(flipped) <= 800
    drawn, twin = next(_twins(case))
    assert is_alternative(case.factor, case.answer, twin, drawn)
    assert np.sum(twin.y != case.y) > 100
    design = np.column_stack([np.ones(800), case.factor, twin.z])
    theta = np.zeros(design.shape[1])
    for _ in range(60):
        p = special.expit(design @ theta)
        information = (design * (p * (1 - p))[:, None]).T @ design
        theta = theta + np.linalg.solve(information, design.T @ (twin.y - p))
    np.testing.assert_allclose(theta[1:5], case.answer.gamma, atol=1e-8)
    np.testing.assert_allclose(np.linalg.inv(information)[1:5, 1:5], case.answer.covariance, atol=1e-8)


def _twins(case: Case) -> Iterator[tuple[Array, AlternativeData]]:
    """Twins, each with its y - p."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        drawn = outcome_leakage._draw_residuals(case.factor, 0.9 * case.eta, rng)
        twin = None if drawn is None else alternative_outcome(case.factor, case.answer, drawn, rng)
        if drawn is not None and twin is not None:
            yield drawn, twin


def test_a_twin_that_is_none_is_not_taken_for_one() -> None:
    case = Case(800, 4, 6)
    drawn, twin = next(_twins(case))
    other = FactorEstimate(case.answer.gamma, 1.01 * case.answer.covariance, case.answer.intercept)
    assert not is_alternative(case.factor, other, twin, drawn)
    moved = FactorEstimate(case.answer.gamma + 0.01, case.answer.covariance, case.answer.intercept)
    assert not is_alternative(case.factor, moved, twin, drawn)


def verdict(**changed: Any) -> LeakageVerdict:
    plain: dict[str, Any] = {
        "site": "south",
        "n": 500,
        "rank": 6,
        "flippable": 500,
        "fixed": 0,
        "programs": 1,
        "covariance": True,
        "twinned": 400,
    }
    return LeakageVerdict(**{**plain, **changed})


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"flippable": 499, "fixed": 1}, "1 of 500 outcomes follow"),
        ({"flippable": 499}, "1 of 500 outcomes follow"),
        ({"n": 34, "flippable": 34}, "34 patients are too few for 6 columns"),
        ({"rank": 30, "n": 500}, "465 equations on 500 patients"),
    ],
)
def test_what_is_unsafe_is_said_in_words_and_json(changed: dict[str, Any], word: str) -> None:
    flips = verdict(**changed)
    assert not flips.safe
    assert word in flips.words
    assert json.loads(json.dumps(flips.as_dict()))["released"] is False


def test_what_is_safe_may_go_and_says_what_it_does_not_prove() -> None:
    assert verdict().safe
    assert "400 outcomes differ" in verdict().words
    assert "proves nothing" in verdict(twinned=0).words
    assert verdict(rank=30, covariance=False, twinned=None).safe


def test_a_verdict_on_an_answer_without_covariance_looks_for_no_twin() -> None:
    case = Case(800, 4, 6)
    flips = assess("south", case.factor, case.x, LOGIT, None, case.eta)
    assert (flips.twinned, flips.safe) == (None, True)
    assert assess("south", case.factor, case.x, LOGIT, case.answer, case.eta).twinned


# Other families


def residuals_of(link: str, n: int, seed: int = 2) -> tuple[Array, Array]:
    """A factor (n, 3), and residuals of a binary model with this link that are orthogonal to it and to 1."""
    rng = np.random.default_rng(seed)
    family = choose_family("binomial", link)
    z = standardise(rng.normal(size=(n, 3)), ["a", "b", "c"], centred=True).z
    factor, theta = thin_factor(z).factor, np.zeros(4)
    design = np.column_stack([np.ones(n), factor])
    y = (rng.random(n) < family.curve(-0.4 + factor @ np.array([0.5, -0.3, 0.2])).mean).astype(float)
    for _ in range(60):
        parts = family.parts(design @ theta, y)
        theta = theta + np.linalg.solve((design * parts.weight[:, None]).T @ design, design.T @ parts.residual)
    return factor, family.parts(design @ theta, y).residual


@pytest.mark.parametrize("link", ["probit", "cloglog"])
def test_with_other_links_every_outcome_can_be_flipped_within_the_residuals_of_the_link(link: str) -> None:
    factor, x = residuals_of(link, 300)
    kind = AnswerKind.of(choose_family("binomial", link), intercept=True)
    assert np.min(x) < -1.0 if link == "cloglog" else np.max(np.abs(x)) > 1.0
    flips = check_flips(factor, x, kind)
    assert np.all(flips.flippable)
    assert (kind.low, kind.high) == ((-8.0, 8.0) if link == "probit" else (-8.0, 1.0))


@pytest.mark.parametrize("link", ["probit", "cloglog"])
def test_with_other_links_too_as_many_columns_as_patients_fix_everybody(link: str) -> None:
    rng = np.random.default_rng(4)
    factor, x = rng.normal(size=(20, 20)), rng.uniform(0.1, 0.9, 20) * rng.choice([-1.0, 1.0], 20)
    flips = check_flips(factor, x, AnswerKind.of(choose_family("binomial", link), intercept=False))
    assert np.all(flips.fixed)


@pytest.mark.parametrize(("name", "link"), [("gaussian", "identity"), ("poisson", "log")])
def test_a_measurement_or_a_count_is_never_fixed_but_its_answer_is_counted(name: str, link: str) -> None:
    kind = AnswerKind.of(choose_family(name, link), intercept=True)
    answer = FactorEstimate(np.zeros(12), np.eye(12), 0.0)
    factor = np.random.default_rng(1).normal(size=(100, 12))
    verdict = assess("south", factor, np.ones(100), kind, answer)
    assert (verdict.flippable, verdict.safe, verdict.few_equations) == (100, False, False)
    assert "every outcome could be another one" in verdict.words
    assert assess("south", factor, np.ones(100), kind, None).safe
