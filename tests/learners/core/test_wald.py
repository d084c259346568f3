"""Joint tests of terms against their definition and against statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from support.learners import cohorts
from support.learners.table import MemoryProtocol

from coterie_learners.glore.glore import glore

FORMULA = "age + male + stage + age:male"


@pytest.mark.parametrize("family", ["binomial", "gaussian"])
def test_a_term_of_several_coefficients_is_tested_as_statsmodels_tests_it(family: str) -> None:
    outcome = "died" if family == "binomial" else "score"
    study, codes = cohorts.study(f"{outcome} ~ {FORMULA}", 3, family=family), cohorts.draw(700)
    fit = MemoryProtocol(glore, study, cohorts.split(study, codes)).play()[study.sites[0]]
    tests = {test["term"]: test for test in fit.details["tests"]}
    x = cohorts.matrix(codes)[:, [0, 1, 3, 4, 5]]
    x = np.column_stack([x, codes["age"] * codes["male"]])
    kind = sm.families.Binomial() if family == "binomial" else sm.families.Gaussian()
    reference = sm.GLM(codes[outcome], x, family=kind).fit(tol=1e-14)
    assert list(tests) == ["age", "male", "stage", "age:male"]
    for term, at in (("age", [1]), ("male", [2]), ("stage", [3, 4]), ("age:male", [5])):
        wanted = reference.wald_test(np.eye(6)[at], use_f=family == "gaussian", scalar=True)
        assert tests[term]["df"] == len(at)
        assert tests[term]["statistic"] == pytest.approx(float(wanted.statistic), rel=1e-8)
        assert tests[term]["p"] == pytest.approx(float(wanted.pvalue), rel=1e-7)


def test_a_site_s_own_intercept_is_in_no_test() -> None:
    study, codes = cohorts.study(f"died ~ {FORMULA}", 3, site_intercepts=True), cohorts.draw(700)
    fit = MemoryProtocol(glore, study, cohorts.split(study, codes)).play()[study.sites[0]]
    assert [test["df"] for test in fit.details["tests"]] == [1, 1, 2, 1]
    assert fit.df_residual == 700 - 5 - 3
