"""Agreement of sites, compared with statsmodels fits of each site and of all but one, and with independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from support.learners import cohorts
from support.learners.cohorts import Array, Codes

from coterie_learners.core.heterogeneity import Heterogeneity, Share, compare_sites
from coterie_learners.glore.glore import GlorePlan
from coterie_learners.numeric.distributions import chi_squared_tails
from coterie_learners.numeric.linalg import symmetric
from coterie_learners.sums.frame import Frame

SIZES = (120, 200, 80, 150)


def cohort(family: str, seed: int = 3) -> tuple[GlorePlan, list[Codes], dict[str, Share], Array]:
    """A plan, the sites' codes, their shares at the pooled estimate, and that estimate on the inside scale."""
    outcome = {"binomial": "died", "gaussian": "score", "poisson": "visits"}[family]
    study = cohorts.study(f"{outcome} ~ {cohorts.FULL}", 4, family=family, aggregation="plain")
    plan, codes = GlorePlan.of(study), cohorts.draw(sum(SIZES), seed, family)
    parts, rows = cohorts.split_sizes(codes, SIZES), cohorts.split(study, codes, SIZES)
    x = cohorts.matrix(codes)
    fit = sm.GLM(codes[outcome], x, family=families()[family]).fit(tol=1e-14, tol_criterion="params", maxiter=200)
    frame = Frame.from_ranges(plan.model.layout)
    inside = np.linalg.solve(frame.carry, np.asarray(fit.params) / frame.outcome_scale - frame.origin)
    beta = np.asarray(inside, dtype=np.float64)
    shares = {}
    for name, mine in rows.items():
        sums = plan.model.round("round", mine, frame, beta, 0.0)
        shares[name] = Share(mine.n, sums["score"], symmetric(sums["information"], plan.p))
    return plan, parts, shares, beta


def families() -> dict[str, sm.families.Family]:
    return {"binomial": sm.families.Binomial(), "gaussian": sm.families.Gaussian(), "poisson": sm.families.Poisson()}


def compare(plan: GlorePlan, shares: dict[str, Share], beta: Array, dispersion: float = 1.0) -> Heterogeneity:
    frame, nothing = Frame.from_ranges(plan.model.layout), np.zeros(plan.p)
    return compare_sites(
        plan.design.names,
        beta,
        shares,
        penalty=np.diag(nothing),
        pull=nothing,
        back=frame.outcome_scale * frame.carry,
        origin=frame.outcome_scale * frame.origin,
        dispersion=dispersion / frame.outcome_scale**2,
    )


def join_codes(parts: list[Codes]) -> Codes:
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def test_with_the_identity_link_everything_is_exact() -> None:
    """One Newton step is the fit itself: each site alone, and all but one, are ordinary least squares."""
    plan, parts, shares, beta = cohort("gaussian")
    everybody = join_codes(parts)
    pooled = sm.OLS(everybody["score"], cohorts.matrix(everybody)).fit()
    comparison = compare(plan, shares, beta, pooled.scale)
    assert comparison.std_errors == pytest.approx(np.asarray(pooled.bse), rel=1e-9)
    for k, part in enumerate(parts):
        x = cohorts.matrix(part)
        own = sm.OLS(part["score"], x).fit()
        assert comparison.own[k] == pytest.approx(np.asarray(own.params), abs=1e-9)
        errors = np.sqrt(np.diag(pooled.scale * np.linalg.inv(x.T @ x)))
        assert comparison.own_errors[k] == pytest.approx(errors, rel=1e-9)
        rest = join_codes([p for j, p in enumerate(parts) if j != k])
        without = np.asarray(sm.OLS(rest["score"], cohorts.matrix(rest)).fit().params)
        assert comparison.without[k] == pytest.approx(without, abs=1e-9)
        assert comparison.moved[k] == pytest.approx(
            (np.asarray(pooled.params) - without) / np.asarray(pooled.bse), abs=1e-7
        )


