"""Two results side by side, against statsmodels; results on other rows are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from support.learners import cohorts
from support.learners.cohorts import Codes
from support.learners.cox_cohort import model_study, play_cohort, read_cohort
from support.learners.r_stays import fit_files, write_site_files
from support.learners.table import MemoryProtocol
from typer.testing import CliRunner

from coterie_learners.glore.glore import glore
from coterie_node.analysis.anova import assess_models
from coterie_node.analysis.compare import compare_results, tell_apart
from coterie_node.audit.result import Cost, Result
from coterie_node.cli.main import app
from coterie_node.errors import ConfigError

SMALL, LARGE = "died ~ age + male", "died ~ age + male + stage"
LINEAR: dict[str, Any] = {"family": "gaussian"}


def result(formula: str, codes: Codes, count: int = 3, **options: Any) -> dict[str, Any]:
    """What `--json` prints of a study on these rows."""
    study = cohorts.study(formula, count, **options)
    fit = MemoryProtocol(glore, study, cohorts.split(study, codes)).play()[study.sites[0]]
    document = Result(study.name, study.sites, fit, Cost(0, 0, None, {}), None).as_dict()
    return dict(json.loads(json.dumps(document)))


def test_a_term_more_is_tested_by_the_likelihood_ratio() -> None:
    codes = cohorts.draw(800)
    comparison = compare_results(result(SMALL, codes), result(LARGE, codes))
    x = cohorts.matrix(codes)
    fits = [sm.Logit(codes["died"], x[:, at]).fit(disp=0, tol=1e-14) for at in ([0, 1, 3], [0, 1, 3, 4, 5])]
    ratio = 2.0 * (fits[1].llf - fits[0].llf)
    assert comparison.test is not None
    assert (comparison.test.kind, comparison.test.df) == ("chi-squared", 2)
    assert comparison.test.added == ("stage[II]", "stage[III]")
    assert comparison.test.statistic == pytest.approx(ratio, rel=1e-9)
    assert comparison.test.p == pytest.approx(float(stats.chi2.sf(ratio, 2)), rel=1e-8)
    assert comparison.criteria["aic"] == pytest.approx(tuple(fit.aic for fit in fits), rel=1e-10)
    assert comparison.criteria["bic"] == pytest.approx(tuple(fit.bic for fit in fits), rel=1e-10)


@pytest.mark.parametrize(("formula", "options"), [(SMALL, {}), (SMALL.replace("died", "score"), LINEAR)])
def test_baselines_of_sites_are_tested_by_a_model_with_an_intercept_of_each(
    formula: str, options: dict[str, Any]
) -> None:
    codes = cohorts.draw(801)
    study = cohorts.study(formula, 3, **options)
    blocks = [np.concatenate([b.x for b in rows.blocks()]) for rows in cohorts.split(study, codes).values()]
    y = np.concatenate([b.y for rows in cohorts.split(study, codes).values() for b in rows.blocks()])
    x, sites = np.concatenate(blocks), np.repeat(np.eye(3), [len(block) for block in blocks], axis=0)
    family = sm.families.Gaussian() if options else sm.families.Binomial()
    common, own = (sm.GLM(y, m, family).fit(tol=1e-14) for m in (x, np.hstack([sites, x[:, 1:]])))
    pair = result(formula, codes, **options), result(formula, codes, site_intercepts=True, **options)
    for first, second in (pair, pair[::-1]):
        test = compare_results(first, second).test
        assert test is not None
        assert (test.df, test.added) == (2, ("intercepts of the sites",))
        scale = 2.0 * float(own.scale) if options else 1.0
        assert test.statistic == pytest.approx((common.deviance - own.deviance) / scale, rel=1e-7)
        assert test.kind == ("F" if options else "chi-squared")


def test_linear_models_are_tested_by_f_whichever_comes_first() -> None:
    codes = cohorts.draw(800)
    small, large = (result(f.replace("died", "score"), codes, **LINEAR) for f in (SMALL, LARGE))
    x = cohorts.matrix(codes)
    wanted = sm.OLS(codes["score"], x[:, [0, 1, 3, 4, 5]]).fit()
    f, p, df = wanted.compare_f_test(sm.OLS(codes["score"], x[:, [0, 1, 3]]).fit())
    for pair in ((small, large), (large, small)):
        test = compare_results(*pair).test
        assert test is not None
        assert (test.kind, test.df) == ("F", round(df))
        assert test.statistic == pytest.approx(float(f), rel=1e-8)
        assert test.p == pytest.approx(float(p), rel=1e-7)


def test_models_of_which_neither_holds_the_other_have_criteria_and_no_test() -> None:
    codes = cohorts.draw(800)
    comparison = compare_results(result(SMALL, codes), result("died ~ age + crp", codes))
    assert comparison.test is None
    assert comparison.reason == "No test: neither model holds all terms of the other and more."
    assert None not in comparison.criteria["aic"]


def test_a_penalised_fit_has_no_test() -> None:
    codes = cohorts.draw(800)
    comparison = compare_results(result(SMALL, codes, ridge=1.0), result(LARGE, codes, ridge=1.0))
    assert comparison.test is None
    assert "with a penalty" in comparison.reason


def test_negative_binomial_models_are_tested_by_their_likelihoods(tmp_path: Path) -> None:
    files = write_site_files("stays", 3, tmp_path)
    learner = {"name": "glore", "family": "negative_binomial", "max_rounds": 60}
    formulas = ("capped ~ age + frail", "capped ~ age + frail + ward")
    small, large = (fit_files(files, "stays", formula, learner).as_dict() for formula in formulas)
    rows = pd.concat([pd.read_csv(path) for path in files.values()])
    wards = [(rows["ward"] == ward).to_numpy(float) for ward in ("surgical", "intensive")]
    x = np.column_stack([np.ones(len(rows)), rows["age"], rows["frail"], *wards])
    fits = [sm.NegativeBinomial(rows["capped"].to_numpy(), m) for m in (x[:, :3], x)]
    likelihoods = [fit.fit(disp=0, maxiter=500, gtol=1e-4).llf for fit in fits]
    assert large["null_deviance"] != pytest.approx(small["null_deviance"], rel=1e-9)
    for pair in ((small, large), (large, small)):
        test = compare_results(*pair).test
        assert test is not None
        assert (test.kind, test.df, test.added) == ("chi-squared", 2, ("ward[surgical]", "ward[intensive]"))
        assert test.statistic == pytest.approx(2.0 * (likelihoods[1] - likelihoods[0]), rel=1e-6)


def cox_result(formula: str, count: int = 3, **options: Any) -> dict[str, Any]:
    """What `--json` prints of a Cox model of the patients of the R references."""
    study = model_study(3, formula=formula, **options)
    fit = play_cohort(study, read_cohort(count))[0]
    return Result(study.name, study.sites, fit, Cost(0, 0, None, {}), None).as_dict()


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_cox_models_are_tested_by_their_partial_likelihoods(ties: str) -> None:
    small, large = (cox_result(f, ties=ties) for f in ("died ~ age + arm", "died ~ age + arm + stage"))
    columns, place, _ = read_cohort()
    names = [(columns["arm"] == 1.0), (columns["arm"] == 2.0), columns["stage"]]
    x = np.column_stack([columns["age"], *(np.asarray(c, dtype=float) for c in names)])
    fits = [
        sm.PHReg(columns["months"], x[:, at], status=columns["died"], strata=place, ties=ties).fit()
        for at in ([0, 1, 2], [0, 1, 2, 3])
    ]
    test = compare_results(small, large).test
    assert test is not None
    assert (test.kind, test.df, test.added) == ("chi-squared", 1, ("stage[late]",))
    assert test.statistic == pytest.approx(2.0 * (fits[1].llf - fits[0].llf), rel=1e-5)


def test_cox_models_of_other_patients_or_of_dependent_rows_have_no_test() -> None:
    small, large = (cox_result(f) for f in ("died ~ age + arm", "died ~ age + arm + stage"))
    robust = cox_result("died ~ age + arm + stage", robust=True)
    assert "depend on each other" in compare_results(small, robust).reason
    large["details"]["cox"]["null_log_likelihood"] += 1e-3
    with pytest.raises(ConfigError, match="null log-likelihood"):
        compare_results(small, large)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda codes: {name: column[:-1] for name, column in codes.items()}, "rows 800 and 799"),
        (lambda codes: {**codes, "died": 1.0 - codes["died"]}, "events"),
    ],
)
def test_results_on_other_rows_are_refused_with_the_way_out(other: Any, words: str) -> None:
    codes = cohorts.draw(800)
    with pytest.raises(ConfigError, match=rf"{words}.*\[cohort\] name, complete") as caught:
        compare_results(result(SMALL, codes), result(LARGE, other(codes)))
    assert caught.value.code == "CO-F349"


def test_another_family_on_the_same_rows_is_refused() -> None:
    codes = cohorts.draw(800)
    with pytest.raises(ConfigError, match="link logit and probit"):
        compare_results(result(SMALL, codes), result(LARGE, codes, link="probit"))


def test_the_command_prints_both_results_and_the_test(tmp_path: Path) -> None:
    codes = cohorts.draw(800)
    for name, formula in (("small", SMALL), ("large", LARGE)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result(formula, codes)))
    words = ["study", "compare", str(tmp_path / "small.json"), str(tmp_path / "large.json")]
    run = CliRunner().invoke(app, words)
    assert run.exit_code == 0
    assert "stage[II], stage[III]: chi-squared" in run.output
    document = json.loads(CliRunner().invoke(app, [*words, "--json"]).output)
    assert document["test"]["df"] == 2
    assert list(document["criteria"]) == ["aic", "bic", "log_likelihood", "deviance", "df_residual"]


def test_results_of_one_name_are_told_apart_by_their_place() -> None:
    codes = cohorts.draw(800)
    small, large = result(SMALL, codes), result(LARGE, codes)
    assert small["study"] == large["study"]
    comparison = compare_results(small, large)
    assert comparison.names == (f"{small['study']} (1)", f"{small['study']} (2)")
    assert [test.name for test in assess_models([large, small])] == list(comparison.names)
    assert tell_apart(["a", "b", "a"]) == ["a (1)", "b", "a (3)"]


def with_cohort(name: str, *complete: str) -> dict[str, Any]:
    """A result as the ledger's document completes it."""
    plain = {"study": f"of {name or 'nobody'}", "n": 5, "terms": [], "family": "binomial", "link": "logit"}
    return {**plain, "cohort": {"name": name, "complete": list(complete)}}


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        (with_cohort("wards", "age"), with_cohort("clinics", "age"), "'wards' with age complete"),
        (with_cohort("wards", "age"), with_cohort("wards", "age", "sex"), "age, sex complete"),
        (with_cohort("wards"), with_cohort(""), "no cohort"),
    ],
)
def test_studies_of_two_cohorts_on_the_ledger_are_refused_by_name(
    first: dict[str, Any], second: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named) as error:
        compare_results(first, second)
    assert error.value.code == "CO-F349"


def test_studies_of_one_cohort_are_compared() -> None:
    comparison = compare_results(with_cohort("wards", "age"), with_cohort("wards", "age"))
    assert comparison.test is None
