"""GLORE equals the fit on the pooled rows, for every family, number of sites, split and aggregation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from support.learners import cohorts, pooled
from support.learners.cohorts import FULL, Array, Codes
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit
from coterie_learners.core.payload import canonical
from coterie_learners.glore.glore import GlorePlan, glore
from coterie_learners.study.document import Study
from coterie_learners.study.rows import ArrayRows, join_blocks
from coterie_learners.sums.frame import Frame

N = 300


@dataclass(frozen=True)
class Model:
    """A study's formula and options, and the outcome to draw."""

    formula: str
    options: dict[str, Any]

    def study(self, count: int, aggregation: str = "auto") -> Study:
        return cohorts.study(self.formula, count, aggregation=aggregation, **self.options)


MODELS = {
    "logit": Model(f"died ~ {FULL}", {}),
    "probit": Model(f"died ~ {FULL}", {"link": "probit"}),
    "cloglog": Model(f"died ~ {FULL}", {"link": "cloglog"}),
    "poisson": Model(f"visits ~ {FULL}", {"family": "poisson"}),
    "poisson with offset": Model(f"visits ~ {FULL} + offset(years)", {"family": "poisson"}),
    "gaussian": Model(f"score ~ {FULL}", {"family": "gaussian"}),
    "gaussian with offset": Model(f"score ~ {FULL} + offset(years)", {"family": "gaussian"}),
}
LAYOUTS: dict[str, tuple[str, list[int]]] = {
    "one site": ("plain", [N]),
    "two sites": ("plain", [150, 150]),
    "three sites": ("masked", [100, 100, 100]),
    "three sites, plain": ("plain", [100, 100, 100]),
    "five uneven sites": ("masked", [3, 200, 17, 70, 10]),
    "twenty sites": ("masked", [15] * 20),
    "a site of one row more than the minimum": ("masked", [6, 147, 147]),
    "a site of one row": ("plain", [1, 150, 149]),
}


@cache
def codes() -> Codes:
    return cohorts.draw(N)


@cache
def truth(model: str) -> pooled.Pooled:
    return pooled.fit(MODELS[model].study(3), codes())


def federated(study: Study, rows: Codes, sizes: list[int] | None = None) -> tuple[Fit, MemoryProtocol]:
    """The fit of a study's sites; all must end with the same one."""
    table = MemoryProtocol(glore, study, cohorts.split(study, rows, sizes))
    results = table.play()
    assert {fit.estimates.tobytes() + fit.covariance.tobytes() for fit in results.values()} == {
        results[study.sites[0]].estimates.tobytes() + results[study.sites[0]].covariance.tobytes()
    }
    return results[study.sites[0]], table


def close(got: Array, want: Array, within: float) -> None:
    np.testing.assert_allclose(got, want, rtol=0, atol=within)


