"""From estimates to the table: z or t, p-values, intervals and information criteria, against statsmodels."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from support.learners import cohorts

from coterie_learners.core.fit import Fit, coefficient_table, fit_from_json, fit_to_json, merge_fits
from coterie_learners.numeric.array import Array

CODES = cohorts.draw(150)
X = cohorts.matrix(CODES)
TERMS = ("(Intercept)", "age", "crp", "male", "stage[II]", "stage[III]")


def logistic() -> tuple[Fit, sm.GLM]:
    pooled = sm.GLM(CODES["died"], X, family=sm.families.Binomial()).fit(tol=1e-14)
    fit = Fit(
        learner="glore",
        family="binomial",
        link="logit",
        terms=TERMS,
        estimates=np.asarray(pooled.params),
        covariance=np.asarray(pooled.cov_params()),
        n=150,
        events=int(CODES["died"].sum()),
        rounds=5,
        converged=True,
        dispersion=1.0,
        dispersion_known=True,
        deviance=float(pooled.deviance),
        null_deviance=float(pooled.null_deviance),
        log_likelihood=float(pooled.llf),
        ratio="OR",
    )
    return fit, pooled


def linear() -> tuple[Fit, sm.OLS]:
    pooled = sm.OLS(CODES["score"], X).fit()
    fit = Fit(
        learner="glore",
        family="gaussian",
        link="identity",
        terms=TERMS,
        estimates=np.asarray(pooled.params),
        covariance=np.asarray(pooled.cov_params()),
        n=150,
        events=None,
        rounds=2,
        converged=True,
        dispersion=float(pooled.scale),
        dispersion_known=False,
        deviance=float(pooled.ssr),
        null_deviance=float(pooled.centered_tss),
        log_likelihood=float(pooled.llf),
    )
    return fit, pooled


@pytest.mark.parametrize("model", [logistic, linear])
def test_the_table_is_that_of_statsmodels(model: object) -> None:
    fit, pooled = logistic() if model is logistic else linear()
    rows = coefficient_table(fit)
    assert [row.term for row in rows] == list(TERMS)
    for column, want in (
        ("estimate", pooled.params),
        ("std_error", pooled.bse),
        ("z", pooled.tvalues),
        ("p_value", pooled.pvalues),
        ("ci_low", pooled.conf_int()[:, 0]),
        ("ci_high", pooled.conf_int()[:, 1]),
    ):
        np.testing.assert_allclose([getattr(row, column) for row in rows], want, rtol=1e-10, err_msg=column)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_intervals_have_the_level_that_was_asked_for(level: float) -> None:
    for fit, pooled in (logistic(), linear()):
        got = [(row.ci_low, row.ci_high) for row in coefficient_table(fit, level)]
        np.testing.assert_allclose(got, pooled.conf_int(alpha=1 - level), rtol=1e-10)


def test_a_linear_model_is_judged_by_students_t_and_a_logistic_one_by_the_normal() -> None:
    few = dataclasses.replace(linear()[0], n=len(TERMS) + 2)
    row = coefficient_table(few)[1]
    assert row.p_value == pytest.approx(2 * stats.t(2).sf(abs(row.z)), rel=1e-12)
    known_dispersion = dataclasses.replace(few, dispersion_known=True)
    assert coefficient_table(known_dispersion)[1].p_value == pytest.approx(2 * stats.norm().sf(abs(row.z)), rel=1e-12)
    assert coefficient_table(known_dispersion)[1].ci_high < row.ci_high


def test_information_criteria_count_the_dispersion_where_it_is_estimated() -> None:
    fit, pooled = logistic()
    assert fit.aic == pytest.approx(pooled.aic, rel=1e-12)
    assert fit.bic == pytest.approx(pooled.bic_llf, rel=1e-12)
    fit, pooled = linear()
    # statsmodels leaves the dispersion out of the count, R's AIC() has it.
    assert fit.parameters == len(TERMS) + 1
    assert fit.aic == pytest.approx(pooled.aic + 2, rel=1e-12)
    assert fit.bic == pytest.approx(pooled.bic + np.log(150), rel=1e-12)


def test_tiny_p_values_are_not_rounded_to_zero() -> None:
    fit = dataclasses.replace(logistic()[0], covariance=np.eye(6) * 1e-3**2, estimates=np.full(6, 0.03))
    assert coefficient_table(fit)[0].p_value == pytest.approx(2 * stats.norm.sf(30.0), rel=1e-9)
    assert 0 < coefficient_table(fit)[0].p_value < 1e-190


def test_a_row_has_the_stable_json_keys_in_order() -> None:
    keys = list(coefficient_table(logistic()[0])[0].as_dict())
    assert keys == ["term", "estimate", "std_error", "z", "p_value", "ci_low", "ci_high"]
    assert {type(v) for v in coefficient_table(logistic()[0])[0].as_dict().values()} == {str, float}


def part(terms: tuple[str, ...], site: str, deviance: float | None, covariance: Array | None) -> Fit:
    estimates = np.arange(len(terms), dtype=float) + 1
    sites = (site,) * len(terms)
    return Fit(
        "v", "binomial", "logit", terms, estimates, covariance, 10, None, 1, True, 1.0, True, deviance, None, None,
        sites=sites, notes=("shared",), details={site: 1},
    )  # fmt: skip


def test_parts_of_a_fit_come_together_in_the_study_s_order() -> None:
    holder = part(("(Intercept)", "b"), "h", 5.0, np.array([[4.0, 1.0], [1.0, 9.0]]))
    other = part(("a",), "o", None, np.array([[16.0]]))
    merged_fit = merge_fits({"o": other, "x": None, "h": holder}, ("(Intercept)", "a", "b"))
    assert (merged_fit.terms, merged_fit.sites, merged_fit.deviance) == (
        ("(Intercept)", "a", "b"),
        ("h", "o", "h"),
        5.0,
    )
    assert merged_fit.estimates.tolist() == [1.0, 1.0, 2.0]
    assert merged_fit.std_errors.tolist() == [2.0, 4.0, 3.0]
    assert merged_fit.covariance is not None
    assert (merged_fit.covariance[0, 2], bool(np.isnan(merged_fit.covariance[0, 1]))) == (1.0, True)
    assert (merged_fit.notes, merged_fit.details) == (("shared",), {"o": 1, "h": 1})


def test_sites_that_all_know_the_whole_fit_still_each_have_notes_of_their_own() -> None:
    one = part(("(Intercept)", "b"), "h", 5.0, np.array([[4.0, 1.0], [1.0, 9.0]]))
    other = replace(one, notes=("shared", "of o"), details={"o": 2})
    merged_fit = merge_fits({"h": one, "o": other}, one.terms)
    assert merged_fit.estimates is one.estimates
    assert (merged_fit.notes, merged_fit.details) == (("shared", "of o"), {"h": 1, "o": 2})


def test_a_fit_survives_json() -> None:
    for fit in (part(("a", "b"), "h", 5.0, np.eye(2)), part(("a",), "o", None, None)):
        parsed = fit_from_json(json.loads(json.dumps(fit_to_json(fit))))
        assert (parsed.terms, parsed.sites, parsed.notes, parsed.details) == (
            fit.terms,
            fit.sites,
            fit.notes,
            fit.details,
        )
        np.testing.assert_array_equal(parsed.estimates, fit.estimates)
        assert (parsed.covariance is None) == (fit.covariance is None)


def test_a_method_without_standard_errors_has_estimates_only() -> None:
    (row,) = coefficient_table(part(("a",), "o", None, None))
    assert row.as_dict() == {
        "term": "a", "estimate": 1.0, "std_error": None, "z": None, "p_value": None, "ci_low": None, "ci_high": None,
        "site": "o",
    }  # fmt: skip
