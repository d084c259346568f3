"""The test whether the sites agree, against formulas on the sites' own rows and fits of statsmodels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from support.learners import cohorts
from support.learners.cohorts import Array, Codes
from support.learners.table import MemoryProtocol

from coterie_learners.core.fit import Fit
from coterie_learners.glore.glore import glore
from coterie_learners.sums.agreement import stand_apart

FAMILIES = {"binomial": sm.families.Binomial(), "gaussian": sm.families.Gaussian(), "poisson": sm.families.Poisson()}
OUTCOMES = {"binomial": "died", "gaussian": "score", "poisson": "visits"}


def fit(formula: str, codes: Codes, count: int = 3, sizes: list[int] | None = None, **options: Any) -> Fit:
    study = cohorts.study(formula, count, **options)
    result = MemoryProtocol(glore, study, cohorts.split(study, codes, sizes)).play()[study.sites[0]]
    assert isinstance(result, Fit)
    return result


def turned(codes: Codes, name: str, part: slice) -> Codes:
    """One site's values of a variable with the other sign or label."""
    values = codes[name].copy()
    values[part] = 1.0 - values[part] if set(np.unique(values)) <= {0.0, 1.0} else -values[part]
    return {**codes, name: values}


def by_hand(family: str, codes: Codes, sizes: list[int]) -> tuple[float, Array]:
    """Q = sum U' I^-1 U over the dispersion, and Cochran's Q of each coefficient from one step at each site."""
    x, y = cohorts.matrix(codes), codes[OUTCOMES[family]]
    x[:, 1:] -= x[:, 1:].mean(axis=0)  # so that the intercept is that of a patient with the pooled means
    pooled = sm.GLM(y, x, family=FAMILIES[family]).fit(tol=1e-14, tol_criterion="params", maxiter=200)
    total, steps, variances = 0.0, [], []
    for part in np.split(np.arange(len(y)), np.cumsum(sizes)[:-1]):
        mu = pooled.fittedvalues[part]
        weight = FAMILIES[family].variance(mu)
        score, information = x[part].T @ (y[part] - mu), (x[part].T * weight) @ x[part]
        steps.append(np.linalg.solve(information, score))
        variances.append(np.diag(np.linalg.inv(information)))
        total += float(score @ steps[-1])
    step, weights = np.array(steps), 1.0 / np.array(variances)
    centre = (weights * step).sum(axis=0) / weights.sum(axis=0)
    q = (weights * (step - centre) ** 2).sum(axis=0)
    scale = pooled.scale if family == "gaussian" else 1.0
    return total / scale, np.asarray(q / scale)


@pytest.mark.parametrize("aggregation", ["masked", "plain"])
@pytest.mark.parametrize("family", OUTCOMES)
def test_the_statistics_are_those_of_the_formulas_on_the_sites_rows(family: str, aggregation: str) -> None:
    codes, sizes = cohorts.draw(600, seed=3), [250, 200, 150]
    got = fit(f"{OUTCOMES[family]} ~ {cohorts.FULL}", codes, sizes=sizes, family=family, aggregation=aggregation)
    q, by_term = by_hand(family, codes, sizes)
    test = got.details["agreement"]
    assert (test["chi2"], test["df"]) == (pytest.approx(q, rel=1e-8), 12)
    np.testing.assert_allclose([term["q"] for term in test["terms"]], by_term, rtol=1e-8)
    tail = stats.f.sf(q / 12, 12, 594) if family == "gaussian" else stats.chi2.sf(q, 12)
    assert test["p"] == pytest.approx(tail, rel=1e-6)
    assert not any("agree" in warning for warning in got.warnings)
    assert (got.soundness == "no warnings") == (family != "poisson")  # whose counts vary by a covariate left out


def test_turned_labels_at_one_site_are_named() -> None:
    got = fit("died ~ age + male", turned(cohorts.draw(600, seed=4), "died", slice(200)))
    assert got.details["agreement"]["p"] < 1e-6
    assert any("do not agree on one model" in warning and "least of all on" in warning for warning in got.warnings)


def test_a_covariate_turned_at_one_site_is_the_term_that_disagrees_most() -> None:
    got = fit("score ~ age + crp + male", turned(cohorts.draw(600, seed=4), "age", slice(200)), family="gaussian")
    assert any("least of all on age" in warning for warning in got.warnings)
    assert got.soundness == "1 warning"


def test_the_same_rows_at_every_site_agree_too_well() -> None:
    once = cohorts.draw(150, seed=5)
    got = fit("died ~ age + male", {name: np.tile(values, 3) for name, values in once.items()})
    assert any("agree better than chance allows" in warning for warning in got.warnings)


def test_a_site_that_lacks_a_level_has_fewer_degrees_of_freedom_and_no_say_on_that_term() -> None:
    codes = cohorts.draw(300, seed=6)
    codes["stage"][:100] = np.minimum(codes["stage"][:100], 1.0)
    test = fit(f"died ~ {cohorts.FULL}", codes).details["agreement"]
    assert test["df"] == 11
    assert {term["term"]: term["df"] for term in test["terms"]}["stage[III]"] == 1


def test_one_site_has_nothing_to_agree_with() -> None:
    test = fit("died ~ age", cohorts.draw(90), 1, aggregation="plain").details["agreement"]
    assert test["df"] == 0
    assert np.isnan(test["p"])


