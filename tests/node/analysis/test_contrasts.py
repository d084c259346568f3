"""Contrasts, means, differences and analysis of deviance of published results are those of base R."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.genmod.families import links
from support.lanes import later
from support.learners.r_stays import fit_files, references, write_site_files
from typer.testing import CliRunner

from coterie_node.analysis.contrasts import Coefficients
from coterie_node.cli.main import app
from coterie_node.errors import ConfigError

OUTCOMES = {"logit": ("readmit", "binomial"), "linear": ("stay", "gaussian"), "rate": ("infections", "poisson")}
WITHIN = 1e-8
FIRST, SECOND = "(Intercept) + 60 * age", "(Intercept) + 80*age + ward[intensive] + frail"


def run(*words: str) -> Any:
    outcome = CliRunner().invoke(app, ["study", *words, "--json"], catch_exceptions=False)
    assert outcome.exit_code == 0
    return json.loads(outcome.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("results")


def fit(folder: Path, name: str, terms: str) -> Path:
    """The file of a result, fitted once."""
    outcome, family = OUTCOMES[name]
    path = folder / f"{name}-{len(terms)}.json"
    if not path.exists():
        files = write_site_files("stays", 3, folder)
        result = fit_files(files, "stays", f"{outcome} ~ {terms}", {"name": "glore", "family": family})
        path.write_text(json.dumps(result.as_dict()))
    return path


@pytest.mark.parametrize("name", ["logit", *later("linear", "rate")])
def test_contrasts_means_and_differences_are_those_of_r(folder: Path, name: str) -> None:
    path, r = fit(folder, name, "age + ward + frail"), references("contrasts")[name].terms
    (contrast,) = run("contrast", str(path), "ward[surgical] - ward[intensive]")["contrasts"]
    assert (contrast["estimate"], contrast["std_error"]) == pytest.approx(r["contrast"], rel=WITHIN)
    joint = run("contrast", str(path), "ward[surgical]", "ward[intensive]")["joint"]
    assert (joint["statistic"], joint["p"]) == pytest.approx((r["joint"][0], r["joint p"][0]), rel=1e-7)
    means = run("contrast", str(path), FIRST, SECOND, "--mean")["contrasts"]
    for mean, term in zip(means, ("mean 60", "mean 80"), strict=True):
        assert (mean["estimate"], mean["std_error"]) == pytest.approx(r[term], rel=WITHIN)
        assert mean["low"] < mean["estimate"] < mean["high"]
    (difference,) = run("contrast", str(path), SECOND, "--mean", "--minus", FIRST)["contrasts"]
    assert (difference["estimate"], difference["std_error"]) == pytest.approx(r["difference"], rel=1e-7)


@pytest.mark.parametrize("name", ["logit", *later("linear", "rate")])
def test_nested_results_are_tested_as_r_s_anova_does(folder: Path, name: str) -> None:
    small, large = fit(folder, name, "age + frail"), fit(folder, name, "age + ward + frail")
    r = references("contrasts")[name].terms
    first, second = run("anova", str(large), str(small))
    assert first["statistic"] is None
    assert (second["statistic"], second["p"]) == pytest.approx((r["anova"][0], r["anova p"][0]), rel=1e-7)
    terms = run("anova", str(large))
    assert [test["name"] for test in terms] == ["age", "ward", "frail"]
    assert terms[1]["statistic"] == pytest.approx(r["joint"][0], rel=1e-7)


@pytest.mark.long
def test_another_level_gives_other_limits(folder: Path) -> None:
    path, r = fit(folder, "logit", "age + ward + frail"), references("contrasts")["logit"].terms
    (contrast,) = run("contrast", str(path), "age", "--level", "0.9")["contrasts"]
    assert (contrast["low"], contrast["high"]) == pytest.approx((r["age low"][0], r["age high"][0]), rel=1e-7)


def coefficients() -> Coefficients:
    rows = [{"term": t, "estimate": 1.0} for t in ("(Intercept)", "race[a-b]", "race[a-b]:x", "x")]
    vcov = [[float(i == j) for j in range(4)] for i in range(4)]
    return Coefficients.of({"study": "s", "terms": rows, "vcov": vcov, "statistic": "z"})


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("x", [0, 0, 0, 1]),
        ("-2*race[a-b] + x", [0, -2, 0, 1]),
        ("race[a-b]:x - 0.5 * (Intercept)", [-0.5, 0, 1, 0]),
        (" + 1e-1*x+x ", [0, 0, 0, 1.1]),
    ],
)
def test_a_sum_of_terms_is_read_by_the_terms_own_names(text: str, weights: list[float]) -> None:
    assert coefficients().parse(text).tolist() == weights


@pytest.mark.parametrize("text", ["", "y", "x x", "x +", "2x", "race[a", "x - - x", "3"])
def test_a_sum_that_names_no_term_is_refused_in_words(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        coefficients().parse(text)
    assert error.value.code == "CO-F350"


@pytest.mark.parametrize("text", ["x", "2 * (Intercept) + x", "x - (Intercept)"])
def test_a_mean_of_a_sum_without_the_intercept_is_refused(text: str) -> None:
    read = coefficients()
    whole = read.parse("(Intercept) + x")
    with pytest.raises(ConfigError, match="times the intercept"):
        read.mean(text, read.parse(text), 0.95)
    with pytest.raises(ConfigError, match="times the intercept"):
        read.difference(text, whole, read.parse(text), 0.95)


LINKS = {
    ("gamma", "inverse"): links.InversePower(),
    ("inverse_gaussian", "1/mu^2"): links.InverseSquared(),
    ("poisson", "sqrt"): links.Sqrt(),
    ("binomial", "log"): links.Log(),
    ("binomial", "identity"): links.Identity(),
    ("binomial", "cauchit"): links.Cauchy(),
    ("binomial", "cloglog"): links.CLogLog(),
}


def one_mean(family: str, link: str, eta: float, error: float) -> Coefficients:
    rows = [{"term": "(Intercept)", "estimate": eta}, {"term": "x", "estimate": 0.25}]
    known = {"terms": rows, "vcov": [[error**2, 0.0], [0.0, 0.01]], "statistic": "z"}
    return Coefficients.of({"study": "s", "family": family, "link": link, **known})


@pytest.mark.parametrize(("family", "link"), list(LINKS))
@pytest.mark.parametrize(("eta", "error"), [(0.5, 0.1), (0.2, 0.4), (1.2, 2.0)])
def test_a_mean_is_that_of_the_link_and_lies_between_its_limits(
    family: str, link: str, eta: float, error: float
) -> None:
    textbook, read = LINKS[family, link], one_mean(family, link, eta, error)
    mean = read.mean("m", read.parse("(Intercept)"), 0.95)
    slope = abs(float(1.0 / textbook.deriv(textbook.inverse(np.array([eta])))[0]))
    assert mean.estimate == pytest.approx(float(textbook.inverse(eta)), rel=1e-9)
    assert mean.std_error == pytest.approx(slope * error, rel=1e-7)
    # A predictor of these links ends at 0, where the mean is 0 or has no bound.
    ends = [eta - 1.959963984540054 * error, eta + 1.959963984540054 * error]
    above = [max(end, 0.0) if link in ("inverse", "1/mu^2", "sqrt") else end for end in ends]
    with np.errstate(divide="ignore"):
        wanted = sorted(float(textbook.inverse(np.array([end]))[0]) for end in above)
    assert (mean.low, mean.high) == pytest.approx(wanted, rel=1e-7)
    assert mean.low < mean.estimate < mean.high
    other = read.difference("d", read.parse("(Intercept) + x"), read.parse("(Intercept)"), 0.95)
    assert other.estimate == pytest.approx(float(textbook.inverse(eta + 0.25) - textbook.inverse(eta)), rel=1e-8)


@pytest.mark.parametrize(("family", "link"), list(LINKS)[:3])
def test_a_predictor_without_a_mean_is_refused_with_its_value(family: str, link: str) -> None:
    read = one_mean(family, link, -0.5, 0.1)
    with pytest.raises(ConfigError, match=f"-0.5, where the link {re.escape(link)} has no mean"):
        read.mean("m", read.parse("(Intercept)"), 0.95)


def test_sums_that_depend_on_each_other_have_no_joint_test() -> None:
    read = coefficients()
    with pytest.raises(ConfigError):
        read.test([read.parse("x"), read.parse("2*x")])


def test_a_result_without_a_covariance_has_no_contrasts() -> None:
    with pytest.raises(ConfigError):
        Coefficients.of({"study": "s", "terms": [{"term": "x", "estimate": 1.0}], "vcov": None})