@pytest.mark.parametrize("family", ["binomial", "poisson", "gaussian"])
def test_cochrans_q_and_i2_are_those_of_the_meta_analysis_formulas(family: str) -> None:
    plan, _, shares, beta = cohort(family)
    comparison = compare(plan, shares, beta)
    for j in range(plan.p):
        weight = [1.0 / float(e) ** 2 for e in comparison.own_errors[:, j]]
        centre = sum(w * float(b) for w, b in zip(weight, comparison.own[:, j], strict=True)) / sum(weight)
        q = sum(w * (float(b) - centre) ** 2 for w, b in zip(weight, comparison.own[:, j], strict=True))
        assert comparison.q[j] == pytest.approx(q, rel=1e-10)
        assert (comparison.q_df[j], comparison.q_p[j]) == (3.0, pytest.approx(stats.chi2.sf(q, 3), rel=1e-9))
        assert comparison.i2[j] == pytest.approx(max(0.0, (q - 3) / q), abs=1e-12)


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_one_step_estimates_come_near_the_sites_own_fits(family: str) -> None:
    plan, parts, shares, beta = cohort(family)
    comparison = compare(plan, shares, beta)
    outcome = plan.design.formula.outcome
    for k, part in enumerate(parts):
        x = cohorts.matrix(part)
        own = sm.GLM(part[outcome], x, family=families()[family]).fit()
        gap = np.abs(comparison.own[k] - np.asarray(own.params)) / np.asarray(own.bse)
        assert gap.max() < 0.6
        # by hand: the pooled estimate plus the inverse information times the score, in the variables' own units
        eta = x @ comparison.estimates
        mu = 1 / (1 + np.exp(-eta)) if family == "binomial" else np.exp(eta)
        weight = mu * (1 - mu) if family == "binomial" else mu
        step = np.linalg.solve((x.T * weight) @ x, x.T @ (part[outcome] - mu))
        assert comparison.own[k] == pytest.approx(comparison.estimates + step, abs=1e-8)


def test_the_wald_test_of_a_site_against_the_rest_is_the_difference_over_both_variances() -> None:
    plan, parts, shares, beta = cohort("gaussian")
    comparison = compare(plan, shares, beta)
    for k in range(4):
        mine, rest = cohorts.matrix(parts[k]), cohorts.matrix(join_codes([p for j, p in enumerate(parts) if j != k]))
        variance = np.linalg.inv(mine.T @ mine) + np.linalg.inv(rest.T @ rest)
        gap = comparison.own[k] - comparison.without[k]
        chi2 = float(gap @ np.linalg.inv(variance) @ gap)
        assert comparison.apart[k] == pytest.approx(chi2, rel=1e-7)
        assert comparison.apart_p[k] == pytest.approx(stats.chi2.sf(chi2, plan.p), rel=1e-7)


def test_honest_sites_are_distinguished_no_more_often_than_by_chance() -> None:
    low = 0
    for seed in range(40):
        plan, _, shares, beta = cohort("binomial", seed)
        low += int((compare(plan, shares, beta).apart_p < 0.05).sum())
    # 160 tests at 5 %: 8 expected, and more than 20 once in 20,000 such experiments
    assert low <= 20


def test_a_site_that_cannot_tell_a_coefficient_is_left_out_of_its_comparison() -> None:
    plan, _, shares, beta = cohort("binomial")
    name = next(iter(shares))
    blind = shares[name].information.copy()
    blind[3, :] = blind[:, 3] = 0.0
    comparison = compare(plan, {**shares, name: Share(shares[name].rows, shares[name].score, blind)}, beta)
    assert np.isnan(comparison.own[0]).all()
    assert np.isnan(comparison.apart_p[0])
    assert list(comparison.q_df) == [2.0] * plan.p
    assert np.isfinite(comparison.without).all()


def test_where_only_one_site_can_tell_there_is_no_q() -> None:
    plan, _, shares, beta = cohort("binomial")
    first, *others = shares
    empty = {name: Share(0, np.zeros(plan.p), np.zeros((plan.p, plan.p))) for name in others}
    comparison = compare(plan, {first: shares[first], **empty}, beta)
    assert np.isnan(comparison.q).all()
    assert np.isnan(comparison.q_p).all()
    assert list(comparison.i2) == [0.0] * plan.p
    assert np.isnan(comparison.without[0]).all()


def test_tails_are_those_of_scipy() -> None:
    values, df = np.array([0.0, 1.0, 30.0, np.nan, 5.0]), np.array([1.0, 2.0, 4.0, 3.0, 0.0])
    comparison = chi_squared_tails(values, df)
    assert comparison[:3] == pytest.approx(stats.chi2.sf(values[:3], df[:3]))
    assert np.isnan(comparison[3:]).all()