def test_a_ridge_does_not_look_like_disagreement() -> None:
    plain, strong = (
        fit("died ~ age + crp", cohorts.draw(600), ridge=r).details["agreement"]["chi2"] for r in (0.0, 400.0)
    )
    assert strong == pytest.approx(plain, rel=0.5)


def test_a_site_that_carries_nearly_all_is_remarked_on() -> None:
    got = fit("died ~ age", cohorts.draw(1000), sizes=[980, 10, 10])
    assert any(warning.startswith("One site carries nearly all") for warning in got.warnings)


def test_more_variation_than_poissons_is_remarked_on_and_the_remedy_is_a_study_that_runs() -> None:
    codes = cohorts.draw(600, seed=8)
    codes["visits"] = np.floor(codes["visits"] * np.random.default_rng(1).choice([0.2, 3.0], 600))
    got = fit("visits ~ age", codes, family="poisson")
    (warning,) = (w for w in got.warnings if w.startswith("Overdispersion"))
    assert 'family = "quasipoisson"' in warning
    quasi = fit("visits ~ age", codes, family="quasipoisson")
    x = np.column_stack([np.ones(600), codes["age"]])
    want = sm.GLM(codes["visits"], x, family=sm.families.Poisson()).fit(scale="X2", tol=1e-14, maxiter=100)
    assert quasi.dispersion == pytest.approx(want.scale, rel=1e-9)
    np.testing.assert_allclose(quasi.std_errors, want.bse, rtol=1e-8)
    assert (quasi.aic, quasi.statistic) == (None, "t")
    assert not [w for w in quasi.warnings if w.startswith("Overdispersion")]


def test_near_separation_is_remarked_on_as_in_r() -> None:
    codes = cohorts.draw(300, seed=9)
    codes["died"] = (codes["age"] > 0.3).astype(float)
    flipped = np.argsort(np.abs(codes["age"] - 0.3))[:2]
    codes["died"][flipped] = 1.0 - codes["died"][flipped]
    got = fit("died ~ age", codes, max_rounds=60)
    assert any("probabilities numerically 0 or 1 occurred" in warning for warning in got.warnings)


def test_a_site_sees_how_far_it_stands_from_the_others() -> None:
    """The Wald test of its own estimate against the others', which for a linear model is exact."""
    codes, x = cohorts.draw(300, seed=7), cohorts.matrix(cohorts.draw(300, seed=7))
    y, whole = codes["score"], x.T @ x
    beta = np.linalg.solve(whole, x.T @ y)
    mine = slice(100)
    own, rest = (np.linalg.lstsq(x[part], y[part], rcond=None)[0] for part in (mine, slice(100, None)))
    inverse = np.linalg.inv(x[mine].T @ x[mine]) + np.linalg.inv(x[100:].T @ x[100:])
    distance = stand_apart(x[mine].T @ (y[mine] - x[mine] @ beta), x[mine].T @ x[mine], whole)
    assert distance.chi2 == pytest.approx(float((own - rest) @ np.linalg.solve(inverse, own - rest)), rel=1e-9)
    assert distance.df == 6
    assert distance.p == pytest.approx(stats.chi2.sf(distance.chi2, 6), rel=1e-9)


def test_each_site_sees_by_itself_how_far_it_stands_from_the_others() -> None:
    codes = turned(cohorts.draw(600, seed=4), "died", slice(200))
    study = cohorts.study("died ~ age + male", 3)
    fits = MemoryProtocol(glore, study, cohorts.split(study, codes)).play()
    sentences = {name: fit.own for name, fit in fits.items()}
    assert [len(own) for own in sentences.values()] == [1, 1, 1]
    assert sentences[study.sites[0]][0].startswith("This site differs from the others (chi-squared ")
    assert len({fit.details["agreement"]["p"] for fit in fits.values()}) == 1
    assert not any("This site" in text for fit in fits.values() for text in (*fit.notes, *fit.warnings))


def test_a_site_that_alone_has_a_level_has_no_say_on_it() -> None:
    codes = cohorts.draw(300, seed=6)
    codes["stage"][100:] = np.minimum(codes["stage"][100:], 1.0)
    study = cohorts.study(f"died ~ {cohorts.FULL}", 3)
    fits = MemoryProtocol(glore, study, cohorts.split(study, codes)).play()
    assert "on 5 df" in fits[study.sites[0]].own[0]


def test_without_a_difference_about_one_site_in_twenty_stands_apart_at_the_level_of_a_twentieth() -> None:
    rng, share = np.random.default_rng(2), []
    for _ in range(400):
        x = np.column_stack([np.ones(300), rng.normal(size=(300, 2))])
        y = x @ [1.0, 0.5, -0.2] + rng.normal(size=300)
        beta, whole = np.linalg.solve(x.T @ x, x.T @ y), x.T @ x
        dispersion = float(np.sum((y - x @ beta) ** 2)) / 297
        mine = x[:60], y[:60]
        distance = stand_apart(mine[0].T @ (mine[1] - mine[0] @ beta), mine[0].T @ mine[0], whole, dispersion, 297)
        share.append(distance.p < 0.05)
    assert np.mean(share) == pytest.approx(0.05, abs=0.025)