@pytest.mark.parametrize(
    ("model", "layout"),
    # Twenty sites recompute each server post twenty times: one model with a link of each kind will do.
    [(m, k) for m in MODELS for k in LAYOUTS if k != "twenty sites" or m in ("logit", "cloglog", "gaussian")],
)
def test_the_fit_equals_the_pooled_fit(model: str, layout: str) -> None:
    aggregation, sizes = LAYOUTS[layout]
    fit, _ = federated(MODELS[model].study(len(sizes), aggregation), codes(), sizes)
    want = truth(model)
    close(fit.estimates, want.estimates, 1e-10)
    close(fit.std_errors, want.std_errors, 1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_deviances_likelihood_and_aic_equal_the_pooled_ones(model: str) -> None:
    fit, _ = federated(MODELS[model].study(3), codes())
    want = truth(model)
    assert fit.null_deviance == pytest.approx(want.null_deviance, abs=1e-9)
    assert fit.deviance == pytest.approx(want.deviance, abs=1e-9)
    assert fit.log_likelihood == pytest.approx(want.log_likelihood, abs=1e-9)
    parameters = 7 if fit.family == "gaussian" else 6
    assert fit.aic == pytest.approx(2 * parameters - 2 * want.log_likelihood, abs=1e-8)
    assert (fit.n, fit.rounds > 1, fit.converged) == (N, True, True)
    counted = next((name for law, name in (("binomial", "died"), ("poisson", "visits")) if law in fit.family), None)
    assert fit.events == (None if counted is None else int(codes()[counted].sum()))
    assert fit.ratio == {"logit": "OR", "cloglog": "HR", "log": "IRR"}.get(fit.link, "")


@pytest.mark.parametrize("family", ["binomial", "poisson", "gaussian"])
def test_without_an_intercept_the_fit_equals_the_pooled_fit(family: str) -> None:
    outcome = {"binomial": "died", "poisson": "visits", "gaussian": "score"}[family]
    study = cohorts.study(f"{outcome} ~ 0 + age + crp + male", family=family)
    fit, _ = federated(study, codes())
    want = pooled.fit(study, codes(), cohorts.matrix(codes())[:, 1:4])
    close(fit.estimates, want.estimates, 1e-10)
    close(fit.std_errors, want.std_errors, 1e-9)
    assert fit.deviance == pytest.approx(want.deviance, abs=1e-9)
    if family == "binomial":
        assert fit.null_deviance == pytest.approx(2 * N * np.log(2), rel=1e-12)


def test_with_an_intercept_alone_the_fit_is_the_mean() -> None:
    fit, _ = federated(cohorts.study("died ~ 1"), codes())
    mean = codes()["died"].mean()
    assert fit.estimates[0] == pytest.approx(np.log(mean / (1 - mean)), abs=1e-12)
    assert fit.std_errors[0] == pytest.approx(1 / np.sqrt(N * mean * (1 - mean)), abs=1e-12)
    assert fit.deviance == pytest.approx(fit.null_deviance, abs=1e-9)


def test_interactions_and_powers_equal_the_pooled_fit() -> None:
    study = cohorts.study("died ~ age*male + crp^2 + stage:crp")
    c = codes()
    first, one, two = (c["stage"] == k for k in range(3))
    x = np.column_stack(
        [
            np.ones(N),
            c["age"],
            c["male"],
            c["crp"] ** 2,
            c["age"] * c["male"],
            *(level * c["crp"] for level in (first, one, two)),
        ]
    )
    want = pooled.fit(study, c, x)
    fit, _ = federated(study, c)
    close(fit.estimates, want.estimates, 1e-10)
    close(fit.std_errors, want.std_errors, 1e-9)


def test_ranges_far_wider_than_the_data_do_no_harm() -> None:
    wide = {name: {"type": "number", "range": [-100, 400]} for name in ("age", "crp")}
    fit, _ = federated(cohorts.study(variables=wide), codes())
    close(fit.estimates, truth("logit").estimates, 1e-10)
    close(fit.std_errors, truth("logit").std_errors, 1e-9)


def test_a_rare_outcome_is_fitted() -> None:
    """Five events among 20,000 rows, in few rounds because the fit starts at the null model."""
    rng = np.random.default_rng(2)
    rows = {"age": np.clip(rng.normal(size=20_000), -5, 5), "died": np.zeros(20_000)}
    rows["died"][np.argsort(rows["age"] + rng.normal(size=20_000))[[-2, -5, -40, -900, -4000]]] = 1.0
    study = cohorts.study("died ~ age")
    want = pooled.fit(study, rows, np.column_stack([np.ones(20_000), rows["age"]]))
    fit, _ = federated(study, rows)
    close(fit.estimates, want.estimates, 1e-10)
    close(fit.std_errors, want.std_errors, 1e-9)
    assert fit.events == 5
    assert fit.rounds <= 10


# Bits


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
def test_the_order_of_sites_does_not_change_one_bit(aggregation: str) -> None:
    study = cohorts.study(count=5, aggregation=aggregation)
    turned = Study.model_validate({**study.model_dump(), "sites": study.sites[::-1]})
    rows = cohorts.split(study, codes(), [3, 200, 17, 70, 10])
    ends = []
    for of in (study, turned):
        table = MemoryProtocol(glore, of, rows)
        table.play()
        models = [topic for topic in table.topics if topic.startswith("model")]
        ends.append([canonical(next(iter(table.posts(topic).values()))) for topic in models])
    assert ends[0] == ends[1]


def test_masked_and_plain_sums_lead_to_the_same_fit() -> None:
    masked, _ = federated(cohorts.study(aggregation="masked"), codes())
    plain, _ = federated(cohorts.study(aggregation="plain"), codes())
    close(masked.estimates, plain.estimates, 1e-14)


def test_blocks_of_rows_do_not_change_the_sums_beyond_rounding() -> None:
    plan = GlorePlan.of(cohorts.study())
    block = join_blocks(cohorts.rows(plan.study, codes()))
    frame, beta = Frame.from_ranges(plan.model.layout), np.linspace(-0.5, 0.5, plan.p)
    rows = [ArrayRows(block.x, block.y, size=size) for size in (N, 7)]
    looks = [plan.model.look(r, frame) for r in rows]
    rounds = [plan.model.round("round", r, frame, beta, 0.0) for r in rows]
    for one, many in (looks, rounds):
        for name in one:
            np.testing.assert_allclose(one[name], many[name], rtol=1e-13, atol=1e-13)


# Step halving


def draw_overshooting() -> Codes:
    """Counts that grow so fast with age that a Newton step from the null model goes too far."""
    rows = cohorts.draw(200, seed=2)
    rows["visits"] = np.floor(np.exp(np.clip(2.2 * rows["age"], -5, 6)))
    return rows


def test_a_step_that_makes_things_worse_is_halved_until_it_does_not() -> None:
    rows = draw_overshooting()
    study = cohorts.study("visits ~ age + crp", family="poisson")
    fit, table = federated(study, rows)
    halvings = [int(next(iter(table.posts(t).values()))["halvings"]) for t in table.topics if t.startswith("model")]
    assert max(halvings) >= 1
    assert halvings[-1] == 0
    want = pooled.fit(study, rows, np.column_stack([np.ones(200), rows["age"], rows["crp"]]))
    close(fit.estimates, want.estimates, 1e-10)
    close(fit.std_errors, want.std_errors, 1e-9)


# Ridge


@pytest.mark.parametrize("penalise_intercept", [False, True])
@pytest.mark.parametrize("ridge", [1e-7, 0.5, 20.0])
def test_a_ridge_equals_penalised_newton_on_the_pooled_rows(ridge: float, penalise_intercept: bool) -> None:
    fit, _ = federated(cohorts.study(ridge=ridge, penalise_intercept=penalise_intercept), codes())
    penalty = np.full(6, ridge)
    penalty[0] = ridge if penalise_intercept else 0.0
    estimates, covariance = pooled.penalised(cohorts.matrix(codes()), codes()["died"], penalty)
    close(fit.estimates, estimates, 1e-10)
    close(fit.std_errors, np.sqrt(np.diag(covariance)), 1e-9)


@pytest.mark.parametrize("penalise_intercept", [False, True])
def test_a_ridge_equals_scikit_learns(penalise_intercept: bool) -> None:
    fit, _ = federated(cohorts.study(ridge=2.0, penalise_intercept=penalise_intercept), codes())
    x = cohorts.matrix(codes())[:, 0 if penalise_intercept else 1 :]
    model = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-12, fit_intercept=not penalise_intercept)
    model.fit(x, codes()["died"])
    want = model.coef_[0] if penalise_intercept else np.concatenate([model.intercept_, model.coef_[0]])
    close(fit.estimates, want, 1e-8)


def test_a_ridge_makes_a_separated_outcome_fit() -> None:
    rows = cohorts.draw(60)
    rows["died"] = (rows["age"] > 0.2).astype(float)
    fit, _ = federated(cohorts.study("died ~ age", ridge=0.1), rows)
    want, _ = pooled.penalised(np.column_stack([np.ones(60), rows["age"]]), rows["died"], np.array([0.0, 0.1]))
    close(fit.estimates, want, 1e-9)


# What leaves a site


def test_the_plain_first_look_discloses_every_two_way_table() -> None:
    """The reason for masks: its information is X'X, and its score X'y."""
    study = cohorts.study("died ~ male + stage", aggregation="plain")
    _, table = federated(study, codes())
    first = table.posts("stats/0")["north"]
    block = join_blocks(cohorts.rows(study, cohorts.split_sizes(codes(), [100, 100, 100])[0]))
    np.testing.assert_allclose(first["information"], (block.x.T @ block.x)[np.triu_indices(4)], atol=1e-12)
    np.testing.assert_allclose(first["score"], block.x.T @ block.y, atol=1e-12)


def test_plain_posts_hold_the_fields_of_the_docstring_and_nothing_else() -> None:
    _, table = federated(cohorts.study(aggregation="plain"), codes())
    look = {"score": (6,), "information": (21,), **dict.fromkeys(("deviance", "n", "outcome"), ())}
    kinds = [look, {**look, "saturated": (), "null": (2,)}, {**look, "saturated": ()}]
    for k, topic in enumerate(t for t in table.topics if t.startswith("stats")):
        for post in table.posts(topic).values():
            assert {name: value.shape for name, value in post.items()} == kinds[min(k, 2)]
    by_term = dict.fromkeys(("weights", "moved", "squares", "can_tell"), (6,))
    part = {**by_term, **dict.fromkeys(("chi2", "rank", "pearson", "at_an_end", "share"), ())}
    agreement = table.topics[-3]
    assert agreement.startswith("agreement/")
    for post in table.posts(agreement).values():
        assert {name: value.shape for name, value in post.items()} == part


def test_masked_posts_are_words_that_share_nothing_with_the_sums() -> None:
    _, table = federated(cohorts.study(aggregation="masked"), codes())
    posts = table.posts("stats/0")
    assert {(p["masked"].dtype.str, p["masked"].shape) for p in posts.values()} == {("<u8", (30, 2))}
    assert all(set(p) == {"masked"} for p in posts.values())
    assert not np.any(posts["north"]["masked"] == posts["south"]["masked"])
